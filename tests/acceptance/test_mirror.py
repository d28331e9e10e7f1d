"""What a real relay shows under a node's id, looked at by the node it belongs to and by one whose key was copied."""

from __future__ import annotations

from stage import Stage, get_json, nodes_at, until
from tokenplace.node.mirror import Alarm, Mirror
from tokenplace.wire.card import Card
from tokenplace.wire.classic import CARD_FIELD
from tokenplace.wire.ids import NodeId


async def test_a_relay_is_asked_for_the_card_it_shows(stage: Stage) -> None:
    relay = stage.relay()
    stage.node(relay)
    me = NodeId(nodes_at(relay)[0]["node"])
    owner = Mirror(me)

    def the_card_is_whole() -> bool:
        """The node shows a newer card as soon as its classic key is made."""
        (shown,) = get_json(f"{relay.url}/relay/v2/nodes?node={me}")["nodes"]
        card = Card.parse(shown["card"])
        owner.made(card)
        return CARD_FIELD in card.body.extra

    until(the_card_is_whole, "the node's whole card")
    assert await owner.look(relay.url) is None
    assert await Mirror(me).look(relay.url) is Alarm.STOLEN
    assert await Mirror(NodeId("a" * 32)).look(relay.url) is None
