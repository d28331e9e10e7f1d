"""Server-sent events, read from bytes in any cut and written as OpenAI writes them.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream: lines end with LF, CRLF or
CR, a blank line ends an event, a line that begins with a colon is a comment, several data lines are one text. An
event that the stream's end cuts off is no event.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenplace.errors import TooLarge
from tokenplace.openai import jsontext

CONTENT_TYPE = "text/event-stream; charset=utf-8"

MAX_EVENT = 8 * 1024 * 1024
"""One event; an answer's JSON with every log probability is far below."""

_DONE = b"[DONE]"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name ("" is a message) and its data, UTF-8 as it came."""

    data: bytes
    name: bytes = b""

    @property
    def done(self) -> bool:
        """Whether this is OpenAI's mark of a whole stream."""
        return self.data == _DONE


class EventParser:
    """Cuts a byte stream into events, however the bytes arrive.

    Bytes stay bytes until an event is whole, so that a character cut in two is nobody's trouble.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._data: list[bytes] = []
        self._name = b""
        self._size = 0
        self._started = False
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Take more bytes, give the events that are now whole. Raises TooLarge for one beyond MAX_EVENT."""
        if self._after_cr and chunk:  # the LF of a CRLF that was cut in two
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        self._count(len(chunk))
        if b"\n" not in chunk and b"\r" not in chunk:
            self._rest.append(chunk)
            return []
        text = b"".join([*self._rest, chunk])
        self._rest.clear()
        if not self._started:
            text = text.removeprefix(_BYTE_ORDER_MARK)
            self._started = True
        lines = text.splitlines(keepends=True)
        if not lines[-1].endswith((b"\n", b"\r")):
            self._rest.append(lines.pop())
        events: list[Event] = []
        for line in lines:
            line = line.rstrip(b"\r\n")
            if not line:
                if self._data:
                    events.append(Event(b"\n".join(self._data), self._name))
                self._data, self._name = [], b""
                self._size = sum(map(len, self._rest))
                continue
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
            elif field == b"event":
                self._name = value.removeprefix(b" ")
        return events

    def _count(self, more: int) -> None:
        self._size += more
        if self._size > MAX_EVENT:
            raise TooLarge(f"A server-sent event may have {MAX_EVENT} bytes.")


def data_event(value: object) -> bytes:
    """One chunk of an answer."""
    return b"data: " + jsontext.write(value) + b"\n\n"


def error_event(error: object) -> bytes:
    """An error in mid-stream, as OpenAI tells it; no `done_event` may follow."""
    return b"event: error\ndata: " + jsontext.write(error) + b"\n\n"


def done_event() -> bytes:
    """The mark of a whole stream."""
    return b"data: [DONE]\n\n"


def chat_events(text: str, choices: int) -> bytes:
    """A chat answer that costs no tokens, as an engine would stream it: these words in every choice."""
    said = [{"index": index, "delta": {"content": text}, "finish_reason": "stop"} for index in range(choices)]
    cost = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return data_event({"choices": said}) + data_event({"choices": [], "usage": cost}) + done_event()
