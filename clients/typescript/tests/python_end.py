"""The Python half of the interop tests: one JSON object per line in, one out.

Bytes are hex, and base64 where it is about the classic envelope.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from typing import Any

from tokenplace.sealing.classic import (
    CipherMode,
    ClassicStreamOpener,
    ClassicStreamSealer,
    Envelope,
    open_classic,
    seal_classic,
)
from tokenplace.sealing.exchange import open_request, seal_request
from tokenplace.sealing.keys import KeyRing, SealingPrivateKey
from tokenplace.sealing.rsa import ClassicKey, ClassicPublicKey
from tokenplace.wire.card import SealingKey
from tokenplace.wire.request import Kem
from tokenplace.wire.stream import RecordKind, RecordSplitter

now_ms = time.time_ns() // 1_000_000
pending = None
answer: dict[str, Any]
classic = ClassicKey.generate()


def classic_answer(asked: dict[str, Any]) -> dict[str, Any]:
    """The same with the classic envelope: as a stream of pieces, and alone."""
    context = asked.get("context", "").encode()
    match asked["do"]:
        case "classic open":
            opener = ClassicStreamOpener(classic, associated_data=context)
            pieces = [opener.open(Envelope.parse(piece)) for piece in asked["stream"]]
            alone = open_classic(Envelope.parse(asked["alone"]), classic, associated_data=context)
            return {
                "stream": [base64.b64encode(piece).decode() for piece in pieces],
                "alone": base64.b64encode(alone).decode(),
            }
        case "classic seal":
            to, mode, words = (
                ClassicPublicKey.parse(asked["key"]),
                CipherMode(asked["mode"]),
                base64.b64decode(asked["words"]),
            )
            sealer = ClassicStreamSealer(to, mode=mode, associated_data=context)
            envelope = seal_classic(words, to, mode=mode, associated_data=context)
            return {
                "stream": [sealer.seal(piece).fields() for piece in (words, b"second")],
                "alone": envelope.fields(),
            }
        case _:
            return {"key": classic.public.wire}


for line in sys.stdin:
    asked = json.loads(line)
    kem = Kem(asked.get("kem", Kem.X25519_MLKEM768))
    match asked["do"]:
        case "open":  # our node opens what TypeScript sealed, and answers
            private = SealingPrivateKey(kem, bytes.fromhex(asked["private"]), 0, 2 * now_ms)
            opened = open_request(bytes.fromhex(asked["sealed"]), KeyRing(private), now_ms=now_ms)
            sealer = opened.answer()
            records = [sealer.nonce_record(), sealer.seal(RecordKind.HEAD, b"head")]
            records += [sealer.seal(RecordKind.DATA, bytes.fromhex(data)) for data in asked["data"]]
            records.append(sealer.seal(RecordKind.FINAL, b"{}"))
            answer = {"body": opened.body.hex(), "wire": b"".join(record.pack() for record in records).hex()}
        case "seal":  # our client seals for TypeScript
            key = SealingKey(kem, bytes.fromhex(asked["public"]), 0, 2 * now_ms)
            sealed, pending = seal_request(bytes.fromhex(asked["body"]), key, now_ms=now_ms)
            answer = {"sealed": sealed.hex()}
        case "read" if pending is not None:  # … and reads the answer
            nonce, *records = RecordSplitter().feed(bytes.fromhex(asked["wire"]))
            opener = pending.accept(nonce.payload)
            answer = {"data": [opener.open(record).hex() for record in records]}
            opener.finish()
        case "classic key" | "classic open" | "classic seal":
            answer = classic_answer(asked)
        case _:
            answer = {"error": "unknown question"}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
