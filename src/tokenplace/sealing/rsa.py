"""The RSA keys of the classic envelope, and the door to the library's RSA: an AES key is wrapped and unwrapped.

RSA encrypts the 44 characters of base64 that spell a 32-byte AES key, not the 32 bytes. The padding is OAEP with
SHA-256 twice and no label. Browsers that run the original's JavaScript (JSEncrypt) know PKCS#1 v1.5 only, so a key
may be told to unwrap that too; nothing else does.

PKCS#1 v1.5 tells a stranger about the plaintext whenever a badly padded message ends in any other way than a well
padded one (Bleichenbacher, CRYPTO 1998; Kario, "Everlasting ROBOT: the Marvin Attack", ESORICS 2023). So unwrapping
it never fails: OpenSSL (3.2 on) gives some bytes for a bad padding, and what is not a key's base64 becomes, in the
same steps, a key that depends on the message and on a secret of ours, always the same for the same message. Then AES
fails, as it does for an altered message. A library without that rejection is refused when the key is made.

Public keys travel as base64 of the whole PEM text. Accepted are also the PEM text, and base64 of DER (SPKI or
PKCS#1), which is what the original's page sends.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import threading
from collections import OrderedDict
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from tokenplace.errors import SealError, TooLarge, Unopenable, WireError
from tokenplace.wire.ids import KEY_ID_BYTES

AES_KEY_BYTES: Final = 32
DEFAULT_BITS: Final = 2048
MIN_BITS: Final = 2048
MAX_BITS: Final = 8192
"""A stranger's key of more bits would make the node work for seconds."""
BITS_STEP: Final = 256
EXPONENT: Final = 65537
"""The only public exponent: every maker of classic keys uses it, and a huge one is work for the node."""

MAX_KEY_TEXT: Final = 16 * 1024
"""Characters of a key as text: the base64 of a PEM of MAX_BITS takes 2 KiB, a private one 7."""

MAX_PARSED: Final = 256
"""Public keys that stay parsed: the clients a node has answered lately."""

_PEM: Final = b"-----BEGIN "
_OAEP: Final = OAEP(mgf=MGF1(SHA256()), algorithm=SHA256(), label=None)
_PKCS1V15: Final = PKCS1v15()
_KEY_TEXT: Final = len(base64.b64encode(bytes(AES_KEY_BYTES)))
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_TO_BASE64: Final = bytes(each if each in _BASE64 else _BASE64[0] for each in range(256))


class ClassicPublicKey:
    """A public RSA key that classic envelopes are sealed to. Equal when the keys are; safe to share among threads."""

    __slots__ = ("_public", "der", "pem")

    der: Final[bytes]
    """SPKI."""
    pem: Final[str]
    """SPKI as PEM text."""

    def __init__(self, public: RSAPublicKey) -> None:
        _check_shape(public)
        self._public = public
        self.der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")

    @classmethod
    def parse(cls, text: str | bytes) -> ClassicPublicKey:
        """A key as it travels: base64 of the PEM text, the PEM text, or base64 of DER (SPKI or PKCS#1).

        Whitespace around and within is passed over. Raises WireError when it is no RSA key of 2048 to 8192 bits in
        steps of 256 with the exponent 65537. What was parsed lately is remembered.
        """
        return _PARSED.parse(_plain_text(text))

    @property
    def bits(self) -> int:
        """The size of the modulus."""
        return self._public.key_size

    @property
    def key_id(self) -> bytes:
        """The first 8 bytes of SHA-256 of the DER."""
        return hashlib.sha256(self.der).digest()[:KEY_ID_BYTES]

    @property
    def wire(self) -> str:
        """The key as it travels: base64 of the PEM text."""
        return base64.b64encode(self.pem.encode("ascii")).decode("ascii")

    def wrap(self, aes_key: bytes, *, pkcs1v15: bool = False) -> bytes:
        """The `cipherkey` for an AES-256 key (32 bytes), as many bytes as the modulus has.

        `pkcs1v15` only on the explicit wish of a reader who knows nothing else. Raises WireError when the key turns
        out to be none.
        """
        if len(aes_key) != AES_KEY_BYTES:
            raise ValueError(f"An AES-256 key has {AES_KEY_BYTES} bytes, not {len(aes_key)}.")
        try:
            return self._public.encrypt(base64.b64encode(aes_key), _PKCS1V15 if pkcs1v15 else _OAEP)
        except ValueError:
            raise WireError(_NOT_A_KEY) from None

    def __eq__(self, other: object) -> bool:
        return self.der == other.der if isinstance(other, ClassicPublicKey) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.der)

    def __repr__(self) -> str:
        return f"<ClassicPublicKey {self.key_id.hex()} {self.bits} bits>"


