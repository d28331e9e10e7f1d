"""The notice board: what may be read from it and written on it. Methods block on files; call them from a thread."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

from tokenplace.community import faults
from tokenplace.community.contributions import MOST_CONTRIBUTIONS, Contribution, read_offer
from tokenplace.community.contributions import summary as summary_of
from tokenplace.community.feedback import (
    MERGE_ABOVE,
    MOST_PENDING_COMMENTS,
    Review,
    leaderboard,
    merged,
    read_rating,
)
from tokenplace.community.files import Files
from tokenplace.community.live import Live
from tokenplace.community.texts import Fields
from tokenplace.community.times import show_time
from tokenplace.errors import ApiError

Known = Callable[[str], str | None]
"""The id of the model that goes by a name, None where nobody knows it."""

Screen = Callable[[Sequence[str]], None]
"""Raises ApiError for texts that must not be written down."""


def _now() -> datetime:
    return datetime.now(UTC)


def _anything(_: Sequence[str]) -> None:
    pass


class Board:
    """One notice board. `screen` looks at comments and offers before they are kept."""

    def __init__(self, files: Files, *, screen: Screen = _anything, now: Callable[[], datetime] = _now) -> None:
        self._files = files
        self._screen = screen
        self._now = now
        self._day = now().date()
        self._merged: date | None = None
        """Once a day is enough, also when little could be merged."""

    def providers(self, live: Live, limit: int | None, offset: int) -> dict[str, Any]:
        """The directory."""
        return self._files.directory().answer(live, self._now(), limit, offset)

    def server_providers(self, live: Live, limit: int | None, offset: int) -> dict[str, Any]:
        """The registry."""
        return self._files.registry().answer(live, self._now(), limit, offset)

    def leaderboard(self, limit: int | None, offset: int) -> dict[str, Any]:
        """The models by their ratings."""
        if (today := self._now().date()) != self._day:
            self._day = today
            if self._files.voters.outdated(today):
                with suppress(ApiError), self._files.feedback.writing():  # the next vote would do it as well
                    self._files.voters.forget(today)
        return leaderboard(self._files.feedback.values(), limit, offset)

    def rate(self, fields: Fields, client: str, known: Known) -> dict[str, Any]:
        """One vote. Raises ApiError: 400, 404 for an unknown model, 409 for a second vote that day."""
        vote = read_rating(fields)
        model = known(vote.model)
        if model is None:  # one that was rated before is not served at this moment, and known all the same
            if all(line.model != vote.model for line in self._files.feedback.values()):
                raise faults.unknown_model(vote.model)
            model = vote.model
        if vote.comment:
            self._look("comment", [vote.comment])
        now = self._now()
        with self._files.feedback.writing() as pen:
            if pen.bytes > MERGE_ABOVE and self._merged != now.date():
                pen.rewrite(lambda votes: [line.fields() for line in merged(votes, now)])
                self._merged = now.date()
            lines = self._files.feedback.values()
            voter = self._files.voters.name(client, model, now.date())
            if any(line.voter == voter for line in lines):
                raise faults.voted()
            vote = replace(vote, model=model, at=now, voter=voter, id=secrets.token_hex(8))
            if vote.comment and sum(line.review is Review.PENDING for line in lines) >= MOST_PENDING_COMMENTS:
                vote = vote.reviewed(accept=False)
            pen.append(vote.fields())
        answer = {"status": "counted", "feedback_id": vote.id, "model_id": model, "rating": vote.rating}
        if fields.get("comment"):
            answer["comment"] = "awaiting_review" if vote.comment else "not_kept"
        return answer

    def contribute(self, fields: Fields) -> dict[str, Any]:
        """An offer of a machine. Raises ApiError: 400, 503 when the queue is full."""
        offer = read_offer(fields)
        self._look("region", [offer.region])  # these two are in the summary, which everybody may read
        self._look("capabilities", offer.capabilities)
        with self._files.queue.writing() as pen:
            queue = self._files.queue.values()
            found = next((each for each in queue if each.offer.fingerprint == offer.fingerprint), None)
            if found is not None:
                return {"status": "queued", "submission_id": found.id, "duplicate": True}
            if len(queue) >= MOST_CONTRIBUTIONS:
                raise faults.full()
            contribution = Contribution(str(uuid.uuid4()), offer, show_time(self._now()))
            pen.append(contribution.fields())
        return {"status": "queued", "submission_id": contribution.id}

    def summary(self) -> dict[str, Any]:
        """The queue in numbers."""
        return summary_of(self._files.queue.values())

    def _look(self, param: str, texts: Sequence[str]) -> None:
        try:
            self._screen(texts)
        except ApiError:
            raise faults.blocked(param) from None
