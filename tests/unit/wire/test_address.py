"""Relay addresses as people write them."""

from __future__ import annotations

import pytest

from tokenplace.errors import WireError
from tokenplace.wire.address import relay_address


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://relay.example/", "https://relay.example"),
        ("relay.example", "https://relay.example"),
        ("localhost:5000", "http://localhost:5000"),
        (" http://[::1]:5000/a/ ", "http://[::1]:5000/a"),
        ("http://my_relay.example.", "http://my_relay.example."),
        ("https://bücher.example", "https://bücher.example"),
    ],
)
def test_an_address_is_made_whole(text: str, url: str) -> None:
    assert relay_address(text).geturl() == url


@pytest.mark.parametrize("text", ["https://me:s3cret@relay.example", "me:s3cret@relay.example", "http://s3cret@x/y"])
def test_an_address_with_a_password_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(WireError) as caught:
        relay_address(text)
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize(
    "text",
    ["", "ftp://x", "http://", "http://x:99999", "http://x:0", "http://relay..example", f"http://{'x' * 64}.example"],
)
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(WireError):
        relay_address(text)
