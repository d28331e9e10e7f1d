from __future__ import annotations

from typing import Any

import pytest

from tokenplace.gateway.settings import GatewaySettings
from tokenplace.node.api import NodeApi
from tokenplace.node.build import ECHO, make_classic
from tokenplace.node.classic import ClassicDoor
from tokenplace.node.engines.echo import EchoEngine
from tokenplace.node.settings import NodeSettings

NAMES = ("TOKEN_PLACE_OPERATOR_TOKEN", "TOKEN_PLACE_KEY_ROTATION_TOKEN", "PUBLIC_KEY_ROTATION_TOKEN")


def door_of(**settings: Any) -> ClassicDoor | None:
    engine = EchoEngine()
    return make_classic(NodeSettings(**settings), engine, NodeApi(engine, traits=ECHO))


def test_the_door_is_open_unless_it_is_shut_and_takes_the_old_padding_only_when_told() -> None:
    door = door_of()
    assert door is not None
    assert not door.keys.pkcs1v15
    assert door_of(TOKEN_PLACE_CLASSIC="off") is None
    old = door_of(TOKEN_PLACE_CLASSIC_PKCS1V15="on")
    assert old is not None
    assert old.keys.pkcs1v15


@pytest.mark.parametrize("settings", [NodeSettings, GatewaySettings])
@pytest.mark.parametrize(
    ("given", "token"),
    [
        ((None, None, None), None),
        (("first-token", "two", "three"), "first-token"),
        (("  ", " second-token ", "three"), "second-token"),
        (("", None, "third-token"), "third-token"),
        (("", " ", ""), None),
    ],
)
def test_the_first_of_the_three_variables_that_says_something_is_the_token(
    settings: Any, given: tuple[str | None, ...], token: str | None
) -> None:
    read = settings(**dict(zip(NAMES, given, strict=True)))
    assert read.operator == token
    assert token is None or token not in repr(read)


def test_a_node_without_a_token_has_no_operator() -> None:
    for settings, has in (({}, False), ({NAMES[2]: "sesame"}, True)):
        door = door_of(**settings)
        assert door is not None
        assert (door.keys.operator is not None) is has
