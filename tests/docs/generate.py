"""Writes what the documents take from the code, tables and diagrams: `python tests/docs/generate.py`.

Each stands in its page between `<!-- from the code: NAME -->` and `<!-- end -->`; a test compares.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a script, not imported by a test
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from docs import api, states
from docs.tables import ROOT, SOURCE, described, table

VARIABLES = SOURCE / "config" / "variables.json"
MARKED = re.compile(r"(<!-- from the code: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

# -- sizes and times -----------------------------------------------------------------------------------------------


def _size(value: int) -> str:
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= unit and value % (unit >> 6) == 0:
            return f"{value / unit:g} {name}"
    return str(value)


def limits() -> str:
    """Sizes and counts of `wire/limits.py`."""
    from tokenplace.wire import limits as module

    rows = [
        (f"`{name}`", (str if name.endswith("FRAMES") else _size)(getattr(module, name)), why)
        for name, why in described("wire/limits.py").items()
        if isinstance(getattr(module, name), int) and name not in ("KiB", "MiB")
    ]
    return table(("bound", "value", "why"), rows)


def timing() -> str:
    """Times of `wire/limits.py`."""
    from tokenplace.wire.limits import TIMING

    why = described("wire/limits.py", "Timing")
    rows = [(f"`{each.name}`", f"{getattr(TIMING, each.name):g} s", why[each.name]) for each in fields(TIMING)]
    return table(("time", "value", "what it bounds"), rows)


def classic_limits() -> str:
    """Sizes and counts of the classic routes."""
    from tokenplace.relay.classic import bounds as module

    why = described("relay/classic/bounds.py")
    rows = [(f"`{name}`", _size(getattr(module, name)), text) for name, text in why.items() if text and name.isupper()]
    return table(("bound", "value", "why"), [row for row in rows if row[0] != "`CLASSIC_TIMING`"])


def classic_timing() -> str:
    """Times of the classic routes."""
    from tokenplace.relay.classic.bounds import CLASSIC_TIMING

    why = described("relay/classic/bounds.py", "ClassicTiming")
    rows = [
        (f"`{each.name}`", f"{getattr(CLASSIC_TIMING, each.name):g} s", why[each.name])
        for each in fields(CLASSIC_TIMING)
    ]
    return table(("time", "value", "what it bounds"), rows)


# -- what travels --------------------------------------------------------------------------------------------------


def frames() -> str:
    """Every kind of frame."""
    from tokenplace.wire.frames import FrameKind

    why = described("wire/frames.py", "FrameKind")
    rows = []
    for kind in FrameKind:
        sender, _, what = why[kind.name].partition(": ")
        rows.append((kind.value, f"`{kind.name}`", sender.lower(), what))
    return table(("kind", "name", "sent by", "what it says"), rows)


def records() -> str:
    """Every kind of record."""
    from tokenplace.wire.stream import RecordKind

    why = described("wire/stream.py", "RecordKind")
    rows = []
    for kind in RecordKind:
        _, _, what = why[kind.name].partition(": ")
        rows.append((f"{kind.value:#04x}", f"`{kind.name}`", "sealed" if kind.sealed else "open", what))
    return table(("kind", "name", "", "what it carries"), rows)


def outcomes() -> str:
    """Every way a job ends."""
    from tokenplace.wire.messages import Outcome

    why = described("wire/messages.py", "Outcome")
    return table(("outcome", "what happened"), [(f"`{each.value}`", why[each.name]) for each in Outcome])


# -- settings and commands -----------------------------------------------------------------------------------------


def _settings(file: str, owner: str, model: Any) -> str:
    why = described(file, owner)
    rows = []
    for name, info in model.model_fields.items():
        rows.append((" ".join(f"`{each}`" for each in _variables(info)), _default(info), why[name]))
    return table(("variable", "default", "what it does"), rows)


def _default(info: Any) -> str:
    value = info.get_default(call_default_factory=True)
    if value is None or value == [] or value == "":
        return ""
    return f"`{int(value) if isinstance(value, bool) else value}`"


def settings_of_the_relay() -> str:
    """Environment variables of the relay."""
    from tokenplace.relay.settings import RelaySettings

    return _settings("relay/settings.py", "RelaySettings", RelaySettings)


def settings_of_the_node() -> str:
    """Environment variables of the node."""
    from tokenplace.node.settings import NodeSettings

    return _settings("node/settings.py", "NodeSettings", NodeSettings)


def settings_of_the_gateway() -> str:
    """Environment variables of the gateway."""
    from tokenplace.gateway.settings import GatewaySettings

    return _settings("gateway/settings.py", "GatewaySettings", GatewaySettings)


def settings_of_the_community() -> str:
    """Environment variables of the notice board."""
    from tokenplace.community.settings import CommunitySettings

    return _settings("community/settings.py", "CommunitySettings", CommunitySettings)


def settings_of_the_client() -> str:
    """Environment variables of whoever asks."""
    why = described("client/settings.py")
    rows = [(f"`{name}`", f"`{default}`" if default else "", why[const]) for const, name, default in _of_the_client()]
    return table(("variable", "default", "what it does"), rows)


def _of_the_client() -> list[tuple[str, str, str]]:
    from tokenplace.client import settings

    named = [(name, str(value)) for name, value in vars(settings).items() if name.endswith("_VARIABLE")]
    return [(name, value, settings.DEFAULT_RELAY if name == "RELAYS_VARIABLE" else "") for name, value in named]


def settings_everywhere() -> list[dict[str, object]]:
    """Every setting of every program, as `config/variables.json` has them."""
    rows: list[dict[str, object]] = []
    for room in sorted(file.parent.name for file in SOURCE.glob("*/settings.py") if file.parent.name != "client"):
        for model in settings_classes(room):
            for field, info in model.model_fields.items():
                default = _default(info).strip("`")
                for variable in _variables(info) or [field.upper()]:
                    secret = "Secret" in str(info.annotation)
                    rows.append(
                        {"variable": variable, "program": room, "field": field, "secret": secret, "default": default}
                    )
    for const, variable, default in _of_the_client():
        field = const.removesuffix("_VARIABLE").lower()
        rows.append({"variable": variable, "program": "client", "field": field, "secret": False, "default": default})
    return rows


def settings_classes(room: str) -> list[Any]:
    """The settings classes that a room declares."""
    from importlib import import_module

    from pydantic_settings import BaseSettings

    module = import_module(f"tokenplace.{room}.settings")
    kinds = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, BaseSettings)]
    return [kind for kind in kinds if kind.__module__ == module.__name__]


def _variables(info: Any) -> list[str]:
    alias = info.validation_alias
    return [alias] if isinstance(alias, str) else [str(choice) for choice in alias.choices] if alias else []


def variables_json() -> str:
    """The text of `config/variables.json`."""
    rows = ",\n".join(f"  {json.dumps(row)}" for row in settings_everywhere())
    return f"[\n{rows}\n]\n"


def origins() -> str:
    """The original's variables that nothing reads any more, each with what takes its place."""
    from tokenplace.config.original import VARIABLES

    return table(("variable", "what takes its place"), [(f"`{name}`", was.advice) for name, was in VARIABLES.items()])


