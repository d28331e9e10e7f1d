"""Wrong secrets: ten a minute from one address, and memory for so many addresses."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tokenplace.relay.address import Client
from tokenplace.relay.guesses import Guesses, TooManyGuesses


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def a_client(number: int = 1) -> Client:
    address = ip_address(f"198.51.{number // 256}.{number % 256}")
    return Client(address, str(address))


def wrong(guesses: Guesses, client: Client, *secrets: str) -> None:
    for secret in secrets:
        guesses.check(client)
        guesses.wrong(client, secret)


TEN = [str(number) for number in range(10)]


def test_the_eleventh_secret_waits_until_the_minute_that_the_first_began_is_over() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    wrong(guesses, a_client(), "first")
    clock.now += 20.5
    wrong(guesses, a_client(), *TEN[1:])
    with pytest.raises(TooManyGuesses) as caught:
        guesses.check(a_client())
    assert (caught.value.status, caught.value.retry_after) == (429, 40)
    guesses.check(a_client(2))
    assert guesses.refused == {"guesses": 1}
    clock.now += 40
    wrong(guesses, a_client(), *TEN)


def test_the_same_secret_again_is_no_other_guess() -> None:
    guesses = Guesses(Clock())
    for _ in range(100):
        wrong(guesses, a_client(), *TEN[1:])


def test_this_machine_is_an_address_like_any_other() -> None:
    guesses, here = Guesses(Clock()), Client(ip_address("127.0.0.1"), "127.0.0.1")
    wrong(guesses, here, *TEN)
    with pytest.raises(TooManyGuesses):
        guesses.check(here)


def test_memory_is_bounded_however_many_addresses_guess() -> None:
    clock = Clock()
    guesses = Guesses(clock, remembered=100)
    for number in range(5000):
        wrong(guesses, a_client(number), "no")
    assert len(guesses) <= 100
    clock.now += 61
    wrong(guesses, a_client(), "no")
    assert len(guesses) == 1
