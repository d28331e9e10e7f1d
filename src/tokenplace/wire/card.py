"""A node's card: who it is, which keys it seals with and what it serves, signed by its identity.

A card travels as `base64url(body) "." base64url(signature)`, body being JSON and the signature Ed25519 over
`"tp/2 card\\0" ‖ body`. The bytes that were signed travel unchanged, so nobody needs canonical JSON.
Reading a card proves nothing; `sealing.identity.verify_card` (clients) or the relay's verifier does.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenplace.errors import TooLarge, WireError
from tokenplace.wire.ids import ModelId, NodeId, node_id_of
from tokenplace.wire.limits import MAX_CARD_ENTRIES, MAX_CARD_MODELS, MAX_CARD_NUMBER, MAX_CONTROL
from tokenplace.wire.request import Kem, key_id_of

SIGNING_PREFIX = b"tp/2 card\0"
HELLO_PREFIX = b"tp/2 hello\0"
IDENTITY_BYTES = 32
SIGNATURE_BYTES = 64


def b64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def unb64(text: str) -> bytes:
    """The reverse of `b64`, strict: there is one spelling for any bytes. Raises WireError."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise WireError("This is not base64url.") from None
    if b64(data) != text:  # the library lets padding, the other alphabet and stray bits at the end pass
        raise WireError("This is not base64url without padding.")
    return data


@dataclass(frozen=True, slots=True)
class SealingKey:
    """One public key that requests may be sealed to. Times are unix milliseconds."""

    kem: Kem
    public: bytes
    not_before_ms: int
    not_after_ms: int

    @property
    def key_id(self) -> bytes:
        """What the request header calls it."""
        return key_id_of(self.kem, self.public)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model that the node serves: its id, context in tokens, what it can do, and its file's SHA-256."""

    id: ModelId
    context: int
    capabilities: tuple[str, ...] = ()
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class CardBody:
    """What a card says. `sequence` grows with every change, so that an old card cannot pass for a new one."""

    identity: bytes
    sequence: int
    issued_ms: int
    keys: tuple[SealingKey, ...]
    models: tuple[ModelCard, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)
    node: NodeId = field(init=False, repr=False, compare=False)
    """The node's id follows from its identity key. Reckoned once: a relay asks for it with every request."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "node", node_id_of(self.identity))

    def pack(self) -> bytes:
        """The JSON bytes that get signed."""
        body = {
            **self.extra,
            "v": 2,
            "node": self.node,
            "identity": b64(self.identity),
            "sequence": self.sequence,
            "issued_ms": self.issued_ms,
            "keys": [
                {
                    "kem": key.kem,
                    "public": b64(key.public),
                    "not_before_ms": key.not_before_ms,
                    "not_after_ms": key.not_after_ms,
                }
                for key in self.keys
            ],
            "models": [
                {
                    "id": model.id,
                    "context": model.context,
                    "capabilities": list(model.capabilities),
                    "digest": model.digest,
                }
                for model in self.models
            ],
        }
        return json.dumps(body, separators=(",", ":")).encode()


_KNOWN = frozenset({"v", "node", "identity", "sequence", "issued_ms", "keys", "models"})


@dataclass(frozen=True, slots=True)
class Card:
    """A card as it travels. `body` is parsed, `signed` are the exact bytes under the signature."""

    body: CardBody
    signed: bytes
    signature: bytes

    @property
    def text(self) -> str:
        """The compact form that travels in JSON."""
        return f"{b64(self.signed)}.{b64(self.signature)}"

    @property
    def node(self) -> NodeId:
        """The node's id."""
        return self.body.node

    def signing_input(self) -> bytes:
        """What the identity key signed."""
        return SIGNING_PREFIX + self.signed

    @classmethod
    def parse(cls, text: str) -> Card:
        """Read a card without believing it. Raises WireError when it is malformed or contradicts itself."""
        if len(text) > MAX_CONTROL:
            raise TooLarge(f"A card may have {MAX_CONTROL} characters; this one has {len(text)}.")
        head, dot, tail = text.partition(".")
        if not dot:
            raise WireError("A card is two base64url parts with a dot between.")
        signed, signature = unb64(head), unb64(tail)
        if len(signature) != SIGNATURE_BYTES:
            raise WireError("A card's signature has 64 bytes.")
        try:
            body = _read_body(json.loads(signed))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise WireError(f"The card's body is not what a card says ({type(error).__name__}).") from None
        return cls(body=body, signed=signed, signature=signature)


def _read_body(raw: dict[str, Any]) -> CardBody:
    if raw["v"] != 2:
        raise ValueError
    identity = unb64(raw["identity"])
    if len(identity) != IDENTITY_BYTES:
        raise ValueError
    keys = tuple(
        SealingKey(
            kem=Kem(key["kem"]),
            public=unb64(key["public"]),
            not_before_ms=_whole(key["not_before_ms"]),
            not_after_ms=_whole(key["not_after_ms"]),
        )
        for key in _few(raw["keys"], MAX_CARD_ENTRIES)
        if key["kem"] in set(Kem)
    )
    models = tuple(
        ModelCard(
            id=ModelId(_text(model["id"])),
            context=_whole(model["context"]),
            capabilities=tuple(_text(item) for item in _few(model["capabilities"], MAX_CARD_ENTRIES)),
            digest=None if model.get("digest") is None else _text(model["digest"]),
        )
        for model in _few(raw["models"], MAX_CARD_MODELS)
    )
    body = CardBody(
        identity=identity,
        sequence=_whole(raw["sequence"]),
        issued_ms=_whole(raw["issued_ms"]),
        keys=keys,
        models=models,
        extra={name: value for name, value in raw.items() if name not in _KNOWN},
    )
    if raw["node"] != body.node:
        raise ValueError
    return body


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_CARD_NUMBER:
        raise ValueError
    return value


def _few(value: list[Any], most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        raise ValueError
    return value


def hello_signing_input(nonce: bytes, authority: str) -> bytes:
    """What a node signs to answer a relay's challenge.

    The relay's own name is under the signature, so that one relay cannot pass another's challenge on to a node and
    appear there in the node's place.
    """
    return HELLO_PREFIX + len(nonce).to_bytes(1, "big") + nonce + authority.lower().encode()
