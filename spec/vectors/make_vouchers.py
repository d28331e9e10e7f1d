"""Writes `vouchers.json`, the byte-level facts of vouchers, or checks it (`--check`). It shares nothing with `src/`."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FILE = Path(__file__).with_name("vouchers.json")
NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z
DAY = 86_400_000
ISSUER, STRANGER = bytes(range(32)), bytes(range(32, 64))
PREFIX = b"tp/2 voucher\0"


def b64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def public(seed: bytes) -> bytes:
    """The Ed25519 public key of a seed."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def id_of(seed: bytes) -> str:
    """The id that follows from a seed's public key."""
    return base64.b32encode(hashlib.sha256(public(seed)).digest()[:20]).decode().lower()


NODES = [id_of(bytes([number]) * 32) for number in (7, 8, 9)]


def voucher(*, signer: bytes = ISSUER, prefix: bytes = PREFIX, **changes: Any) -> str:
    """A voucher; None takes a field away."""
    body = {
        "v": 2,
        "issuer": id_of(ISSUER),
        "identity": b64(public(ISSUER)),
        "issued_ms": NOW,
        "expires_ms": NOW + 90 * DAY,
        "nodes": NODES,
        **changes,
    }
    data = json.dumps({key: value for key, value in body.items() if value is not None}, separators=(",", ":")).encode()
    return f"{b64(data)}.{b64(Ed25519PrivateKey.from_private_bytes(signer).sign(prefix + data))}"


def good(name: str, text: str, *, nodes: list[str] = NODES, now: int = NOW + DAY) -> dict[str, Any]:
    """A voucher to be believed."""
    return {"name": name, "text": text, "issuer": id_of(ISSUER), "nodes": nodes, "now_ms": now}


def bad(name: str, text: str, code: str, *, now: int = NOW + DAY) -> dict[str, Any]:
    """A voucher to be refused with this code."""
    return {"name": name, "text": text, "code": code, "now_ms": now}


def content() -> dict[str, Any]:
    """Everything in the file."""
    plain = voucher()
    head, _, tail = plain.partition(".")
    flipped = bytearray(base64.urlsafe_b64decode(tail + "=="))
    flipped[10] ^= 1
    strange = {"issuer": id_of(STRANGER), "identity": b64(public(STRANGER))}
    return {
        "format": "token.place vouchers, version 2",
        "issuer": id_of(ISSUER),
        "good": [
            good("three nodes", plain),
            good("one node", voucher(nodes=NODES[:1]), nodes=NODES[:1]),
            good("fields that later versions may add", voucher(note="for friends")),
            good("a millisecond before its end", plain, now=NOW + 90 * DAY - 1),
        ],
        "bad": [
            bad("expired", plain, "untrusted_card", now=NOW + 90 * DAY),
            bad("signed by somebody else", voucher(signer=STRANGER), "untrusted_card"),
            bad("of an issuer who is not believed", voucher(signer=STRANGER, **strange), "untrusted_card"),
            bad("one bit of the signature flipped", f"{head}.{b64(bytes(flipped))}", "untrusted_card"),
            bad("a signature over the card's prefix", voucher(prefix=b"tp/2 card\0"), "untrusted_card"),
            bad(
                "another body under the signature",
                f"{voucher(nodes=NODES[:1]).partition('.')[0]}.{tail}",
                "untrusted_card",
            ),
            bad("an issuer that does not follow from the key", voucher(issuer=id_of(STRANGER)), "bad_format"),
            bad("no nodes", voucher(nodes=[]), "bad_format"),
            bad("a node that is no id", voucher(nodes=["friend"]), "bad_format"),
            bad("another version", voucher(v=3), "bad_format"),
            bad("no end", voucher(expires_ms=None), "bad_format"),
            bad("an end that is no number", voucher(expires_ms="soon"), "bad_format"),
            bad("without its signature", head, "bad_format"),
            bad("a body that is no JSON", f"{b64(b'hello')}.{tail}", "bad_format"),
        ],
    }


def main() -> None:
    """Write, or check."""
    text = json.dumps(content(), indent=1) + "\n"
    if "--check" in sys.argv:
        sys.exit(0 if FILE.read_text() == text else "vouchers.json is not what this program writes")
    FILE.write_text(text)


if __name__ == "__main__":
    main()
