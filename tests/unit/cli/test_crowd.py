"""How many connections one address may have."""

from __future__ import annotations

from tokenplace.cli.crowd import Crowd, share_of


def test_one_address_has_its_share_and_gets_it_back() -> None:
    crowd = Crowd(2)
    assert [crowd.came(("192.0.2.1", port)) for port in range(3)] == [True, True, False]
    assert crowd.came(("192.0.2.2", 1))
    crowd.went(("192.0.2.1", 0))
    assert crowd.came(("192.0.2.1", 4))
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
        crowd.went((address, 0))
    assert len(crowd) == 0


def test_one_household_of_ipv6_is_one_address() -> None:
    crowd = Crowd(1)
    assert [crowd.came((address, 1)) for address in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1")] == [
        True,
        False,
        True,
    ]


def test_this_machine_and_whom_the_operator_spares_have_all() -> None:
    crowd = Crowd(1)
    assert all(crowd.came(peer) for peer in (("127.0.0.1", 1), ("::1", 1), None) for _ in range(3))
    spared = Crowd(1, lambda client: client.key == "192.0.2.1")
    assert all(spared.came(("192.0.2.1", 1)) for _ in range(3))
    assert len(crowd) == len(spared) == 0


def test_a_share_is_an_eighth_but_never_a_handful() -> None:
    assert [share_of(each) for each in (65_436, 924, 4)] == [8179, 115, 64]
