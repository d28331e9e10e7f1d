"""Which node is asked, and who is asked next when one cannot answer: with real programs, over real HTTP."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from stage import Program, Stage, get_json, nodes_at, until

WORDS = "w " * 20


@dataclass
class Upstream:
    """A model server that answers every request with one status and body, when it may."""

    status: int
    told: dict[str, Any]
    may: threading.Event = field(default_factory=threading.Event)
    asked: int = 0
    url: str = ""


@contextlib.contextmanager
def upstream(status: int, message: str, *, at_once: bool = True) -> Iterator[Upstream]:
    server = Upstream(status, {"error": {"message": message, "type": "server_error"}})
    if at_once:
        server.may.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            return

        def do_GET(self) -> None:
            self._say(200, {"object": "list", "data": [{"id": "echo", "object": "model"}]})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            server.asked += 1
            server.may.wait(20)
            with contextlib.suppress(OSError):
                self._say(server.status, server.told)

        def _say(self, status: int, fields: dict[str, Any]) -> None:
            content = json.dumps(fields).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.may.set()
            http.shutdown()
            thread.join(5)


def ask(gateway: Program, words: str = WORDS) -> tuple[int, Any, str]:
    """(status, JSON, node) of one question."""
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": words}]}).encode()
    asked = urllib.request.Request(f"{gateway.url}/v1/chat/completions", body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, json.load(answer), answer.headers["x-token-place-node"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), ""


QUIET = ("--status-port", "0")


@pytest.mark.parametrize("hosted", [True, False], ids=["the relay's gateway", "a person's gateway"])
def test_questions_that_come_together_are_spread_over_idle_nodes(stage: Stage, hosted: bool) -> None:
    relay = stage.relay()
    for number in range(4):
        stage.node(relay, delay=0.1, flags=[*QUIET, "--slots", "1"], name=f"node{number}")
    gateway = relay if hosted else stage.gateway(relay)
    with ThreadPoolExecutor(8) as people:
        answers = list(people.map(lambda _: ask(gateway), range(8)))
    assert [status for status, _, _ in answers] == [200] * 8
    given = Counter(node for _, _, node in answers)
    assert sorted(given.values()) == [2, 2, 2, 2]


def test_a_node_whose_engine_fails_costs_nobody_an_answer(stage: Stage) -> None:
    relay = stage.relay()
    with upstream(500, "CUDA error") as broken:
        stage.node(relay, engine=broken.url, flags=[*QUIET, "--slots", "4"], name="broken")
        status, told, _ = ask(relay)
        assert (status, told["error"]["code"], told["error"]["type"]) == (502, "engine_failed", "server_error")
        assert "CUDA" not in told["error"]["message"]
        assert broken.asked == 1, "where nobody else is, it is told at once"
        stage.node(relay, flags=[*QUIET, "--slots", "4"], name="healthy")
        assert [ask(relay)[0] for _ in range(12)] == [200] * 12


def test_an_engine_that_fails_again_and_again_counts_against_its_node(stage: Stage) -> None:
    relay = stage.relay()
    with upstream(500, "CUDA error") as broken:
        stage.node(relay, engine=broken.url, flags=[*QUIET, "--slots", "4"], name="broken")
        assert [ask(relay)[1]["error"]["code"] for _ in range(3)] == ["engine_failed"] * 3
        until(lambda: nodes_at(relay)[0]["breaker"] == "open", "the node to rest")


def test_what_is_wrong_with_a_question_is_told_by_the_first_node_and_held_against_none(stage: Stage) -> None:
    relay = stage.relay()
    with upstream(400, "the request exceeds the available context size") as strict:
        for name in ("one", "another"):
            stage.node(relay, engine=strict.url, flags=[*QUIET, "--slots", "4"], name=name)
        for number in range(1, 5):
            status, told, _ = ask(relay)
            assert (status, told["error"]["code"]) == (400, "context_length_exceeded")
            assert strict.asked == number
        assert {node["breaker"] for node in nodes_at(relay)} == {"closed"}


def test_a_node_that_stops_gives_back_a_question_that_it_has_not_begun(stage: Stage) -> None:
    relay = stage.relay()
    with upstream(500, "never said", at_once=False) as thinking, ThreadPoolExecutor(1) as people:
        slow = stage.node(relay, engine=thinking.url, flags=[*QUIET, "--slots", "1"], name="slow")
        answer: Future[tuple[int, Any, str]] = people.submit(ask, relay, "hello")
        until(lambda: thinking.asked, "the question to be at the engine")
        stage.node(relay, flags=[*QUIET], name="idle")
        slow.kill(signal.SIGTERM)
        status, told, _ = answer.result(10)
        assert status == 200
        assert told["choices"][0]["message"]["content"] == "echo: hello"
        assert slow.process.wait(10) == 0
        assert get_json(f"{relay.url}/livez")
