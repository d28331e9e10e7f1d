"""Ratings of models: lines of `model_feedback.jsonl`, and the leaderboard made of them.

A line says what was rated and how, perhaps for several votes at once, and never by whom: `voter` is a hash whose key
is thrown away with the day. Old lines are merged into one for each model, so the file grows with the models, not with
the years.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from tokenplace.community.faults import bad
from tokenplace.community.texts import Fields, is_utf8, optional_text, text
from tokenplace.community.times import read_time, show_time

MOST_FEEDBACK_BYTES = 8 * 1024 * 1024
MERGE_ABOVE = 1024 * 1024
"""Bytes from which lines of earlier days are merged."""

LONGEST_COMMENT = 500
MOST_PENDING_COMMENTS = 500
"""Comments that wait for the operator; a vote that comes when there are so many counts, without its comment."""

SHOWN_COMMENTS = 3
KEPT_COMMENTS = 20
_LONGEST_MODEL = 256


class Review(StrEnum):
    """Where a comment is. A declined one is deleted."""

    NONE = "none"
    PENDING = "pending"
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class Vote:
    """One line: `votes` ratings of a model, their mean, and the time of the latest."""

    model: str
    rating: float
    votes: int = 1
    at: datetime | None = None
    voter: str = ""
    id: str = ""
    comment: str = ""
    review: Review = Review.NONE

    def fields(self) -> dict[str, Any]:
        """As the file has it."""
        whole = int(self.rating)
        fields: dict[str, Any] = {"model_id": self.model, "rating": whole if whole == self.rating else self.rating}
        if self.votes != 1:
            fields["votes"] = self.votes
        if self.at is not None:
            fields["submitted_at"] = show_time(self.at)
        optional = {"feedback_id": self.id, "voter": self.voter, "comment": self.comment}
        if self.comment:
            optional["review"] = self.review.value
        return fields | {name: said for name, said in optional.items() if said}

    def reviewed(self, *, accept: bool) -> Vote:
        """After the operator read the comment."""
        return replace(self, review=Review.ACCEPTED) if accept else replace(self, review=Review.NONE, comment="")


def read_vote(fields: Fields) -> Vote:
    """A line of the file. Raises ValueError."""
    model, rating = fields.get("model_id"), fields.get("rating")
    votes = fields.get("votes") or fields.get("count") or fields.get("weight") or 1
    submitted = fields.get("submitted_at")
    said = fields.get("comment", "")
    if not (isinstance(model, str) and model.strip() and is_utf8(model)):
        raise ValueError("no model_id")
    if not (isinstance(rating, int | float) and not isinstance(rating, bool) and 1 <= rating <= 5):
        raise ValueError("no rating from 1 to 5")
    if not isinstance(votes, int) or isinstance(votes, bool) or not 1 <= votes < 2**53:
        raise ValueError("votes is no positive whole number")
    if not (isinstance(said, str) and is_utf8(said)):
        raise ValueError("the comment is no text")
    return Vote(
        model=model.strip(),
        rating=float(rating),
        votes=votes,
        at=None if submitted is None else read_time(submitted),
        voter=_word(fields, "voter"),
        id=_word(fields, "feedback_id"),
        comment=said,
        review=Review(fields.get("review", "none")) if said else Review.NONE,
    )


def read_rating(fields: Fields) -> Vote:
    """What somebody sends: model_id, rating and perhaps a comment. Raises ApiError (400)."""
    rating = fields.get("rating")
    if rating is None:
        raise bad("`rating` is missing.", "rating", "missing_required_parameter")
    if not isinstance(rating, int) or isinstance(rating, bool):
        raise bad("`rating` is a whole number from 1 to 5.", "rating", "invalid_type")
    if not 1 <= rating <= 5:
        raise bad("`rating` is a whole number from 1 to 5.", "rating", "invalid_value")
    comment = optional_text(fields, "comment", LONGEST_COMMENT)
    model = text(fields, "model_id", _LONGEST_MODEL)
    return Vote(model, rating, comment=comment, review=Review.PENDING if comment else Review.NONE)


def leaderboard(votes: Iterable[Vote], limit: int | None = None, offset: int = 0) -> dict[str, Any]:
    """Models by their mean rating, the best first; comments only where the operator accepted them."""
    by_model: defaultdict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        by_model[vote.model].append(vote)
    entries = sorted((_entry(model, lines) for model, lines in by_model.items()), key=_rank)
    end = len(entries) if limit is None else offset + limit
    latest = max((line.at for lines in by_model.values() for line in lines if line.at), default=None)
    board: dict[str, Any] = {"entries": entries[offset:end], "updated": latest and show_time(latest)}
    if end < len(entries):
        board["next_offset"] = end
    return board


def merged(votes: Iterable[Vote], today: datetime) -> list[Vote]:
    """The same ratings in fewer lines: those of earlier days as one for each model, but for comments that are kept."""
    kept: list[Vote] = []
    old: defaultdict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        if vote.at is not None and vote.at.date() >= today.date():
            kept.append(vote)
        elif vote.review is Review.NONE:
            old[vote.model].append(vote)
        else:
            kept.append(replace(vote, voter=""))
    surplus = _beyond(kept, KEPT_COMMENTS)
    for vote in surplus:
        old[vote.model].append(vote)
    kept = [vote for vote in kept if vote not in surplus]
    return [*(_sum(model, lines) for model, lines in old.items()), *kept]


def _beyond(votes: Sequence[Vote], most: int) -> list[Vote]:
    """Accepted comments of a model beyond the latest `most`."""
    seen: defaultdict[str, int] = defaultdict(int)
    found = []
    for vote in reversed(votes):
        if vote.review is Review.ACCEPTED:
            seen[vote.model] += 1
            if seen[vote.model] > most:
                found.append(vote)
    return found


def _sum(model: str, lines: Sequence[Vote]) -> Vote:
    votes = sum(line.votes for line in lines)
    mean = math.fsum(line.rating * line.votes for line in lines) / votes
    return Vote(model, min(5.0, max(1.0, mean)), votes, max((line.at for line in lines if line.at), default=None))


def _entry(model: str, lines: Sequence[Vote]) -> dict[str, Any]:
    whole = _sum(model, lines)
    entry: dict[str, Any] = {
        "model_id": model,
        "average_rating": round(whole.rating, 2),
        "ratings_count": whole.votes,
        "last_feedback_at": whole.at and show_time(whole.at),
    }
    accepted = [line for line in lines if line.review is Review.ACCEPTED]
    if accepted:
        entry["comments"] = [
            {"rating": line.rating, "comment": line.comment, "submitted_at": line.at and show_time(line.at)}
            for line in accepted[: -SHOWN_COMMENTS - 1 : -1]
        ]
    return entry


def _rank(entry: dict[str, Any]) -> tuple[float, int, str]:
    return -entry["average_rating"], -entry["ratings_count"], entry["model_id"]


def _word(fields: Fields, name: str) -> str:
    value = fields.get(name, "")
    return value if isinstance(value, str) and is_utf8(value) else ""
