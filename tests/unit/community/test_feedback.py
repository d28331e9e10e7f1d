"""Ratings: the leaderboard of the contract, one vote a day, comments that wait, a file that does not grow for ever."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tokenplace.community import feedback
from tokenplace.openai.screening import PhraseScreen
from unit.community.boards import Stand, lines

BOARD = "/api/v1/community/leaderboard"
FEEDBACK = "/api/v1/community/feedback"


def rating(model: str = "tiny", stars: Any = 4, **more: Any) -> dict[str, Any]:
    return {"model_id": model, "rating": stars, **more}


def write(stand: Stand, *entries: Any) -> None:
    stand.feedback.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in entries))


async def test_without_a_file_nothing_is_on_the_leaderboard(tmp_path: Path) -> None:
    reply = await Stand(tmp_path).get(BOARD)
    assert (reply.status, reply.json()) == (200, {"entries": [], "updated": None})


async def test_models_are_ranked_by_their_weighted_mean(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    write(
        stand,
        rating("b", 5, votes=2, submitted_at="2025-01-02T03:04:05.678Z"),
        rating("b", 4, submitted_at="2025-01-01T00:00:00+02:00"),
        rating("a", 4.67, count=3),
        rating("c", 3, weight=1, submitted_at="2025-03-01T00:00:00Z"),
        rating("d", 4.67),
    )
    assert (await stand.get(BOARD)).json() == {
        "entries": [
            {"model_id": "a", "average_rating": 4.67, "ratings_count": 3, "last_feedback_at": None},
            {"model_id": "b", "average_rating": 4.67, "ratings_count": 3, "last_feedback_at": "2025-01-02T03:04:05Z"},
            {"model_id": "d", "average_rating": 4.67, "ratings_count": 1, "last_feedback_at": None},
            {"model_id": "c", "average_rating": 3.0, "ratings_count": 1, "last_feedback_at": "2025-03-01T00:00:00Z"},
        ],
        "updated": "2025-03-01T00:00:00Z",
    }


async def test_a_limit_cuts_the_entries_and_not_the_time(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    write(stand, rating("a", 5), rating("b", 1, submitted_at="2025-03-01T00:00:00Z"))
    cut = (await stand.get(f"{BOARD}?limit=1")).json()
    assert [entry["model_id"] for entry in cut["entries"]] == ["a"]
    assert cut["updated"] == "2025-03-01T00:00:00Z"
    rest = (await stand.get(f"{BOARD}?limit=9&offset={cut['next_offset']}")).json()
    assert [entry["model_id"] for entry in rest["entries"]] == ["b"]


@pytest.mark.parametrize("limit", ["0", "-1", "ten", "1.5", ""])
async def test_a_limit_is_a_positive_whole_number(tmp_path: Path, limit: str) -> None:
    reply = await Stand(tmp_path).get(f"{BOARD}?limit={limit}")
    assert (reply.status, reply.json()["error"]["param"]) == (400, "limit")


BAD_LINES = [
    "no json",
    "[1]",
    rating("", 3),
    rating("a", 6),
    rating("a", "5"),
    rating("a", True),
    rating("a", 3, votes=-2),
    rating("a", 3, submitted_at="yesterday"),
    rating("a", 3, submitted_at="2025-01-01T00:00:00"),
    '{"model_id": "a", "rating": NaN}',
    "[" * 100_000,
]


async def test_bad_lines_are_passed_over_counted_and_told_once(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    write(stand, *BAD_LINES, "", rating("good", 3))
    for _ in range(3):
        assert [entry["model_id"] for entry in (await stand.get(BOARD)).json()["entries"]] == ["good"]
    assert stand.told == [f"model_feedback.jsonl has {len(BAD_LINES)} lines that cannot be read"]


async def test_a_file_that_cannot_be_read_at_all_is_a_fault_with_a_code(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    stand.feedback.mkdir()
    reply = await stand.get(BOARD)
    assert (reply.status, reply.json()["error"]["code"]) == (503, "board_unavailable")


async def test_a_vote_counts_at_once_and_says_so(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    reply = await stand.post(FEEDBACK, rating("alias", 4))
    assert reply.status == 201
    assert reply.json() == {
        "status": "counted",
        "feedback_id": reply.json()["feedback_id"],
        "model_id": "tiny",
        "rating": 4,
    }
    assert (await stand.get(BOARD)).json()["entries"] == [
        {"model_id": "tiny", "average_rating": 4.0, "ratings_count": 1, "last_feedback_at": "2026-05-01T12:00:00Z"}
    ]


async def test_a_client_has_one_vote_for_each_model_and_day(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    assert (await stand.post(FEEDBACK, rating(stars=1))).status == 201
    again = await stand.post(FEEDBACK, rating("alias", 5))
    assert (again.status, again.json()["error"]["code"]) == (409, "already_voted")
    assert (await stand.post(FEEDBACK, rating("other"))).status == 201
    assert (await stand.post(FEEDBACK, rating(), client="192.0.2.2")).status == 201
    stand.next_day()
    assert (await stand.post(FEEDBACK, rating())).status == 201
    assert (await stand.get(BOARD)).json()["entries"][1]["ratings_count"] == 3


async def test_another_process_knows_who_has_voted(tmp_path: Path) -> None:
    assert (await Stand(tmp_path).post(FEEDBACK, rating())).status == 201
    assert (await Stand(tmp_path).post(FEEDBACK, rating())).status == 409


async def test_nobody_can_tell_from_the_files_who_voted(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    for client in ("192.0.2.1", "192.0.2.2"):
        await stand.post(FEEDBACK, rating(), client=client)
        await stand.post(FEEDBACK, rating("other"), client=client)
    voters = {line["voter"] for line in lines(stand.feedback)}
    assert len(voters) == 4, "a client's votes for two models cannot be joined"
    key = tmp_path / ".model_feedback.jsonl.voters"
    first = json.loads(key.read_text())["key"]
    assert key.stat().st_mode & 0o077 == 0
    everything = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"192.0.2" not in everything
    stand.next_day()
    await stand.get(BOARD)
    assert not key.exists(), "the key goes with the day, also when nobody votes"
    await stand.post(FEEDBACK, rating())
    assert json.loads(key.read_text())["key"] != first


@pytest.mark.parametrize(
    ("content", "status", "param", "code"),
    [
        (rating("nobody"), 404, "model_id", "model_not_found"),
        ({"rating": 3}, 400, "model_id", "missing_required_parameter"),
        ({"model_id": "tiny"}, 400, "rating", "missing_required_parameter"),
        (rating(stars=0), 400, "rating", "invalid_value"),
        (rating(stars=6), 400, "rating", "invalid_value"),
        (rating(stars=4.5), 400, "rating", "invalid_type"),
        (rating(stars=True), 400, "rating", "invalid_type"),
        (rating(comment="x" * 501), 400, "comment", "string_above_max_length"),
        (rating(comment=["x"]), 400, "comment", "invalid_type"),
        (b'{"model_id": "tiny", "rating": 3, "comment": "\\ud800"}', 400, "comment", "invalid_value"),
        (rating(comment="please KILL it"), 400, "comment", "content_blocked"),
        ([], 400, None, "invalid_json"),
        (b"\xff", 400, None, "invalid_json"),
        (b"[" * 15_000, 400, None, "invalid_json"),
    ],
)
async def test_what_is_no_vote_is_refused_by_name(
    tmp_path: Path, content: Any, status: int, param: str | None, code: str
) -> None:
    stand = Stand(tmp_path, screen=PhraseScreen(["kill"]))
    reply = await stand.post(FEEDBACK, content)
    error = reply.json()["error"]
    assert (reply.status, error["param"], error["code"]) == (status, param, code)
    assert not stand.feedback.exists()


async def test_a_comment_is_shown_only_after_the_operator_read_it(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    for client, said in (("192.0.2.1", "quick and kind"), ("192.0.2.2", "buy my things")):
        reply = await stand.post(FEEDBACK, rating(comment=said), client=client)
        assert reply.json()["comment"] == "awaiting_review"
    assert b"comment" not in (await stand.get(BOARD)).body
    good, advertising = stand.desk.comments()
    stand.desk.accept(good.id[:6])
    stand.desk.decline(advertising.id)
    [entry] = (await stand.get(BOARD)).json()["entries"]
    assert entry["comments"] == [
        {"rating": 4.0, "comment": "quick and kind", "submitted_at": "2026-05-01T12:00:00Z"},
    ]
    assert entry["ratings_count"] == 2, "a declined comment's rating stays"
    assert "buy my things" not in stand.feedback.read_text()
    assert stand.desk.comments() == []


async def test_old_lines_are_merged_without_changing_a_rating(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    day = stand.today - timedelta(days=3)
    old = [
        rating(f"m{number % 7}", 1 + number % 5, submitted_at=day.isoformat(), voter="x" * 32, pad="y" * 200)
        for number in range(4000)
    ]
    write(stand, "a bad line", *old, rating("m1", 2, comment="kept", review="accepted", submitted_at=day.isoformat()))
    stand.models["m1"] = "m1"
    before = (await stand.get(BOARD)).json()["entries"]
    assert stand.feedback.stat().st_size > feedback.MERGE_ABOVE
    assert (await stand.post(FEEDBACK, rating("m1", 2))).status == 201
    after = (await stand.get(BOARD)).json()["entries"]
    assert stand.feedback.stat().st_size < 4000
    assert sum(entry["ratings_count"] for entry in after) == sum(entry["ratings_count"] for entry in before) + 1
    assert {entry["model_id"]: entry["average_rating"] for entry in after if entry["model_id"] != "m1"} == {
        entry["model_id"]: entry["average_rating"] for entry in before if entry["model_id"] != "m1"
    }
    assert any(entry.get("comments") for entry in after)
    assert "a bad line" in stand.feedback.read_text(), "what nobody understands is not ours to delete"
    assert (await stand.post(FEEDBACK, rating("m1", 2))).status == 409, "today's votes are still known"


async def test_comments_that_wait_are_bounded(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    waiting = [rating(comment="x", review="pending") for _ in range(feedback.MOST_PENDING_COMMENTS)]
    write(stand, *waiting)
    reply = await stand.post(FEEDBACK, rating(comment="one more"))
    assert (reply.status, reply.json()["comment"]) == (201, "not_kept")
    assert "one more" not in stand.feedback.read_text()
