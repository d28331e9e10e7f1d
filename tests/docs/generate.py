"""Writes the tables that the documents take from the code: `python tests/docs/generate.py`.

Each stands in its page between `<!-- from the code: NAME -->` and `<!-- end -->`; a test compares. Tables of states are
found by driving the state machines themselves through every case, so they say what the code does.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "tokenplace"
MARKED = re.compile(r"(<!-- from the code: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

Rows = Iterable[Sequence[object]]
BAR = "\\|"


def table(head: Sequence[str], rows: Rows) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(str(cell).replace(chr(124), BAR) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def described(file: str, owner: str | None = None) -> dict[str, str]:
    """Names that are assigned in a module (or in one of its classes), each with the string that stands below it."""
    body: list[ast.stmt] = ast.parse((SOURCE / file).read_text()).body
    if owner is not None:
        body = next(node.body for node in body if isinstance(node, ast.ClassDef) and node.name == owner)
    found: dict[str, str] = {}
    for index, statement in enumerate(body):
        if isinstance(statement, ast.Assign):
            target: ast.expr = statement.targets[0]
        elif isinstance(statement, ast.AnnAssign):
            target = statement.target
        else:
            continue
        if isinstance(target, ast.Name):
            below = body[index + 1] if index + 1 < len(body) else None
            text = ast.get_docstring(ast.Module([below], [])) if isinstance(below, ast.Expr) else None
            found[target.id] = " ".join((text or "").split())
    return found


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
        (f"`{name}`", _size(getattr(module, name)), why)
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


# -- states --------------------------------------------------------------------------------------------------------


def jobs() -> str:
    """The relay's job table: from each step (rows), by each move (columns)."""
    from tokenplace.relay.jobs import ENDED, TABLE, Move, Step

    rows = [(f"**{step}**", *(TABLE.get((step, move), "") for move in Move)) for step in Step if step not in ENDED]
    return table(("", *(move.value for move in Move)), rows)


def sids_at_the_relay() -> str:
    """What the relay's end makes of each frame of a node, for a sid in each state."""
    from tokenplace.link.ends import RelayEnd
    from tokenplace.wire.frames import FrameKind, pack_control, pack_frame, split_frames
    from tokenplace.wire.ids import Sid
    from tokenplace.wire.messages import Ending, Reason

    def live() -> tuple[RelayEnd, Sid]:
        end = RelayEnd()
        end.challenge(bytes(32))
        end.welcome("")
        return end, end.offer(b"request")

    def flowing() -> tuple[RelayEnd, Sid]:
        end, sid = live()
        end.receive(pack_frame(FrameKind.ACCEPT, sid=sid), 0.0)
        return end, sid

    def gone() -> tuple[RelayEnd, Sid]:
        end, sid = flowing()
        end.cancel(sid)
        return end, sid

    def never() -> tuple[RelayEnd, Sid]:
        end, sid = live()
        return end, Sid(sid + 1)

    states: dict[str, Callable[[], tuple[RelayEnd, Sid]]] = {
        "never offered": never, "offered": live, "flowing": flowing, "gone": gone
    }  # fmt: skip
    reason = Reason("busy")
    payloads = {
        FrameKind.ACCEPT: b"",
        FrameKind.REJECT: pack_control(reason.fields()),
        FrameKind.DATA: b"record",
        FrameKind.PROGRESS: b"",
        FrameKind.END: pack_control(Ending(reason, free=1, seen=1).fields()),
    }

    def after(end: RelayEnd, sid: Sid) -> str:
        """Where the sid stands now, told by what the end does with one more frame."""
        kinds = {frame.kind for frame in split_frames(end.take() or b"")}
        end.cancel(sid)
        cancels = {frame.kind for frame in split_frames(end.take() or b"")} - kinds
        return "" if FrameKind.CANCEL in cancels else ", gone"

    rows = []
    for kind, payload in payloads.items():
        cells = [f"`{kind.name}`"]
        for name, make in states.items():
            end, sid = make()
            cells.append(_tried(partial(end.receive, pack_frame(kind, payload, sid=sid), 0.0)))
            if cells[-1].startswith("*") and name in ("offered", "flowing"):
                cells[-1] += after(end, sid)
        rows.append(cells)
    return table(("the node sends", *states), rows)


