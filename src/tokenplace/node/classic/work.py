"""One classic job in the open, from the request's bytes to the last line of its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from tokenplace.errors import ApiError, EngineError
from tokenplace.node.classic.answering import as_error
from tokenplace.node.classic.door import ClassicDoor
from tokenplace.node.outbox import Outbox
from tokenplace.node.runs import Run, Runs
from tokenplace.node.worker import told
from tokenplace.openai.usage import Usage
from tokenplace.wire.classic import pack_line
from tokenplace.wire.limits import MAX_RECORD
from tokenplace.wire.messages import ENGINE_FAILED, Outcome, Reason
from tokenplace.wire.stream import Record, RecordKind

_log = structlog.get_logger("tokenplace.node")


class ClassicWorker:
    """Answers requests that come in the open. `watch(run, usage)` as for `worker.Worker`."""

    def __init__(
        self,
        door: ClassicDoor,
        runs: Runs,
        clock: Callable[[], float],
        watch: Callable[[Run, Callable[[], Usage]], None] = lambda _run, _usage: None,
    ) -> None:
        self._door = door
        self._runs = runs
        self._clock = clock
        self._watch = watch

    async def answer(self, run: Run, data: bytes) -> None:
        """Until the answer has ended, one way or the other. Cancelling lets go of the engine at once."""
        outbox = _Outbox(self._runs, run, self._clock)
        usage: Usage | None = None
        try:
            try:
                async with self._door.answer_open(data) as reply:
                    self._watch(run, reply.usage)
                    try:
                        await outbox.line({"status": reply.status})
                        async for message in reply.messages:
                            await outbox.line({"message": message})
                    finally:
                        usage = reply.usage()
                if reply.error is not None:
                    await outbox.line(dict(reply.error.as_json()))
                else:
                    await outbox.line({"end": True, "usage": usage})
                outbox.flush()
                self._runs.finish(run, Reason(Outcome.DONE), self._clock())
            except EngineError as error:
                self._abort(outbox, run, as_error(error), ENGINE_FAILED)
            except Exception as error:  # noqa: BLE001 - the last door: one answer's bug must not end the others
                _log.error("job.bug", error=type(error).__name__)
                broken = EngineError("The node made a mistake with this answer; it was not your request's fault.")
                self._abort(outbox, run, as_error(broken))
        finally:
            outbox.close()
            self._runs.release(run)
            told(run, usage)

    def _abort(self, outbox: _Outbox, run: Run, error: ApiError, openly: str = "") -> None:
        outbox.add(dict(error.as_json()))
        outbox.flush()
        self._runs.finish(run, Reason(Outcome.ABORTED, openly), self._clock())
        _log.warning("job.aborted", code=error.code)


class _Outbox(Outbox):
    """Lines in records in the open."""

    def __init__(self, runs: Runs, run: Run, clock: Callable[[], float]) -> None:
        super().__init__(run, clock, MAX_RECORD)
        self._runs = runs

    async def line(self, content: dict[str, Any]) -> None:
        """The next line. Waits while the reader is slow."""
        await self.write(pack_line(content))

    def add(self, content: dict[str, Any]) -> None:
        """The last line, without waiting."""
        self._waiting += pack_line(content)

    def put(self, data: bytes) -> None:
        """The next bytes of the lines."""
        self._runs.push(self._run, Record(RecordKind.CLASSIC, data).pack(), self._clock())
