"""The classic routes: a round trip by `CryptoClient`, and what the relay spends on the original's four requests."""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.relay_cost import cpu_seconds
from stage import Program, Stage, get_json, until
from tokenplace.client import CryptoClient

ORIGINAL_MEDIAN, ORIGINAL_P95 = 9.03, 11.03
"""Seconds of the original's round trip: its client, relay and node on loopback, one client at a time, 40 rounds."""

ORIGINAL_CYCLES, ORIGINAL_CPU = (140, 178), (3.9, 5.1)
"""Cycles per second with one client, and milliseconds of the relay's processor time for each."""

_ENVELOPE = {"chat_history": "d29yZHM=" * 128, "cipherkey": "a2V5" * 86, "iv": "aXYxaXYxaXYxaXYxaXY="}


@dataclass(frozen=True)
class Trips:
    """Round trips: seconds at the median and at the 95th percentile, and how many failed."""

    median: float
    p95: float
    failed: int


def round_trips(stage: Stage, *, rounds: int, together: int = 1) -> Trips:
    """`CryptoClient.send_chat_message` through a blind relay to a modern node with the echo engine, key fetch apart."""
    relay = stage.relay("--blind", name=f"relay-classic-{together}", env={"TOKENPLACE_LOG_LEVEL": "WARNING"})
    stage.node(relay, name=f"classic-node-{together}")
    until(lambda: "server_public_key" in get_json(f"{relay.url}/next_server"), "a server")
    took: list[float] = []
    failed: list[int] = []

    def one() -> None:
        with CryptoClient(relay.url) as client:
            client.send_chat_message("warm")
            for _ in range(rounds):
                began = time.perf_counter()
                answer = client.send_chat_message("What is a lighthouse for?")
                took.append(time.perf_counter() - began)
                if answer is None or not answer[-1]["content"].startswith("echo: "):
                    failed.append(1)

    threads = [threading.Thread(target=one) for _ in range(together)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    relay.end()
    return Trips(statistics.median(took), statistics.quantiles(took, n=20)[-1], len(failed))


def cycles(stage: Stage, *, rounds: int) -> tuple[float, float]:
    """(cycles per second, milliseconds of the relay's processor time each): faucet, sink, source, retrieve."""
    relay = stage.relay("--blind", name="relay-cycles", env={"TOKENPLACE_LOG_LEVEL": "WARNING"})
    post = partial(_post, _connection(relay))
    post("/sink", {"server_public_key": "K"})
    for number in range(20):
        _cycle(post, f"warm {number}")
    spent, began = cpu_seconds(relay), time.perf_counter()
    for number in range(rounds):
        _cycle(post, f"C{number}")
    took = time.perf_counter() - began
    spent = cpu_seconds(relay) - spent
    relay.end()
    return rounds / took, spent / rounds * 1000


def _cycle(post: Any, client: str) -> None:
    post("/faucet", {"server_public_key": "K", "client_public_key": client, **_ENVELOPE})
    post("/sink", {"server_public_key": "K"})
    post("/source", {"client_public_key": client, **_ENVELOPE})
    if "chat_history" not in post("/retrieve", {"client_public_key": client}):
        raise AssertionError("a cycle without its answer")


def _connection(relay: Program) -> http.client.HTTPConnection:
    host, _, port = relay.url.removeprefix("http://").partition(":")
    return http.client.HTTPConnection(host, int(port), timeout=30)


def _post(connection: http.client.HTTPConnection, path: str, content: dict[str, Any]) -> dict[str, Any]:
    connection.request("POST", path, json.dumps(content).encode(), {"Content-Type": "application/json"})
    told: dict[str, Any] = json.loads(connection.getresponse().read())
    return told
