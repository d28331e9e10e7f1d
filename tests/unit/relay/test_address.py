"""Who is really asking."""

from __future__ import annotations

from typing import Any, SupportsIndex

import pytest

from tokenplace.relay.address import (
    BadProxies,
    ForwardedHeader,
    TrustedProxies,
    _from_the_right,
    client_address,
)

XFF, FORWARDED = ForwardedHeader.X_FORWARDED_FOR, ForwardedHeader.FORWARDED


def scope(peer: str | None, *headers: tuple[str, str]) -> dict[str, Any]:
    return {
        "type": "http",
        "client": (peer, 4321) if peer else None,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        "state": {},
    }


def xff(*values: str) -> list[tuple[str, str]]:
    return [("x-forwarded-for", value) for value in values]


class Looks(str):
    """A text that counts how often somebody looks at one of its characters."""

    looks = 0

    def __getitem__(self, place: SupportsIndex | slice) -> str:
        self.looks += not isinstance(place, slice)
        return super().__getitem__(place)


def test_without_declared_proxies_headers_are_anybody_s_claim() -> None:
    asked = scope("203.0.113.9", *xff("198.51.100.1"), ("forwarded", "for=198.51.100.1"))
    assert TrustedProxies().client(asked).key == "203.0.113.9"


def test_a_declared_proxy_is_believed_about_its_client() -> None:
    proxies = TrustedProxies(["127.0.0.1"])
    assert proxies.client(scope("127.0.0.1", *xff("198.51.100.1"))).key == "198.51.100.1"


def test_what_the_client_wrote_itself_is_left_of_what_the_proxy_saw() -> None:
    proxies = TrustedProxies(["127.0.0.1"])
    assert proxies.client(scope("127.0.0.1", *xff("1.1.1.1, 198.51.100.1"))).key == "198.51.100.1"
    assert proxies.client(scope("127.0.0.1", *xff("1.1.1.1", "198.51.100.1"))).key == "198.51.100.1"


def test_a_chain_of_declared_proxies_is_followed_to_its_first_stranger() -> None:
    proxies = TrustedProxies(["127.0.0.1", "10.0.0.0/8"])
    asked = scope("127.0.0.1", *xff("6.6.6.6, 198.51.100.1, 10.2.3.4, 10.9.9.9"))
    assert proxies.client(asked).key == "198.51.100.1"


def test_a_chain_of_nothing_but_proxies_ends_at_the_farthest() -> None:
    proxies = TrustedProxies(["127.0.0.1", "10.0.0.0/8"])
    assert proxies.client(scope("127.0.0.1", *xff("10.0.0.7, 10.0.0.1"))).key == "10.0.0.7"


def test_an_entry_that_cannot_be_read_hides_all_before_it() -> None:
    proxies = TrustedProxies(["127.0.0.1", "10.0.0.0/8"])
    for entry in ("unknown", "_hidden", "", "999.1.1.1", "\x00", "a" * 5000):
        asked = scope("127.0.0.1", *xff(f"1.1.1.1, {entry}, 10.0.0.1"))
        assert proxies.client(asked).key == "10.0.0.1"


def test_a_stranger_who_pretends_to_be_a_proxy_is_counted_himself() -> None:
    proxies = TrustedProxies(["10.0.0.0/8"])
    assert proxies.client(scope("203.0.113.9", *xff("198.51.100.1"))).key == "203.0.113.9"


