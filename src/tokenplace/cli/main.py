"""`tokenplace`: one command, its parts imported only when they are asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tokenplace.cli.community import community_app
from tokenplace.cli.friendly import friendly
from tokenplace.cli.invite import invite_app
from tokenplace.cli.upkeep import config_app, release_app, verify
from tokenplace.cli.voucher import voucher_app

app = typer.Typer(
    help="Private AI answers from volunteers' machines: people lend idle computers, nobody in between reads a word.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="Model files on this machine: list, pull, rm, verify.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(community_app, name="community")
app.add_typer(config_app, name="config")
app.add_typer(voucher_app, name="voucher")
app.add_typer(release_app, name="release")
app.command("verify")(verify)
relay_app = typer.Typer(invoke_without_command=True)
relay_app.add_typer(invite_app, name="invite")
app.add_typer(relay_app, name="relay")
node_app = typer.Typer(invoke_without_command=True)
app.add_typer(node_app, name="node")

Relays = Annotated[
    list[str] | None,
    typer.Option("--relay", help="A relay's address; may be given several times.", show_default="TOKEN_PLACE_RELAYS"),
]
Model = Annotated[str | None, typer.Option("--model", help="A model id; `tokenplace models list` shows them.")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="A model to serve; may be given several times, each is loaded when it is asked for."),
]
Host = Annotated[str, typer.Option("--host", help="Address to listen on.")]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="The Valkey or Redis server that replicas of this relay share: valkey://HOST:6379. A password belongs in "
        "TOKEN_PLACE_STORE_URL, where other users of this machine do not see it.",
        show_default="TOKEN_PLACE_STORE_URL, else memory",
    ),
]
EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="llama (embedded), the http:// address of an OpenAI server, auto (one that runs here), or echo.",
        show_default="llama",
    ),
]


_UNCONFIGURED = frozenset({"config", "verify", "release"})
"""Commands that run without any configuration: they look at it, or must not depend on it."""


def _print_version(wanted: bool) -> None:
    if wanted:
        from tokenplace.version import build_digest, version

        typer.echo(f"tokenplace {version()}\nbuild {build_digest()}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Every subcommand explains itself with --help."""
    command = context.invoked_subcommand
    if command is not None and command not in _UNCONFIGURED:
        with friendly():
            from tokenplace.cli.config import take

            context.default_map = {**take(command)}


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Port to listen on; the next free one when it is taken.")] = 5000,
    host: Host = "127.0.0.1",
    engine: EngineName = None,
    model: Model = None,
    stand_in: Annotated[
        bool, typer.Option("--stand-in", help="Let this model answer to every id of the catalogue; answers say so.")
    ] = False,
    store: Store = None,
) -> None:
    """Everything on this machine: relay, gateway, page and a node; shows a first sealed answer."""
    with friendly("all"):
        from tokenplace.cli.up import run

        run(host=host, port=port, engine=engine, model=model, stand_in=stand_in, store=store)


@relay_app.callback()
def relay(
    context_of: typer.Context,
    port: Annotated[int, typer.Option(help="Port to listen on (RELAY_PORT wins).")] = 5000,
    host: Annotated[str, typer.Option(help="Address to listen on (RELAY_HOST wins).")] = "127.0.0.1",
    blind: Annotated[
        bool, typer.Option("--blind", help="Host no gateway: this process then has no keys and no words at all.")
    ] = False,
    name: Annotated[
        list[str] | None, typer.Option(help="A host name as nodes dial it, with the port if that is not 443 or 80.")
    ] = None,
    store: Store = None,
) -> None:
    """The blind middle: brings sealed requests to nodes and sealed answers back."""
    if context_of.invoked_subcommand is not None:
        return
    with friendly("relay"):
        from tokenplace.cli.relay import run

        run(host=host, port=port, blind=blind, names=name or [], store=store)


