"""The original's JSON: bodies into typed values, answers and faults into the original's two error shapes. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NoReturn

from tokenplace.errors import Refused, TokenPlaceError, TooLarge, WireError
from tokenplace.relay.classic.bounds import MAX_KEY, MAX_MARKS, MIN_TOKEN
from tokenplace.relay.classic.questions import Question, pack
from tokenplace.relay.classic.room import Polled, Read

FIELDS = ("chat_history", "cipherkey", "iv")
CLIENT_KEY = "client_public_key"
SERVER_KEY = "server_public_key"

NOTHING_YET = "No response available for the given public key"
"""The original's client goes on asking as long as the error begins so."""


def parse(body: bytes | bytearray, *, any_json: bool = False) -> dict[str, Any]:
    """A body's object. `any_json` where a field may hold whatever its sender likes. Raises WireError."""
    if not any_json and sum(body.count(mark) for mark in (b"[", b"{", b",")) > MAX_MARKS:
        raise WireError("The body is no message of the classic protocol.")
    try:
        fields = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise WireError("The body is not JSON.") from None
    if not isinstance(fields, dict):
        raise WireError("The body is a JSON object.")
    return fields


def _no_number(_: str) -> NoReturn:
    raise ValueError


def require(fields: Mapping[str, Any], *names: str) -> None:
    """Raises WireError naming what is missing."""
    missing = [name for name in names if name not in fields]
    if missing:
        raise WireError(f"Missing: {', '.join(missing)}.")


def words(fields: Mapping[str, Any], *names: str) -> dict[str, str]:
    """Those fields, which must be there and be base64's kind of text. Raises WireError."""
    require(fields, *names)
    found: dict[str, str] = {}
    for name in names:
        value = fields[name]
        if not (isinstance(value, str) and value.isascii()):
            raise WireError(f"{name} is text in base64.")
        found[name] = value
    return found


def client_key(fields: Mapping[str, Any]) -> str:
    """The client's public key. Raises WireError."""
    key = words(fields, CLIENT_KEY)[CLIENT_KEY].strip()
    if not 0 < len(key) <= MAX_KEY:
        raise WireError(f"{CLIENT_KEY} has 1 to {MAX_KEY} characters.")
    return key


def server_key(fields: Mapping[str, Any]) -> object:
    """The key that a server is registered by: any JSON scalar but null. Raises WireError."""
    key = fields.get(SERVER_KEY)
    scalar = isinstance(key, str | int | float) and not (isinstance(key, float) and not math.isfinite(key))
    if not scalar or len(str(key)) > MAX_KEY or not str(key).strip():
        raise WireError(f"{SERVER_KEY} is missing, or is no public key.")
    return key


def optional(fields: Mapping[str, Any], name: str) -> str | None:
    """Text that need not be there. Raises WireError."""
    value = fields.get(name)
    if value is None or (isinstance(value, str) and value.isascii() and len(value) <= 256):
        return value
    raise WireError(f"{name} is a text of at most 256 characters.")


def sink_token(fields: Mapping[str, Any]) -> str | None:
    """What a polling node proves itself by. Raises WireError for one that could be guessed."""
    token = optional(fields, "sink_token")
    if token is not None and len(token) < MIN_TOKEN:
        raise WireError(f"A sink_token has {MIN_TOKEN} to 256 characters, and nobody can guess it.")
    return token


def batch_size(fields: Mapping[str, Any]) -> int:
    """How many jobs a node takes at once: what Python's int() takes. Raises WireError."""
    given = fields.get("max_batch_size")
    if given is None:
        return 1
    try:
        size = int(given)
    except (ValueError, TypeError, OverflowError):
        size = 0
    if size < 1:
        raise WireError("max_batch_size is a whole number, at least 1.")
    return size


def wait_seconds(fields: Mapping[str, Any], most: float) -> float:
    """How long the caller would like to wait for news. Raises WireError."""
    given = fields.get("wait")
    if given is None:
        return 0.0
    if isinstance(given, bool) or not isinstance(given, int | float) or not given >= 0:
        raise WireError("wait is a number of seconds.")
    return float(min(given, most))


# -- answers -----------------------------------------------------------------------------------------------------------


def polled(found: Polled, batch: int, *, waited: bool) -> dict[str, Any]:
    """What a node that polls is told. One that waits here instead of sleeping may come again at once."""
    ping = 0 if waited else found.ping
    content: dict[str, Any] = {"next_ping_in_x_seconds": int(ping) if ping == int(ping) else round(ping, 1)}
    if (token := found.node.tell()) is not None:
        content["sink_token"] = token
    jobs = [_job(question) for question in found.jobs]
    if jobs:
        first = dict(jobs[0])
        if not first["stream"]:
            del first["stream"]
        content.update(first)
        if batch > 1:
            content["batch"] = jobs
    return content


def _job(question: Question) -> dict[str, Any]:
    job: dict[str, Any] = {**question.body, "stream": question.stream, "request_id": question.id}
    if question.stream:
        job["stream_session_id"] = question.session
    return job


def retrieved(read: Read) -> bytes:
    """A whole answer: what the node gave, and whose it is."""
    return _with_name(read.answer or b"{}", read.question.id)


def streamed(read: Read) -> bytes:
    """New pieces of a stream."""
    fields: dict[str, Any] = {"request_id": read.question.id, "session_id": read.question.session, "stream": True}
    if read.final:
        fields["final"] = True
    head = pack(fields)
    return b'{"chunks":[' + b",".join(read.chunks) + b"]," + head[1:]


def _with_name(answer: bytes, request_id: str) -> bytes:
    return answer[:-1] + (b"," if len(answer) > 2 else b"") + b'"request_id":' + pack(request_id) + b"}"


def nothing_yet(question: Question | None, *, named: bool) -> dict[str, Any]:
    """What is said while there is no answer; who named the question hears how far it is."""
    if question is None or not named:
        return {"error": NOTHING_YET}
    return {"error": NOTHING_YET, "reason": "pending", "state": question.state.value, "request_id": question.id}


# -- faults ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """An error answer: its status, its JSON, and seconds for Retry-After."""

    status: int
    content: dict[str, Any]
    retry_after: float | None = None


def fault(error: TokenPlaceError, *, as_object: bool) -> Fault:
    """An error in the original's shape: an object with the status as its code, or the sentence alone.

    Our own stable code stands beside it as `reason`.
    """
    status, retry_after = int(HTTPStatus.BAD_REQUEST), None
    if isinstance(error, Refused):
        status, retry_after = int(error.status), error.retry_after
    elif isinstance(error, TooLarge):
        status = int(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    elif not isinstance(error, WireError):
        status = int(HTTPStatus.INTERNAL_SERVER_ERROR)
    shown: object = {"message": error.message, "code": status} if as_object else error.message
    return Fault(status, {"error": shown, "reason": error.code}, retry_after)
