"""The notice board's HTTP: where it is, what it takes, and what it tells nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog

from tokenplace.community.allowance import Allowance
from tokenplace.community.texts import MAX_BODY
from tokenplace.errors import ApiError
from unit.community.boards import OFFER, Stand

OFFERS = "/api/v1/community/contributions"
FEEDBACK = "/api/v1/community/feedback"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/community/providers",
        "/v2/community/providers",
        "/v1/server-providers",
        "/v1/community/leaderboard",
        "/v1/community/contributions",
        "/api/v2/community/leaderboard",
        "/api/v2/community/contributions",
        "/api/v2/community/contributions/summary",
        "/api/v2/community/feedback",
        "/api/v1/community",
        "/api/v1/community/providers/",
    ],
)
async def test_the_board_has_no_second_address(tmp_path: Path, path: str) -> None:
    reply = await Stand(tmp_path).get(path)
    assert (reply.status, reply.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "path", ["/", "/community", "/v1/models", "/api/v1/relay/server-nodes", "/api/v1/server-providersx"]
)
async def test_what_is_not_the_boards_goes_on(tmp_path: Path, path: str) -> None:
    assert (await Stand(tmp_path).get(path)).body == b"elsewhere"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("POST", "/api/v1/community/leaderboard", "GET, HEAD"), ("GET", OFFERS, "POST"), ("DELETE", FEEDBACK, "POST")],
)
async def test_a_method_that_is_not_taken_is_told(tmp_path: Path, method: str, path: str, allowed: str) -> None:
    stand = Stand(tmp_path)
    reply = await stand.get(path, method)
    assert (reply.status, reply.headers["allow"]) == (405, allowed)
    options = await stand.get(path, "OPTIONS")
    assert (options.status, options.headers["allow"]) == (204, allowed)
    assert not any(name.startswith("access-control") for name in options.headers), "no stranger's page may write"


async def test_a_head_has_no_body(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    head = await stand.get("/api/v1/community/leaderboard", "HEAD")
    get = await stand.get("/api/v1/community/leaderboard")
    assert head.body == b""
    assert head.headers["content-length"] == str(len(get.body))


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_only_json_that_says_so_is_taken(tmp_path: Path, kind: str) -> None:
    reply = await Stand(tmp_path).post(OFFERS, OFFER, kind=kind)
    assert (reply.status, reply.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert (await Stand(tmp_path).post(OFFERS, OFFER, kind="Application/JSON; charset=utf-8")).status == 202


async def test_a_body_is_bounded(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    reply = await stand.post(OFFERS, b" " * (MAX_BODY + 1))
    assert (reply.status, reply.json()["error"]["code"]) == (413, "request_too_large")
    headers = [("content-type", "application/json"), ("content-length", "99999999999999999999")]
    assert (await stand.ask("POST", OFFERS, b"", headers)).status == 413


async def test_an_address_may_write_so_much_in_an_hour(tmp_path: Path) -> None:
    stand = Stand(tmp_path, hourly=2)
    for name in ("a", "b"):
        assert (await stand.post(OFFERS, {**OFFER, "operator_name": name})).status == 202
    stand.seconds = 600.0
    reply = await stand.post(OFFERS, {**OFFER, "operator_name": "c"})
    assert (reply.status, reply.headers["retry-after"]) == (429, "3000")
    assert (await stand.post(OFFERS, {**OFFER, "operator_name": "c"}, client="192.0.2.2")).status == 202
    stand.seconds = 3600.0
    assert (await stand.post(OFFERS, {**OFFER, "operator_name": "d"})).status == 202


def test_the_allowance_itself_is_bounded() -> None:
    allowance = Allowance(1, lambda: 0.0)
    for number in range(20_000):
        allowance.take(str(number))
    assert len(allowance._written) <= 10_000
    with pytest.raises(ApiError):
        allowance.take("19999")


async def test_logs_and_metrics_count_and_name_nobody(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    with structlog.testing.capture_logs() as logs:
        await stand.post(OFFERS, {**OFFER, "notes": "marker-notes"})
        await stand.post(OFFERS, OFFER)
        await stand.post(FEEDBACK, {"model_id": "tiny", "rating": 5, "comment": "marker-comment"})
        await stand.post(FEEDBACK, {"model_id": "tiny", "rating": 5})
        await stand.post(FEEDBACK, {"model_id": "marker-model", "rating": 5})
    metrics = stand.counts.render().decode()
    told = str(logs) + metrics
    for secret in ("Ada", "example.org", "marker", "192.0.2", "eu-west", "tiny"):
        assert secret not in told
    assert [(log["kind"], log["outcome"]) for log in logs] == [
        ("contribution", "kept"),
        ("contribution", "duplicate"),
        ("feedback", "kept"),
    ]
    assert 'tokenplace_community_posts_total{kind="feedback",outcome="already_voted"} 1' in metrics


async def test_no_public_answer_has_a_contact(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    answers: list[Any] = [await stand.post(OFFERS, OFFER), await stand.post(OFFERS, OFFER)]
    for path in ("community/contributions/summary", "community/leaderboard", "community/providers"):
        answers.append(await stand.get(f"/api/v1/{path}"))
    assert all(b"example.org" not in reply.body and b"Ada" not in reply.body for reply in answers)