@node_app.callback()
def node(
    context_of: typer.Context,
    relay: Relays = None,
    engine: EngineName = None,
    model: Models = None,
    slots: Annotated[int | None, typer.Option(help="How many answers at once.", show_default="by engine")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of context per answer.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the model.", show_default="cores - 1")] = None,
    status_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port of the status page, the next free one when taken; 0: none.",
            show_default="3000",
        ),
    ] = None,
    status_host: Annotated[
        str | None, typer.Option(help="Address of the status page.", show_default="127.0.0.1")
    ] = None,
    no_classic: Annotated[
        bool, typer.Option("--no-classic", help="Take no requests of the original's protocol.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the status as a line of JSON each second.")] = False,
) -> None:
    """Lend this machine: dials out to relays, runs a model, answers sealed requests."""
    if context_of.invoked_subcommand is not None:
        return
    with friendly("node"):
        from tokenplace.cli.node import run

        flags = {
            "engine": engine,
            "model": ",".join(model) if model else None,
            "slots": slots,
            "context": context,
            "threads": threads,
            "classic": False if no_classic else None,
            "status_port": status_port,
            "status_host": status_host,
        }
        run(relays=relay or [], flags=flags, as_json=as_json)


AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")]


@node_app.command("status")
def node_status(as_json: AsJson = False) -> None:
    """What the node on this machine does, and why it gets no work when it gets none."""
    with friendly("node"):
        from tokenplace.cli.nearby import show

        show(as_json=as_json)


@node_app.command("pause")
def node_pause() -> None:
    """Take no new work until told to resume; running answers end."""
    with friendly("node"):
        from tokenplace.cli.nearby import tell

        tell("pause")


@node_app.command("resume")
def node_resume() -> None:
    """Take work again."""
    with friendly("node"):
        from tokenplace.cli.nearby import tell

        tell("resume")


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


@app.command()
def doctor(
    relay: Relays = None,
    engine: EngineName = None,
    model: Model = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not start the engine for a real answer.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at everything a node needs, and say what to do about what is wrong."""
    with friendly():
        from tokenplace.cli.doctor import run

        run(relays=relay or [], flags={"engine": engine, "model": model}, quick=quick, as_json=as_json)


@app.command()
def bench(
    model: Model = None,
    streams: Annotated[int, typer.Option(min=1, max=64, help="Answers at once in the second measurement.")] = 4,
    tokens: Annotated[int, typer.Option(min=8, max=4096, help="Tokens of each measured answer.")] = 64,
    as_json: AsJson = False,
) -> None:
    """How fast this machine answers, against its memory's bandwidth, and which model suits it."""
    with friendly("node"):
        from tokenplace.cli.bench_machine import run

        run(model=model, streams=streams, tokens=tokens, as_json=as_json)


Named = Annotated[
    str, typer.Argument(help="A model id of the catalogue, hf:OWNER/REPO/FILE[@REVISION], or an https:// address.")
]


@models_app.command("list")
def models_list(as_json: AsJson = False) -> None:
    """The catalogue, and what of it is on this machine."""
    with friendly("node"):
        from tokenplace.cli.models import show

        show(as_json=as_json)


@models_app.command("pull")
def models_pull(
    model: Named,
    sha256: Annotated[str | None, typer.Option(help="What the file's SHA-256 must be, in hex.")] = None,
) -> None:
    """Fetch a model's file, with resume, and check its SHA-256."""
    with friendly("node"):
        from tokenplace.cli.models import pull

        pull(model, sha256)


@models_app.command("rm")
def models_rm(model: Named) -> None:
    """Remove a model's file, whole or begun."""
    with friendly("node"):
        from tokenplace.cli.models import remove

        remove(model)


@models_app.command("verify")
def models_verify(model: Named) -> None:
    """Hash a model's file and compare."""
    with friendly("node"):
        from tokenplace.cli.models import verify

        verify(model)


if __name__ == "__main__":
    app()
