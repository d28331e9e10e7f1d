"""The sealed exchange "tp/2": a request that only one node can open, an answer that only the client can open.

    sealed, pending = seal_request(body, key, now_ms=…)      at the client
        opened = open_request(sealed, keys, now_ms=…)        at the node
        guard.admit(opened.header, now_ms)                   (sealing.replay)
        sealer = opened.answer()
        send sealer.nonce_record(), then sealer.seal(kind, data) for HEAD, DATA …, FINAL or ABORT
    opener = pending.accept(nonce)
    opener.open(record) for each sealed record, then opener.finish()

Each step's result is the only thing that can take the next one: there is no way to open an answer without having
sealed its request, or to seal an answer without having opened it.

Request: header (40 bytes, in the open, `wire.request`) ‖ HPKE(info = "tp/2 request\\0" ‖ header,
plaintext = response secret (32) ‖ padded body). HPKE is RFC 9180 in base mode; the response secret stands in for
HPKE's exporter, which the library does not offer.

Answer: a 32-byte nonce in the open, then records (`wire.stream`). Keys as in RFC 9458 section 4.4:

    prk        = HKDF-Extract(salt = enc ‖ nonce, ikm = response secret)
    key        = HKDF-Expand(prk, "key", 32)
    base nonce = HKDF-Expand(prk, "nonce", 12)

Record i is AES-256-GCM of the padded data under base nonce ⊕ i (big-endian, aligned right), with the additional data
u32 payload length ‖ u8 kind ‖ u64 i. So a record that is altered, moved, dropped, repeated or taken from another
answer does not open, and the end is a record too: a stream cut short is noticed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from tokenplace.errors import BadRecord, KeyUnknown, TooLarge, Truncated, WireError
from tokenplace.sealing import hpke
from tokenplace.sealing.keys import KeyRing
from tokenplace.sealing.padding import pad_record, pad_request, record_room, request_room, unpad_record, unpad_request
from tokenplace.wire.card import SealingKey
from tokenplace.wire.ids import JOB_ID_BYTES, JobId
from tokenplace.wire.limits import MAX_RECORD, MAX_REQUEST
from tokenplace.wire.request import HEADER_BYTES, INFO_PREFIX, Kem, RequestHeader
from tokenplace.wire.stream import NONCE_BYTES, Record, RecordKind

SECRET_BYTES = 32

MAX_BODY = request_room(MAX_REQUEST - HEADER_BYTES - Kem.X25519_MLKEM768.enc_bytes - hpke.TAG_BYTES - SECRET_BYTES)
"""The most bytes one request body may have: 8 MiB less the four of its length."""

MAX_RECORD_DATA = record_room(MAX_RECORD - hpke.TAG_BYTES)
"""The most bytes one record may carry."""

_AAD = struct.Struct(">IBQ")
_KEY_BYTES = 32
_BASE_NONCE_BYTES = 12

_START: tuple[RecordKind, ...] = (RecordKind.HEAD, RecordKind.ABORT)
_GOING_ON: tuple[RecordKind, ...] = (RecordKind.DATA, RecordKind.FINAL, RecordKind.ABORT)
_FOLLOWS: tuple[tuple[RecordKind, ...], ...] = (_GOING_ON, _GOING_ON, (), ())
"""What may follow a HEAD, a DATA, a FINAL, an ABORT (indexed by kind); both ends go by it."""


def seal_request(
    body: bytes, key: SealingKey, *, now_ms: int, random: Callable[[int], bytes] = os.urandom
) -> tuple[bytes, PendingAnswer]:
    """Seal `body` (bytes) to a key of a card that was verified, picked by `keys.choose_key`.

    `now_ms` is the unix time in milliseconds, shown in the open and checked by the node. `random` is asked first
    for the request id (16), then for the response secret (32). Raises TooLarge beyond MAX_BODY, WireError when the
    key is not one.
    """
    if len(body) > MAX_BODY:
        raise TooLarge(f"A request may carry {MAX_BODY} bytes; this one has {len(body)}.")
    header = RequestHeader(key_id=key.key_id, kem=key.kem, request_id=random(JOB_ID_BYTES), time_ms=now_ms)
    secret = random(SECRET_BYTES)
    packed = header.pack()
    sealed = hpke.seal(key.kem, key.public, info=INFO_PREFIX + packed, plaintext=secret + pad_request(body))
    return packed + sealed, PendingAnswer(header, sealed[: key.kem.enc_bytes], secret)


def open_request(sealed: bytes, keys: KeyRing, *, now_ms: int) -> OpenedRequest:
    """Open a sealed request with the key that its header names; next, ask a `replay.ReplayGuard`.

    Raises WireError or TooLarge for what is no request, KeyUnknown when the key was never here or is destroyed,
    Unopenable when header or ciphertext were altered or sealed to another key, and WireError when the client did
    not pad as agreed.
    """
    header = RequestHeader.parse(sealed)
    key = keys.find(header.key_id, now_ms)
    if key.kem is not header.kem:
        raise KeyUnknown
    info = INFO_PREFIX + sealed[:HEADER_BYTES]
    plaintext = hpke.unseal(key.kem, key.opener, info=info, sealed=sealed[HEADER_BYTES:])
    body = unpad_request(plaintext[SECRET_BYTES:])
    enc = sealed[HEADER_BYTES : HEADER_BYTES + key.kem.enc_bytes]
    return OpenedRequest(header, body, enc, plaintext[:SECRET_BYTES])


def answer_keys(enc: bytes, nonce: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """The answer's AES-256 key (32) and base nonce (12), RFC 9458 section 4.4. Raises WireError for a bad nonce."""
    if len(nonce) != NONCE_BYTES:
        raise WireError(f"An answer's nonce has {NONCE_BYTES} bytes; this one has {len(nonce)}.")
    prk = HKDF.extract(SHA256(), enc + nonce, secret)
    key = HKDFExpand(SHA256(), _KEY_BYTES, b"key").derive(prk)
    return key, HKDFExpand(SHA256(), _BASE_NONCE_BYTES, b"nonce").derive(prk)


