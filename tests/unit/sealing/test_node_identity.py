from __future__ import annotations

import dataclasses

import pytest

from tokenplace.errors import UntrustedCard, WireError
from tokenplace.sealing.identity import Identity, verify, verify_card
from tokenplace.sealing.keys import KeyRing
from tokenplace.wire.card import Card, CardBody, ModelCard, hello_signing_input
from tokenplace.wire.ids import ModelId, NodeId
from tokenplace.wire.request import Kem

NOW = 1_767_225_600_000
NODE = Identity.generate()
OTHER = Identity.generate()


def body(identity: Identity = NODE, **extra: object) -> CardBody:
    return CardBody(
        identity=identity.public,
        sequence=1,
        issued_ms=NOW,
        keys=KeyRing.generate(now_ms=NOW, kem=Kem.X25519).public_keys(NOW),
        models=(ModelCard(ModelId("smollm2-135m"), 8192, ("chat",), "ab" * 32),),
        extra=extra,
    )


def test_a_card_is_believed_by_those_who_pinned_its_node_and_by_those_who_pinned_none() -> None:
    said = body(region="somewhere")
    card = Card.parse(NODE.sign_card(said).text)
    assert verify_card(card, NODE.node) == said
    assert verify_card(card, None) == said
    assert card.node == NODE.node


def test_a_card_of_another_node_is_not_believed_however_well_it_is_signed() -> None:
    with pytest.raises(UntrustedCard, match=OTHER.node):
        verify_card(OTHER.sign_card(body(OTHER)), NODE.node)


def test_a_card_shows_what_was_signed_and_not_what_was_put_beside_it() -> None:
    good = NODE.sign_card(body())
    fooled = dataclasses.replace(good, body=dataclasses.replace(good.body, sequence=99))
    assert verify_card(fooled, NODE.node).sequence == 1
    swapped = dataclasses.replace(OTHER.sign_card(body(OTHER)), body=good.body)
    with pytest.raises(UntrustedCard):
        verify_card(swapped, NODE.node)


def test_a_card_whose_bytes_are_no_card_is_untrusted() -> None:
    with pytest.raises(UntrustedCard):
        verify_card(Card(body=body(), signed=b"{}", signature=bytes(64)), NODE.node)


def test_an_identity_signs_for_itself_only() -> None:
    with pytest.raises(ValueError, match="another identity"):
        NODE.sign_card(body(OTHER))


def test_a_card_that_no_client_could_read_is_not_signed() -> None:
    with pytest.raises(WireError):
        NODE.sign_card(body(padding="x" * 70_000))


def test_a_challenge_is_answered_for_the_relay_that_was_dialled() -> None:
    signature = NODE.sign_hello(b"n" * 32, "relay.example")
    assert verify(NODE.public, signature, hello_signing_input(b"n" * 32, "relay.example"))
    assert not verify(NODE.public, signature, hello_signing_input(b"n" * 32, "relay.test"))
    assert not verify(OTHER.public, signature, hello_signing_input(b"n" * 32, "relay.example"))


@pytest.mark.parametrize("public", [b"", bytes(31), b"\xff" * 32])
def test_a_key_that_is_none_verifies_nothing(public: bytes) -> None:
    assert not verify(public, bytes(64), b"")


def test_an_identity_survives_the_disk() -> None:
    again = Identity.from_bytes(NODE.to_bytes())
    assert len(NODE.to_bytes()) == 32
    assert (again.public, again.node) == (NODE.public, NODE.node)
    with pytest.raises(WireError):
        Identity.from_bytes(NODE.to_bytes()[:-1])


def test_the_seed_is_in_no_representation() -> None:
    identity = Identity.generate(random=lambda size: b"Q" * size)
    assert "QQ" not in repr(identity)
    assert (b"Q" * 4).hex() not in f"{identity}{identity!r}"
    assert NodeId(identity.node) in repr(identity)
