"""Clients behind one gateway, and clients at the relay's own door, get fair shares of a node."""

from __future__ import annotations

import json
import threading
import time
import urllib.request

import pytest

from stage import Program, Stage, metric, until

QUESTION = [{"role": "user", "content": " ".join(f"word{number}" for number in range(20))}]


def ask(url: str, client: str) -> float:
    """Seconds until one answer is whole."""
    body = json.dumps({"model": "echo", "messages": QUESTION}).encode()
    headers = {"content-type": "application/json", "x-forwarded-for": client}
    began = time.monotonic()
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=120) as answer:
        answer.read()
    return time.monotonic() - began


@pytest.fixture
def relay(stage: Stage) -> Program:
    relay = stage.relay(env={"TOKEN_PLACE_TRUSTED_PROXIES": "127.0.0.1", "API_RATE_LIMIT": "", "API_DAILY_QUOTA": ""})
    stage.node(relay, delay=0.01, flags=["--slots", "1"])
    return relay


def test_a_flood_of_one_client_leaves_another_its_turn(relay: Program) -> None:
    url = f"{relay.url}/v1/chat/completions"
    took: dict[str, list[float]] = {"10.0.0.1": [], "10.0.0.2": []}

    def asking(client: str) -> None:
        took[client].append(ask(url, client))

    flood = [threading.Thread(target=asking, args=("10.0.0.1",)) for _ in range(20)]
    for thread in flood:
        thread.start()
    until(lambda: metric(relay, 'tokenplace_relay_jobs_live{step="queued"}') >= 15, "the flood to queue")
    light = threading.Thread(target=asking, args=("10.0.0.2",))
    light.start()
    for thread in [*flood, light]:
        thread.join(120)
    alone = min(took["10.0.0.1"])
    assert len(took["10.0.0.1"]) == 20
    assert took["10.0.0.2"][0] < 5 * alone
    assert took["10.0.0.2"][0] < max(took["10.0.0.1"]) / 3
