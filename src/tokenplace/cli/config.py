"""`tokenplace config`, and the step before every program: its layers of configuration become its environment."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import typer

from tokenplace import places
from tokenplace.config.document import (
    CONFIG_VARIABLE,
    Json,
    as_text,
    leaves,
    read_document,
    with_value,
    write_document,
)
from tokenplace.config.layers import FLAGS, PROCESS, Layers, Value, looked_at, read_layers
from tokenplace.config.variables import PROGRAMS, Setting, did_you_mean, every_setting, settings_of
from tokenplace.errors import ConfigError

_ASKING = ("client", "node", "relay", "gateway", "community")
_PROGRAMS_OF: Mapping[str, tuple[str, ...]] = {
    "relay": ("relay", "gateway", "community"),
    "up": ("relay", "gateway", "community", "node"),
    "node": ("node",),
    "models": ("node",),
    "gateway": ("gateway", "client"),
}
"""Whose sections of a configuration file a command heeds; any other command asks, and may look at the others'."""

_WORDS_GO_TO = ("TOKEN_PLACE_RELAYS", "API_FALLBACK_URLS")
_HIDDEN = "(hidden)"
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def take(command: str, *, silent: bool = False) -> dict[str, dict[str, str]]:
    """Put the layers into this process's environment, say what is odd about them, and give the flags' defaults.

    The one place where our environment is changed. Raises ConfigError.
    """
    layers = _layers(_PROGRAMS_OF.get(command, _ASKING))
    os.environ.update(layers.additions())
    for note in [] if silent else [*layers.notes, *_steered(layers)]:
        typer.echo(f"tokenplace: {note}", err=True)
    return layers.flag_defaults()


def _steered(layers: Layers) -> Iterator[str]:
    """A directory that somebody else made may bring a `.env` that sends words to relays of their choice."""
    for name in _WORDS_GO_TO:
        value = layers.values.get(name)
        if value is not None and value.origin != PROCESS and not value.in_document:
            yield f"{name} is taken from {value.origin}"


def _layers(programs: tuple[str, ...] = PROGRAMS) -> Layers:
    return read_layers(os.environ, Path.cwd(), places.config(), programs)


# -- showing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Row:
    program: str
    name: str
    key: str
    shown: str
    origin: str
    secret: bool


def show(program: str | None, *, as_json: bool) -> None:
    """Every value that holds and where it comes from, secrets hidden. Raises ConfigError for values that cannot be."""
    if program is not None and program not in PROGRAMS:
        raise ConfigError(f"There is no program {program}; there are {', '.join(PROGRAMS)}.")
    programs = (program,) if program else PROGRAMS
    layers = {name: _layers((name,)) for name in programs}
    rows = [row for name in programs for row in _rows(name, layers[name])]
    if as_json:
        typer.echo(json.dumps([_as_json(row) for row in rows], indent=2))
    else:
        widths = [max(len(getattr(row, part)) for row in rows) for part in ("name", "shown")]
        for index, row in enumerate(rows):
            if index == 0 or rows[index - 1].program != row.program:
                typer.echo(f"{row.program}:")
            typer.echo(f"  {row.name:<{widths[0]}}  {row.shown:<{min(widths[1], 40)}}  {row.origin}")
    for note in dict.fromkeys(note for each in layers.values() for note in each.notes):
        typer.echo(f"tokenplace: {note}", err=True)
    problems = [problem for name in programs for problem in _problems(name, layers[name].values)]
    if problems:
        raise ConfigError(" ".join(problems))


def _rows(program: str, layers: Layers) -> Iterator[_Row]:
    for setting in settings_of([program]):
        value = layers.values.get(setting.variable)
        shown = setting.default if value is None else _HIDDEN if setting.secret else _PASSWORD.sub("***", value.text)
        origin = value.origin if value else "default"
        yield _Row(program, setting.variable, setting.key, shown, origin, setting.secret)
    for name in FLAGS:
        if name.startswith(f"{program}.") and (value := layers.values.get(name)):
            yield _Row(program, f"--{name.partition('.')[2]}", name, value.text, value.origin, secret=False)


