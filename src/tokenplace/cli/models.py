"""`tokenplace models`: the catalogue and the files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Column, Table

from tokenplace.node.settings import NodeSettings
from tokenplace.node.weights import Weights
from tokenplace.openai.catalogue import Catalogue

Tell = Callable[[int, int | None], None]


def show() -> None:
    """Print the catalogue."""
    weights = Weights(NodeSettings().weights_dir)
    table = Table(Column("model", no_wrap=True), "size", "quantisation", "context", "licence", "here", box=None)
    for entry in Catalogue.load().models:
        state = weights.state(entry).value
        table.add_row(
            entry.id,
            entry.parameters,
            entry.quantisation,
            str(entry.context),
            entry.licence,
            state,
            style=_style(state),
        )
    Console().print(table)


def _style(state: str) -> str:
    return {"here": "green", "bad": "red", "partial": "yellow"}.get(state, "")


def pull(model: str) -> None:
    """Fetch one model's file."""
    entry = Catalogue.load().weights_of(model)
    with progress_bar(entry.id) as tell:
        verified = Weights(NodeSettings().weights_dir).ensure(entry, tell)
    Console().print(f"{entry.id} is here and checked: {verified.path}", soft_wrap=True)


def verify(model: str) -> None:
    """Hash one model's file."""
    entry = Catalogue.load().weights_of(model)
    weights = Weights(NodeSettings().weights_dir)
    verified = weights.verify(weights.locate(entry), entry, fresh=True)
    Console().print(f"{entry.id} is whole: sha256:{verified.digest} (compared with: {verified.against.value})")


@contextmanager
def progress_bar(what: str) -> Iterator[Tell]:
    """A bar on a terminal, nothing in a pipe."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