def keys() -> str:
    """The original's configuration keys that are honoured."""
    from tokenplace.config.original import KEYS

    return table(("key", "what it sets"), [(f"`{key}`", f"`{target}`") for key, target in KEYS.items()])


def leaves(command: Any, path: str = "tokenplace") -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its whole name."""
    children = getattr(command, "commands", {})
    if not children or command.invoke_without_command:
        yield path, command
    for name, child in children.items():
        yield from leaves(child, f"{path} {name}")


def commands() -> str:
    """Every command with its options."""
    from typer.main import get_command

    from tokenplace.cli.main import app

    parts = []
    for path, command in leaves(get_command(app)):
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        options = [each for each in command.params if each.param_type_name == "option"]
        usage = " ".join([path, *(f"{each.name.upper()}" for each in arguments)])
        text = f"### `{usage}`\n\n{' '.join(str(command.help).split())}\n"
        rows = [(" ".join(f"`{name}`" for name in each.opts), _standard(each), each.help) for each in options]
        if rows:
            text += "\n" + table(("option", "default", "what it does"), rows)
        parts.append(text)
    return "\n".join(parts)


def _standard(option: Any) -> str:
    shown = option.show_default
    if isinstance(shown, str):
        return shown
    return "" if option.default in (None, False) else f"`{option.default}`"


# -- metrics -------------------------------------------------------------------------------------------------------


def metric_families() -> list[tuple[str, str, str, str]]:
    """Name, kind, labels and meaning of everything that a relay with a hosted gateway shows at /metrics."""
    from tokenplace.gateway.counts import Counts
    from tokenplace.relay.app import Relay
    from tokenplace.relay.broker import Broker
    from tokenplace.relay.replicas.peering import Peering
    from tokenplace.relay.switchboard import Switchboard

    broker = Broker()
    board = Switchboard(broker, time.monotonic, Peering(broker))
    families = [
        (family.name, family.type, tuple(getattr(family, "_labelnames", ())), family.documentation)
        for family in Relay(broker, lambda *_: True, board=board).metrics()
        if family.name.startswith("tokenplace_")
    ]
    text = Counts().render().decode()
    for name, help_ in re.findall(r"^# HELP (\w+?)(?:_total)? (.*)$", text, re.MULTILINE):
        kind = re.findall(rf"^# TYPE {name}(?:_total)? (\w+)$", text, re.MULTILINE)[0]
        families.append((name, kind, ("outcome" if name.endswith("answers") else "kind",), help_))
    total = {"counter": "_total"}
    return [(name + total.get(kind, ""), kind, ", ".join(labels), told) for name, kind, labels, told in families]


def metrics() -> str:
    """Every metric of ours."""
    rows = [
        (f"`{name}`", kind, f"`{labels}`" if labels else "", told) for name, kind, labels, told in metric_families()
    ]
    return table(("metric", "kind", "labels", "what it tells"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "metrics": metrics,
    "limits": limits,
    "classic-limits": classic_limits,
    "classic-timing": classic_timing,
    "timing": timing,
    "frames": frames,
    "records": records,
    "outcomes": outcomes,
    "jobs": states.jobs,
    "jobs-drawn": states.jobs_drawn,
    "sids-at-the-relay": states.sids_at_the_relay,
    "sids-at-the-relay-drawn": states.sids_at_the_relay_drawn,
    "sids-at-the-node": states.sids_at_the_node,
    "routes-of-the-gateway": api.routes_of_the_gateway,
    "shapes-of-the-gateway": api.shapes_of_the_gateway,
    "settings-of-the-relay": settings_of_the_relay,
    "settings-of-the-node": settings_of_the_node,
    "settings-of-the-gateway": settings_of_the_gateway,
    "settings-of-the-client": settings_of_the_client,
    "settings-of-the-community": settings_of_the_community,
    "original-variables": origins,
    "original-keys": keys,
    "commands": commands,
}


def filled(text: str) -> str:
    """A page with its tables as the code has them now."""
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[4]}", text)


def pages() -> list[Path]:
    """Pages that hold such tables."""
    return [page for page in sorted((ROOT / "docs").rglob("*.md")) if MARKED.search(page.read_text())]


def main() -> None:
    """Rewrite every page whose tables are out of date, and the list of settings that the programs carry."""
    if VARIABLES.read_text() != variables_json():
        VARIABLES.write_text(variables_json())
        sys.stdout.write(f"{VARIABLES.relative_to(ROOT)}\n")
    for page in pages():
        old = page.read_text()
        new = filled(old)
        if new != old:
            page.write_text(new)
            sys.stdout.write(f"{page.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
