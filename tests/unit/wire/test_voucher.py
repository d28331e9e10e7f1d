"""Vouchers, by the vectors that the TypeScript client reads too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tokenplace.errors import TooLarge, UntrustedCard, WireError
from tokenplace.sealing.identity import Identity, verify_voucher
from tokenplace.wire.voucher import MAX_NODES, MAX_VOUCHER, Voucher

VECTORS = json.loads((Path(__file__).parents[3] / "spec/vectors/vouchers.json").read_text())
GOOD = {vector["name"]: vector for vector in VECTORS["good"]}
BAD = {vector["name"]: vector for vector in VECTORS["bad"]}


@pytest.mark.parametrize("vector", GOOD.values(), ids=GOOD)
def test_a_good_voucher_is_believed_of_its_issuer(vector: dict[str, Any]) -> None:
    voucher = verify_voucher(vector["text"], [vector["issuer"]], now_ms=vector["now_ms"])
    assert [voucher.issuer, list(voucher.nodes)] == [vector["issuer"], vector["nodes"]]
    assert voucher.text == vector["text"]


@pytest.mark.parametrize("vector", BAD.values(), ids=BAD)
def test_one_fault_is_enough(vector: dict[str, Any]) -> None:
    with pytest.raises((UntrustedCard, WireError)) as refused:
        verify_voucher(vector["text"], [VECTORS["issuer"]], now_ms=vector["now_ms"])
    assert refused.value.code == vector["code"]


def test_what_was_signed_is_what_is_read() -> None:
    me = Identity(b"i" * 32)
    nodes = [Identity(bytes([number]) * 32).node for number in (1, 2, 2)]
    voucher = me.sign_voucher(nodes, now_ms=1_000, life_ms=500)
    assert (voucher.issuer, voucher.nodes, voucher.issued_ms, voucher.expires_ms) == (
        me.node,
        tuple(dict.fromkeys(nodes)),
        1_000,
        1_500,
    )
    assert verify_voucher(voucher.text, [me.node], now_ms=1_499) == voucher


def test_a_voucher_for_nobody_or_for_too_many_is_not_made() -> None:
    me = Identity(b"i" * 32)
    many = [Identity(number.to_bytes(32, "big")).node for number in range(MAX_NODES + 1)]
    for nodes in ([], many):
        with pytest.raises(WireError, match="1 to 1000"):
            me.sign_voucher(nodes, now_ms=0, life_ms=1)
    assert len(me.sign_voucher(many[:MAX_NODES], now_ms=0, life_ms=1).text) <= MAX_VOUCHER
    with pytest.raises(TooLarge):
        Voucher.parse("a" * (MAX_VOUCHER + 1))


def test_the_recorded_vectors_are_what_their_maker_makes() -> None:
    maker = Path(__file__).parents[3] / "spec/vectors/make_vouchers.py"
    result = subprocess.run([sys.executable, str(maker), "--check"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