class ClassicKey:
    """A private RSA key that opens classic envelopes. Safe to share among threads, and RSA lets them run at once.

    It is made (50 ms) or read (30 ms, the library checks it) once and kept: nothing here remembers a private key
    that its owner has let go, and nothing writes one down.
    """

    __slots__ = ("_private", "_rejection", "pkcs1v15", "public")

    public: Final[ClassicPublicKey]
    pkcs1v15: Final[bool]
    """Whether it also unwraps PKCS#1 v1.5."""

    def __init__(self, private: RSAPrivateKey, *, pkcs1v15: bool = False) -> None:
        """Take the library's key. Raises WireError for a shape that classic keys do not have, and SealError when
        `pkcs1v15` is asked of a library that cannot do it safely.
        """
        self.public = ClassicPublicKey(private.public_key())
        self.pkcs1v15 = pkcs1v15
        self._private = private
        self._rejection = os.urandom(32)
        if pkcs1v15 and not rejects_implicitly(private):
            raise SealError(
                "OpenSSL on this machine is older than 3.2 and cannot open PKCS#1 v1.5 safely; "
                "install the cryptography wheel from PyPI, or leave old JavaScript clients switched off."
            )

    @classmethod
    def generate(cls, *, bits: int = DEFAULT_BITS, pkcs1v15: bool = False) -> ClassicKey:
        """A fresh key. Takes some 50 ms at 2048 bits and ten times that at 4096: not on an event loop.

        Raises ValueError unless `bits` is 2048 to 8192 in steps of 256.
        """
        if not _good_bits(bits):
            raise ValueError(_SHAPE)
        return cls(generate_private_key(EXPONENT, bits), pkcs1v15=pkcs1v15)

    @classmethod
    def from_pem(cls, pem: str | bytes, *, pkcs1v15: bool = False) -> ClassicKey:
        """A private key from unencrypted PEM, PKCS#8 or PKCS#1. Raises WireError when it is no such key."""
        text = _as_bytes(pem)
        try:
            private = load_pem_private_key(text, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it is encrypted
            raise WireError("This is not a private RSA key as unencrypted PEM.") from None
        if not isinstance(private, RSAPrivateKey):
            raise WireError("This is a private key, but not for RSA.")
        return cls(private, pkcs1v15=pkcs1v15)

    @property
    def key_id(self) -> bytes:
        """What the public half calls itself."""
        return self.public.key_id

    @property
    def public_pem(self) -> str:
        """The public half as PEM text."""
        return self.public.pem

    def unwrap(self, cipherkey: bytes) -> bytes:
        """The AES key (32 bytes) that was wrapped.

        Raises Unopenable. A key that also takes PKCS#1 v1.5 raises it for a wrong length only: from whatever else is
        wrong it makes a key that opens nothing, so go on and let AES fail.
        """
        if len(cipherkey) * 8 != self.public.bits:
            raise Unopenable(CLOSED)
        try:
            return _aes_key_of(self._private.decrypt(cipherkey, _OAEP))
        except ValueError:
            if not self.pkcs1v15:
                raise Unopenable(CLOSED) from None
        try:
            text = self._private.decrypt(cipherkey, _PKCS1V15)
        except ValueError:  # not below the modulus, which anybody can see
            text = b""
        return self._key_or_rejection(text, cipherkey)

    def wrapped_by_oaep(self, cipherkey: bytes) -> bool:
        """Whether this `cipherkey` is padded with OAEP. Ask only of a message that has opened: it is an oracle."""
        try:
            self._private.decrypt(cipherkey, _OAEP)
        except ValueError:
            return False
        return True

    def _key_or_rejection(self, text: bytes, cipherkey: bytes) -> bytes:
        """The key that `text` spells, or, by the very same steps, one that nobody has."""
        rejection = hmac.digest(self._rejection, cipherkey, "sha256")
        padded = text[:_KEY_TEXT].ljust(_KEY_TEXT)
        # Every byte becomes a letter of base64 and the last is "=", so that decoding cannot fail either.
        key = binascii.a2b_base64(padded[:-1].translate(_TO_BASE64) + b"=")
        spelt = hmac.compare_digest(binascii.b2a_base64(key, newline=False), padded)
        return (rejection, key)[spelt & (len(text) == _KEY_TEXT)]

    def __repr__(self) -> str:
        return f"<ClassicKey {self.key_id.hex()} {self.public.bits} bits>"


CLOSED: Final = "This message does not open: it was altered on the way or sealed to another key."
"""What is said of every message that does not open, whatever the reason."""

_SHAPE: Final = f"A classic RSA key has {MIN_BITS} to {MAX_BITS} bits in steps of {BITS_STEP}."
_NOT_A_KEY: Final = "This is not a public RSA key as PEM, as base64 of PEM or as base64 of DER."


def rejects_implicitly(private: RSAPrivateKey) -> bool:
    """Whether the library answers a badly padded PKCS#1 v1.5 message with bytes instead of an error."""
    badly_padded = b"\2".rjust(private.key_size // 8, b"\0")  # its plaintext begins with 0, 2 once in 65,536 keys
    try:
        private.decrypt(badly_padded, _PKCS1V15)
    except ValueError:
        return False
    return True


class KeyCache:
    """The public keys that were parsed lately, by the digest of their text. Bounded; safe among threads."""

    def __init__(self, limit: int = MAX_PARSED) -> None:
        self._limit = limit
        self._keys: OrderedDict[bytes, ClassicPublicKey] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._keys)

    def parse(self, text: bytes) -> ClassicPublicKey:
        """The key that this text spells. Raises WireError; a text that is no key is not remembered."""
        digest = hashlib.sha256(text).digest()
        with self._lock:
            key = self._keys.get(digest)
            if key is not None:
                self._keys.move_to_end(digest)
                return key
        key = _parse_public(text)
        with self._lock:
            self._keys[digest] = key
            self._keys.move_to_end(digest)
            while len(self._keys) > self._limit:
                self._keys.popitem(last=False)
        return key


_PARSED: Final = KeyCache()


def _parse_public(text: bytes) -> ClassicPublicKey:
    try:
        data = text if text.startswith(_PEM) else base64.b64decode(b"".join(text.split()), validate=True)
        public = load_pem_public_key(data) if data.lstrip().startswith(_PEM) else load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise WireError(_NOT_A_KEY) from None
    if not isinstance(public, RSAPublicKey):
        raise WireError("This is a public key, but not for RSA.")
    return ClassicPublicKey(public)


def _check_shape(public: RSAPublicKey) -> None:
    """Refuse what is weak and what makes work. Raises WireError."""
    if not _good_bits(public.key_size):
        raise WireError(f"{_SHAPE} This one has {public.key_size}.")
    numbers = public.public_numbers()
    if numbers.e != EXPONENT or numbers.n % 2 == 0:
        raise WireError(f"A classic RSA key has an odd modulus and the public exponent {EXPONENT}.")


def _good_bits(bits: int) -> bool:
    return MIN_BITS <= bits <= MAX_BITS and bits % BITS_STEP == 0


def _as_bytes(text: str | bytes) -> bytes:
    if len(text) > MAX_KEY_TEXT:
        raise TooLarge(f"A key may have {MAX_KEY_TEXT} characters; this one has {len(text)}.")
    try:
        return text.encode("ascii") if isinstance(text, str) else bytes(text)
    except UnicodeEncodeError:
        raise WireError(_NOT_A_KEY) from None


def _plain_text(text: str | bytes) -> bytes:
    return _as_bytes(text).strip()


def _aes_key_of(text: bytes) -> bytes:
    """The key that an OAEP plaintext spells. Raises ValueError; OAEP has shown that its sender wrote it so."""
    key = base64.b64decode(text, validate=True)
    if len(key) != AES_KEY_BYTES:
        raise ValueError
    return key
