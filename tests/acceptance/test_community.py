"""The notice board of real relays: over sockets, blind and hosting, several at once, and the operator's commands."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from acceptance.test_blind_relay import BLINDFOLD
from stage import Program, Stage, get_json, nodes_at
from tokenplace.cli.main import app

OFFERS = "/api/v1/community/contributions"
FEEDBACK = "/api/v1/community/feedback"
PROVIDERS = "/api/v1/community/providers"


def offer(name: str) -> dict[str, Any]:
    return {
        "operator_name": name,
        "region": "eu-west",
        "availability": "evenings",
        "capabilities": ["gpu"],
        "contact": {"email": f"{name}@marker.example"},
    }


def board_env(folder: Path, **more: str) -> dict[str, str]:
    return {"TOKEN_PLACE_COMMUNITY_DIR": str(folder), "TOKEN_PLACE_COMMUNITY_LIMIT": "0", **more}


def post(program: Program, path: str, content: Any, **headers: str) -> httpx2.Response:
    return httpx2.post(f"{program.url}{path}", json=content, headers=headers, timeout=30)


async def test_two_relays_that_share_a_queue_lose_none_of_two_hundred_offers(stage: Stage, tmp_path: Path) -> None:
    env = board_env(tmp_path)
    relays = [stage.relay("--blind", env=env, name=f"relay{number}") for number in range(2)]
    async with httpx2.AsyncClient(timeout=60, limits=httpx2.Limits(max_connections=50)) as http:
        replies = await asyncio.gather(
            *(http.post(f"{relays[number % 2].url}{OFFERS}", json=offer(f"volunteer{number}")) for number in range(200))
        )
    assert {reply.status_code for reply in replies} == {202}
    kept = [json.loads(line) for line in (tmp_path / "contribution_queue.jsonl").read_bytes().split(b"\n")[:-1]]
    assert len(kept) == 200
    assert {line["submission_id"] for line in kept} == {reply.json()["submission_id"] for reply in replies}
    for relay in relays:
        assert get_json(f"{relay.url}{OFFERS}/summary")["total_submissions"] == 200
        assert "marker" not in relay.text
        assert "volunteer" not in relay.text


def test_a_blind_relay_that_can_import_no_words_has_the_board(stage: Stage, tmp_path: Path) -> None:
    relay = stage.relay("--blind", env=board_env(tmp_path), prelude=BLINDFOLD)
    stage.node(relay)
    node = nodes_at(relay)[0]["node"]
    entry = {"id": "lab", "name": "Lab", "region": "r", "status": "maintenance", "node": node}
    (tmp_path / "providers.json").write_text(json.dumps({"providers": [entry]}))
    [shown] = get_json(f"{relay.url}{PROVIDERS}")["data"]
    assert (shown["status"], shown["live"]["models"]) == ("online", ["echo"])
    assert post(relay, FEEDBACK, {"model_id": "echo", "rating": 5}).status_code == 201
    assert post(relay, FEEDBACK, {"model_id": "unheard-of", "rating": 5}).status_code == 404
    assert httpx2.get(f"{relay.url}/v1/community/providers").status_code == 404
    page = httpx2.get(f"{relay.url}/community")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_one_key_has_one_vote_and_a_gateway_of_ones_own_hands_the_board_on(stage: Stage, tmp_path: Path) -> None:
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"
    relay = stage.relay(env=board_env(tmp_path, TOKEN_PLACE_API_KEYS=digest))
    gateway = stage.gateway(relay)
    vote = {"model_id": "gpt-3.5-turbo", "rating": 4}
    known = {"authorization": "Bearer secret"}
    assert post(relay, FEEDBACK, vote, **known).json()["model_id"] == "llama-3-8b-instruct", "aliases are followed"
    assert post(relay, FEEDBACK, vote, **known).status_code == 409
    assert post(relay, FEEDBACK, vote, authorization="Bearer invented").status_code == 201, "an address of its own"
    assert post(relay, FEEDBACK, vote, authorization="Bearer another").status_code == 409, "and only one"
    assert post(gateway, OFFERS, offer("bo")).status_code == 202
    assert get_json(f"{gateway.url}/api/v1/community/leaderboard")["entries"][0]["ratings_count"] == 2
    assert httpx2.get(f"{gateway.url}/community").status_code == 200
    assert httpx2.get(f"{gateway.url}/v1/community/leaderboard").status_code == 404
    metrics = httpx2.get(f"{relay.url}/metrics").text
    assert 'tokenplace_community_posts_total{kind="feedback",outcome="already_voted"} 2' in metrics
    paths = get_json(f"{relay.url}/openapi.json")["paths"]
    assert {OFFERS, FEEDBACK, PROVIDERS} <= set(paths)


def test_a_relay_may_do_without_a_board(stage: Stage, tmp_path: Path) -> None:
    relay = stage.relay(env=board_env(tmp_path, TOKEN_PLACE_COMMUNITY="off"))
    assert post(relay, OFFERS, offer("ada")).status_code == 404
    assert list(tmp_path.glob("*.jsonl")) == []


# -- the operator's commands ---------------------------------------------------------------------------------------


@pytest.fixture
def operator(tmp_path: Path) -> Any:
    """Runs `tokenplace community …` on a queue with two offers and a comment."""
    lines = [
        {
            **offer(name),
            "submission_id": f"{letter * 8}-0000",
            "submitted_at": "2026-05-01T12:00:00Z",
            "notes": "\x1b[2Jboo",
        }
        for name, letter in (("ada", "a"), ("bo", "b"))
    ]
    (tmp_path / "contribution_queue.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    comment = {"model_id": "tiny", "rating": 4, "feedback_id": "cccc1111", "comment": "kind", "review": "pending"}
    (tmp_path / "model_feedback.jsonl").write_text(json.dumps(comment) + "\n")
    invitations = tmp_path / "invitations.json"
    env = board_env(tmp_path, TOKEN_PLACE_INVITATIONS=str(invitations), HOME=str(tmp_path))

    def run(*words: str, status: int = 0) -> str:
        result = CliRunner().invoke(app, ["community", *words], env=env)
        assert result.exit_code == status, result.output
        return result.output

    return run


def test_an_operator_reads_everything_and_no_terminal_obeys_a_stranger(operator: Any) -> None:
    text = operator("review")
    assert "ada@marker.example" in text
    assert "comment cccc1111" in text
    assert "2 offers and 1 comments wait" in text
    assert "\x1b[2J" not in text
    assert r"\x1b[2Jboo" in text
    assert "marker.example" not in operator("list")


def test_accepting_makes_an_invitation_where_the_relay_asks_for_them(operator: Any, tmp_path: Path) -> None:
    assert "takes every node" in operator("accept", "aaaa")
    assert not (tmp_path / "invitations.json").exists(), "an open relay stays open"
    text = operator("accept", "bbbb", "--invite", "--expires", "30d")
    [token] = re.findall(r"TOKEN_PLACE_RELAY_SERVER_TOKEN=(\S+)", text)
    kept = (tmp_path / "invitations.json").read_text()
    assert "offer bbbbbbbb" in kept
    assert token not in kept
    assert "accepted on" in operator("accept", "bbbb", status=1)
    assert operator("list").count("accepted") == 2


def test_declining_deletes(operator: Any, tmp_path: Path) -> None:
    assert "deleted" in operator("decline", "aaaa")
    assert "ada" not in (tmp_path / "contribution_queue.jsonl").read_text()
    operator("accept", "cccc1111")
    assert json.loads((tmp_path / "model_feedback.jsonl").read_text())["review"] == "accepted"
    assert "No offer" in operator("decline", "dddd", status=1)
