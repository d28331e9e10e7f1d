"""`tokenplace`: one command, its parts imported only when they are asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from tokenplace.errors import TokenPlaceError

app = typer.Typer(
    help="Private AI answers from volunteers' machines: people lend idle computers, nobody in between reads a word.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="Model files on this machine: list, pull, verify.", no_args_is_help=True)
app.add_typer(models_app, name="models")

Relays = Annotated[
    list[str] | None,
    typer.Option("--relay", help="A relay's address; may be given several times.", show_default="TOKEN_PLACE_RELAYS"),
]
Model = Annotated[str | None, typer.Option("--model", help="A model id; `tokenplace models list` shows them.")]
Host = Annotated[str, typer.Option("--host", help="Address to listen on.")]
EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="llama (embedded), echo (for tests), or the http:// address of an OpenAI-compatible server.",
        show_default="llama",
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tokenplace {version('tokenplace')}")
        raise typer.Exit


@app.callback()
def main(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Every subcommand explains itself with --help."""


@contextmanager
def friendly(extra: str | None = None) -> Iterator[None]:
    """Our errors in one line each; a part that is not installed by its name."""
    try:
        yield
    except TokenPlaceError as error:
        _fail(error.message)
    except BaseExceptionGroup as group:
        ours, others = group.split(TokenPlaceError)
        if ours is None or others is not None:
            raise
        _fail(*dict.fromkeys(str(leaf) for leaf in _leaves(ours)))
    except ModuleNotFoundError as error:
        if extra is None or (error.name or "").startswith("tokenplace"):
            raise
        _fail(f"the Python module {error.name!r} is missing; in a clone, pip install '.[{extra}]' brings it")
    except ValueError as error:
        from pydantic import ValidationError

        if not isinstance(error, ValidationError):
            raise
        _fail(*(f"{problem['loc'][0]}: {problem['msg']}" for problem in error.errors(include_input=False)))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _leaves(group: BaseExceptionGroup[TokenPlaceError]) -> Iterator[TokenPlaceError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _fail(*messages: str) -> NoReturn:
    for message in messages:
        typer.secho(f"tokenplace: {message}", err=True, fg=typer.colors.RED)
    raise typer.Exit(1) from None


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Port to listen on; the next free one when it is taken.")] = 5000,
    host: Host = "127.0.0.1",
    engine: EngineName = None,
    model: Model = None,
    stand_in: Annotated[
        bool, typer.Option("--stand-in", help="Let this model answer to every id of the catalogue; answers say so.")
    ] = False,
) -> None:
    """Everything on this machine: relay, gateway, page and a node; shows a first sealed answer."""
    with friendly("all"):
        from tokenplace.cli.up import run

        run(host=host, port=port, engine=engine, model=model, stand_in=stand_in)


@app.command()
def relay(
    port: Annotated[int, typer.Option(help="Port to listen on (RELAY_PORT wins).")] = 5000,
    host: Annotated[str, typer.Option(help="Address to listen on (RELAY_HOST wins).")] = "127.0.0.1",
    blind: Annotated[
        bool, typer.Option("--blind", help="Host no gateway: this process then has no keys and no words at all.")
    ] = False,
    name: Annotated[
        list[str] | None, typer.Option(help="A host name nodes dial, where a proxy changes the Host header.")
    ] = None,
) -> None:
    """The blind middle: brings sealed requests to nodes and sealed answers back."""
    with friendly("relay"):
        from tokenplace.cli.relay import run

        run(host=host, port=port, blind=blind, names=name or [])


@app.command()
def node(
    relay: Relays = None,
    engine: EngineName = None,
    model: Model = None,
    slots: Annotated[int | None, typer.Option(help="How many answers at once.", show_default="by engine")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of context per answer.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the model.", show_default="cores - 1")] = None,
) -> None:
    """Lend this machine: dials out to relays, runs a model, answers sealed requests."""
    with friendly("node"):
        from tokenplace.cli.node import run

        run(relays=relay or [], engine=engine, model=model, slots=slots, context=context, threads=threads)


@app.command()
def gateway(
    relay: Relays = None,
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    host: Host = "127.0.0.1",
) -> None:
    """OpenAI's API on this machine for any program; seals before anything leaves."""
    with friendly("gateway"):
        from tokenplace.cli.gateway import run

        run(relays=relay or [], host=host, port=port)


@app.command()
def chat(
    relay: Relays = None,
    model: Model = None,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Ask this, print the answer, end; `-` reads from a pipe.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="What the model should know about its task.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0 is sober, 2 is wild.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer, in tokens.")] = None,
    mcp: Annotated[
        Path | None,
        typer.Option("--mcp", help="A file of MCP servers to start here; the model may ask for their tools."),
    ] = None,
    allow_tool: Annotated[
        list[str] | None,
        typer.Option("--allow-tool", help="A tool, or server/tool, to run without asking; may be given several times."),
    ] = None,
) -> None:
    """Chat in the terminal, sealed from here to the node. Ctrl-C stops the answer, Ctrl-D ends."""
    with friendly("mcp"):
        from tokenplace.cli.chat import run

        if message is None and not sys.stdin.isatty():
            message = "-"
        options = {"temperature": temperature, "max_tokens": max_tokens}
        run(
            relays=relay or [],
            model=model,
            message=message,
            system=system,
            options={key: value for key, value in options.items() if value is not None},
            mcp=mcp,
            allowed=allow_tool or [],
        )


@app.command()
def mcp(
    relay: Relays = None,
    http: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve streamable HTTP on this port of 127.0.0.1.", show_default="stdio"),
    ] = None,
) -> None:
    """token.place as an MCP server: any program that calls tools can ask a private model."""
    with friendly("mcp"):
        from tokenplace.cli.mcp import run

        run(relays=relay or [], http_port=http)


@models_app.command("list")
def models_list() -> None:
    """The catalogue, and what of it is on this machine."""
    with friendly("node"):
        from tokenplace.cli.models import show

        show()


@models_app.command("pull")
def models_pull(model: Annotated[str, typer.Argument(help="A model id of the catalogue.")]) -> None:
    """Fetch a model's file, with resume, and check its SHA-256."""
    with friendly("node"):
        from tokenplace.cli.models import pull

        pull(model)


@models_app.command("verify")
def models_verify(model: Annotated[str, typer.Argument(help="A model id of the catalogue.")]) -> None:
    """Hash a model's file and compare."""
    with friendly("node"):
        from tokenplace.cli.models import verify

        verify(model)


if __name__ == "__main__":
    app()
