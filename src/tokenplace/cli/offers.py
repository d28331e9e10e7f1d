"""The model servers that run on this machine already, offered to who starts a node without choosing an engine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import typer

from tokenplace.node.engines.local import LocalEngine, find_local_engines
from tokenplace.node.settings import NodeSettings

Find = Callable[[], Sequence[LocalEngine]]


def with_offers(settings: NodeSettings, *, ask: bool | None = None, find: Find = find_local_engines) -> NodeSettings:
    """The settings, with an engine that was found when the owner says yes.

    Whoever chose an engine or a model is not asked, and where nobody sits at a terminal nothing is taken: the flag is
    told, on stderr. Its prefix cache is shared between people, which the owner should know.
    """
    if {"engine", "model", "mock"} & settings.model_fields_set:
        return settings
    found = find()
    for each in found:
        typer.echo(f"{each.sentence()}.", err=True)
    usable = next((each for each in found if each.models), None)
    ask = sys.stdin.isatty() and sys.stderr.isatty() if ask is None else ask
    if usable is None or not ask:
        return settings
    question = f"Serve what {usable.name} has, instead of a model of our own?"
    return settings.model_copy(update={"engine": usable.url}) if typer.confirm(question, err=True) else settings