def test_only_the_header_that_the_proxies_write_is_read() -> None:
    both = [*xff("198.51.100.1"), ("forwarded", "for=192.0.2.7")]
    assert TrustedProxies(["127.0.0.1"], XFF).client(scope("127.0.0.1", *both)).key == "198.51.100.1"
    assert TrustedProxies(["127.0.0.1"], FORWARDED).client(scope("127.0.0.1", *both)).key == "192.0.2.7"


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        ('For="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::/64"),
        ('for="_gazonk"', "127.0.0.1"),
        ("for=192.0.2.43, for=198.51.100.17", "198.51.100.17"),
        ('for="1.1.1.1, 2.2.2.2"', "127.0.0.1"),
        ('for=9.9.9.9;secret="a,for=8.8.8.8"', "9.9.9.9"),
        ("for=9.9.9.9, proto=https", "127.0.0.1"),
        ("xfor=9.9.9.9", "127.0.0.1"),
        ('by="x;for=9.9.9.9"', "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
def test_rfc_7239_is_read_as_it_is_written(value: str, key: str) -> None:
    assert TrustedProxies(["127.0.0.1"], FORWARDED).client(scope("127.0.0.1", ("forwarded", value))).key == key


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ("198.51.100.1:5555", "198.51.100.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]:443", "2001:db8:1:2::/64"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_household_with_ipv6_counts_once(entry: str, key: str) -> None:
    assert TrustedProxies(["127.0.0.1"]).client(scope("127.0.0.1", *xff(entry))).key == key


def test_an_ipv4_proxy_on_a_double_stack_socket_is_the_same_proxy() -> None:
    assert TrustedProxies(["127.0.0.1"]).client(scope("::ffff:127.0.0.1", *xff("198.51.100.1"))).key == "198.51.100.1"


def test_a_server_that_cannot_tell_gives_one_client_for_all() -> None:
    assert TrustedProxies(["127.0.0.1"]).client(scope(None)).key == "unknown"


@pytest.mark.parametrize(
    "words",
    [
        "*",
        "0.0.0.0/0",
        "::/0",
        "proxy.example",
        "10.0.0.0/40",
        "0.0.0.0/1 128.0.0.0/1",
        "8.0.0.0/7",
        "32.0.0.0/8 33.0.0.0/8",
        "2000::/3",
        "::/1 8000::/1",
        "::ffff:0:0/96",
    ],
)
def test_to_trust_everybody_or_nobody_in_particular_is_refused(words: str) -> None:
    with pytest.raises(BadProxies, match="TOKEN_PLACE_TRUSTED_PROXIES"):
        TrustedProxies(["127.0.0.1", *words.split()])


def test_networks_of_a_provider_or_of_one_s_own_may_be_large() -> None:
    TrustedProxies(["10.0.0.0/8", "172.16.0.0/12", "104.16.0.0/13", "2400:cb00::/32", "2a06::/16", "fc00::/7"])


def test_a_proxy_may_be_written_as_the_mapped_address_it_seems_to_have() -> None:
    for word in ("::ffff:127.0.0.1", "::ffff:127.0.0.0/104"):
        assert TrustedProxies([word]).client(scope("127.0.0.1", *xff("198.51.100.1"))).key == "198.51.100.1"


def test_who_comes_through_a_proxy_of_this_machine_is_not_on_this_machine() -> None:
    assert TrustedProxies().client(scope("127.0.0.1")).is_here
    assert not TrustedProxies().client(scope("127.0.0.1", *xff("127.0.0.1"))).is_here
    assert not TrustedProxies().client(scope("127.0.0.1", ("forwarded", "for=127.0.0.1"))).is_here
    assert not TrustedProxies().client(scope("198.51.100.1")).is_here
    assert TrustedProxies(["10.0.0.1"]).client(scope("10.0.0.1", *xff("127.0.0.1"))).is_here


def test_doors_behind_the_first_one_read_what_it_found() -> None:
    asked = scope("127.0.0.1", *xff("198.51.100.1"))
    TrustedProxies(["127.0.0.1"]).mark(asked)
    assert client_address(asked).key == "198.51.100.1"
    assert client_address(scope("192.0.2.1")).key == "192.0.2.1"


@pytest.mark.parametrize("stranger", ['for="', 'for="a', 'for="\\"', "for=\\", '"', 'for="1.1.1.1', ",;=,"])
def test_a_quote_that_a_stranger_left_open_hides_nothing_of_what_the_proxy_appended(stranger: str) -> None:
    value = f'{stranger}, for="[2001:db8::1]:4711";proto=https'
    found = TrustedProxies(["127.0.0.1"], FORWARDED).client(scope("127.0.0.1", ("forwarded", value)))
    assert found.key == "2001:db8::/64"


@pytest.mark.parametrize("text", ['"\\', 'for="' + '\\"' * 3, '"', ";", ",", "\\", '=";,'], ids=repr)
def test_no_header_takes_longer_than_its_length(text: str) -> None:
    """Looked at as often as its length allows: what grew with the square held up everybody for twenty seconds."""

    def looks(value: str) -> int:
        counted = Looks(value)
        for element in _from_the_right(counted, ","):
            for _ in _from_the_right(Looks(element), ";"):
                pass
        return counted.looks

    once, twice = looks(text * 500), looks(text * 1000)
    assert twice <= 2 * once + 100
