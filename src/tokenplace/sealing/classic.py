"""The classic envelope: how the original token.place sealed its messages, for clients and nodes that know no other.

    envelope = seal_classic(words, ClassicPublicKey.parse(their_key))      at either end
    words = open_classic(Envelope.parse(fields), our_key)                  at the other
    ClassicStreamSealer, ClassicStreamOpener                               an answer in pieces

A fresh AES-256 key per message (per stream of pieces: one key, sent with the first) is wrapped by RSA (`sealing.rsa`)
into `cipherkey`; the words are under AES-256-CBC with PKCS#7 (16-byte IV) or AES-256-GCM (12-byte IV, 16-byte tag).

Use the sealed exchange (`sealing.exchange`) wherever both ends know it. What the classic envelope cannot do, here or
in the original:

- **CBC is not authenticated.** Whoever carries a message can flip chosen bits of its first block and garble others
  without being noticed. And each answer to "did this open?" is a padding oracle (Vaudenay, EUROCRYPT 2002): a node
  gives one and the same answer to Unopenable and to opened words that it cannot read, and asks a
  `replay.ClassicGuard` first, which takes each cipherkey once and so leaves an oracle only one question.
- **Nothing says who asked.** The relay can hand on a captured request with a key of its own, and be answered. GCM
  does not change that; the exchange does.
- **Pieces of a stream are not counted.** That one was dropped, that two changed places or that the end is missing is
  not noticed; that one came twice is, and under GCM that one was altered.
- **No forward secrecy** beyond the life of the RSA key.

All is pure and lets go of the interpreter lock while RSA works (0.3 ms): call it inline or in a thread.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from tokenplace.errors import BadRecord, SealError, TooLarge, Unopenable, WireError
from tokenplace.sealing.rsa import AES_KEY_BYTES, CLOSED, ClassicKey, ClassicPublicKey

BLOCK_BYTES: Final = 16
TAG_BYTES: Final = 16

MAX_PIECES: Final = 65_536
"""Pieces of one stream: each IV is remembered to refuse it the second time, and no answer has as many pieces."""


class CipherMode(StrEnum):
    """How AES is used."""

    CBC = "CBC"
    """The original's default, and all that its servers and pages ever send. Not authenticated."""
    GCM = "GCM"
    """Authenticated, with associated data if wanted. The original has it in its library only."""

    @property
    def iv_bytes(self) -> int:
        """Length of the initialisation vector."""
        return 16 if self is CipherMode.CBC else 12


@dataclass(frozen=True, slots=True)
class Envelope:
    """One classic message, or one piece of a stream; of a stream only the first has a `cipherkey`. All raw bytes."""

    ciphertext: bytes
    iv: bytes
    cipherkey: bytes | None = None
    tag: bytes | None = None
    mode: CipherMode = CipherMode.CBC

    def __post_init__(self) -> None:
        if len(self.iv) != self.mode.iv_bytes:
            raise WireError(f"The IV of {self.mode} has {self.mode.iv_bytes} bytes; this one has {len(self.iv)}.")
        if self.mode is CipherMode.CBC and self.tag is not None:
            raise WireError("A CBC message has no tag.")
        if self.mode is CipherMode.GCM and (self.tag is None or len(self.tag) != TAG_BYTES):
            raise WireError(f"A GCM message has a tag of {TAG_BYTES} bytes.")

    def __repr__(self) -> str:
        return f"<Envelope {self.mode} {len(self.ciphertext)} bytes>"

    @classmethod
    def parse(cls, fields: Mapping[str, object], *, mode: CipherMode | None = None) -> Envelope:
        """Read the JSON fields of either path: `ciphertext` (API) or `chat_history` (relay), `cipherkey`, `iv`,
        `tag`, `mode`; others are passed over.

        The mode is `mode`, else what the field says in any case, else GCM where there is a tag, else CBC. Hand
        `mode` in where you rely on GCM, or whoever carries the message may choose. Raises WireError for what is
        missing, is not strict base64, or contradicts itself.
        """
        names = [name for name in ("ciphertext", "chat_history") if fields.get(name) is not None]
        if len(names) != 1:
            raise WireError("A classic message has either the field ciphertext or the field chat_history.")
        tag = _field(fields, "tag")
        said = _said_mode(fields.get("mode"))
        if mode is not None and said is not None and said is not mode:
            raise WireError(f"A {mode} message is wanted; this one says {said}.")
        iv = _field(fields, "iv")
        if iv is None:
            raise WireError("A classic message has the field iv.")
        return cls(
            ciphertext=_field(fields, names[0]) or b"",
            iv=iv,
            cipherkey=_field(fields, "cipherkey"),
            tag=tag,
            mode=mode or said or (CipherMode.CBC if tag is None else CipherMode.GCM),
        )

    def fields(self) -> dict[str, str]:
        """For the JSON of the API path. The mode is only named where it is not CBC, as in the original."""
        fields = {"ciphertext": self.ciphertext, "cipherkey": self.cipherkey, "iv": self.iv, "tag": self.tag}
        shown = {name: base64.b64encode(value).decode("ascii") for name, value in fields.items() if value is not None}
        return shown if self.mode is CipherMode.CBC else {**shown, "mode": self.mode.value}

    def relay_fields(self) -> dict[str, str]:
        """For the JSON of the relay path. Raises ValueError for GCM: that path has no room for tag and mode."""
        if self.mode is not CipherMode.CBC:
            raise ValueError("The classic relay path carries CBC messages only.")
        fields = self.fields()
        return {"chat_history": fields.pop("ciphertext"), **fields}


