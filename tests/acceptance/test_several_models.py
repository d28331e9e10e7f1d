"""One node with several models: one of its own, one of a server that runs beside it; people ask for either."""

from __future__ import annotations

import asyncio

import pytest

from eyes import MODEL, eyes
from stage import EMBEDDED, Stage, get_json, nodes_at, until
from tokenplace.client.client import Client
from tokenplace.errors import TokenPlaceError


@pytest.mark.model
async def test_each_model_is_answered_by_the_engine_that_has_it(stage: Stage) -> None:
    relay = stage.relay()
    with eyes() as (url, asked):
        flags = ["--model", EMBEDDED, "--model", MODEL, "--slots", "2", "--context", "1024", "--status-port", "0"]
        node = stage.node(relay, engine=f"llama,{url}", flags=flags)
        assert [(each["models"], each["slots"]) for each in nodes_at(relay)] == [([EMBEDDED, MODEL], 2)]
        async with Client([relay.url]) as client:
            hello = [{"role": "user", "content": "hello"}]
            mine, theirs = await asyncio.gather(
                client.chat(hello, model=EMBEDDED, max_tokens=4), client.chat(hello, model=MODEL)
            )
            assert mine["model"] == EMBEDDED
            assert mine["usage"]["completion_tokens"] == 4
            assert theirs["choices"][0]["message"]["content"].startswith("I see")
            assert [body["model"] for path, body in asked if path.endswith("/chat/completions")] == [MODEL]
            with pytest.raises(TokenPlaceError):
                await client.chat(hello, model="qwen2.5-7b-instruct")
        listed = {each["id"] for each in get_json(f"{relay.url}/v1/models")["data"]}
        assert {EMBEDDED, MODEL} <= listed
        [child] = node.children()
    async with Client([relay.url]) as client:
        with pytest.raises(TokenPlaceError):  # also what makes the node look at once
            await client.chat(hello, model=MODEL)
    until(lambda: nodes_at(relay)[0]["models"] == [EMBEDDED], "the lost server's model to leave the card")
    assert node.children() == [child], "the other engine went on"
