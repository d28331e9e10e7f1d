"""`tokenplace models`: the catalogue and the files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Column, Table
from rich.text import Text

from tokenplace.node.named import model_named
from tokenplace.node.settings import NodeSettings
from tokenplace.node.weights import Verified, Weights
from tokenplace.openai.catalogue import Catalogue, ModelEntry

Tell = Callable[[int, int | None], None]


def show(*, as_json: bool = False) -> None:
    """Print the catalogue, and what of it and beside it is here."""
    weights, catalogue = _weights(), Catalogue.load()
    others = weights.others({entry.file.name for entry in catalogue.models})
    if as_json:
        listed = [{**_facts(entry), "state": weights.state(entry).value} for entry in catalogue.models]
        listed += [{"id": name, "bytes": size, "state": "here"} for name, size in others]
        typer.echo(json.dumps({"directory": str(weights.directory), "models": listed}))
        return
    table = Table(Column("model", no_wrap=True), "size", "quantisation", "context", "licence", "here", box=None)
    for entry in catalogue.models:
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
    for name, size in others:
        table.add_row(Text(name), f"{size / 1e9:.1f} GB", "", "", "", "here", style="green")
    Console().print(table)


def _facts(entry: ModelEntry) -> dict[str, object]:
    return {
        "id": entry.id,
        "parameters": entry.parameters,
        "quantisation": entry.quantisation,
        "context": entry.context,
        "licence": entry.licence,
        "bytes": entry.file.bytes,
    }


def _style(state: str) -> str:
    return {"here": "green", "bad": "red", "partial": "yellow"}.get(state, "")


def pull(model: str, sha256: str | None = None) -> None:
    """Fetch one model's file, or find it in the hub's cache. Ctrl-C keeps what has come."""
    entry, weights = _entry(model), _weights()
    verified = _in_the_cache(weights, entry, sha256)
    if verified is None:
        with progress_bar(entry.id) as tell:
            try:
                verified = weights.pull(entry, tell, sha256=sha256)
            except KeyboardInterrupt:
                typer.echo("Stopped. What has come is kept; pull again to go on.", err=True)
                raise
    Console().print(Text(f"{entry.id} is here and checked: {verified.path}"), soft_wrap=True)


def _in_the_cache(weights: Weights, entry: ModelEntry, sha256: str | None) -> Verified | None:
    """A file that is here already and right; a wrong one raises."""
    if sha256 is not None or weights.state(entry).value != "here":
        return None
    return weights.verify(weights.locate(entry), entry)


def remove(model: str) -> None:
    """Remove one model's file."""
    entry = _entry(model)
    freed = _weights().remove(entry)
    typer.echo(f"{entry.id} is gone; {freed / 1e6:,.0f} MB are free again.")


def verify(model: str) -> None:
    """Hash one model's file."""
    entry, weights = _entry(model), _weights()
    verified = weights.verify(weights.locate(entry), entry, fresh=True)
    typer.echo(f"{entry.id} is whole: sha256:{verified.digest} (compared with: {verified.against.value})")


def _entry(model: str) -> ModelEntry:
    return model_named(Catalogue.load(), model)


def _weights() -> Weights:
    return Weights(NodeSettings().weights_dir)


@contextmanager
def progress_bar(what: str) -> Iterator[Tell]:
    """A bar on a terminal, nothing in a pipe."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
