"""The classic protocol on our own pipes: how an envelope of the original's clients reaches a node and is answered.

The request, `application/vnd.tp.classic`, goes the way of every sealed request: to a relay's job door and down the
node's link. Nobody before the node can open it, since what is inside is the client's own envelope:

    0        1        2                 18
    ┌────────┬────────┬─────────────────┬───────────────────────────────────────────────────────────┐
    │version │ flags  │ job id (16)     │ JSON: {"door", "key_id", "path", "stream", "body"}         │
    └────────┴────────┴─────────────────┴───────────────────────────────────────────────────────────┘

`door` says whose shapes `body` has, as the client sent it:

- "relay": `{"client_public_key", "chat_history", "cipherkey", "iv"}`; the plaintext is a list of messages (or one
  string), and the answer's plaintext is that list with the assistant's message behind it;
- "api": an OpenAI request with `encrypted` and `client_public_key`; `path` is OpenAI's. A gateway does not send it this
  way but inside the sealed exchange, where no relay sees its options or can change them.

The answer is a stream of CLASSIC records in the open (what is secret in them is in envelopes again). Their payloads,
one after the other, are lines of JSON, each ended by a newline; a line may span records:

    {"status": 200}                          first: the HTTP status an API answer gets
    {"message": {…}}                         once for a whole answer, once per piece of a stream: what the client gets
    {"error": {"message", "type", "param", "code"}}   instead of what was to come; nothing follows
    {"end": true, "usage": {…} | null}       last: without it the answer is not whole

What a message is:

- door "relay", whole: `{"chat_history", "cipherkey", "iv"}`;
- door "relay", a piece: `{"encrypted": true, "ciphertext", "iv"}`, the first with `cipherkey`; its plaintext is one of
  OpenAI's `chat.completion.chunk` objects;
- door "api", whole: `{"encrypted": true, "data": {"encrypted": true, "ciphertext", "cipherkey", "iv"}}`, its plaintext
  OpenAI's whole response object;
- door "api", a piece: `{"event": "delta", "encrypted": true, "stream_session_id", "data": {"encrypted": true,
  "ciphertext", "iv", "stream_session_id"}}`, the first with `cipherkey` in its data.

A plaintext may end in spaces, which hide its length. An error with the code `key_expired` also has `public_key` and
`key_id`: the key to seal to instead.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeGuard

from tokenplace.errors import TooLarge, WireError
from tokenplace.wire.ids import JOB_ID_BYTES, KEY_ID_BYTES, JobId, job_id_of
from tokenplace.wire.limits import MAX_REQUEST
from tokenplace.wire.request import RequestHeader

CONTENT_TYPE = "application/vnd.tp.classic"
VERSION = 1
CARD_FIELD = "classic"
"""The field of a node's card that holds its `ClassicCard`."""

MAX_LINE = 8 * 1024 * 1024
"""Characters of one line of an answer."""

KEY_ID_HEX = 2 * KEY_ID_BYTES
MAX_KEY_TEXT = 4096
"""Characters of a key in a card: the base64 of the PEM of 8192 bits takes half of that."""

_MAX_PREVIOUS = 16
_MARKS = (b"[", b"{", b",")
_MOST_MARKS = 4096
"""A line of nothing but brackets would unfold to a hundred times its size in whoever reads it."""

_LAYOUT = struct.Struct(f">BB{JOB_ID_BYTES}s")


class Door(StrEnum):
    """Whose shapes a classic request has."""

    RELAY = "relay"
    API = "api"


@dataclass(frozen=True, slots=True)
class ClassicCard:
    """What a node's card says of its classic keys. Key ids are hex."""

    key: str
    """Base64 of the PEM text, as it travels in the original."""
    key_id: str
    previous: tuple[str, ...] = ()
    """Ids of keys that are no longer shown and still open requests."""
    pkcs1v15: bool = False
    """Whether it also takes the padding of old JavaScript clients."""

    def fields(self) -> dict[str, Any]:
        """For the card."""
        shown = {"key": self.key, "key_id": self.key_id, "previous": list(self.previous)}
        return {**shown, "pkcs1v15": True} if self.pkcs1v15 else shown

    @classmethod
    def of(cls, extra: Mapping[str, Any]) -> ClassicCard | None:
        """From a card's further fields. None where the node takes no classic requests, or says so unreadably."""
        fields = extra.get(CARD_FIELD)
        if not isinstance(fields, dict):
            return None
        key, key_id, previous = fields.get("key"), fields.get("key_id"), fields.get("previous", [])
        if not isinstance(key, str) or len(key) > MAX_KEY_TEXT or not is_key_id(key_id):
            return None
        listed = previous[:_MAX_PREVIOUS] if isinstance(previous, list) else []
        return cls(key, key_id, tuple(filter(is_key_id, listed)), fields.get("pkcs1v15") is True)


