"""What travels inside the seal: an HTTP call in the small, and how its answer begins and ends.

The request's body, before sealing:

    ┌──────────────┬──────────────────────────────────────┬─────────────────┐
    │ length u16 BE│ head: {"path": "/v1/chat/…"} (JSON)  │ the body's bytes│
    └──────────────┴──────────────────────────────────────┴─────────────────┘

The answer's sealed records: HEAD `{"status", "content_type"}`, then DATA (the body's bytes as they come), then FINAL
`{"usage"}` or ABORT `{"error", "usage"}`. Fields that are not known are passed over, so that either end may learn
more. No pydantic here: the client SDK reads these too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tokenplace.errors import WireError

MAX_HEAD = 4096

MODEL_FREE = frozenset({"/v1/images/generations"})
"""Paths that any node answers, whatever `model` says."""

Usage = dict[str, Any]
"""OpenAI's usage object: prompt_tokens, completion_tokens, total_tokens."""


@dataclass(frozen=True, slots=True)
class Call:
    """One API call: OpenAI's path, and the body as the program sent it."""

    path: str
    body: bytes

    def __repr__(self) -> str:
        return f"Call({self.path!r}, {len(self.body)} bytes)"

    def pack(self) -> bytes:
        """The bytes to seal."""
        head = _dump({"path": self.path})
        return len(head).to_bytes(2, "big") + head + self.body

    @classmethod
    def parse(cls, data: bytes) -> Call:
        """The bytes that were sealed. Raises WireError."""
        length = int.from_bytes(data[:2], "big")
        if len(data) < 2 + length or not 0 < length <= MAX_HEAD:
            raise WireError("The sealed call has no head.")
        path = _load(data[2 : 2 + length]).get("path")
        if not isinstance(path, str) or not path.startswith("/"):
            raise WireError("The sealed call names no path.")
        return cls(path, data[2 + length :])


@dataclass(frozen=True, slots=True)
class Head:
    """How an answer begins."""

    status: int
    content_type: str

    def pack(self) -> bytes:
        """The data of a HEAD record."""
        return _dump({"status": self.status, "content_type": self.content_type})

    @classmethod
    def parse(cls, data: bytes) -> Head:
        """Read a HEAD record. Raises WireError."""
        fields = _load(data)
        status, content_type = fields.get("status"), fields.get("content_type")
        if not isinstance(status, int) or not 200 <= status < 600 or not isinstance(content_type, str):
            raise WireError("The answer's head is not one.")
        if not content_type.isprintable() or not content_type.isascii():
            raise WireError("The answer's content type is not one.")
        return cls(status, content_type)


@dataclass(frozen=True, slots=True)
class Final:
    """How a whole answer ends."""

    usage: Usage | None

    def pack(self) -> bytes:
        """The data of a FINAL record."""
        return _dump({"usage": self.usage})

    @classmethod
    def parse(cls, data: bytes) -> Final:
        """Read a FINAL record. Raises WireError."""
        usage = _load(data).get("usage")
        return cls(usage if isinstance(usage, dict) else None)


@dataclass(frozen=True, slots=True)
class Abort:
    """How a broken answer ends: the error in OpenAI's shape, and what was used until then."""

    message: str
    type: str
    code: str
    usage: Usage | None = None

    @property
    def error(self) -> dict[str, dict[str, str | None]]:
        """OpenAI's error body."""
        return {"error": {"message": self.message, "type": self.type, "param": None, "code": self.code}}

    def pack(self) -> bytes:
        """The data of an ABORT record."""
        return _dump({**self.error, "usage": self.usage})

    @classmethod
    def parse(cls, data: bytes) -> Abort:
        """Read an ABORT record. Raises WireError."""
        fields = _load(data)
        error, usage = fields.get("error"), fields.get("usage")
        if not isinstance(error, dict):
            raise WireError("The answer's abort names no error.")
        return cls(
            message=str(error.get("message") or "The answer broke off."),
            type=str(error.get("type") or "server_error"),
            code=str(error.get("code") or "aborted"),
            usage=usage if isinstance(usage, dict) else None,
        )


def _dump(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def _load(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise WireError("This part of the sealed call is not JSON.") from None
    if not isinstance(fields, dict):
        raise WireError("This part of the sealed call is not a JSON object.")
    return fields
