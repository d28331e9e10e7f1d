from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tokenplace.client.client import Client, error_of
from tokenplace.client.door import Directory
from tokenplace.client.settings import DEFAULT_RELAY, ClientSettings
from tokenplace.errors import ApiError, NoNode, WireError
from tokenplace.openai.calls import Final, Head
from tokenplace.sealing.exchange import open_request
from tokenplace.sealing.identity import Identity
from tokenplace.sealing.keys import KeyRing
from tokenplace.wire.ids import ModelId, show_node_id
from tokenplace.wire.stream import RecordKind
from unit.client.scripted import Piece, ScriptedDoor, ScriptedNode, a_node


class TalkingNode(ScriptedNode):
    """Answers with a status and chunks that the test names; its keys live today."""

    status = 200
    chunks: tuple[bytes, ...] = ()

    def answer(self, sealed: bytes) -> list[Piece]:

        opened = open_request(sealed, self.keys, now_ms=time.time_ns() // 1_000_000)
        self.asked = json.loads(opened.body[2 + int.from_bytes(opened.body[:2], "big") :])
        sealer = opened.answer()
        return [
            [sealer.nonce_record(), sealer.seal(RecordKind.HEAD, Head(self.status, "application/json").pack())],
            *([sealer.seal(RecordKind.DATA, chunk)] for chunk in self.chunks),
            [sealer.seal(RecordKind.FINAL, Final(None).pack())],
        ]

    asked: dict[str, Any]


def talking(*chunks: bytes, status: int = 200) -> tuple[Client, TalkingNode, ScriptedDoor]:

    node = TalkingNode(Identity(bytes(32)), KeyRing.generate(now_ms=time.time_ns() // 1_000_000))
    node.chunks, node.status = chunks, status
    body = node.card().body
    keys = node.keys.public_keys(time.time_ns() // 1_000_000)
    card = node.identity.sign_card(type(body)(body.identity, 1, 0, keys, body.models))
    listing = type(node.listing())(card, 1, 1, 0)
    door = ScriptedDoor("relay", nodes=[node], directory=Directory([listing], {ModelId("m"): 1, ModelId("n"): 3}))
    return Client([door]), node, door


MESSAGES = [{"role": "user", "content": "Hello"}]


async def test_a_chat_is_one_completion_of_the_model_most_nodes_serve() -> None:
    client, node, _ = talking(b'{"choices"', b": []}")
    async with client:
        assert await client.chat(MESSAGES, temperature=0) == {"choices": []}
    assert node.asked == {"model": "n", "messages": MESSAGES, "temperature": 0}


async def test_a_stream_is_its_events_however_they_are_cut() -> None:
    client, node, _ = talking(b'data: {"n": 1}\n', b'\ndata: {"n"', b": 2}\n\ndata: [DONE]\n\n")
    heard: list[str] = []
    async with client:
        events = client.stream(MESSAGES, model="m", on_answer=lambda answer: heard.append(answer.node))
        assert [event async for event in events] == [{"n": 1}, {"n": 2}]
    assert heard == [node.id]
    assert node.asked["stream"] is True


async def test_leaving_a_stream_cancels_it() -> None:
    client, _, door = talking(b'data: {"n": 1}\n\n', b'data: {"n": 2}\n\n')
    async with client:
        events = client.stream(MESSAGES, model="m")
        assert await anext(events) == {"n": 1}
        await events.aclose()
    assert len(door.cancelled) == 1
    assert door.closed


async def test_what_the_node_refuses_is_raised_as_it_said() -> None:
    refusal = {"error": {"message": "Too long.", "type": "t", "param": "messages", "code": "context_length_exceeded"}}
    for streamed in (False, True):
        client, *_ = talking(json.dumps(refusal).encode(), status=400)
        async with client:
            with pytest.raises(ApiError) as error:
                await (anext(client.stream(MESSAGES, model="m")) if streamed else client.chat(MESSAGES, model="m"))
        told = error.value
        assert (told.status, told.code, told.param, told.type) == (400, "context_length_exceeded", "messages", "t")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"error": 5}', b'{"error": null}', b"\xff"])
def test_an_error_that_cannot_be_read_is_an_error_still(content: bytes) -> None:
    assert error_of(500, content).status == 500


async def test_models_are_told_with_how_many_serve_them() -> None:
    client, *_ = talking()
    async with client:
        served = {model.id: model for model in await client.models()}
    assert (served[ModelId("n")].nodes, served[ModelId("n")].card) == (3, None)
    card = served[ModelId("m")].card
    assert card is not None
    assert card.context == 2048


async def test_without_anybody_there_is_no_model_to_choose() -> None:
    async with Client([ScriptedDoor("relay", directory=Directory([], {}))]) as client:
        with pytest.raises(NoNode):
            await client.chat(MESSAGES)


# -- settings ----------------------------------------------------------------------------------------------------------


def test_relays_are_named_by_flag_then_environment_then_this_machine() -> None:
    env = {"TOKEN_PLACE_RELAYS": "https://a/, https://b", "API_FALLBACK_URLS": "https://c,https://a"}
    assert ClientSettings.read(env).relays == ("https://a", "https://b", "https://c")
    assert ClientSettings.read(env, ["https://z"]).relays == ("https://z", "https://c", "https://a")
    assert ClientSettings.read({}).relays == (DEFAULT_RELAY,)


def test_issuers_and_vouchers_are_read_from_the_environment() -> None:
    node = "a" * 32
    env = {"TOKEN_PLACE_TRUSTED_ISSUERS": node, "TOKEN_PLACE_VOUCHERS": "/a/friends.voucher, /b.voucher"}
    settings = ClientSettings.read(env)
    assert settings.issuers == (node,)
    assert [str(file) for file in settings.vouchers] == ["/a/friends.voucher", "/b.voucher"]
    with pytest.raises(WireError, match="TOKEN_PLACE_TRUSTED_ISSUERS"):
        ClientSettings.read({"TOKEN_PLACE_TRUSTED_ISSUERS": "nobody"})


def test_pins_are_read_as_people_write_them() -> None:
    node = a_node(1).id
    settings = ClientSettings.read({"TOKEN_PLACE_PINNED_NODES": f"{show_node_id(node)}, {node}"})
    assert settings.pins == (node, node)
    assert isinstance(settings.memory, Path)
    with pytest.raises(WireError):
        ClientSettings.read({"TOKEN_PLACE_PINNED_NODES": "nobody"})
