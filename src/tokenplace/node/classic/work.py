"""One classic job in the open, from the request's bytes to the last line of its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenplace.errors import TokenPlaceError
from tokenplace.node.classic.answering import as_error
from tokenplace.node.classic.door import ClassicDoor
from tokenplace.node.outbox import Outbox
from tokenplace.node.runs import Run
from tokenplace.node.worker import Cost, Task
from tokenplace.wire.classic import pack_line
from tokenplace.wire.limits import MAX_RECORD
from tokenplace.wire.stream import Record, RecordKind


class ClassicOutbox(Outbox):
    """Lines in records in the open."""

    def __init__(self, run: Run, push: Callable[[bytes], None], clock: Callable[[], float]) -> None:
        super().__init__(run, clock, MAX_RECORD)
        self._give = push

    async def line(self, content: dict[str, Any]) -> None:
        """The next line. Waits while the reader is slow."""
        await self.write(pack_line(content))

    def end(self, content: dict[str, Any]) -> None:
        """The last line, without waiting."""
        self._waiting += pack_line(content)
        self.flush()

    def put(self, data: bytes) -> None:
        """The next bytes of the lines."""
        self._give(Record(RecordKind.CLASSIC, data).pack())


class ClassicTask(Task[ClassicOutbox]):
    """A request in the open, sealed to this node's own key, so that no other node could answer it."""

    def __init__(self, door: ClassicDoor, data: bytes) -> None:
        self._door = door
        self._data = data

    def outbox(self, run: Run, push: Callable[[bytes], None], clock: Callable[[], float]) -> ClassicOutbox:
        """As `Task.outbox`."""
        return ClassicOutbox(run, push, clock)

    async def answer(self, outbox: ClassicOutbox, watch: Callable[[Cost], None]) -> None:
        """As `Task.answer`."""
        async with self._door.answer_open(self._data) as reply:
            watch(reply.usage)
            try:
                await outbox.line({"status": reply.status})
                async for message in reply.messages:
                    await outbox.line({"message": message})
            finally:
                self.usage = reply.usage()
        outbox.end(dict(reply.error.as_json()) if reply.error is not None else {"end": True, "usage": self.usage})

    def abort(self, outbox: ClassicOutbox, error: TokenPlaceError) -> None:
        """As `Task.abort`."""
        outbox.end(dict(as_error(error).as_json()))
