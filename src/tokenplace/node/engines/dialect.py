"""What llama.cpp's server understands beyond OpenAI's API, and what a node must use of it.

It looks whether a client is still there only when it writes, and while it computes a prompt it writes nothing: an
answer that nobody waits for any more is computed for until its first token. Asked for its progress it writes after
each batch of the prompt, and finds out. So progress is always asked for, and taken out of the answer again.

The grammar it makes of a JSON schema is slow with long enums (`openai.enums`), so it is given them in other words.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from tokenplace.node.engines.base import EngineAnswer, JsonObject
from tokenplace.openai.enums import lighter

OWNER = "llamacpp"
"""`owned_by` in llama.cpp's list of models."""

_DECODING = ("/v1/chat/completions", "/v1/completions", "/v1/responses")

_MARK = b'"prompt_progress":'
"""A key in the progress events. What a model writes cannot look like it: quotes inside its strings are escaped."""

_END = b"\n\n"


def decodes(path: str) -> bool:
    """Whether this path makes the model write."""
    return path in _DECODING


def prepared(body: JsonObject) -> JsonObject:
    """A request that makes the model write, as this runtime answers it best: progress asked for, its schema lighter."""
    schema = body.get("response_format")
    more = {} if schema is None else {"response_format": lighter(schema)}
    return {**body, **more, "return_progress": True}


class WithoutProgress:
    """An answer with the progress events taken out."""

    def __init__(self, answer: EngineAnswer) -> None:
        self._answer = answer
        self.status = answer.status
        self.content_type = answer.content_type

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body's bytes, whole events at a time. Raises what the answer inside raises."""
        rest = b""
        async for chunk in self._answer.chunks():
            events, rest = _whole_events(rest + chunk)
            if _MARK in events:
                events = b"".join(event for event in _each(events) if _MARK not in event)
            if events:
                yield events
        if rest:
            yield rest


def _whole_events(data: bytes) -> tuple[bytes, bytes]:
    """(whole events, the beginning of the next). Nearly always the second is empty."""
    if data.endswith(_END):
        return data, b""
    cut = data.rfind(_END) + len(_END)
    return (data[:cut], data[cut:]) if cut >= len(_END) else (b"", data)


def _each(events: bytes) -> Iterator[bytes]:
    return (event + _END for event in events.split(_END) if event)
