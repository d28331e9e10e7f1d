"""All layers of configuration, one over the other, and where each value comes from.

The weakest first: defaults, the configuration files, `.env`, `.env.NAME`, `.env.local`, the file that
TOKEN_PLACE_ENV_FILE names, and the process environment, which always wins. Nothing here changes the environment; the
command line does that once, for the program that it starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tokenplace.config.document import CONFIG_VARIABLE, Document, Json, as_text, leaves, places, read_documents
from tokenplace.config.envfiles import ENV_FILE_VARIABLE, ENVIRONMENT_VARIABLE, EnvFile, candidates, read_env_files
from tokenplace.config.original import KEYS, RELAYS, VARIABLES, advice_on, is_relay_key, relays_of
from tokenplace.config.variables import PREFIXES, PROGRAMS, did_you_mean, every_setting, settings_of

PROCESS: Final = "environment"
"""The origin of what the process environment says."""

OWN: Final = (ENVIRONMENT_VARIABLE, ENV_FILE_VARIABLE, CONFIG_VARIABLE)
"""The variables that say where the others stand."""

FLAGS: Mapping[str, tuple[str, str]] = {
    "RELAY_HOST": ("relay", "host"),
    "RELAY_PORT": ("relay", "port"),
    "gateway.host": ("gateway", "host"),
    "gateway.port": ("gateway", "port"),
}
"""What a configuration file says of these is the default of a command's flag. RELAY_HOST and RELAY_PORT win over the
flags when they stand in the environment; a file does not."""


@dataclass(frozen=True, slots=True)
class Value:
    """What is set, as an environment variable would say it, and where."""

    text: str = field(repr=False)  # it may be a secret
    origin: str
    in_document: bool = False


@dataclass(frozen=True, slots=True)
class Layers:
    """The values that hold for some programs, by variable, and what a person should be told about their layers."""

    values: Mapping[str, Value]
    notes: tuple[str, ...]
    files: tuple[Path, ...]

    def additions(self) -> dict[str, str]:
        """What has to be added to the process environment, so that a program finds its settings there."""
        return {
            name: value.text
            for name, value in self.values.items()
            if value.origin != PROCESS and not (value.in_document and name in FLAGS)
        }

    def flag_defaults(self) -> dict[str, dict[str, str]]:
        """Defaults of commands' flags: by command, by parameter."""
        defaults: dict[str, dict[str, str]] = {}
        for name, (command, parameter) in FLAGS.items():
            value = self.values.get(name)
            if value is not None and value.in_document:
                defaults.setdefault(command, {})[parameter] = value.text
        return defaults


def read_layers(environ: Mapping[str, str], folder: Path, home: Path, programs: Sequence[str] = PROGRAMS) -> Layers:
    """The layers as `programs` see them; where two of them name one variable in their sections, the first is heard.

    `folder` is where the dotenv files lie, `home` the directory of the configuration files. Raises ConfigError.
    """
    env_files, notes = read_env_files(environ, folder)
    written: dict[str, Value] = {}
    for file in env_files:
        written |= {name: Value(text, str(file.path)) for name, text in file.values.items() if _ours(name)}
    written |= {name: Value(text, PROCESS) for name, text in environ.items() if _ours(name)}
    named = written.get(CONFIG_VARIABLE)
    documents = read_documents(named.text if named else None, folder, home)
    values = _documented(documents, programs) | written
    notes += [*_unread_variables(written), *_unread_keys(documents)]
    paths = [file.path for file in env_files] + [document.path for document in documents]
    return Layers(values, tuple(notes), tuple(paths))


def looked_at(environ: Mapping[str, str], folder: Path, home: Path) -> list[Path]:
    """Every file that may be read, the weakest first. Raises ConfigError."""
    files = read_env_files(environ, folder)[0]
    named = environ.get(CONFIG_VARIABLE) or _last(files, CONFIG_VARIABLE)
    return [*places(named, folder, home), *candidates(environ, folder)]


def _last(files: Iterable[EnvFile], name: str) -> str | None:
    return next((file.values[name] for file in reversed([*files]) if name in file.values), None)


def _ours(name: str) -> bool:
    return name.startswith(PREFIXES) or name in VARIABLES or name in _known()


def _known() -> frozenset[str]:
    return frozenset(setting.variable for setting in every_setting()) | frozenset(OWN)


# -- the configuration files ---------------------------------------------------------------------------------------


def _documented(documents: Sequence[Document], programs: Sequence[str]) -> dict[str, Value]:
    """What the files say to these programs."""
    said: dict[str, tuple[Json, str]] = {}
    for document in documents:
        said |= {key: (value, str(document.path)) for key, value in leaves(document.content)}
    values: dict[str, Value] = {}

    def take(variable: str, key: str) -> None:
        value, origin = said[key]
        text = as_text(key, value)
        if text is not None:
            values.setdefault(variable, Value(text, f"{origin}: {key}", in_document=True))

    settings = settings_of(programs)
    for setting in settings:
        if setting.key in said:
            take(setting.variable, setting.key)
    variables = {setting.variable for setting in settings}
    for key, variable in KEYS.items():
        if key in said and (variable in variables or variable in FLAGS):
            take(variable, key)
    for name in FLAGS:
        if name in said:
            take(name, name)
    relays = relays_of({key: value for key, (value, _) in said.items()})
    if relays and RELAYS in variables:
        origins = dict.fromkeys(origin for key, (value, origin) in said.items() if is_relay_key(key) and value)
        values.setdefault(RELAYS, Value(relays, ", ".join(origins), in_document=True))
    return values


def _unread_keys(documents: Sequence[Document]) -> list[str]:
    """One line for each successor or advice, and one for each unknown key."""
    known = {setting.key for setting in every_setting()} | {name for name in FLAGS if "." in name}
    variables = _known() | set(FLAGS)
    advised: dict[tuple[Path, str], list[str]] = {}
    notes = []
    for document in documents:
        for key, value in leaves(document.content):
            honoured = key in known or is_relay_key(key) or KEYS.get(key) in variables
            if honoured or value is None:
                continue
            advice = advice_on(key)
            if advice is not None:
                advised.setdefault((document.path, advice), []).append(key)
            else:
                notes.append(f"{document.path}: nothing reads {key}.{did_you_mean(key, known)}")
    return [
        *(f"{path}: nothing reads {', '.join(keys)} any more: {advice}" for (path, advice), keys in advised.items()),
        *notes,
    ]


# -- variables -----------------------------------------------------------------------------------------------------


def _unread_variables(written: Mapping[str, Value]) -> list[str]:
    known = _known()
    notes = []
    for name, value in written.items():
        if name in known:
            continue
        where = "" if value.origin == PROCESS else f"{value.origin}: "
        retired = VARIABLES.get(name)
        if retired is None:
            notes.append(f"{where}nothing reads {name}.{did_you_mean(name, known)}")
        elif not retired.common:
            notes.append(f"{where}nothing reads {name} any more: {retired.advice}")
    return notes