def is_key_id(value: object) -> TypeGuard[str]:
    """Whether this spells the id of a key."""
    return isinstance(value, str) and re.fullmatch(rf"[0-9a-f]{{{KEY_ID_HEX}}}", value) is not None


@dataclass(frozen=True, slots=True)
class ClassicRequest:
    """A classic client's request on its way to a node. `body` is what the client sent, unread."""

    door: Door
    body: Mapping[str, Any]
    path: str = ""
    stream: bool = False
    key_id: str | None = None
    """Hex of the node's classic key id that the client named, where it named one."""
    request_id: bytes = field(default_factory=lambda: os.urandom(JOB_ID_BYTES))

    def __repr__(self) -> str:
        return f"ClassicRequest({self.door}, {self.path!r}, {self.job})"

    @property
    def job(self) -> JobId:
        """The name of the job that this request becomes."""
        return job_id_of(self.request_id)

    def pack(self) -> bytes:
        """The bytes on the wire. Raises TooLarge."""
        fields = {
            "door": self.door,
            "path": self.path,
            "stream": self.stream,
            "key_id": self.key_id,
            "body": dict(self.body),
        }
        packed = _LAYOUT.pack(VERSION, 0, self.request_id) + json.dumps(fields, separators=(",", ":")).encode()
        if len(packed) > MAX_REQUEST:
            raise TooLarge(f"A request has at most {MAX_REQUEST} bytes.")
        return packed

    @classmethod
    def parse(cls, data: bytes) -> ClassicRequest:
        """From the wire. Raises WireError."""
        request_id = _request_id(data)
        try:
            fields = json.loads(data[_LAYOUT.size :])
            door, body = Door(fields["door"]), fields["body"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise WireError("This classic request cannot be read.") from None
        path, key_id = fields.get("path", ""), fields.get("key_id")
        if not isinstance(body, dict) or not isinstance(path, str) or not isinstance(key_id, str | None):
            raise WireError("This classic request is not in the shape of one.")
        return cls(door, body, path, fields.get("stream") is True, key_id, request_id)


def is_classic(data: bytes) -> bool:
    """Whether these bytes are a classic request rather than a sealed one."""
    return data[:1] == bytes((VERSION,))


def job_of(data: bytes) -> JobId:
    """The job that a request of either kind becomes, without reading what is inside. Raises WireError."""
    return job_id_of(_request_id(data)) if is_classic(data) else RequestHeader.parse(data).job


def _request_id(data: bytes) -> bytes:
    if len(data) <= _LAYOUT.size:
        raise WireError("This classic request is cut short.")
    version, flags, request_id = _LAYOUT.unpack_from(data)
    if version != VERSION or flags:
        raise WireError("This is not a classic request of a version we know.")
    return bytes(request_id)


def pack_line(content: Mapping[str, Any]) -> bytes:
    """One line of an answer."""
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


class LineReader:
    """Puts the lines of an answer together again, however the records cut them."""

    def __init__(self) -> None:
        self._partial = bytearray()

    def feed(self, payload: bytes) -> list[dict[str, Any]]:
        """Take a record's payload, give the lines that are now whole. Raises WireError or TooLarge."""
        head, newline, rest = payload.rpartition(b"\n")
        self._partial += head if newline else rest  # whole lines are cut only once, however long they are
        if len(self._partial) > MAX_LINE:
            raise TooLarge(f"A line of a classic answer has at most {MAX_LINE} bytes.")
        if not newline:
            return []
        whole, self._partial = self._partial, bytearray(rest)
        return [_object(line) for line in whole.split(b"\n") if line]


def _object(line: bytes | bytearray) -> dict[str, Any]:
    if sum(line.count(mark) for mark in _MARKS) > _MOST_MARKS:
        raise WireError("A line of a classic answer has more parts than any that we know.")
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise WireError("A line of a classic answer is not JSON.")
    return content