@dataclass(frozen=True, slots=True, repr=False)
class PendingAnswer:
    """What the client keeps of its request: all that can open the answer, and nothing else can."""

    header: RequestHeader
    _enc: bytes
    _secret: bytes

    def __repr__(self) -> str:
        return f"<PendingAnswer {self.job}>"

    @property
    def job(self) -> JobId:
        """The name of the job that the request becomes."""
        return self.header.job

    def accept(self, nonce: bytes) -> RecordOpener:
        """Begin to read the answer whose NONCE record carried `nonce`. Raises WireError unless it has 32 bytes.

        The nonce is no secret and proves nothing; a false one gives an opener that opens nothing.
        """
        return RecordOpener(*answer_keys(self._enc, nonce, self._secret))


@dataclass(frozen=True, slots=True, repr=False)
class OpenedRequest:
    """A request at the node: its header, its body (bytes), and the right to answer it."""

    header: RequestHeader
    body: bytes
    _enc: bytes
    _secret: bytes

    def __repr__(self) -> str:
        return f"<OpenedRequest {self.job}>"

    @property
    def job(self) -> JobId:
        """The name of the job that the request is."""
        return self.header.job

    def answer(self, nonce: bytes | None = None) -> RecordSealer:
        """Begin an answer under fresh keys. Only test vectors hand in a nonce: one used twice breaks AES-GCM."""
        nonce = os.urandom(NONCE_BYTES) if nonce is None else nonce
        return RecordSealer(nonce, *answer_keys(self._enc, nonce, self._secret))


class RecordSealer:
    """The node's end of one answer: seals its records in their order, and none after the end."""

    __slots__ = ("_aead", "_base", "_legal", "_number", "nonce")

    def __init__(self, nonce: bytes, key: bytes, base_nonce: bytes) -> None:
        self.nonce = nonce
        self._aead = AESGCM(key)
        self._base = int.from_bytes(base_nonce, "big")
        self._number = 0
        self._legal = _START

    @property
    def next_number(self) -> int:
        """The number that the next record will have."""
        return self._number

    @property
    def ended(self) -> bool:
        """Whether FINAL or ABORT was sealed."""
        return not self._legal

    def nonce_record(self) -> Record:
        """The open record that goes just before record 0."""
        return Record(RecordKind.NONCE, self.nonce)

    def seal(self, kind: RecordKind, data: bytes = b"") -> Record:
        """The next record, carrying `data` (at most MAX_RECORD_DATA bytes; may be empty).

        Raises TooLarge for more, and ValueError for a kind that may not come next: first HEAD or ABORT, then DATA,
        FINAL or ABORT, then nothing.
        """
        if kind not in self._legal:
            raise ValueError(f"{kind.name} may not be sealed as record {self._number} of this answer.")
        if len(data) > MAX_RECORD_DATA:
            raise TooLarge(f"A record may carry {MAX_RECORD_DATA} bytes; this one has {len(data)}.")
        padded = pad_record(data)
        number = self._number
        aad = _AAD.pack(len(padded) + hpke.TAG_BYTES, kind, number)
        payload = self._aead.encrypt((self._base ^ number).to_bytes(_BASE_NONCE_BYTES, "big"), padded, aad)
        self._number = number + 1
        self._legal = _FOLLOWS[kind]
        return Record(kind, payload)


class RecordOpener:
    """The client's end of one answer: opens its records in their order, up to its authenticated end.

    Its errors stick: once a record was bad, everything after raises BadRecord, whatever it is.
    """

    __slots__ = ("_aead", "_base", "_broken", "_legal", "_number")

    def __init__(self, key: bytes, base_nonce: bytes) -> None:
        self._aead = AESGCM(key)
        self._base = int.from_bytes(base_nonce, "big")
        self._number = 0
        self._legal = _START
        self._broken: str | None = None

    @property
    def next_number(self) -> int:
        """The number of the record to come: where a resumed stream goes on."""
        return self._number

    @property
    def ended(self) -> bool:
        """Whether FINAL or ABORT was opened."""
        return not self._legal

    def open(self, record: Record) -> bytes:
        """The data of the next sealed record; the caller has taken the open kinds out before.

        Raises BadRecord when it is not the record that the node sealed at this place, or comes after the end.
        """
        if self._broken is not None:
            raise BadRecord(self._broken)
        kind, payload, number = record.kind, record.payload, self._number
        if kind not in self._legal:
            self._break(f"Record {number} of the answer may not be {kind.name}; nothing after it can be trusted.")
        nonce = (self._base ^ number).to_bytes(_BASE_NONCE_BYTES, "big")
        try:
            data = unpad_record(self._aead.decrypt(nonce, payload, _AAD.pack(len(payload), kind, number)))
        except InvalidTag:
            self._break(f"Record {number} of the answer was altered or moved; nothing after it can be trusted.")
        except WireError as error:
            self._break(f"Record {number} of the answer: {error.message}")
        self._number = number + 1
        self._legal = _FOLLOWS[kind]
        return data

    def finish(self) -> None:
        """Say that no more will come. Raises Truncated unless FINAL or ABORT was opened, BadRecord if one was bad."""
        if self._broken is not None:
            raise BadRecord(self._broken)
        if self._legal:
            raise Truncated

    def _break(self, why: str) -> NoReturn:
        self._broken = why
        raise BadRecord(why) from None
