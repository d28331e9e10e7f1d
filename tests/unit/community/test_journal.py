"""Many writers at once: nothing is lost and no line is torn, also between processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tokenplace.community.journal import Journal
from tokenplace.errors import ApiError
from tokenplace.locks import Busy, locked
from unit.community.boards import OFFER, Stand, lines

OFFERS = "/api/v1/community/contributions"

WRITER = """
import sys
from pathlib import Path
from tokenplace.community.board import Board
from tokenplace.community.files import Files
from tokenplace.community.settings import CommunitySettings

name, count = sys.argv[1], int(sys.argv[2])
board = Board(Files(CommunitySettings(), lambda *_: None))
sys.stdin.read(1)
for number in range(count):
    board.contribute({
        "operator_name": f"{name}-{number}", "region": "eu", "availability": "always", "capabilities": ["gpu"],
        "contact": {"email": "x@example.org"}, "notes": "long enough to be torn " * 40,
    })
"""


def numbers(path: Path, *, most: int = 1 << 20) -> Journal[int]:
    def read(fields: Mapping[str, Any]) -> int:
        return int(fields["n"])

    return Journal(path, read, most_bytes=most, skipped=lambda *_: None)


async def test_two_hundred_offers_at_once_are_all_kept(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    replies = await asyncio.gather(
        *(stand.post(OFFERS, {**OFFER, "operator_name": f"volunteer {number}"}) for number in range(200))
    )
    assert {reply.status for reply in replies} == {202}
    kept = lines(stand.queue)
    assert {line["submission_id"] for line in kept} == {reply.json()["submission_id"] for reply in replies}
    assert len(kept) == 200
    assert (await stand.get(f"{OFFERS}/summary")).json()["total_submissions"] == 200


async def test_the_same_offer_two_hundred_times_at_once_is_one(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    replies = await asyncio.gather(*(stand.post(OFFERS, OFFER) for _ in range(200)))
    assert len({reply.json()["submission_id"] for reply in replies}) == 1
    assert sum("duplicate" not in reply.json() for reply in replies) == 1
    assert len(lines(stand.queue)) == 1


async def test_one_client_cannot_vote_twice_by_voting_at_once(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    vote = {"model_id": "tiny", "rating": 5}
    replies = await asyncio.gather(*(stand.post("/api/v1/community/feedback", vote) for _ in range(50)))
    assert sorted(reply.status for reply in replies) == [201] + [409] * 49
    assert len(lines(stand.feedback)) == 1


def test_processes_lose_nothing_of_each_other_while_an_operator_rewrites(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, f"process{number}", "50"],
            stdin=subprocess.PIPE,
            env={"TOKEN_PLACE_COMMUNITY_DIR": str(tmp_path), "PATH": ""},
        )
        for number in range(4)
    ]
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"x")
            process.stdin.close()
        stand = Stand(tmp_path)
        accepted = 0
        while any(process.poll() is None for process in processes):
            for offer in stand.desk.offers()[-1:]:
                if offer.decision == "pending":
                    stand.desk.accept(offer.id)  # rewrites the whole file, under the lock
                    accepted += 1
        assert [process.wait(60) for process in processes] == [0] * 4
    finally:
        for process in processes:
            process.kill()
    kept = lines(stand.queue)
    assert {line["operator_name"] for line in kept} == {f"process{a}-{b}" for a in range(4) for b in range(50)}
    assert len(kept) == 200
    assert sum(line.get("decision") == "accepted" for line in kept) == accepted


def test_what_others_append_is_read_without_reading_all_again(tmp_path: Path) -> None:
    seen: list[int] = []

    def read(fields: Mapping[str, Any]) -> int:
        seen.append(fields["n"])
        return int(fields["n"])

    path = tmp_path / "j"
    reader: Journal[int] = Journal(path, read, most_bytes=1 << 20, skipped=lambda *_: None)
    writer = numbers(path)
    for number in range(3):
        with writer.writing() as pen:
            pen.append({"n": number})
        assert reader.values() == list(range(number + 1))
    assert seen == [0, 1, 2]
    path.write_text('{"n": 8}\n{"n": 9}\n{"n": 7}\n{"n": 6}\n')
    assert reader.values() == [8, 9, 7, 6], "another text in the same file is no continuation"


def test_a_full_file_takes_nothing_more(tmp_path: Path) -> None:
    journal = numbers(tmp_path / "j", most=20)
    with journal.writing() as pen:
        pen.append({"n": 1})
        pen.append({"n": 2})
        with pytest.raises(ApiError) as full:
            pen.append({"n": 3})
    assert full.value.code == "board_full"
    assert journal.values() == [1, 2]


def test_a_rewritten_file_keeps_the_rights_it_had(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_text('{"n": 1}\nwhat?\n{"n": 2}\n')
    path.chmod(0o640)
    journal = numbers(path)
    with journal.writing() as pen:
        pen.rewrite(lambda values: [{"n": value + 1} for value in values])
    assert path.read_text() == 'what?\n{"n": 2}\n{"n": 3}\n'
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(file.name for file in tmp_path.iterdir()) == [".j.lock", "j"]


def test_a_lock_has_one_holder_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", 1.0), pytest.raises(Busy), locked(tmp_path / "lock", 0.0):
        pass
    with locked(tmp_path / "lock", 0.0):
        pass


def test_a_lock_is_free_again_when_its_holder_dies(tmp_path: Path) -> None:
    code = "import sys, os; from pathlib import Path; from tokenplace.locks import locked\n"
    code += f"with locked(Path({str(tmp_path / 'lock')!r}), 1.0): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Busy), locked(tmp_path / "lock", 0.0):
            pass
        holder.kill()
    with locked(tmp_path / "lock", 20.0):
        pass
