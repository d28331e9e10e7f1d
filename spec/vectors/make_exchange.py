"""Writes `exchange.json`, the byte-level facts of the sealed exchange, or checks it (`--check`).

This is a second writing of the format, from the specification: it shares nothing with `src/`, so that a mistake has
to be made twice to go unseen. All inputs are fixed. Only HPKE sealing is random in the library; its results are
recorded once and, as long as they open to what they should, taken over from the file that exists.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import math
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite

FILE = Path(__file__).with_name("exchange.json")

NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z
DAY = 86_400_000
SKEW = 300_000
MEMORY = 600_000
X25519, HYBRID = 0x0020, 0x647A
ENC_BYTES = {X25519: 32, HYBRID: 1120}
HEADER_BYTES = 40
STRANGER = "sealed to a key that this node never had"
MAX_REQUEST = 8 * 1024 * 1024 + 64 * 1024
HEAD, DATA, FINAL, ABORT, NONCE, NOTICE, OUTCOME = 0, 1, 2, 3, 0x80, 0x81, 0x82
SEALED_KINDS = {"HEAD": HEAD, "DATA": DATA, "FINAL": FINAL, "ABORT": ABORT}

SUITES = {
    X25519: Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
    HYBRID: Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
}

Json = dict[str, Any]


def fixed(label: str, size: int) -> bytes:
    """Bytes that look random and are the same every time."""
    return hashlib.shake_256(b"token.place vectors: " + label.encode()).digest(size)


# --- padding ---------------------------------------------------------------------------------------------------


def request_size(data: int) -> int:
    """PADMÉ as its paper writes it, but in multiples of 256 where its own steps are finer."""
    total = 4 + data
    e = math.floor(math.log2(total))
    s = math.floor(math.log2(e)) + 1
    step: int = 1 << (e - s)
    return math.ceil(total / max(step, 256)) * max(step, 256)


def record_size(data: int) -> int:
    """64-byte steps."""
    return math.ceil((4 + data) / 64) * 64


def pad(data: bytes, size: int) -> bytes:
    """Length, data, zeros."""
    return (struct.pack(">I", len(data)) + data).ljust(size, b"\0")


# --- requests --------------------------------------------------------------------------------------------------


class Key:
    """A sealing key with its private half."""

    def __init__(self, name: str, kem: int) -> None:
        self.name, self.kem = name, kem
        self.private: X25519PrivateKey | MLKEM768X25519PrivateKey
        if kem == X25519:
            self.raw = fixed(name, 32)
            self.private = X25519PrivateKey.from_private_bytes(self.raw)
            self.public = self.private.public_key().public_bytes_raw()
        else:
            self.raw = fixed(name, 96)
            mlkem = MLKEM768PrivateKey.from_seed_bytes(self.raw[:64])
            curve = X25519PrivateKey.from_private_bytes(self.raw[64:])
            self.private = MLKEM768X25519PrivateKey(mlkem, curve)
            self.public = mlkem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        self.key_id = hashlib.sha256(struct.pack(">H", kem) + self.public).digest()[:8]

    def as_json(self) -> Json:
        """As it stands in the file."""
        return {
            "name": self.name,
            "kem": self.kem,
            "private": self.raw.hex(),
            "public": self.public.hex(),
            "key_id": self.key_id.hex(),
            "not_before_ms": NOW - 1000,
            "not_after_ms": NOW - 1000 + DAY,
        }


class Request:
    """One sealed request and everything that went into it."""

    def __init__(self, recorded: dict[str, str], name: str, key: Key, body: bytes, plaintext: bytes | None = None):
        self.name, self.key, self.body = name, key, body
        self.request_id, self.secret = fixed(f"{name}: id", 16), fixed(f"{name}: secret", 32)
        self.header = struct.pack(">BB8sHHH16sQ", 2, 0, key.key_id, key.kem, 1, 2, self.request_id, NOW)
        self.padded = pad(body, request_size(len(body)))
        plaintext = self.secret + self.padded if plaintext is None else plaintext
        info = b"tp/2 request\0" + self.header
        suite = SUITES[key.kem]
        before = bytes.fromhex(recorded.get(name, ""))
        try:
            kept = before[:HEADER_BYTES] == self.header and (
                suite.decrypt(before[HEADER_BYTES:], key.private, info=info) == plaintext
            )
        except InvalidTag:
            kept = False
        sealed = suite.encrypt(plaintext, key.private.public_key(), info=info)
        self.sealed = before if kept else self.header + sealed
        self.enc = self.sealed[HEADER_BYTES : HEADER_BYTES + ENC_BYTES[key.kem]]

    def as_json(self) -> Json:
        """As it stands in the file."""
        return {
            "name": self.name,
            "key": self.key.name,
            "request_id": self.request_id.hex(),
            "time_ms": NOW,
            "response_secret": self.secret.hex(),
            "body": self.body.hex(),
            "padded_size": len(self.padded),
            "header": self.header.hex(),
            "enc": self.enc.hex(),
            "sealed": self.sealed.hex(),
        }


# --- answers ---------------------------------------------------------------------------------------------------


def expand(prk: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand (RFC 5869) of at most one block."""
    return hmac.digest(prk, label + b"\x01", "sha256")[:size]


