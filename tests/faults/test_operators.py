"""What operators get wrong, and what they do to a running relay: a real one, from outside."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from stage import PATIENCE, Stage, get_json, nodes_at, until
from tokenplace.wire import routes


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_no_signal_of_an_operator_ends_a_relay_that_was_not_told_to_stop(
    stage: Stage, tmp_path: Path, number: signal.Signals
) -> None:
    denied = tmp_path / "denied"
    denied.write_text("192.0.2.1\n")
    relay = stage.relay("--blind", env={"TOKEN_PLACE_DENY": str(denied)})
    stage.node(relay)
    denied.write_text(f"{nodes_at(relay)[0]['node']}\n")
    relay.kill(number)
    if number is signal.SIGHUP:
        until(lambda: "relay.reread" in relay.text, "the files to be read again")
    until(lambda: not nodes_at(relay), "the node to be sent away")
    assert get_json(f"{relay.url}{routes.LIVEZ}") == {"status": "alive"}
    assert relay.end() == 0


@pytest.mark.parametrize(
    ("env", "word"),
    [
        ({"RELAY_GRACEFUL_TIMEOUT": "inf"}, "RELAY_GRACEFUL_TIMEOUT"),
        ({"API_RATE_LIMIT": "0/minute"}, "API_RATE_LIMIT"),
        ({"TOKENPLACE_LOG_LEVEL": "foo"}, "TOKENPLACE_LOG_LEVEL"),
        ({"TOKEN_PLACE_OPERATOR_TOKEN": "p\u00e4sswort"}, "TOKEN_PLACE_OPERATOR_TOKEN"),
        ({"TOKEN_PLACE_OPERATOR_TOKEN": "\udcff"}, "TOKEN_PLACE_OPERATOR_TOKEN"),
        ({"TOKEN_PLACE_RELAY_SERVER_TOKENS": " , "}, "TOKEN_PLACE_RELAY_SERVER_TOKENS"),
        ({"TOKEN_PLACE_TRUSTED_PROXIES": "0.0.0.0/1,128.0.0.0/1"}, "TOKEN_PLACE_TRUSTED_PROXIES"),
        ({"TOKEN_PLACE_INVITATIONS": "/etc/passwd/invitations.json"}, "cannot be read"),
    ],
)
def test_a_setting_that_cannot_be_meant_stops_the_relay_with_one_line(
    stage: Stage, env: dict[str, str], word: str
) -> None:
    program = stage.start("relay", ["relay", "--blind", "--port", "0"], env)
    assert program.process.wait(PATIENCE) == 1
    program.finish()
    assert word in program.text
    assert len(program.text.strip().splitlines()) == 1
    assert "Traceback" not in program.text


def test_a_relay_says_how_its_door_stands_and_what_it_misses(stage: Stage) -> None:
    env = {"TOKEN_PLACE_DENY": "/nonexistent/deny", "TOKEN_PLACE_OPERATOR_TOKEN": "short"}
    relay = stage.relay("--blind", env=env)
    lines = {line["message"]: line for line in map(json.loads, relay.text.splitlines())}
    assert lines["relay.admission"]["admission"] == "every node"
    assert lines["relay.file_missing"]["setting"] == "TOKEN_PLACE_DENY"
    assert lines["relay.token_short"]["setting"] == "TOKEN_PLACE_OPERATOR_TOKEN"
    assert '"short"' not in relay.text


def test_tokens_of_a_relay_cannot_be_guessed(stage: Stage) -> None:
    relay = stage.relay("--blind", env={"TOKEN_PLACE_RELAY_SERVER_TOKEN": "weak"})
    waits: list[str | None] = []

    def status(token: str) -> int:
        headers = {"X-Relay-Server-Token": token, "Content-Type": "application/json"}
        asked = urllib.request.Request(f"{relay.url}/sink", b'{"server_public_key": "K"}', headers)
        try:
            with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            waits.append(error.headers["retry-after"])
            return error.code

    assert status("weak") == 200
    assert [status(str(number)) for number in range(12)] == [401] * 10 + [429] * 2
    assert status("weak") == 429, "whoever guesses hears no more, also when it has guessed right"
    assert all(wait is not None and 1 <= int(wait) <= 60 for wait in waits[10:])
