"""A classic request, read and opened. All is pure and slow enough (JSON, RSA) to be done in a thread.

First what anybody can see is checked (`read`), and its faults are told by name; only then is it opened (`opened`), and
whatever goes wrong there has one and the same answer. Between the two the owner asks its `ClassicGuard`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tokenplace.errors import ApiError, Unopenable, WireError
from tokenplace.openai import jsontext, refusals
from tokenplace.openai.classic import CHAT, CLIENT_KEY, ENCRYPTED, FIELDS, KEY_ID, PATHS, cannot_open, is_encrypted
from tokenplace.sealing.classic import CipherMode, ClassicStreamSealer, Envelope, open_classic
from tokenplace.sealing.rsa import ClassicKey, ClassicPublicKey
from tokenplace.wire.classic import ClassicRequest, Door, is_key_id

MAX_ASSOCIATED = 4096
"""Bytes of associated data: it comes back with every piece of a stream."""

_PLACES: Mapping[Door, Mapping[str, str]] = {
    Door.API: {name: f"messages.{name}" for name in ("ciphertext", "cipherkey", "iv", "tag")},
    Door.RELAY: {name: name for name in ("chat_history", "cipherkey", "iv")},
}
"""Where each part of an envelope stands in a request."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """To whom an answer is sealed, and how: as the request was."""

    key: ClassicPublicKey
    mode: CipherMode = CipherMode.CBC
    associated_data: bytes = b""
    pkcs1v15: bool = False

    def sealer(self) -> ClassicStreamSealer:
        """A fresh AES key, wrapped for them."""
        return ClassicStreamSealer(
            self.key, mode=self.mode, associated_data=self.associated_data, pkcs1v15=self.pkcs1v15
        )

    def fields(self, envelope: Envelope) -> dict[str, Any]:
        """An envelope as it stands in an answer of the API."""
        shown = envelope.fields()
        if self.associated_data:
            shown["associated_data"] = base64.b64encode(self.associated_data).decode("ascii")
        return {"encrypted": True, **shown}


@dataclass(frozen=True, slots=True)
class Visible:
    """What everybody on the way can read of a request. `fields` are OpenAI's, without what is sealed."""

    door: Door
    path: str
    to: Recipient
    stream: bool
    key_id: str | None
    envelope: Envelope | None
    """None where only the answer is sealed."""
    fields: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """A request whose words are known."""

    messages: list[Any] = field(repr=False)
    pkcs1v15: bool
    """Whether it came with the old padding."""


def read_call(path: str, body: bytes) -> Visible:
    """An API call that asks to be opened here. Raises ApiError."""
    fields = jsontext.read_object(body)
    return read(ClassicRequest(Door.API, fields, path, fields.get("stream") is True))


def read_packed(data: bytes) -> Visible:
    """A request that came in the open. Raises ApiError, and WireError for bytes that are none."""
    request = ClassicRequest.parse(data)
    if request.door is Door.API:  # its fields go on to the API, which reads as strictly as of a request of its own
        try:
            body = jsontext.read_object(json.dumps(request.body).encode())
        except RecursionError:
            raise WireError("This classic request is nested too deeply.") from None
        request = replace(request, body=body)
    return read(request)


def read(request: ClassicRequest) -> Visible:
    """What can be seen of a request. Raises ApiError that names the parameter at fault."""
    body = request.body
    key_id = request.key_id if request.key_id is not None else body.get(KEY_ID)
    if key_id is not None and not is_key_id(key_id):
        raise refusals.invalid(KEY_ID, "A key's id is 16 hexadecimal digits, as /v1/public-key tells it.")
    path = CHAT if request.door is Door.RELAY else request.path
    if path not in PATHS:
        raise refusals.path_unknown(path, PATHS)
    if request.door is Door.API and not is_encrypted(body):
        raise refusals.missing(ENCRYPTED)
    key = _public_key(body)
    envelope: Envelope | None = None
    associated = b""
    if request.door is Door.RELAY:
        envelope = _envelope(Door.RELAY, body, CipherMode.CBC)
    elif path == CHAT:
        parts = body.get("messages")
        if not isinstance(parts, dict):
            raise _absent("messages", parts, "an object with `ciphertext`, `cipherkey` and `iv`")
        envelope = _envelope(Door.API, parts, None)
        associated = _associated(parts, envelope.mode)
    to = Recipient(key, envelope.mode if envelope is not None else CipherMode.CBC, associated)
    kept = {} if request.door is Door.RELAY else {name: body[name] for name in body if name not in FIELDS}
    return Visible(request.door, path, to, request.stream, key_id, envelope, kept)


def opened(visible: Visible, keys: Sequence[ClassicKey]) -> Opened:
    """The words of a request, opened with the first key that does. Raises `cannot_open` for whatever goes wrong."""
    envelope = visible.envelope
    if envelope is None:
        raise ValueError("nothing is sealed in this request")
    for key in keys:
        try:
            words = open_classic(envelope, key, associated_data=visible.to.associated_data)
            messages = _messages(words, one_string=visible.door is Door.RELAY)
        except (Unopenable, ApiError):
            continue
        old = key.pkcs1v15 and not key.wrapped_by_oaep(envelope.cipherkey or b"")
        return Opened(messages, old)
    raise cannot_open()


def _messages(words: bytes, *, one_string: bool) -> list[Any]:
    """The messages that a plaintext spells, read as strictly as any request. Raises ApiError."""
    read = jsontext.read_object(b'{"messages":' + words + b"}")
    messages = read.pop("messages")
    if one_string and isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if read or not isinstance(messages, list):
        raise cannot_open()
    return messages


def _public_key(body: Mapping[str, Any]) -> ClassicPublicKey:
    text = body.get(CLIENT_KEY)
    if not isinstance(text, str) or not text:
        raise _absent(CLIENT_KEY, text, "a string")
    try:
        return ClassicPublicKey.parse(text)
    except WireError as error:
        raise refusals.invalid(CLIENT_KEY, error.message) from None


def _envelope(door: Door, parts: Mapping[str, Any], mode: CipherMode | None) -> Envelope:
    places = _PLACES[door]
    for name, place in places.items():
        _strict(parts.get(name), place, optional=name == "tag")
    try:
        return Envelope.parse({name: parts.get(name) for name in (*places, "mode")}, mode=mode)
    except WireError as error:
        raise refusals.invalid("messages" if door is Door.API else "chat_history", error.message) from None


def _associated(parts: Mapping[str, Any], mode: CipherMode) -> bytes:
    place = "messages.associated_data"
    data = _strict(parts.get("associated_data"), place, optional=True)
    if data and mode is CipherMode.CBC:
        raise refusals.invalid(place, "CBC authenticates nothing; associated data needs GCM.")
    if len(data) > MAX_ASSOCIATED:
        raise refusals.invalid(place, f"Associated data has at most {MAX_ASSOCIATED} bytes.")
    return data


def _strict(value: object, place: str, *, optional: bool) -> bytes:
    """Strict base64. Raises ApiError."""
    if value is None and optional:
        return b""
    if not isinstance(value, str):
        raise _absent(place, value, "a string of base64")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        raise refusals.invalid(place, "This is not base64 (RFC 4648, section 4, with its padding).") from None


def _absent(place: str, value: object, expected: str) -> ApiError:
    return refusals.missing(place) if value is None or value == "" else refusals.wrong_type(place, expected, value)