class Answer:
    """One answer: keys, and a way to seal any record, legal or not."""

    def __init__(self, name: str, request: Request) -> None:
        self.name, self.request = name, request
        self.nonce = fixed(f"{name}: nonce", 32)
        prk = hmac.digest(request.enc + self.nonce, request.secret, "sha256")
        self.key, self.base = expand(prk, b"key", 32), expand(prk, b"nonce", 12)

    def seal(self, number: int, kind: int, data: bytes, padded: bytes | None = None) -> bytes:
        """The record `number` as it travels."""
        padded = pad(data, record_size(len(data))) if padded is None else padded
        nonce = bytes(a ^ b for a, b in zip(self.base, struct.pack(">IQ", 0, number), strict=True))
        aad = struct.pack(">IBQ", len(padded) + 16, kind, number)
        return wire_record(kind, AESGCM(self.key).encrypt(nonce, padded, aad))

    def stream(self, *parts: tuple[int, bytes]) -> list[bytes]:
        """Records 0, 1, 2, …"""
        return [self.seal(number, kind, data) for number, (kind, data) in enumerate(parts)]

    def as_json(self, parts: Sequence[tuple[int, bytes]]) -> Json:
        """As it stands in the file."""
        return {
            "name": self.name,
            "request": self.request.name,
            "enc": self.request.enc.hex(),
            "response_secret": self.request.secret.hex(),
            "nonce": self.nonce.hex(),
            "key": self.key.hex(),
            "base_nonce": self.base.hex(),
            "nonce_record": wire_record(NONCE, self.nonce).hex(),
            "records": [
                {"number": number, "kind": kind, "data": data.hex(), "wire": self.seal(number, kind, data).hex()}
                for number, (kind, data) in enumerate(parts)
            ],
        }


def wire_record(kind: int, payload: bytes) -> bytes:
    """Length, kind, payload."""
    return struct.pack(">IB", len(payload), kind) + payload


