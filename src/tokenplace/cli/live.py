"""How a working node is shown: a view on a terminal, lines of JSON for scripts, one line in a log."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

_EVERY = 1.0
_STYLES = {
    "serving": "bold green",
    "paused": "bold yellow",
    "warming": "bold yellow",
    "not connected": "bold red",
    "stopping": "bold",
    "connected": "green",
    "dialling": "yellow",
    "waiting": "red",
}


class Tells(Protocol):
    """A node's status page, as far as it is shown here."""

    @property
    def url(self) -> str | None:
        """Where it is served, if it is."""

    def fields(self) -> dict[str, Any]:
        """What `/status.json` shows."""


class Shown:
    """What is on show."""

    def __init__(self, again: Callable[[], None]) -> None:
        self._again = again

    def stopping(self) -> None:
        """Show at once that the node ends."""
        self._again()


@asynccontextmanager
async def showing(page: Tells, *, as_json: bool, console: Console | None = None) -> AsyncIterator[Shown]:
    """Show the node while the block runs, in the way that suits where the output goes."""
    console = console or Console()
    if as_json:
        async with _again_and_again(lambda: typer.echo(_line(page))) as shown:
            yield shown
    elif console.is_terminal and not console.is_dumb_terminal:
        with Live(console=console, auto_refresh=False) as live:
            async with _again_and_again(lambda: live.update(view(page.fields(), page.url), refresh=True)) as shown:
                yield shown
    else:
        status = page.fields()
        typer.echo(f"node {status['node']} serves {', '.join(status['models'])}")
        if page.url is not None:
            typer.echo(f"status page: {page.url}")
        yield Shown(lambda: None)


@asynccontextmanager
async def _again_and_again(draw: Callable[[], None]) -> AsyncIterator[Shown]:
    async def redraw() -> None:
        while True:
            draw()
            await asyncio.sleep(_EVERY)

    async with asyncio.TaskGroup() as group:
        drawing = group.create_task(redraw())
        try:
            yield Shown(draw)
        finally:
            drawing.cancel()
            draw()


def _line(page: Tells) -> str:
    return json.dumps({"message": "status", "time": round(time.time(), 3), "page": page.url, **page.fields()})


def view(status: Mapping[str, Any], url: str | None = None) -> RenderableType:
    """One status for eyes. What relays say is shown as plain text."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("token.place node", Text(status["standing"], style=_STYLES.get(status["standing"], "")))
    facts.add_row("fingerprint", Text(status["node"]))
    facts.add_row("serves", Text(", ".join(status["models"])))
    facts.add_row("answering", f"{status['running']} of {status['slots']} at once")
    facts.add_row("ended", f"{status['done']} done, {status['failed']} failed, {status['cancelled']} cancelled")
    facts.add_row("speed", f"{status['tokens_per_second']:.1f} tokens/s now, {_average(status):.1f} while answering")
    facts.add_row(
        "given so far",
        f"{status['done']} answers, {status['tokens']} tokens, {status['people_hours']:.2f} hours for people",
    )
    facts.add_row("power", _watts(status["power"]))
    if url is not None:
        facts.add_row("page", Text(url))
    parts: list[RenderableType] = [facts, Text(), _relays(status["relays"])]
    parts += [Text(f"\n! {alarm['message']}", style="bold red") for alarm in status["alarms"]]
    if status["why"]:
        parts.append(Text("\nWhy no work comes:", style="bold"))
        parts += [Text(f"  • {why['message']}") for why in status["why"]]
    return Group(*parts)


def _average(status: Mapping[str, Any]) -> float:
    """Tokens per second of one answer, on the average."""
    seconds = status["people_hours"] * 3600
    return float(status["tokens"] / seconds) if seconds else 0.0


def _watts(power: Mapping[str, Any]) -> str:
    return str(power["source"]) if power["watts"] is None else f"{power['watts']} W ({power['source']})"


def _relays(relays: list[Mapping[str, Any]]) -> Table:
    table = Table("relay", "link", "since", "what it says", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for relay in relays:
        state = relay["state"]
        table.add_row(
            Text(relay["url"]),
            Text(state, style=_STYLES.get(state, "")),
            f"{relay['since_s']:.0f} s",
            Text(relay["detail"]),
        )
    return table
