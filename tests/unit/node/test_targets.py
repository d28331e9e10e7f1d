"""Which relays a node serves."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tokenplace.errors import WireError
from tokenplace.node.settings import DEFAULT_RELAY, NodeSettings
from tokenplace.node.targets import NoRelay, chosen, is_here, listed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://a.example, https://b.example", ["https://a.example", "https://b.example"]),
        ("https://a.example\nhttps://b.example\n", ["https://a.example", "https://b.example"]),
        ('["https://a.example", "https://b.example"]', ["https://a.example", "https://b.example"]),
        ('"https://a.example"', ["https://a.example"]),
        ("  ", []),
        ("[]", []),
        ('["", " "]', []),
    ],
)
def test_a_list_may_be_written_in_every_way_of_the_contract(text: str, expected: list[str]) -> None:
    assert listed(text) == expected


@pytest.mark.parametrize("text", ['["https://a.example"', "[1]", '[{"url": "x"}]', '"open'])
def test_what_is_no_list_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="JSON"):
        listed(text)


def test_one_relay_in_several_spellings_is_served_once() -> None:
    spellings = ["https://a.example", "https://A.example/", "https://a.example:443", "a.example", "https://a.example/x"]
    assert chosen([spellings], default=DEFAULT_RELAY) == ("https://a.example", "https://a.example/x")


def test_nobody_named_means_the_relay_on_this_machine() -> None:
    assert chosen([[], []], default=DEFAULT_RELAY) == (DEFAULT_RELAY,)


def test_what_is_no_address_is_told() -> None:
    with pytest.raises(WireError, match=r"https://relay\.example"):
        chosen([["ftp://a.example"]], default=DEFAULT_RELAY)


NAMES = ["localhost", "LOCALHOST.", "relay.localhost"]
SPELLINGS = ["127.0.0.1", "127.1", "127.9.9.9", "0", "0.0.0.0", "::1", "::"]


@pytest.mark.parametrize("host", [*NAMES, *SPELLINGS, "::ffff:127.0.0.1", "2130706433"])
def test_this_machine_is_known_in_all_its_spellings(host: str) -> None:
    assert is_here(host)


@pytest.mark.parametrize("host", ["relay.example", "localhost.example", "10.0.0.1", "192.168.1.5", "fd00::1", ""])
def test_other_machines_are_not_this_one(host: str) -> None:
    assert not is_here(host)


def test_cluster_only_leaves_this_machine_out_and_says_when_nothing_is_left() -> None:
    named = [["http://localhost:5000", "http://127.0.0.1:1", "http://relay:5000"]]
    assert chosen(named, default=DEFAULT_RELAY, cluster_only=True) == ("http://relay:5000",)
    with pytest.raises(NoRelay, match="TOKEN_PLACE_RELAY_UPSTREAMS"):
        chosen([[]], default=DEFAULT_RELAY, cluster_only=True)


def settings(**env: str) -> NodeSettings:
    return NodeSettings.model_validate(env)


ALL = {
    "TOKEN_PLACE_RELAYS": "https://own.example",
    "PERSONAL_GAMING_PC_URL": "https://gaming.example",
    "TOKEN_PLACE_RELAY_UPSTREAMS": '["https://up.example", "https://own.example"]',
    "TOKEN_PLACE_RELAY_CLOUDFLARE_URLS": "https://cf.example",
    "TOKEN_PLACE_RELAY_CLOUDFLARE_URL": "https://cf2.example",
}


def test_every_list_of_the_contract_counts_in_its_order() -> None:
    assert settings(**ALL).targets() == (
        "https://gaming.example",
        "https://own.example",
        "https://up.example",
        "https://cf.example",
        "https://cf2.example",
    )


def test_flags_come_first_and_replace_their_own_variable_only() -> None:
    targets = settings(**ALL | {"TOKEN_PLACE_RELAY_UPSTREAMS": "https://up.example"}).targets(["flag.example"])
    assert targets[0] == "https://flag.example"
    assert "https://own.example" not in targets
    assert "https://gaming.example" in targets


@pytest.mark.parametrize(("word", "on"), [("1", True), ("yes", True), ("ON", True), ("0", False), ("off", False)])
def test_cluster_only_is_a_word_of_the_contract(word: str, on: bool) -> None:
    assert settings(TOKEN_PLACE_RELAY_CLUSTER_ONLY=word).cluster_only is on


def test_a_word_that_means_neither_is_an_error_and_no_silent_no() -> None:
    with pytest.raises(ValidationError, match="TOKEN_PLACE_RELAY_CLUSTER_ONLY"):
        settings(TOKEN_PLACE_RELAY_CLUSTER_ONLY="maybe")
