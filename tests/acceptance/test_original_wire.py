"""Programs written for the original go on working, beside modern ones: its client and its node, on its wire."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from acceptance.original_programs import OriginalClient, OriginalNode, call
from acceptance.test_blind_relay import BLINDFOLD
from original import OriginalKeys
from stage import Program, Stage, metric, staged, until


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A relay that could not open anything: classic routes are no matter of keys."""
    folder: Path = tmp_path_factory.mktemp("relay")
    with staged(folder) as stage:
        yield stage.relay("--blind", prelude=BLINDFOLD)


def registered(node: OriginalNode) -> None:
    """One address may register eight nodes, so this many tests share a relay and no more."""
    until(lambda: node.pings, "the node to have polled")


def test_an_original_client_is_answered_by_an_original_node(relay: Program) -> None:
    with OriginalNode(relay.url) as node:
        registered(node)
        client = OriginalClient(relay.url, server=node.keys.key)
        for text in ("first", "second"):
            client.ask(text)
            assert client.wait()[-1] == {"role": "assistant", "content": f"original: {text}"}
        assert client.poll() is None


def test_an_original_client_is_answered_by_a_modern_node(stage: Stage) -> None:
    relay = stage.relay("--blind", prelude=BLINDFOLD)
    stage.node(relay)
    client = OriginalClient(relay.url)
    until(lambda: "server_public_key" in call(f"{relay.url}/next_server")[1], "a server")
    client.ask("what is this")
    assert client.wait() == [
        {"role": "user", "content": "what is this"},
        {"role": "assistant", "content": "echo: what is this"},
    ]
    with OriginalNode(relay.url) as node:
        registered(node)
        servers = {call(f"{relay.url}/next_server")[1]["server_public_key"] for _ in range(100)}
        assert servers == {client.server, node.keys.key}, "both are offered, to everybody alike"
        second = OriginalClient(relay.url, server=node.keys.key)
        second.ask("and you")
        client.ask("you too")
        assert second.wait()[-1]["content"] == "original: and you"
        assert client.wait()[-1]["content"] == "echo: you too"
    assert metric(relay, "tokenplace_relay_classic_questions_total") == 3
    assert "what is this" not in relay.text


def test_a_node_that_lost_a_question_is_asked_once_more(relay: Program) -> None:
    with OriginalNode(relay.url, broken=1) as node:
        registered(node)
        client = OriginalClient(relay.url, server=node.keys.key)
        client.ask("again")
        assert client.wait()[-1]["content"] == "original: again"


def test_a_node_is_busy_while_work_waits_and_polls_slowly_when_none_does(relay: Program) -> None:
    node = OriginalNode(relay.url)
    call(f"{relay.url}/sink", {"server_public_key": node.keys.key})
    clients = [OriginalClient(relay.url, server=node.keys.key) for _ in range(4)]
    for client in clients:
        client.ask("together")
    with node:
        for client in clients:
            assert client.wait()[-1]["content"] == "original: together"
        assert node.pings[:3] == [0, 0, 0]
        until(lambda: node.pings[-1] >= 1, "the node to be told to wait")


def test_the_answer_to_a_question_that_was_given_up_is_not_given_to_the_next(relay: Program) -> None:
    thought = threading.Event()
    with OriginalNode(relay.url, thought=thought) as node:
        registered(node)
        client = OriginalClient(relay.url, server=node.keys.key)
        client.ask("given up")
        until(lambda: node.took, "the node to be at work")
        assert client.poll() is None
        client.ask("the next")
        thought.set()
        assert client.wait()[-1]["content"] == "original: the next"
        until(lambda: node.answered == 2, "the node to have said both, one of them to nobody")


def test_a_stranger_s_node_answers_nothing_of_another_s(relay: Program) -> None:
    """What the wire lets everybody try from the same address: a forged answer, before and after the true one."""
    with OriginalNode(relay.url) as node:
        registered(node)
        client = OriginalClient(relay.url, server=node.keys.key)
        forged = {"client_public_key": client.keys.key, **client.keys.seal_relay([{"forged": True}], client.keys.key)}
        assert call(f"{relay.url}/source", forged)[0] == 403, "nothing was asked"
        client.ask("true")
        assert client.wait()[-1]["content"] == "original: true"
        assert call(f"{relay.url}/source", forged)[0] == 403, "it is answered"
        assert client.poll() is None


def test_invitations_are_asked_of_nodes_that_poll(stage: Stage) -> None:
    env = {"TOKEN_PLACE_RELAY_SERVER_TOKEN": "alone", "TOKEN_PLACE_RELAY_SERVER_TOKENS": "one, two"}
    relay = stage.relay("--blind", env=env)
    status, told = call(f"{relay.url}/sink", {"server_public_key": "K"})
    assert status == 401
    assert told["error"]["code"] == 401
    for token in ("alone", "one", "two"):
        with OriginalNode(relay.url, token=token) as node:
            registered(node)
            client = OriginalClient(relay.url, server=node.keys.key)
            client.ask("invited")
            assert client.wait()[-1]["content"] == "original: invited"


def test_a_node_in_a_batch_of_its_own_answers_in_any_order(relay: Program) -> None:
    node = OriginalKeys()
    call(f"{relay.url}/sink", {"server_public_key": node.key, "max_batch_size": 4})
    clients = [OriginalClient(relay.url, server=node.key) for _ in range(3)]
    for number, client in enumerate(clients):
        client.ask(f"question {number}")
    batch = call(f"{relay.url}/sink", {"server_public_key": node.key, "max_batch_size": 4})[1]["batch"]
    assert len(batch) == 3
    for job in reversed(batch):
        told = [*node.open(job), {"role": "assistant", "content": "answered"}]
        body = {"client_public_key": job["client_public_key"], **node.seal_relay(told, job["client_public_key"])}
        assert call(f"{relay.url}/source", body)[0] == 200
    for number, client in enumerate(clients):
        assert [message["content"] for message in client.wait()] == [f"question {number}", "answered"]
