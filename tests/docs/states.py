"""Tables and diagrams of states, found by driving the state machines themselves through every case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from docs.tables import table


def jobs() -> str:
    """The relay's job table: from each step (rows), by each move (columns)."""
    from tokenplace.relay.jobs import ENDED, TABLE, Move, Step

    rows = [(f"**{step}**", *(TABLE.get((step, move), "") for move in Move)) for step in Step if step not in ENDED]
    return table(("", *(move.value for move in Move)), rows)


def _sids_at_the_relay() -> dict[str, Callable[[], tuple[Any, Any]]]:
    """An end of a relay with a sid in each state."""
    from tokenplace.link.ends import RelayEnd
    from tokenplace.wire.frames import FrameKind, pack_frame
    from tokenplace.wire.ids import Sid

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

    return {"never offered": never, "offered": live, "flowing": flowing, "gone": gone}


def _frames_of_a_node() -> dict[Any, bytes]:
    """Each kind that a node sends on a sid, with a payload that is right."""
    from tokenplace.wire.frames import FrameKind, pack_control
    from tokenplace.wire.messages import Ending, Reason

    reason = Reason("busy")
    return {
        FrameKind.ACCEPT: b"",
        FrameKind.REJECT: pack_control(reason.fields()),
        FrameKind.DATA: b"record",
        FrameKind.PROGRESS: b"",
        FrameKind.END: pack_control(Ending(reason, free=1, seen=1).fields()),
    }


def sids_at_the_relay() -> str:
    """What the relay's end makes of each frame of a node, for a sid in each state."""
    from tokenplace.wire.frames import FrameKind, pack_frame, split_frames

    def after(end: Any, sid: Any) -> str:
        """Where the sid stands now, told by what the end does with one more frame."""
        kinds = {frame.kind for frame in split_frames(end.take() or b"")}
        end.cancel(sid)
        cancels = {frame.kind for frame in split_frames(end.take() or b"")} - kinds
        return "" if FrameKind.CANCEL in cancels else ", gone"

    states = _sids_at_the_relay()
    rows = []
    for kind, payload in _frames_of_a_node().items():
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


# -- drawn ---------------------------------------------------------------------------------------------------------


def arrows(moves: Sequence[tuple[str, str, str]]) -> str:
    """A diagram in text: for each state one line for every move that leads out of it.

    Plain characters, because diagrams that a browser draws want a library from somebody else's server.
    """
    wide = max(len(start) for start, _, _ in moves)
    long = max(len(move) for _, move, _ in moves)
    lines, last = [], None
    for start, move, after in moves:
        if last is not None and start != last:
            lines.append("")
        lines.append(f"{'' if start == last else start:<{wide}} ──{move:─<{long}}──▶ {after}".rstrip())
        last = start
    return "```text\n" + "\n".join(lines) + "\n```\n"


def jobs_drawn() -> str:
    """The relay's job table as a diagram; what every state has in common stands once, at the end."""
    from tokenplace.relay.jobs import ENDED, TABLE, Move, Step

    live = [step for step in Step if step not in ENDED]
    same = [move for move in Move if len({TABLE.get((step, move)) for step in live}) == 1]
    moves = [
        (step.value, move.value, TABLE[step, move].value)
        for step in live
        for move in Move
        if (step, move) in TABLE and move not in same
    ]
    moves += [("each of these", move.value, TABLE[live[0], move].value) for move in same]
    return arrows(moves)


def sids_at_the_relay_drawn() -> str:
    """Where each frame of a node leads to, at the relay's end."""
    from tokenplace.errors import LinkError
    from tokenplace.link.ends import RelayEnd
    from tokenplace.wire.frames import FrameKind, pack_frame

    def state(end: RelayEnd, sid: int) -> str:
        try:
            events = end.receive(pack_frame(FrameKind.PROGRESS, sid=sid), 0.0)
        except LinkError:
            return "offered"
        return "flowing" if events else "gone"

    moves = []
    for name in ("offered", "flowing"):
        for kind, payload in _frames_of_a_node().items():
            end, sid = _sids_at_the_relay()[name]()
            try:
                events = end.receive(pack_frame(kind, payload, sid=sid), 0.0)
            except LinkError:
                continue
            if events:
                moves.append((name, kind.name, state(end, sid)))
        end, sid = _sids_at_the_relay()[name]()
        end.cancel(sid)
        moves.append((name, "CANCEL (from the relay)", state(end, sid)))
    return arrows([("(new)", "JOB or REWIND (from the relay)", "offered"), *moves])


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
