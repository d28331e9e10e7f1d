from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tokenplace.client.trust import Memory, Standing, Trust
from tokenplace.errors import UntrustedCard
from tokenplace.sealing.identity import Identity
from tokenplace.wire.card import Card, CardBody
from tokenplace.wire.ids import NodeId, node_id_of

ME = Identity(b"m" * 32)
OTHER = Identity(b"o" * 32)


def a_card(sequence: int = 1, identity: Identity = ME) -> Card:
    return identity.sign_card(CardBody(identity.public, sequence, issued_ms=0, keys=(), models=()))


def test_a_node_is_new_until_an_answer_of_it_was_opened() -> None:
    trust = Trust()
    first = trust.check(a_card())
    assert first.standing is Standing.NEW
    assert trust.check(a_card()).standing is Standing.NEW
    trust.met(first.body)
    assert trust.check(a_card()).standing is Standing.KNOWN
    assert trust.check(a_card(identity=OTHER)).standing is Standing.NEW


def test_with_pins_nobody_else_is_believed() -> None:
    trust = Trust([ME.node])
    assert trust.check(a_card()).standing is Standing.PINNED
    with pytest.raises(UntrustedCard, match="neither one of those you pinned nor vouched"):
        trust.check(a_card(identity=OTHER))


ISSUER = Identity(b"i" * 32)


def a_voucher(*nodes: Identity, issuer: Identity = ISSUER, until_ms: int = 1_000) -> str:
    return issuer.sign_voucher([node.node for node in nodes], now_ms=0, life_ms=until_ms).text


def test_with_issuers_only_nodes_they_vouch_for_are_believed_and_only_until_it_ends() -> None:
    now = [500]
    trust = Trust(issuers=[ISSUER.node], wall_ms=lambda: now[0])
    assert not trust.admits(ME.node)
    trust.vouch(a_voucher(ME))
    assert trust.check(a_card()).standing is Standing.VOUCHED
    assert trust.named == {ME.node}
    with pytest.raises(UntrustedCard, match="nor vouched for"):
        trust.check(a_card(identity=OTHER))
    now[0] = 1_000
    with pytest.raises(UntrustedCard, match="nor vouched for"):
        trust.check(a_card())
    assert trust.named == set()


def test_a_pinned_node_needs_no_voucher() -> None:
    trust = Trust([OTHER.node], issuers=[ISSUER.node], wall_ms=lambda: 0)
    trust.vouch(a_voucher(ME))
    assert trust.check(a_card(identity=OTHER)).standing is Standing.PINNED
    assert trust.named == {ME.node, OTHER.node}


def test_a_voucher_of_nobody_one_believes_is_refused() -> None:
    trust = Trust(issuers=[ISSUER.node], wall_ms=lambda: 0)
    with pytest.raises(UntrustedCard, match="not among those you believe"):
        trust.vouch(a_voucher(ME, issuer=OTHER))


def test_a_card_nobody_signed_is_not_believed_however_often_it_is_shown() -> None:
    trust = Trust()
    for _ in range(2):
        with pytest.raises(UntrustedCard, match="not signed"):
            trust.check(replace(a_card(), signature=bytes(64)))


def test_a_body_that_was_not_signed_is_never_taken_from_the_card_beside_it() -> None:
    forged = replace(a_card(), body=a_card(99, OTHER).body)
    assert Trust().check(forged).body.node == ME.node


def test_an_older_card_than_the_one_seen_is_refused_also_of_a_pinned_node() -> None:
    for trust in (Trust(), Trust([ME.node])):
        trust.met(trust.check(a_card(5)).body)
        with pytest.raises(UntrustedCard, match="old card"):
            trust.check(a_card(4))
        trust.check(a_card(5))
        trust.check(a_card(6))


def test_an_answer_under_an_older_card_does_not_make_the_newer_one_forgotten() -> None:
    trust = Trust()
    older, newer = trust.check(a_card(5)), trust.check(a_card(6))
    trust.met(newer.body)
    trust.met(older.body)
    with pytest.raises(UntrustedCard):
        trust.check(a_card(5))


# -- the memory --------------------------------------------------------------------------------------------------------


def test_the_memory_outlives_the_program(tmp_path: Path) -> None:
    file = tmp_path / "state" / "known.json"
    Memory(file).meet(ME.node, 7)
    assert Memory(file).sequence(ME.node) == 7
    assert [path.name for path in file.parent.iterdir()] == ["known.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"nodes": 5}',
        b'{"nodes": {"a": "x"}}',
        b'{"nodes": {"a": null}}',
        b'{"nodes": {"a": 1e999}}',
        b"[" * 100_000,
    ],
)
def test_a_memory_that_cannot_be_read_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "known.json"
    file.write_bytes(content)
    memory = Memory(file)
    assert memory.sequence(ME.node) is None
    memory.meet(ME.node, 1)
    assert json.loads(file.read_text()) == {"nodes": {ME.node: 1}}


def test_a_memory_that_cannot_be_written_is_kept_for_this_time(tmp_path: Path) -> None:
    (tmp_path / "not-a-folder").write_text("")
    memory = Memory(tmp_path / "not-a-folder" / "known.json")
    memory.meet(ME.node, 1)
    assert memory.sequence(ME.node) == 1


def test_a_memory_that_is_a_folder_breaks_nothing(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.meet(ME.node, 1)
    assert memory.sequence(ME.node) == 1


def test_the_nodes_not_met_for_longest_are_forgotten_first() -> None:
    memory = Memory()
    memory.meet(ME.node, 1)
    for number in range(1999):
        memory.meet(NodeId(node_id_of(number.to_bytes(32, "big"))), 1)
    memory.meet(ME.node, 1)
    memory.meet(OTHER.node, 1)
    assert memory.sequence(ME.node) == 1
    assert memory.sequence(node_id_of(bytes(32))) is None
