"""CryptoClient against real relays, nodes and gateways: whole, in pieces, and when the server it knew is gone."""

from __future__ import annotations

from stage import Program, Stage, all_free, get_json, metric, until
from tokenplace.client import CryptoClient

ASK = [{"role": "user", "content": "one two three"}]


def offered(relay: Program) -> str | None:
    """The key that the relay sends clients to; a node makes its own just after it has joined."""
    key: str | None = get_json(f"{relay.url}/next_server").get("server_public_key")
    return key


def words(events: list[dict[str, object]]) -> str:
    text = ""
    for event in events:
        assert event["event"] == "delta", event
        choices = event["data"]["choices"]  # type: ignore[index]
        text += "".join(choice["delta"].get("content") or "" for choice in choices)
    return text


def test_it_speaks_through_a_relay_that_reads_nothing(stage: Stage) -> None:
    relay = stage.relay("--blind")
    node = stage.node(relay)
    until(lambda: offered(relay), "the node's key")
    with CryptoClient(relay.url) as client:
        told = client.send_chat_message(ASK)
        assert told == [*ASK, {"role": "assistant", "content": "echo: one two three"}]
        assert words(list(client.stream_chat_message("four five"))) == "echo: four five"
        assert client.send_api_request(ASK) is None, "a blind relay has no API"

        node.kill()
        until(lambda: offered(relay) is None, "the relay to miss its node")
        stage.node(relay, name="another")
        until(lambda: offered(relay), "the other node's key")
        told = client.send_chat_message("who are you")
        assert told is not None, client.last_error
        assert told[-1]["content"] == "echo: who are you"
    assert "one two three" not in relay.text


def test_leaving_a_stream_frees_the_node(stage: Stage) -> None:
    relay = stage.relay("--blind")
    stage.node(relay, delay=0.05)
    until(lambda: offered(relay), "the node's key")
    with CryptoClient(relay.url) as client:
        for event in client.stream_chat_message(" ".join(str(number) for number in range(2000))):
            assert event["event"] == "delta"
            break
        until(lambda: all_free(relay), "the slot to be free", patience=20)
    assert metric(relay, 'tokenplace_relay_classic_questions_total{outcome="cancelled"}') == 1


def test_it_speaks_to_the_api_whole_and_in_pieces(stage: Stage) -> None:
    relay = stage.relay()
    stage.node(relay)
    until(lambda: offered(relay), "the node's key")
    with CryptoClient(relay.url) as client:
        completion = client.send_api_request(ASK, "echo")
        assert completion is not None, client.last_error
        assert completion["choices"][0]["message"]["content"] == "echo: one two three"
        assert words(list(client.stream_chat_completion(ASK, model="echo"))) == "echo: one two three"
        told = client.send_chat_message("and by the relay's own way")
        assert told is not None, client.last_error
    assert "one two three" not in relay.text
