"""Offers of machines: the contract's requests and answers, bounds, duplicates, and what stays with the operator."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from tokenplace.community import faults
from tokenplace.community.contributions import MOST_CONTRIBUTIONS
from tokenplace.community.desk import NoSuchEntry
from tokenplace.openai.screening import PhraseScreen
from unit.community.boards import OFFER, Stand, lines

OFFERS = "/api/v1/community/contributions"
SUMMARY = "/api/v1/community/contributions/summary"


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in OFFER.items() if key != name}


async def test_an_offer_is_queued_in_the_contracts_line(tmp_path: Path) -> None:
    stand = Stand(tmp_path / "made" / "when needed")
    reply = await stand.post(OFFERS, OFFER)
    assert reply.status == 202
    assert reply.json() == {"status": "queued", "submission_id": str(uuid.UUID(reply.json()["submission_id"]))}
    assert lines(stand.queue) == [
        {
            "submission_id": reply.json()["submission_id"],
            "operator_name": "Ada",
            "region": "eu-west",
            "availability": "evenings",
            "capabilities": ["gpu", "openai-compatible"],
            "contact": {"email": "ada@example.org"},
            "submitted_at": "2026-05-01T12:00:00Z",
            "hardware": "one GPU",
        }
    ]
    assert stand.queue.stat().st_mode & 0o077 == 0, "how to reach people is for the operator's eyes"


@pytest.mark.parametrize(
    ("content", "param"),
    [
        *((without(name), name) for name in ("operator_name", "region", "availability", "capabilities", "contact")),
        ({**OFFER, "region": "  "}, "region"),
        ({**OFFER, "region": 7}, "region"),
        ({**OFFER, "contact": {}}, "contact"),
        ({**OFFER, "contact": "ada@example.org"}, "contact"),
        ({**OFFER, "contact": {"phone": "1"}}, "contact.phone"),
        ({**OFFER, "contact": {"email": " "}}, "contact.email"),
        ({**OFFER, "capabilities": "gpu"}, "capabilities"),
        ({**OFFER, "capabilities": []}, "capabilities"),
        ({**OFFER, "capabilities": ["gpu", ""]}, "capabilities[1]"),
        ({**OFFER, "capabilities": ["x"] * 21}, "capabilities"),
        ({**OFFER, "capabilities": ["how to kill"]}, "capabilities"),
        ({**OFFER, "hardware": 5}, "hardware"),
        ({**OFFER, "notes": "x" * 2001}, "notes"),
        ({**OFFER, "operator_name": "x" * 121}, "operator_name"),
    ],
)
async def test_what_is_no_offer_is_refused_by_name(tmp_path: Path, content: Any, param: str) -> None:
    stand = Stand(tmp_path, screen=PhraseScreen(["kill"]))
    reply = await stand.post(OFFERS, content)
    assert (reply.status, reply.json()["error"]["param"]) == (400, param)
    assert not stand.queue.exists()


async def test_the_same_offer_again_has_the_same_id(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    first = (await stand.post(OFFERS, OFFER)).json()
    again = await stand.post(OFFERS, {**OFFER, "operator_name": "ADA", "notes": "me again"}, client="192.0.2.9")
    assert (again.status, again.json()) == (202, {**first, "duplicate": True})
    other = (await stand.post(OFFERS, {**OFFER, "contact": {"matrix": "@ada:example.org"}})).json()
    assert other["submission_id"] != first["submission_id"]
    assert len(lines(stand.queue)) == 2


async def test_the_summary_says_how_much_and_never_who(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    assert (await stand.get(SUMMARY)).json() == {
        "object": "community.contribution_summary",
        "total_submissions": 0,
        "regions": [],
        "capability_counts": {},
        "last_submission_at": None,
    }
    await stand.post(OFFERS, OFFER)
    stand.next_day()
    await stand.post(OFFERS, {**OFFER, "operator_name": "Bo", "region": "asia", "capabilities": ["gpu"]})
    reply = await stand.get(SUMMARY)
    assert reply.json() == {
        "object": "community.contribution_summary",
        "total_submissions": 2,
        "regions": ["asia", "eu-west"],
        "capability_counts": {"gpu": 2, "openai-compatible": 1},
        "last_submission_at": "2026-05-02T12:00:00Z",
    }
    assert list(reply.json()["capability_counts"]) == ["gpu", "openai-compatible"], "the most frequent comes first"
    assert b"Ada" not in reply.body
    assert b"example.org" not in reply.body


async def test_bad_lines_in_the_queue_hide_nothing(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    await stand.post(OFFERS, OFFER)
    with stand.queue.open("a") as queue:
        queue.write('{"half": \n[]\n{"submission_id": "x"}\n')
    assert (await stand.get(SUMMARY)).json()["total_submissions"] == 1
    assert stand.told == ["contribution_queue.jsonl has 3 lines that cannot be read"]


async def test_a_line_that_its_writer_could_not_end_harms_no_other(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    stand.queue.write_text('{"submission_id": "torn by a power cut')
    assert (await stand.post(OFFERS, OFFER)).status == 202
    assert (await stand.get(SUMMARY)).json()["total_submissions"] == 1


async def test_a_last_line_without_an_end_counts_and_can_be_followed(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    await stand.post(OFFERS, OFFER)
    stand.queue.write_bytes(stand.queue.read_bytes().rstrip(b"\n"))
    assert (await stand.get(SUMMARY)).json()["total_submissions"] == 1
    await stand.post(OFFERS, {**OFFER, "operator_name": "Bo"})
    assert (await stand.get(SUMMARY)).json()["total_submissions"] == 2


async def test_a_queue_edited_by_hand_is_read_again(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    await stand.post(OFFERS, OFFER)
    await stand.post(OFFERS, {**OFFER, "operator_name": "Bo"})
    stand.queue.write_bytes(stand.queue.read_bytes().splitlines(keepends=True)[1])
    assert (await stand.get(SUMMARY)).json()["total_submissions"] == 1
    stand.queue.unlink()
    assert (await stand.get(SUMMARY)).json()["total_submissions"] == 0


async def test_a_full_queue_promises_nothing(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    await stand.post(OFFERS, OFFER)
    [line] = lines(stand.queue)
    stand.queue.write_text(
        "".join(json.dumps({**line, "operator_name": str(number)}) + "\n" for number in range(MOST_CONTRIBUTIONS))
    )
    reply = await stand.post(OFFERS, OFFER)
    assert (reply.status, reply.json()["error"]["code"]) == (503, "board_full")


async def test_a_queue_that_cannot_be_written_promises_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    reply = await Stand(tmp_path / "file" / "below").post(OFFERS, OFFER)
    assert (reply.status, reply.json()["error"]["code"]) == (503, faults.not_writable().code)


# -- the operator --------------------------------------------------------------------------------------------------


async def test_the_operator_accepts_and_declines(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    ada = (await stand.post(OFFERS, OFFER)).json()["submission_id"]
    bo = (await stand.post(OFFERS, {**OFFER, "operator_name": "Bo", "notes": "hello"})).json()["submission_id"]
    accepted = stand.desk.accept(ada[:8])
    assert accepted.id == ada
    assert [each.decision for each in stand.desk.offers()] == ["accepted", "pending"]
    with pytest.raises(NoSuchEntry, match="accepted on 2026-05-01"):
        stand.desk.accept(ada)
    stand.desk.decline(bo)
    assert "Bo" not in stand.queue.read_text(), "what was declined is deleted"
    assert [each.id for each in stand.desk.offers()] == [ada]
    assert (await stand.post(OFFERS, OFFER)).json()["duplicate"] is True
    assert (await stand.post(OFFERS, {**OFFER, "operator_name": "Bo"})).json()["submission_id"] != bo


@pytest.mark.parametrize("id", ["", "abc", "nothing-like-that"])
async def test_an_id_that_names_nothing_is_told(tmp_path: Path, id: str) -> None:
    stand = Stand(tmp_path)
    await stand.post(OFFERS, OFFER)
    with pytest.raises(NoSuchEntry):
        stand.desk.accept(id)


async def test_an_id_that_names_two_is_told(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    await stand.post(OFFERS, OFFER)
    [line] = lines(stand.queue)
    ids = ("same-1", "same-2")
    stand.queue.write_text("".join(json.dumps({**line, "submission_id": id}) + "\n" for id in ids))
    with pytest.raises(NoSuchEntry, match="2 entries"):
        stand.desk.accept("same")
