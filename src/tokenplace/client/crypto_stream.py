"""Streamed answers as events that a script can loop over: `{"event": name, "data": …}`.

- `delta`: one of OpenAI's chunks, opened; `chunk`: the same, where it came in the open;
- `text`: a line that is no JSON; `response`: a whole answer, where no stream came;
- `reconnect` {attempt, reason}: nothing had come, so it is asked again;
- `partial_response` {chunks, text}: what had come when it broke;
- `fallback` {reason, message}: it is asked again, without a stream;
- `error` {reason, message}: this went wrong, and without a `response` after it nothing follows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx2 as httpx

from tokenplace.client.classic_relay import ClassicRelay, refusal
from tokenplace.errors import BadRecord, SealError, WireError
from tokenplace.openai.events import EventParser
from tokenplace.sealing.classic import ClassicStreamOpener, Envelope, open_classic
from tokenplace.sealing.rsa import ClassicKey

Event = dict[str, Any]

_MAX_REFUSAL = 64 * 1024


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a stream is asked for. Times are seconds."""

    endpoint: str
    timeout: float
    max_retries: int
    retry_delay: float
    encrypted: bool


class Broken(Exception):
    """The stream cannot go on."""

    def __init__(self, reason: str, message: str, told: object = None, *, final: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.told = told
        self.final = final
        """Whether trying again would bring the same."""


class ApiStream:
    """One streamed chat completion, with its second tries and its way out when there is no stream to be had."""

    def __init__(
        self,
        relay: ClassicRelay,
        key: ClassicKey,
        options: StreamOptions,
        request: Callable[[], dict[str, Any] | None],
        whole: Callable[[], Any],
        fresh_key: Callable[[object], None],
    ) -> None:
        """`request` gives the body, sealed anew each time; `whole` asks without a stream."""
        self._relay = relay
        self._key = key
        self._options = options
        self._request = request
        self._whole = whole
        self._fresh_key = fresh_key
        self._chunks: list[Any] = []

    def events(self) -> Iterator[Event]:
        """Until the answer has ended, well or not. An answer of which something was seen is not asked for again."""
        attempt = 0
        while True:
            try:
                yield from self._attempt()
                return
            except Broken as broken:
                if self._chunks:
                    yield {"event": "partial_response", "data": {"chunks": self._chunks, "text": _text(self._chunks)}}
                    yield _error(broken)
                    return
                if not broken.final and attempt < self._options.max_retries:
                    attempt += 1
                    yield {"event": "reconnect", "data": {"attempt": attempt, "reason": broken.reason}}
                    self._relay.pause(self._options.retry_delay)
                    continue
                yield _error(broken)
                yield {"event": "fallback", "data": {"reason": broken.reason, "message": broken.message}}
                answer = self._whole()
                if answer is not None:
                    yield {"event": "response", "data": answer}
                return

    def _attempt(self) -> Iterator[Event]:
        body = self._request()
        if body is None:
            raise Broken("request_failed", "No server's key could be fetched.")
        try:
            with self._relay.stream(self._options.endpoint, {**body, "stream": True}, self._options.timeout) as answer:
                if answer.status_code != HTTPStatus.OK:
                    raise self._bad_status(answer)
                if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                    yield self._not_a_stream(answer)
                    return
                yield from self._read(answer)
        except httpx.HTTPError as error:
            reason = "connection_lost" if self._chunks else "request_failed"
            raise Broken(reason, f"The connection broke ({type(error).__name__}).") from error

    def _bad_status(self, answer: httpx.Response) -> Broken:
        told = _json(_some(answer))
        problem = refusal(answer.status_code, told)
        expired = problem.code == "key_expired"
        if expired:
            self._fresh_key(told)
        again = expired or answer.status_code >= 500 or answer.status_code == HTTPStatus.TOO_MANY_REQUESTS
        return Broken("bad_status", problem.message, told, final=not again)

    def _not_a_stream(self, answer: httpx.Response) -> Event:
        told = _json(answer.read())
        if not isinstance(told, dict):
            raise Broken("empty_response", "The answer is neither a stream nor JSON.", final=True)
        sealed = told.get("data") if self._options.encrypted else None
        if isinstance(sealed, dict):
            told = self._opened(lambda: open_classic(Envelope.parse(sealed), self._key))
        return {"event": "response", "data": told}

    def _read(self, answer: httpx.Response) -> Iterator[Event]:
        parser, opener = EventParser(), ClassicStreamOpener(self._key)
        for data in answer.iter_raw():
            for event in parser.feed(data):
                if event.done:
                    if not self._chunks:
                        raise Broken("empty_response", "The stream ended without a piece.")
                    return
                yield self._piece(event.data, opener)
        reason = "connection_lost" if self._chunks else "empty_response"
        raise Broken(reason, "The stream stopped before its end; what came is not the whole answer.")

    def _piece(self, data: bytes, opener: ClassicStreamOpener) -> Event:
        content = _json(data)
        if content is None:
            return {"event": "text", "data": data.decode(errors="replace")}
        if isinstance(content, dict) and (content.get("event") == "error" or "error" in content):
            problem = refusal(HTTPStatus.OK, content)
            raise Broken(str(content.get("reason") or problem.code), problem.message, content, final=True)
        if not (isinstance(content, dict) and content.get("encrypted")):
            if self._options.encrypted:
                raise Broken("invalid_encrypted_chunk", "A piece came in the open that should be sealed.", final=True)
            self._chunks.append(content)
            return {"event": "chunk", "data": content}
        sealed = content.get("data")
        if not isinstance(sealed, dict):
            raise Broken("invalid_encrypted_chunk", "A piece of the stream has no data.", final=True)
        delta = self._opened(lambda: opener.open(Envelope.parse(sealed)))
        self._chunks.append(delta)
        return {"event": "delta", "data": delta}

    def _opened(self, open_it: Callable[[], bytes]) -> Any:
        try:
            return json.loads(open_it())
        except WireError as error:
            raise Broken("invalid_encrypted_chunk", error.message, final=True) from None
        except (SealError, ValueError, RecursionError):
            raise Broken("decrypt_failed", "A piece of the answer does not open.", final=True) from None


def relay_events(pieces: Iterator[dict[str, Any]], key: ClassicKey) -> Iterator[Event]:
    """The pieces of a relay's stream, opened. Raises SealError or WireError for one that does not open, Refused."""
    opener = ClassicStreamOpener(key)
    for told in pieces:
        chunks = told.get("chunks")
        for chunk in chunks if isinstance(chunks, list) else []:
            if not isinstance(chunk, dict):
                raise WireError("A piece of the stream is no envelope.")
            if "chat_history" in chunk:  # a node that knows no streams answers whole
                yield {"event": "response", "data": _readable(open_classic(Envelope.parse(chunk), key))}
            else:
                yield {"event": "delta", "data": _readable(opener.open(Envelope.parse(chunk)))}


def _readable(words: bytes) -> Any:
    try:
        return json.loads(words)
    except (ValueError, RecursionError):
        raise BadRecord from None


def _text(chunks: list[Any]) -> str:
    """The words of the first answer among chunks."""
    text = ""
    for chunk in chunks:
        choices = chunk.get("choices") if isinstance(chunk, dict) else None
        for choice in choices if isinstance(choices, list) else []:
            delta = choice.get("delta") if isinstance(choice, dict) and choice.get("index", 0) == 0 else None
            content = delta.get("content") if isinstance(delta, dict) else None
            text += content if isinstance(content, str) else ""
    return text


def _error(broken: Broken) -> Event:
    return {"event": "error", "data": {"reason": broken.reason, "message": broken.message}}


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _some(answer: httpx.Response) -> bytes:
    """What a refusal says, not more of it than anybody would read."""
    content = bytearray()
    for chunk in answer.iter_raw():
        content += chunk
        if len(content) > _MAX_REFUSAL:
            break
    return bytes(content)
