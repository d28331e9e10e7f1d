from __future__ import annotations

import pytest

from tokenplace.errors import Refused
from tokenplace.sealing.operator import Operator
from tokenplace.wire.ids import NodeId

NOW = 1_700_000_000_000
NODE, OTHER = NodeId("a" * 32), NodeId("b" * 32)
OPERATOR = Operator(" sesame \n")


def test_a_node_with_the_same_token_obeys() -> None:
    Operator("sesame").obey(OPERATOR.order(NODE, NOW), NODE, NOW, NOW + 1000)


@pytest.mark.parametrize(
    ("order", "node", "time_ms", "now_ms"),
    [
        (Operator("other").order(NODE, NOW), NODE, NOW, NOW),
        (OPERATOR.order(OTHER, NOW), NODE, NOW, NOW),
        (OPERATOR.order(NODE, NOW), NODE, NOW + 1, NOW),
        (OPERATOR.order(NODE, NOW), NODE, NOW, NOW + 3_600_000),
        (OPERATOR.order(NODE, NOW), NODE, NOW, NOW - 3_600_000),
        ("", NODE, NOW, NOW),
        ("\ud800é", NODE, NOW, NOW),
        (OPERATOR.order(NODE, NOW), NODE, -1, NOW),
        (OPERATOR.order(NODE, NOW), NODE, 1 << 80, NOW),
    ],
)
def test_whatever_is_not_this_operators_order_to_this_node_now_is_refused(
    order: str, node: NodeId, time_ms: int, now_ms: int
) -> None:
    with pytest.raises(Refused) as caught:
        OPERATOR.obey(order, node, time_ms, now_ms)
    assert caught.value.code == "operator_token_invalid"


@pytest.mark.parametrize(("shown", "right"), [("sesame", True), ("sesam", False), ("", False), ("sesameé", False)])
def test_only_the_very_token_is_the_token(shown: str, right: bool) -> None:
    assert OPERATOR.is_token(shown) is right


def test_a_blank_token_is_no_token() -> None:
    with pytest.raises(ValueError, match="blank"):
        Operator("  ")


def test_neither_the_order_nor_the_holder_shows_the_token() -> None:
    assert "sesame" not in repr(OPERATOR)
    assert "sesame" not in OPERATOR.order(NODE, NOW)
