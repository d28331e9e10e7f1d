"""A modern node's answer on its way into a mailbox. Pure.

A polling client has no connection that could stand for it, so this takes its place at the ticket: it reads the CLASSIC
records, puts the lines together, and gives credit for what found room. What finds none stays with the broker, a window
at most, and the node waits; it never runs ahead of a client that does not read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeGuard

from tokenplace.errors import Refused, WireError
from tokenplace.relay.broker import Broker
from tokenplace.relay.classic.bounds import QUESTION_COST, STREAM_WINDOW
from tokenplace.relay.classic.questions import Mailboxes, Question, State, pack
from tokenplace.relay.jobs import Step
from tokenplace.relay.tickets import Ticket
from tokenplace.wire.classic import LineReader
from tokenplace.wire.messages import Outcome, Reason
from tokenplace.wire.stream import RecordKind, RecordSplitter

_NO_MORE = frozenset({Outcome.DONE.value, Outcome.ABORTED.value})


class Collector:
    """Stands in for one question's client at one ticket."""

    def __init__(
        self,
        broker: Broker,
        ticket: Ticket,
        mailboxes: Mailboxes,
        question: Question,
        clock: Callable[[], float],
    ) -> None:
        self._broker = broker
        self._ticket = ticket
        self._mailboxes = mailboxes
        self._question = question
        self._clock = clock
        self._splitter = RecordSplitter()
        self._reader = LineReader()
        self._whole: bytes | None = None
        self._stopped = False
        question.stop, question.pull = self.stop, self.look
        ticket.wake = self.look
        self.look()

    def stop(self) -> None:
        """Nobody wants the answer; the node may stop."""
        self._stopped = True
        if self._ticket.wake == self.look:
            self._ticket.wake = None
            self._broker.leave(self._ticket, self._clock())

    def look(self) -> None:
        """Something came, or there is room again."""
        ticket, question = self._ticket, self._question
        now = self._clock()
        if question.state is State.WAITING and ticket.job.step is Step.RUNNING:
            self._mailboxes.taken(question, now)
        while ticket.pieces and self._has_room():
            data = ticket.take()
            self._broker.taken(ticket, len(data), now)
            if not (question.over or self._stopped):
                self._read(data, now)
        if ticket.ended is not None and not ticket.pieces and not question.over:
            self._ended(ticket.ended, now)

    def _has_room(self) -> bool:
        """Whether what waits may be taken. What follows an end is taken and passed over."""
        question = self._question
        if question.over or self._stopped:
            return True
        if question.stream and question.unread >= STREAM_WINDOW:
            return False
        return self._mailboxes.charge(question, sum(map(len, self._ticket.pieces)))

    def _read(self, data: bytes, now: float) -> None:
        try:
            for record in self._splitter.feed(data):
                if record.kind is RecordKind.CLASSIC:
                    for line in self._reader.feed(record.payload):
                        self._line(line, now)
        except WireError:
            self._fail("The node's answer cannot be read.", now, code="bad_answer")
            self.stop()

    def _line(self, line: Mapping[str, Any], now: float) -> None:
        """One line of the answer, as `wire.classic` tells them. After the last one the rest is passed over."""
        question = self._question
        if question.over:
            return
        if isinstance(line.get("message"), dict):
            packed = pack(line["message"])
            if question.stream:
                self._mailboxes.piece(question, packed, now)
                self._settle()
            else:
                self._whole = packed
        elif isinstance(line.get("error"), dict):
            error = line["error"]
            self._fail(str(error.get("message") or "The node refused.")[:1000], now, code=error.get("code"))
        elif line.get("end") is True:
            if self._whole is None and not question.stream:
                self._fail("The node's answer has no message.", now, code="bad_answer")
                return
            self._settle()
            self._mailboxes.answered(question, self._whole, now)

    def _settle(self) -> None:
        """The records were charged as they came; from now on only what is kept of them counts."""
        question = self._question
        kept = QUESTION_COST + question.unread + len(self._whole or b"")
        if question.held > kept:
            self._mailboxes.credit(question, question.held - kept)

    def _ended(self, reason: Reason, now: float) -> None:
        """The ticket ended and the answer did not."""
        if reason.code in _NO_MORE:
            self._fail("The node ended its answer before it was whole. Ask again.", now, code="truncated")
        else:
            self._fail(reason.message or "The answer was lost. Ask again.", now, code=reason.code)

    def _fail(self, message: str, now: float, *, code: object) -> None:
        fault = Refused(message, code=code if _is_code(code) else "node_error", status=HTTPStatus.BAD_GATEWAY)
        self._mailboxes.failed(self._question, fault, now)


def _is_code(code: object) -> TypeGuard[str]:
    """Whether a node's own word for what went wrong is one."""
    return isinstance(code, str) and 0 < len(code) <= 40 and code.isascii() and code.replace("_", "").isalnum()
