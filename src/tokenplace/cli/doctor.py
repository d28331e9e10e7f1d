"""`tokenplace doctor`: look at everything a node needs, one line each."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.text import Text

from tokenplace.errors import TokenPlaceError
from tokenplace.node.checkup import machine
from tokenplace.node.checkup.finding import Finding, Verdict, bad

if TYPE_CHECKING:
    from tokenplace.node.settings import NodeSettings
    from tokenplace.openai.catalogue import ModelEntry

_STYLES = {Verdict.OK: "green", Verdict.HINT: "yellow", Verdict.BAD: "bold red"}


def run(*, relays: Sequence[str], flags: Mapping[str, object], quick: bool, as_json: bool) -> None:
    """Print what is found; ends with status 1 when a node could not serve like this."""
    found = []
    console = Console()
    for finding in examine(relays, flags, quick=quick):
        found.append(finding)
        if not as_json:
            _print(console, finding)
    good = all(finding.verdict is not Verdict.BAD for finding in found)
    if as_json:
        typer.echo(json.dumps({"ok": good, "findings": [finding.fields() for finding in found]}))
    elif good:
        typer.echo("This machine can serve.")
    else:
        typer.echo(f"{sum(finding.verdict is Verdict.BAD for finding in found)} to mend before this machine can serve.")
    if not good:
        raise typer.Exit(1)


def examine(relays: Sequence[str], flags: Mapping[str, object], *, quick: bool) -> Iterator[Finding]:
    """Every finding as it is made. What cannot be looked at without something missing before it is left out."""
    yield machine.python(sys.version_info[:3])
    parts = machine.packages()
    yield parts
    if parts.verdict is Verdict.BAD:
        return
    from tokenplace.cli.node import settings_with
    from tokenplace.cli.running import configure_logs
    from tokenplace.node.checkup import model
    from tokenplace.node.hardware import Sensors
    from tokenplace.node.weights import Weights

    configure_logs("CRITICAL")  # what is wrong stands in the findings
    settings = settings_with(**flags)
    hardware = Sensors().hardware()
    yield machine.processor(cores=hardware.cores)
    yield machine.graphics(hardware)
    weights = Weights(settings.weights_dir)
    entries, wrong = _wanted(settings)
    if wrong is not None:
        yield wrong
    sizes = {entry.id: model.size_of(entry, weights) or 0 for entry in entries}
    yield machine.memory(hardware, max(sizes.values(), default=None))
    missing = sum(sizes[entry.id] for entry in entries if weights.state(entry).value != "here")
    folder = settings.weights_dir
    yield machine.disk(folder, shutil.disk_usage(_existing(folder)).free, missing)
    for entry in entries:
        yield model.integrity(entry, weights)
    try:
        targets = settings.targets(relays)
    except TokenPlaceError as error:
        yield bad("relays", "no relay can be served", error.message)
        targets = ()
    for url in targets:
        yield from _relay(url, settings)
    if wrong is None and not quick:
        yield asyncio.run(model.one_answer(settings))


def _wanted(settings: NodeSettings) -> tuple[tuple[ModelEntry, ...], Finding | None]:
    from tokenplace.node.checkup import model

    try:
        return model.wanted(settings), None
    except TokenPlaceError as error:
        return (), bad("model", f"{settings.model!r} is no model", error.message)


def _relay(url: str, settings: NodeSettings) -> Iterator[Finding]:
    from tokenplace.node.checkup import network

    token = settings.token.get_secret_value() if settings.token else None
    yield from asyncio.run(network.relay(url, token))


def _existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that is there already."""
    return next(each for each in (folder, *folder.resolve().parents) if each.exists())


def _print(console: Console, finding: Finding) -> None:
    line = Text()
    line.append(f"{finding.verdict.value:>4}  ", style=_STYLES[finding.verdict])
    line.append(f"{finding.name:<10} {finding.seen}")
    console.print(line, soft_wrap=True)
    if finding.todo:
        console.print(Text(f"{'':17}→ {finding.todo}"), soft_wrap=True)
