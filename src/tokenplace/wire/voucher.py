"""A voucher: a list of nodes that somebody vouches for, signed by them. Whoever trusts the issuer trusts the nodes.

It travels as a card does, `base64url(body) "." base64url(signature)`. The body is JSON

    {"v": 2, "issuer": id, "identity": key, "issued_ms": …, "expires_ms": …, "nodes": [id, …]}

and the signature is Ed25519 over `"tp/2 voucher\\0" ‖ body`. The issuer's id follows from the identity key as a node's
does, so that people can tell each other whom they trust. Reading a voucher proves nothing; `sealing.identity` does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from tokenplace.errors import TooLarge, WireError
from tokenplace.wire.card import IDENTITY_BYTES, SIGNATURE_BYTES, b64, unb64
from tokenplace.wire.ids import NodeId, node_id_of, parse_node_id

SIGNING_PREFIX = b"tp/2 voucher\0"
VERSION = 2
MAX_NODES = 1000
MAX_VOUCHER = 64 * 1024
"""Characters of a voucher: MAX_NODES ids, their quotes and base64."""


@dataclass(frozen=True, slots=True)
class Voucher:
    """A voucher as it was read. `signed` are the exact bytes under the signature; times are unix milliseconds."""

    issuer: NodeId
    identity: bytes
    issued_ms: int
    expires_ms: int
    nodes: tuple[NodeId, ...]
    signed: bytes
    signature: bytes

    @property
    def text(self) -> str:
        """The compact form that travels."""
        return f"{b64(self.signed)}.{b64(self.signature)}"

    def signing_input(self) -> bytes:
        """What the issuer's identity signed."""
        return SIGNING_PREFIX + self.signed

    @classmethod
    def parse(cls, text: str) -> Voucher:
        """Read a voucher without believing it. Raises WireError."""
        if len(text) > MAX_VOUCHER:
            raise TooLarge(f"A voucher may have {MAX_VOUCHER} characters; this one has {len(text)}.")
        head, dot, tail = text.strip().partition(".")
        if not dot:
            raise WireError("A voucher is two base64url parts with a dot between.")
        signed, signature = unb64(head), unb64(tail)
        try:
            body = json.loads(signed)
            identity, nodes = unb64(body["identity"]), body["nodes"]
            issued, expires = _time(body["issued_ms"]), _time(body["expires_ms"])
            if body["v"] != VERSION or len(identity) != IDENTITY_BYTES or len(signature) != SIGNATURE_BYTES:
                raise ValueError
            if not isinstance(nodes, list) or not 0 < len(nodes) <= MAX_NODES:
                raise ValueError
            ids = tuple(parse_node_id(str(node)) for node in nodes)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, WireError):
            raise WireError("This is no voucher.") from None
        issuer = node_id_of(identity)
        if body.get("issuer") != issuer:
            raise WireError("The voucher's issuer does not follow from its key.")
        return cls(issuer, identity, issued, expires, ids, signed, signature)


def pack_body(identity: bytes, nodes: tuple[NodeId, ...], issued_ms: int, expires_ms: int) -> bytes:
    """The JSON bytes that an issuer signs. Raises WireError for no nodes or too many."""
    if not 0 < len(nodes) <= MAX_NODES:
        raise WireError(f"A voucher names 1 to {MAX_NODES} nodes; this one {len(nodes)}.")
    body = {
        "v": VERSION,
        "issuer": node_id_of(identity),
        "identity": b64(identity),
        "issued_ms": issued_ms,
        "expires_ms": expires_ms,
        "nodes": list(nodes),
    }
    return json.dumps(body, separators=(",", ":")).encode()


def _time(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError
    return value
