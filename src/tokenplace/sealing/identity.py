"""Who a node is: an Ed25519 key (RFC 8032) that signs its cards and its answers to a relay's challenge.

The node id that people pin is a fingerprint of the public half (`wire.ids.node_id_of`). The identity never seals
anything, and what it signs always begins with a prefix naming the purpose, so no signature serves for another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tokenplace.errors import UntrustedCard, WireError
from tokenplace.wire.card import Card, CardBody, b64, hello_signing_input
from tokenplace.wire.ids import NodeId, node_id_of
from tokenplace.wire.voucher import SIGNING_PREFIX, Voucher, pack_body

SEED_BYTES = 32


class Identity:
    """A node's signing key. `public` is 32 bytes, `node` the id that follows from it."""

    __slots__ = ("_key", "node", "public")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise WireError(f"An identity has {SEED_BYTES} bytes; this one has {len(seed)}.")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public: bytes = self._key.public_key().public_bytes_raw()
        self.node: NodeId = node_id_of(self.public)

    def __repr__(self) -> str:
        return f"<Identity {self.node}>"

    @classmethod
    def generate(cls, *, random: Callable[[int], bytes] = os.urandom) -> Identity:
        """A new identity."""
        return cls(random(SEED_BYTES))

    @classmethod
    def from_bytes(cls, seed: bytes) -> Identity:
        """The identity with this 32-byte seed. Raises WireError."""
        return cls(seed)

    def to_bytes(self) -> bytes:
        """The secret 32-byte seed, for storage."""
        return self._key.private_bytes_raw()

    def sign_card(self, body: CardBody) -> Card:
        """The card that says `body`, signed and read back, so that what is shown is what clients will read.

        Raises WireError when no client could read it (too large, or values that a card cannot have), ValueError
        when the body names another identity.
        """
        if body.identity != self.public:
            raise ValueError("The card's body names another identity.")
        signed = body.pack()
        card = Card(body=body, signed=signed, signature=b"")
        return Card.parse(f"{b64(signed)}.{b64(self._key.sign(card.signing_input()))}")

    def sign_voucher(self, nodes: Iterable[NodeId], *, now_ms: int, life_ms: int) -> Voucher:
        """A voucher for these nodes, read back as its readers will. Raises WireError for no nodes or too many."""
        signed = pack_body(self.public, tuple(dict.fromkeys(nodes)), now_ms, now_ms + life_ms)
        return Voucher.parse(f"{b64(signed)}.{b64(self._key.sign(SIGNING_PREFIX + signed))}")

    def sign_hello(self, nonce: bytes, authority: str) -> bytes:
        """The 64-byte answer to the challenge `nonce` of the relay that this node dialled as `authority`."""
        return self._key.sign(hello_signing_input(nonce, authority))


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` over `message` is by the owner of the Ed25519 key `public` (32 bytes)."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def verify_card(card: Card, expected: NodeId | None) -> CardBody:
    """What a card says, once it is certain that the node itself says it.

    `expected` is the id that the client trusts; None takes the card of any node, which proves only that nobody
    altered it. The body returned is read from the signed bytes. Raises UntrustedCard.
    """
    try:
        body = Card.parse(card.text).body
    except WireError as error:
        raise UntrustedCard(f"The node's card cannot be read: {error.message}") from None
    if expected is not None and body.node != expected:
        raise UntrustedCard(f"The card is of node {body.node}, not of {expected}; nothing was sent.")
    if not verify(body.identity, card.signature, card.signing_input()):
        raise UntrustedCard(f"The card of node {body.node} is not signed by that node; nothing was sent.")
    return body


def verify_voucher(text: str, issuers: Collection[NodeId], *, now_ms: int) -> Voucher:
    """A voucher that one of the trusted `issuers` signed and that has not expired. Raises UntrustedCard, WireError."""
    voucher = Voucher.parse(text)
    if voucher.issuer not in issuers:
        raise UntrustedCard(f"Vouchers of {voucher.issuer} are not among those you believe.")
    if not verify(voucher.identity, voucher.signature, voucher.signing_input()):
        raise UntrustedCard("This voucher is not signed by who it says.")
    if voucher.expires_ms <= now_ms:
        raise UntrustedCard("This voucher has expired; ask its issuer for a newer one.")
    return voucher
