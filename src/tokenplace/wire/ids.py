"""Names for the numbers and strings that travel, so that the type checker tells them apart."""

from __future__ import annotations

import base64
import hashlib
from typing import NewType

from tokenplace.errors import WireError

NodeId = NewType("NodeId", str)
"""32 lower-case base32 characters: SHA-256 of the node's Ed25519 identity key, first 20 bytes."""

JobId = NewType("JobId", str)
"""32 lower-case hex characters: the 16 random bytes the client chose as the request id."""

ModelId = NewType("ModelId", str)

Sid = NewType("Sid", int)
"""Stream id on one link (u32). Fresh for every offer, so that stale frames fall off."""

KEY_ID_BYTES = 8
JOB_ID_BYTES = 16
NODE_ID_BYTES = 20


def node_id_of(identity_public: bytes) -> NodeId:
    """The fingerprint people see and pin: base32(SHA-256(identity public key)[:20]), lower case."""
    digest = hashlib.sha256(identity_public).digest()[:NODE_ID_BYTES]
    return NodeId(base64.b32encode(digest).decode("ascii").lower())


def parse_node_id(text: str) -> NodeId:
    """A node id as a person or program wrote it. Raises WireError when it cannot be one."""
    cleaned = text.strip().replace("-", "").replace(" ", "").lower()
    if len(cleaned) != 32 or set(cleaned) - set("abcdefghijklmnopqrstuvwxyz234567"):
        raise WireError("A node id is 32 characters of a-z and 2-7.")
    return NodeId(cleaned)


def show_node_id(node: NodeId) -> str:
    """A node id in groups of four, as shown to people."""
    return "-".join(node[i : i + 4] for i in range(0, len(node), 4))


def job_id_of(request_id: bytes) -> JobId:
    """The job id is the request id of the sealed header, in hex."""
    return JobId(request_id.hex())


def parse_job_id(text: str) -> JobId:
    """A job id from a URL or a control frame. Raises WireError when it cannot be one."""
    if len(text) != 2 * JOB_ID_BYTES or set(text) - set("0123456789abcdef"):
        raise WireError("A job id is 32 lower-case hex characters.")
    return JobId(text)