def flip(data: bytes, bit: int) -> bytes:
    """With one bit other than before; bit 0 is the highest of the first byte."""
    changed = bytearray(data)
    changed[bit // 8] ^= 0x80 >> bit % 8
    return bytes(changed)


# --- cards -----------------------------------------------------------------------------------------------------


def b64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Signer:
    """A node's identity."""

    def __init__(self, name: str) -> None:
        self.name, self.seed = name, fixed(name, 32)
        self.key = Ed25519PrivateKey.from_private_bytes(self.seed)
        self.public = self.key.public_key().public_bytes_raw()
        self.node = base64.b32encode(hashlib.sha256(self.public).digest()[:20]).decode().lower()

    def body(self, keys: Sequence[Key]) -> Json:
        """What this node's card says."""
        return {
            "v": 2,
            "node": self.node,
            "identity": b64(self.public),
            "sequence": 7,
            "issued_ms": NOW,
            "keys": [
                {"kem": key.kem, "public": b64(key.public), "not_before_ms": NOW, "not_after_ms": NOW + DAY}
                for key in keys
            ],
            "models": [
                {"id": "smollm2-135m", "context": 8192, "capabilities": ["chat"], "digest": "ab" * 32},
                {"id": "echo", "context": 4096, "capabilities": [], "digest": None},
            ],
        }

    def sign(self, signed: bytes) -> bytes:
        """The signature of a card's bytes."""
        return self.key.sign(b"tp/2 card\0" + signed)


def compact(body: Json) -> bytes:
    """JSON without spaces."""
    return json.dumps(body, separators=(",", ":")).encode()


def card_json(name: str, signer: Signer, body: Json) -> Json:
    """A good card as it stands in the file."""
    signed = compact(body)
    return {
        "name": name,
        "expected_node": signer.node,
        "identity": signer.public.hex(),
        "signed": signed.hex(),
        "signature": signer.sign(signed).hex(),
        "text": f"{b64(signed)}.{b64(signer.sign(signed))}",
        "sequence": body["sequence"],
        "key_ids": [
            hashlib.sha256(struct.pack(">H", key["kem"]) + base64.urlsafe_b64decode(key["public"] + "=="))
            .digest()[:8]
            .hex()
            for key in body["keys"]
            if key["kem"] in (X25519, HYBRID)
        ],
        "models": [model["id"] for model in body["models"]],
    }


# --- the file --------------------------------------------------------------------------------------------------


def padding_section() -> Json:
    """Sizes, and paddings that must be refused."""
    requests = [0, 1, 251, 252, 253, 508, 509, 764, 765, 1020, 1021, 1276, 1277, 2044, 2045, 4092, 4093, 4348, 4349]
    requests += [7932, 7933, 8188, 8189, 8700, 8701, 9000, 16_380, 16_381, 17_404, 17_405, 65_532, 65_533]
    requests += [1_000_000, 8 * 1024 * 1024 - 4]
    records = [0, 1, 59, 60, 61, 123, 124, 125, 4096, 65_467, 65_468]
    return {
        "request_sizes": [{"data": data, "padded": request_size(data)} for data in requests],
        "record_sizes": [{"data": data, "padded": record_size(data)} for data in records],
        "request_faults": [
            fault("the last byte of the padding is not zero", padded=pad(b"words", 256)[:-1] + b"\x01"),
            fault("the first byte of the padding is not zero", padded=b"\0\0\0\x05words\x01" + bytes(246)),
            fault("the length is beyond the end", padded=struct.pack(">I", 253) + bytes(252)),
            fault("the length is as large as it can be", padded=b"\xff" * 4 + bytes(252)),
            fault("one step too much", padded=pad(b"words", 512)),
            fault("not a whole step", padded=pad(b"words", 255)),
            fault("a step finer than 256 bytes, as PADMÉ alone would have it", padded=pad(bytes(1400), 1408)),
            fault("a step of 256 bytes where PADMÉ has a wider one", padded=pad(bytes(8189), 8448)),
            fault("shorter than a length", padded=b"\0\0\0"),
            fault("empty", padded=b""),
        ],
        "record_faults": [
            fault("the last byte of the padding is not zero", padded=pad(b"words", 64)[:-1] + b"\x01"),
            fault("the length is beyond the end", padded=struct.pack(">I", 61) + bytes(60)),
            fault("one step too much", padded=pad(b"words", 128)),
            fault("not a whole step", padded=pad(b"words", 63)),
            fault("empty", padded=b""),
        ],
    }


def fault(name: str, *, expect: str = "bad_format", **values: bytes | str) -> Json:
    """One thing that must be refused, and how."""
    shown = {key: value.hex() if isinstance(value, bytes) else value for key, value in values.items()}
    return {"name": name, **shown, "expect": expect}


def one_bit(name: str, bit: int) -> Json:
    """One bit behind the header."""
    return {"name": name, "bits_from": bit, "bits_to": bit + 1, "expect": "unopenable"}


def request_faults(base: Request, other: Request, stranger: Request) -> list[Json]:
    """Everything that may be wrong with one request. `other` is another request to the same key."""
    enc, end = HEADER_BYTES + len(base.enc), len(base.sealed)
    fields = [
        ("version", 0, 8, "bad_format"),
        ("flags", 8, 16, "bad_format"),
        ("key id", 16, 80, "key_unknown"),
        ("suite", 80, 128, "bad_format"),
        ("request id", 128, 256, "unopenable"),
        ("time", 256, 320, "unopenable"),
    ]
    bits: list[Json] = [
        {"name": f"any one bit of the {field} is flipped", "bits_from": first, "bits_to": end_, "expect": expect}
        for field, first, end_, expect in fields
    ]
    for part, first, last in [("enc", HEADER_BYTES, enc), ("ciphertext", enc, end - 16), ("tag", end - 16, end)]:
        bits.append(one_bit(f"the first bit of the {part} is flipped", first * 8))
        bits.append(one_bit(f"the last bit of the {part} is flipped", last * 8 - 1))
    # X25519 ignores the highest bit of a point; the seal must not.
    bits.append(one_bit("the bit of enc that X25519 ignores is flipped", enc * 8 - 8))
    cuts: list[Json] = [
        {"name": "empty", "keep": 0, "expect": "bad_format"},
        {"name": "the header is cut short", "keep": HEADER_BYTES - 1, "expect": "bad_format"},
        {"name": "only the header", "keep": HEADER_BYTES, "expect": "bad_format"},
        {"name": "not even a tag after enc", "keep": enc + 15, "expect": "bad_format"},
        {"name": "only a tag after enc", "keep": enc + 16, "expect": "unopenable"},
        {"name": "the last byte is missing", "keep": end - 1, "expect": "unopenable"},
        {"name": "a byte too much", "append": "00", "expect": "unopenable"},
        {"name": "larger than any request may be", "extend_to": MAX_REQUEST + 1, "expect": "too_large"},
        {
            "name": "the header of another request",
            "sealed": (other.header + base.sealed[HEADER_BYTES:]).hex(),
            "expect": "unopenable",
        },
        {
            "name": "enc of another request",
            "sealed": (base.header + other.enc + base.sealed[enc:]).hex(),
            "expect": "unopenable",
        },
        {"name": STRANGER, "sealed": stranger.sealed.hex(), "expect": "key_unknown"},
        {
            "name": "sealed to another node's key under this node's key id",
            "sealed": (stranger.sealed[:2] + base.key.key_id + stranger.sealed[10:]).hex(),
            "expect": "unopenable",
        },
    ]
    return [{"base": base.name, **each} for each in bits + cuts]


def clock_section(base: str) -> Json:
    """When a request is too old, too new, or was here before."""
    return {
        "request": base,
        "fresh": [
            {"name": "as old as it may be", "now_ms": NOW + SKEW, "expect": None},
            {"name": "too old", "now_ms": NOW + SKEW + 1, "expect": "clock_skew"},
            {"name": "as far ahead as it may be", "now_ms": NOW - SKEW, "expect": None},
            {"name": "too far ahead", "now_ms": NOW - SKEW - 1, "expect": "clock_skew"},
        ],
        "replayed": [
            {"name": "twice at once", "at_ms": [NOW, NOW], "expect": [None, "replayed"]},
            {"name": "again at the last moment", "at_ms": [NOW - SKEW, NOW + SKEW], "expect": [None, "replayed"]},
            {
                "name": "when it is forgotten it is also too old",
                "at_ms": [NOW, NOW + MEMORY],
                "expect": [None, "clock_skew"],
            },
        ],
    }


CHAT = [
    (HEAD, b'{"status":200,"content_type":"text/event-stream"}'),
    (DATA, b'data: {"choices":[{"delta":{"content":"Hello"}}]}\n\n'),
    (DATA, b""),
    (
        DATA,
        b'data: {"choices":[{"delta":{"content":", "}}]}\n\ndata: {"choices":[{"delta":{"content":"world"}}]}\n\n',
    ),
    (FINAL, b'{"usage":{"prompt_tokens":3,"completion_tokens":3}}'),
]
BROKEN_OFF = [*CHAT[:2], (ABORT, b'{"code":"engine_crashed"}')]
REFUSED = [(ABORT, b'{"code":"context_length_exceeded"}')]


def answer_faults(good: Answer, foreign: Answer, stranger: Answer) -> list[Json]:
    """Streams with one fault: how many records open before it, and the error then (or at the end of input)."""
    records, strange = good.stream(*CHAT), foreign.stream(*CHAT)
    nonce = wire_record(NONCE, good.nonce)
    faults: list[Json] = []

    def add(name: str, stream: Sequence[bytes], opens: int, expect: str, first: bytes = nonce) -> None:
        wire = [first.hex(), *(record.hex() for record in stream)]
        faults.append({"base": good.name, "name": name, "wire": wire, "opens": opens, "expect": expect})

    def put(index: int, record: bytes) -> list[bytes]:
        return [*records[:index], record, *records[index + 1 :]]

    last = len(records) - 1
    add("two records change places", [records[0], records[2], records[1], *records[3:]], 1, "bad_record")
    for index in range(last):
        add(f"record {index} is missing", records[:index] + records[index + 1 :], index, "bad_record")
    for index in range(len(records)):
        add(f"record {index} comes twice", [*records[: index + 1], *records[index:]], index + 1, "bad_record")
    for count in range(len(records)):
        add(f"the stream ends after {count} records", records[:count], count, "truncated")
    add("an aborted answer loses its end", foreign_cut(good), 2, "truncated")
    for index, (kind, _) in enumerate(CHAT):
        if index == 2:
            continue
        for name, other in SEALED_KINDS.items():
            if other != kind:
                changed = records[index][:4] + bytes([other]) + records[index][5:]
                add(f"record {index} is called {name}", put(index, changed), index, "bad_record")
    as_notice = records[1][:4] + bytes([NOTICE]) + records[1][5:]
    add("record 1 is called a NOTICE, so nobody opens it", put(1, as_notice), 1, "bad_record")
    as_outcome = records[last][:4] + bytes([OUTCOME]) + records[last][5:]
    add("the end is called an OUTCOME, so nobody opens it", put(last, as_outcome), last, "truncated")
    for index in range(len(records)):
        add(f"record {index} is of another answer", put(index, strange[index]), index, "bad_record")
        add(f"a bit of record {index} is flipped", put(index, flip(records[index], 5 * 8 + 3)), index, "bad_record")
        end = flip(records[index], len(records[index]) * 8 - 1)
        add(f"the last bit of record {index} is flipped", put(index, end), index, "bad_record")
    kind = records[1][4]
    add("a record is a byte shorter", put(1, wire_record(kind, records[1][5:-1])), 1, "bad_record")
    add("a record is a byte longer", put(1, wire_record(kind, records[1][5:] + b"\0")), 1, "bad_record")
    add("a record is empty", put(1, wire_record(kind, b"")), 1, "bad_record")
    add("a record comes after the end", [*records, good.seal(len(records), DATA, b"more")], len(records), "bad_record")
    add("the end comes twice", [*records, good.seal(len(records), FINAL, b"{}")], len(records), "bad_record")
    strangers = wire_record(NONCE, stranger.nonce)
    add("the whole answer is to another request", stranger.stream(*CHAT), 0, "bad_record", first=strangers)
    add("the nonce is another", records, 0, "bad_record", first=wire_record(NONCE, foreign.nonce))
    add("a bit of the nonce is flipped", records, 0, "bad_record", first=flip(nonce, 5 * 8))
    add("the nonce is a byte short", records, 0, "bad_format", first=wire_record(NONCE, good.nonce[:-1]))
    # From here on the node itself sealed what it should not have.
    add("the answer begins with DATA", good.stream((DATA, b"x"), *CHAT[1:]), 0, "bad_record")
    add("the answer is only a FINAL", good.stream((FINAL, b"{}")), 0, "bad_record")
    add("a second HEAD", good.stream(CHAT[0], CHAT[0], *CHAT[2:]), 1, "bad_record")
    add("an ABORT after the end", good.stream(*CHAT, *REFUSED), len(CHAT), "bad_record")
    for each in padding_section()["record_faults"]:
        padded = good.seal(1, DATA, b"", bytes.fromhex(each["padded"]))
        add(f"sealed with a wrong padding: {each['name']}", put(1, padded), 1, "bad_record")
    return faults


def foreign_cut(answer: Answer) -> list[bytes]:
    """The aborted answer under the same keys, without its ABORT."""
    return answer.stream(*BROKEN_OFF)[:-1]


def card_section(keys: Sequence[Key], small: Key) -> Json:
    """Good cards, and cards that a client must refuse."""
    node, foreign = Signer("node"), Signer("foreign node")
    good = node.body([small])
    signature = node.sign(compact(good))
    future = {
        "region": "somewhere",
        **node.body(keys),
        "keys": [*node.body(keys)["keys"], {"kem": 0x9999, "shape": "of a later version"}],
    }
    faults: list[Json] = []

    def add(name: str, signed: bytes | str, signature: bytes, expect: str = "untrusted_card") -> None:
        text = signed if isinstance(signed, str) else f"{b64(signed)}.{b64(signature)}"
        faults.append({"name": name, "expected_node": node.node, "text": text, "expect": expect})

    def altered(name: str, change: Callable[[Json], object], expect: str = "untrusted_card") -> None:
        body = json.loads(compact(good))
        change(body)
        add(f"{name} is altered", compact(body), signature, expect)

    altered("v", lambda body: body.update(v=3), "bad_format")
    altered("node", lambda body: body.update(node=foreign.node), "bad_format")
    altered("identity", lambda body: body.update(identity=b64(foreign.public)), "bad_format")
    altered("node and identity", lambda body: body.update(node=foreign.node, identity=b64(foreign.public)))
    altered("sequence", lambda body: body.update(sequence=8))
    altered("issued_ms", lambda body: body.update(issued_ms=NOW + 1))
    altered("keys[0].kem", lambda body: body["keys"][0].update(kem=HYBRID))
    altered("keys[0].public", lambda body: body["keys"][0].update(public=b64(fixed("another key", 32))))
    altered("keys[0].not_before_ms", lambda body: body["keys"][0].update(not_before_ms=NOW + 1))
    altered("keys[0].not_after_ms", lambda body: body["keys"][0].update(not_after_ms=NOW + 2 * DAY))
    altered("keys (one removed)", lambda body: body["keys"].clear())
    altered("keys (one added)", lambda body: body["keys"].append(dict(body["keys"][0], public=b64(bytes(32)))))
    altered("models[0].id", lambda body: body["models"][0].update(id="gpt-5"))
    altered("models[0].context", lambda body: body["models"][0].update(context=8193))
    altered("models[0].capabilities", lambda body: body["models"][0].update(capabilities=["chat", "vision"]))
    altered("models[0].digest", lambda body: body["models"][0].update(digest="cd" * 32))
    altered("models (one removed)", lambda body: body["models"].pop())
    altered("extra (a field added)", lambda body: body.update(region="elsewhere"))
    add("the same words with a space between", json.dumps(good).encode(), signature)
    add("signed by a foreign identity", compact(good), foreign.sign(compact(good)))
    add("signed without the prefix", compact(good), node.key.sign(compact(good)))
    add("signed as the answer to a challenge", compact(good), node.key.sign(b"tp/2 hello\0" + compact(good)))
    add("a bit of the signature is flipped", compact(good), flip(signature, 100))
    add("the signature is all zeros", compact(good), bytes(64))
    theirs = compact(foreign.body([small]))
    add("another node's own card", theirs, foreign.sign(theirs))
    add("the signature is a byte short", compact(good), signature[:-1], "bad_format")
    add("no signature", b64(compact(good)), b"", "bad_format")
    add("empty", "", b"", "bad_format")
    add("not base64url", f"{b64(compact(good))}!.{b64(signature)}", b"", "bad_format")
    add("not JSON", b"{", node.sign(b"{"), "bad_format")
    for missing in good:
        body = {name: value for name, value in good.items() if name != missing}
        add(f"without {missing}", compact(body), node.sign(compact(body)), "bad_format")
    negative = compact({**good, "sequence": -1})
    add("a negative sequence number", negative, node.sign(negative), "bad_format")
    return {
        "identities": [
            {"name": each.name, "seed": each.seed.hex(), "public": each.public.hex(), "node": each.node}
            for each in (node, foreign)
        ],
        "signing_prefix": b"tp/2 card\0".hex(),
        "good": [
            card_json("one key", node, good),
            card_json("two keys", node, node.body(keys)),
            card_json("words and keys of a later version are passed over", node, future),
        ],
        "faults": faults,
    }


def hello_section() -> Json:
    """Answers to a relay's challenge. `valid` says whether the signature holds for these inputs."""
    node, foreign = Signer("node"), Signer("foreign node")
    nonce, authority = fixed("challenge", 32), "relay.example:8080"

    def signing_input(nonce: bytes, authority: str) -> bytes:
        return b"tp/2 hello\0" + bytes([len(nonce)]) + nonce + authority.lower().encode()

    signature = node.key.sign(signing_input(nonce, authority))
    cases = [
        ("good", node.public, nonce, authority, signature, True),
        ("capitals in the relay's name do not matter", node.public, nonce, "Relay.Example:8080", signature, True),
        ("another relay's challenge", node.public, nonce, "other.example:8080", signature, False),
        ("another challenge", node.public, fixed("another challenge", 32), authority, signature, False),
        ("a byte moved from the nonce to the name", node.public, nonce[:-1], "\x00" + authority, signature, False),
        ("another node", foreign.public, nonce, authority, signature, False),
        ("a card's signature", node.public, nonce, authority, node.sign(signing_input(nonce, authority)), False),
        ("a flipped bit", node.public, nonce, authority, flip(signature, 300), False),
        ("no signature", node.public, nonce, authority, b"", False),
    ]
    return {
        "seed": node.seed.hex(),
        "cases": [
            {
                "name": name,
                "identity": public.hex(),
                "nonce": nonce.hex(),
                "authority": authority,
                "signing_input": signing_input(nonce, authority).hex(),
                "signature": signed.hex(),
                "valid": valid,
            }
            for name, public, nonce, authority, signed, valid in cases
        ],
    }


def make(recorded: dict[str, str]) -> Json:
    """The whole file; `recorded` are sealed requests of the file before, by name."""
    hybrid, curve = Key("hybrid key", HYBRID), Key("x25519 key", X25519)
    chat = b'{"path":"/v1/chat/completions","body":{"model":"smollm2-135m","messages":[]}}'

    def request(name: str, key: Key, body: bytes, plaintext: bytes | None = None) -> Request:
        return Request(recorded, name, key, body, plaintext)

    requests: list[Request] = []
    for label, key in [("hybrid", hybrid), ("x25519", curve)]:
        requests.append(request(f"{label}: chat", key, chat))
        sizes = [0, 1, 252, 253, 5000] if key is hybrid else [0, 1, 252, 253, 1020, 1021, 5000]
        requests += [request(f"{label}: {size} bytes", key, fixed(f"body {size}", size)) for size in sizes]
    by_name = {each.name: each for each in requests}

    mispadded: list[Json] = []
    for each in padding_section()["request_faults"]:
        name = f"sealed with a wrong padding: {each['name']}"
        plaintext = fixed(f"{name}: secret", 32) + bytes.fromhex(each["padded"])
        mispadded.append(fault(name, sealed=request(name, curve, b"", plaintext).sealed))
    name = "no room for a response secret"
    mispadded.append(fault(name, sealed=request(name, curve, b"", bytes(31)).sealed))

    faults: list[Json] = []
    for label, key in [("hybrid", hybrid), ("x25519", curve)]:
        stranger = request(f"{label}: chat: {STRANGER}", Key(f"stranger's {label} key", key.kem), chat)
        faults += request_faults(by_name[f"{label}: chat"], by_name[f"{label}: 1 bytes"], stranger)

    finished = Answer("finished", by_name["hybrid: chat"])
    aborted = Answer("aborted", by_name["x25519: chat"])
    refused = Answer("refused", by_name["x25519: 1 bytes"])
    again = Answer("another answer to the same request", by_name["hybrid: chat"])
    sizes_shown = [(HEAD, b"{}"), (DATA, b"\0" * 1000), (DATA, b"y" * 60), (DATA, b"z" * 61), (FINAL, b"")]
    return {
        "format": "token.place sealed exchange tp/2, vectors 1",
        "read": "spec/README.md",
        "padding": padding_section(),
        "keys": [hybrid.as_json(), curve.as_json()],
        "requests": [each.as_json() for each in requests],
        "request_faults": faults + mispadded,
        "clock": clock_section("hybrid: chat"),
        "answers": [
            finished.as_json(CHAT),
            aborted.as_json(BROKEN_OFF),
            refused.as_json(REFUSED),
            Answer("sizes", by_name["x25519: 0 bytes"]).as_json(sizes_shown),
        ],
        "answer_faults": answer_faults(finished, again, Answer("a stranger's", by_name["x25519: chat"])),
        "cards": card_section([hybrid, curve], curve),
        "hello": hello_section(),
    }


def recorded_in(file: Path) -> dict[str, str]:
    """The sealed requests that the file already holds, by name."""
    if not file.exists():
        return {}
    before = json.loads(file.read_text("utf-8"))
    requests = {each["name"]: each["sealed"] for each in before["requests"]}
    for each in before["request_faults"]:
        if "sealed" in each:
            requests[f"{each['base']}: {each['name']}" if "base" in each else each["name"]] = each["sealed"]
    return requests


def main() -> int:
    """Write the file, or with --check say whether it is what it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when the file is not current")
    check = parser.parse_args().check
    text = json.dumps(make(recorded_in(FILE)), indent=1, ensure_ascii=False) + "\n"
    if not check:
        FILE.write_text(text, "utf-8")
        return 0
    if FILE.exists() and FILE.read_text("utf-8") == text:
        return 0
    sys.stderr.write("exchange.json is not what make_exchange.py makes; run it and look at the difference.\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
