"""The Python half of python.test.ts: one JSON object per line in, one out. Bytes are hex."""

from __future__ import annotations

import json
import sys
import time

from tokenplace.sealing.exchange import open_request, seal_request
from tokenplace.sealing.keys import KeyRing, SealingPrivateKey
from tokenplace.wire.card import SealingKey
from tokenplace.wire.request import Kem
from tokenplace.wire.stream import RecordKind, RecordSplitter

now_ms = time.time_ns() // 1_000_000
pending = None

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
        case _:
            answer = {"error": "unknown question"}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