def seal_classic(
    plaintext: bytes,
    to: ClassicPublicKey,
    *,
    mode: CipherMode = CipherMode.CBC,
    associated_data: bytes = b"",
    pkcs1v15: bool = False,
    random: Callable[[int], bytes] = os.urandom,
) -> Envelope:
    """Seal `plaintext` (bytes) to a key, under an AES key of its own.

    `associated_data` is authenticated and not sent; it needs GCM. `pkcs1v15` only for a reader that is known to
    understand nothing else. `random` is asked first for the AES key (32), then for the IV. Raises ValueError for
    associated data under CBC.
    """
    sealer = ClassicStreamSealer(to, mode=mode, associated_data=associated_data, pkcs1v15=pkcs1v15, random=random)
    return sealer.seal(plaintext)


def open_classic(envelope: Envelope, key: ClassicKey, *, associated_data: bytes = b"") -> bytes:
    """The plaintext of a message. With CBC it may have been altered; see above.

    Raises WireError when there is no cipherkey, and Unopenable, which never says why, when it was altered, sealed
    to another key or with other associated data, or in CBC while associated data is expected.
    """
    return ClassicStreamOpener(key, associated_data=associated_data).open(envelope)


class ClassicStreamSealer:
    """One end of a stream of pieces: one AES key, wrapped into the first piece, and a fresh IV for each."""

    __slots__ = ("_associated_data", "_cipher", "_cipherkey", "_ivs", "_random", "mode")

    def __init__(
        self,
        to: ClassicPublicKey,
        *,
        mode: CipherMode = CipherMode.CBC,
        associated_data: bytes = b"",
        pkcs1v15: bool = False,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """As for `seal_classic`; `associated_data` goes for every piece."""
        if associated_data and mode is CipherMode.CBC:
            raise ValueError("CBC authenticates nothing; associated data needs GCM.")
        aes_key = random(AES_KEY_BYTES)
        self.mode = mode
        self._cipher = _Cipher(aes_key)
        self._cipherkey: bytes | None = to.wrap(aes_key, pkcs1v15=pkcs1v15)
        self._associated_data = associated_data
        self._random = random
        self._ivs: set[bytes] = set()

    def seal(self, plaintext: bytes) -> Envelope:
        """The next piece. Raises TooLarge after MAX_PIECES, and SealError when `random` gives an IV again."""
        if len(self._ivs) >= MAX_PIECES:
            raise TooLarge(f"A stream has {MAX_PIECES} pieces at most; begin another.")
        iv = self._random(self.mode.iv_bytes)
        if iv in self._ivs:
            raise SealError("The source of randomness repeats itself; nothing can be sealed on this machine.")
        self._ivs.add(iv)
        ciphertext, tag = self._cipher.seal(self.mode, iv, plaintext, self._associated_data)
        cipherkey, self._cipherkey = self._cipherkey, None
        return Envelope(ciphertext, iv, cipherkey, tag, self.mode)


class ClassicStreamOpener:
    """The other end of a stream of pieces. Its errors stick: after one, everything raises BadRecord."""

    __slots__ = ("_associated_data", "_broken", "_cipher", "_ivs", "_key", "_mode")

    def __init__(self, key: ClassicKey, *, associated_data: bytes = b"") -> None:
        self._key = key
        self._associated_data = associated_data
        self._mode: CipherMode | None = None
        self._cipher: _Cipher | None = None
        self._ivs: set[bytes] = set()
        self._broken = False

    def open(self, envelope: Envelope) -> bytes:
        """The plaintext of the next piece.

        Raises for the first piece WireError when it brings no cipherkey and Unopenable when it does not open; for
        later ones BadRecord when one came before, brings a cipherkey, is in another mode, or does not open. A piece
        that is missing, or out of its place, is not noticed.
        """
        if self._broken:
            raise BadRecord
        self._broken = True  # until this piece has opened
        plaintext = self._first(envelope) if self._cipher is None else self._next(self._cipher, envelope)
        self._ivs.add(envelope.iv)
        self._broken = False
        return plaintext

    def _first(self, envelope: Envelope) -> bytes:
        if envelope.cipherkey is None:
            raise WireError("A classic message, and the first piece of a stream, has the field cipherkey.")
        if self._associated_data and envelope.mode is CipherMode.CBC:
            raise Unopenable(CLOSED)
        self._cipher = _Cipher(self._key.unwrap(envelope.cipherkey))
        self._mode = envelope.mode
        try:
            return self._cipher.open(envelope, self._associated_data)
        except (InvalidTag, ValueError):
            raise Unopenable(CLOSED) from None

    def _next(self, cipher: _Cipher, envelope: Envelope) -> bytes:
        if envelope.cipherkey is not None:
            _bad("A later piece of the stream brings a key again; nothing after it can be trusted.")
        if envelope.mode is not self._mode:
            _bad("A later piece of the stream is in another mode; nothing after it can be trusted.")
        if envelope.iv in self._ivs:
            _bad("A piece of the stream came twice; nothing after it can be trusted.")
        if len(self._ivs) >= MAX_PIECES:
            _bad(f"The stream has more than {MAX_PIECES} pieces.")
        try:
            return cipher.open(envelope, self._associated_data)
        except (InvalidTag, ValueError):
            raise BadRecord from None


class _Cipher:
    """AES-256 under one key, in either mode."""

    __slots__ = ("_aes", "_gcm")

    def __init__(self, key: bytes) -> None:
        self._aes = AES(key)
        self._gcm = AESGCM(key)

    def seal(self, mode: CipherMode, iv: bytes, plaintext: bytes, associated_data: bytes) -> tuple[bytes, bytes | None]:
        """Ciphertext and, in GCM, the tag."""
        if mode is CipherMode.GCM:
            sealed = self._gcm.encrypt(iv, plaintext, associated_data)
            return sealed[:-TAG_BYTES], sealed[-TAG_BYTES:]
        padder, encryptor = PKCS7(BLOCK_BYTES * 8).padder(), Cipher(self._aes, CBC(iv)).encryptor()
        padded = padder.update(plaintext) + padder.finalize()
        return encryptor.update(padded) + encryptor.finalize(), None

    def open(self, envelope: Envelope, associated_data: bytes) -> bytes:
        """The plaintext. Raises InvalidTag in GCM, ValueError in CBC."""
        if envelope.mode is CipherMode.GCM:
            return self._gcm.decrypt(envelope.iv, envelope.ciphertext + (envelope.tag or b""), associated_data)
        decryptor, unpadder = Cipher(self._aes, CBC(envelope.iv)).decryptor(), PKCS7(BLOCK_BYTES * 8).unpadder()
        padded = decryptor.update(envelope.ciphertext) + decryptor.finalize()
        return unpadder.update(padded) + unpadder.finalize()


def _bad(why: str) -> NoReturn:
    raise BadRecord(why)


def _field(fields: Mapping[str, object], name: str) -> bytes | None:
    """A field's bytes; None when it is absent or null. Raises WireError unless it is strict base64."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:
            pass
    raise WireError(f"The field {name} of a classic message is base64.")


def _said_mode(value: object) -> CipherMode | None:
    if value is None:
        return None
    try:
        return CipherMode(value.upper() if isinstance(value, str) else "")
    except ValueError:
        raise WireError("The mode of a classic message is CBC or GCM.") from None