def _as_json(row: _Row) -> dict[str, object]:
    value = None if row.shown == _HIDDEN and row.secret else row.shown
    return {"program": row.program, "name": row.name, "key": row.key, "value": value, "origin": row.origin,
            "hidden": value is None}  # fmt: skip


def _problems(program: str, values: Mapping[str, Value]) -> list[str]:
    """What the program would say of its values; nothing where it is not installed."""
    from pydantic import ValidationError

    problems = []
    for kind in _classes(program):
        try:
            kind(**{name: value.text for name, value in values.items()})
        except ValidationError as error:
            for problem in error.errors(include_input=False, include_url=False):
                name = str(problem["loc"][0])
                origin = values[name].origin if name in values else "default"
                problems.append(f"{name} ({origin}): {problem['msg']}.")
    return problems


def _classes(program: str) -> list[type]:
    try:
        from pydantic_settings import BaseSettings

        module = import_module(f"tokenplace.{program}.settings")
    except ModuleNotFoundError:
        return []
    kinds = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, BaseSettings)]
    return [kind for kind in kinds if kind.__module__ == module.__name__]


def paths() -> None:
    """Every file that is looked for, the weakest first, and whether it is there."""
    for path in looked_at(os.environ, Path.cwd(), places.config()):
        typer.echo(f"{path}  {'(read)' if path.is_file() else '(not there)'}")


# -- writing -------------------------------------------------------------------------------------------------------


def set_value(key: str, text: str) -> None:
    """Write one value into the configuration file. Raises ConfigError, also for a secret."""
    setting = _setting(key)
    if setting.secret:
        raise ConfigError(
            f"{setting.key} is a secret, and secrets are not written here. Set {setting.variable} in the environment, "
            "or in a dotenv file that only its owner can read."
        )
    value: Json = _parsed(text)
    told = as_text(setting.key, value)
    problems = _problems(setting.program, {} if told is None else {setting.variable: Value(told, setting.key)})
    if any(problem.startswith(f"{setting.variable} ") for problem in problems):
        raise ConfigError(" ".join(problems))
    path = _file()
    content = read_document(path) if path.is_file() else {}
    kept = _secrets_in(content)
    if kept:
        raise ConfigError(f"{path} holds a secret ({', '.join(kept)}); move it to the environment first.")
    write_document(path, with_value(content, setting.key, value))
    typer.echo(f"{setting.key} is set in {path}")


def save(target: Path) -> None:
    """Write the values that hold now as one configuration file; secrets become null. Raises ConfigError."""
    content: dict[str, Json] = {}
    for program in PROGRAMS:
        values = _layers((program,)).values
        for setting in settings_of([program]):
            value = values.get(setting.variable)
            if value is not None:
                content = with_value(content, setting.key, None if setting.secret else _PASSWORD.sub("***", value.text))
    write_document(target, content)
    typer.echo(f"written to {target}, without secrets")


def _setting(key: str) -> Setting:
    if key in FLAGS and "." in key:  # a flag without a variable
        program, _, name = key.partition(".")
        return Setting(variable=key, program=program, field=name, secret=False, default="")
    found = [setting for setting in every_setting() if key in (setting.key, setting.variable)]
    if len(found) > 1:
        raise ConfigError(f"{key} is read by several programs; name one of {', '.join(each.key for each in found)}.")
    if not found:
        known = [name for setting in every_setting() for name in (setting.key, setting.variable)]
        raise ConfigError(f"There is no setting {key}.{did_you_mean(key, known)}")
    return found[0]


def _parsed(text: str) -> Json:
    """`5000`, `true` and `["a", "b"]` are what they look like; anything else is text."""
    try:
        value: Json = json.loads(text)
    except ValueError:
        return text
    return value


def _file() -> Path:
    named = _layers().values.get(CONFIG_VARIABLE)
    path = Path(named.text).expanduser() if named else places.config() / "config.json"
    if path.suffix == ".toml" or (named is None and path.with_suffix(".toml").is_file()):
        raise ConfigError(f"{path.with_suffix('.toml')} is written by hand; add the line there.")
    return path


def _secrets_in(content: Mapping[str, Json]) -> list[str]:
    secret = {setting.key for setting in every_setting() if setting.secret} | {"relay.server_registration_token"}
    return [key for key, value in leaves(content) if key in secret and value is not None]