def sids_at_the_node() -> str:
    """What the node's end makes of each frame of a relay, for a sid in each state."""
    from tokenplace.link.ends import NodeEnd
    from tokenplace.wire.card import CardBody
    from tokenplace.wire.frames import FrameKind, pack_control, pack_frame
    from tokenplace.wire.ids import Sid
    from tokenplace.wire.messages import Hello, Reason

    def live() -> NodeEnd:
        end = NodeEnd()
        end.receive(pack_frame(FrameKind.CHALLENGE, bytes(32)), 0.0)
        end.hello(_unsigned_hello(CardBody, Hello))
        end.receive(pack_frame(FrameKind.WELCOME, pack_control({"relay": ""})), 0.0)
        return end

    def opened() -> tuple[NodeEnd, Sid]:
        end = live()
        end.receive(pack_frame(FrameKind.JOB, b"request", sid=1), 0.0)
        return end, Sid(1)

    def gone() -> tuple[NodeEnd, Sid]:
        end, sid = opened()
        end.reject(sid, Reason("busy"))
        return end, sid

    states: dict[str, Callable[[], tuple[NodeEnd, Sid]]] = {
        "the next": lambda: (live(), Sid(1)),
        "later than the next": lambda: (live(), Sid(2)),
        "open": opened,
        "gone": gone,
    }
    payloads = {
        FrameKind.JOB: b"request",
        FrameKind.REWIND: bytes(20),
        FrameKind.CREDIT: b"",
        FrameKind.CANCEL: b"",
    }
    rows = []
    for kind, payload in payloads.items():
        cells = [f"`{kind.name}`"]
        for make in states.values():
            end, sid = make()
            cells.append(_tried(partial(end.receive, pack_frame(kind, payload, sid=sid), 0.0)))
        rows.append(cells)
    return table(("the relay sends", *states), rows)


def _unsigned_hello(body: Any, hello: Any) -> Any:
    from tokenplace.wire.card import Card

    said = body(identity=bytes(32), sequence=0, issued_ms=0, keys=(), models=())
    return hello(Card(said, said.pack(), bytes(64)), bytes(64), "relay", 1)


def _tried(receive: Callable[[], Sequence[object]]) -> str:
    from tokenplace.errors import LinkError

    try:
        events = receive()
    except LinkError:
        return "violation"
    return f"*{type(events[0]).__name__}*" if events else "dropped"


# -- settings and commands -----------------------------------------------------------------------------------------


def _settings(file: str, owner: str, model: Any) -> str:
    why = described(file, owner)
    rows = []
    for name, info in model.model_fields.items():
        alias = info.validation_alias
        variables = [alias] if isinstance(alias, str) else [str(choice) for choice in alias.choices]
        rows.append((" ".join(f"`{each}`" for each in variables), _default(info), why[name]))
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


def leaves(command: Any, path: str = "tokenplace") -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its whole name."""
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
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


TABLES: dict[str, Callable[[], str]] = {
    "limits": limits,
    "timing": timing,
    "frames": frames,
    "records": records,
    "outcomes": outcomes,
    "jobs": jobs,
    "sids-at-the-relay": sids_at_the_relay,
    "sids-at-the-node": sids_at_the_node,
    "settings-of-the-relay": settings_of_the_relay,
    "settings-of-the-node": settings_of_the_node,
    "settings-of-the-gateway": settings_of_the_gateway,
    "commands": commands,
}


def filled(text: str) -> str:
    """A page with its tables as the code has them now."""
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[4]}", text)


def pages() -> list[Path]:
    """Pages that hold such tables."""
    return [page for page in sorted((ROOT / "docs").rglob("*.md")) if MARKED.search(page.read_text())]


def main() -> None:
    """Rewrite every page whose tables are out of date."""
    for page in pages():
        old = page.read_text()
        new = filled(old)
        if new != old:
            page.write_text(new)
            sys.stdout.write(f"{page.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
