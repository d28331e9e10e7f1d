"""What an operator does with what was sent: look through it, accept, decline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from tokenplace.community.contributions import Contribution, Decision
from tokenplace.community.feedback import Review, Vote
from tokenplace.community.files import Files
from tokenplace.community.journal import Journal
from tokenplace.errors import TokenPlaceError

_SHORTEST = 4
Found = Contribution | Vote
Changed = Iterable[Mapping[str, Any]]
Entry = TypeVar("Entry", Contribution, Vote)


class NoSuchEntry(TokenPlaceError):
    """No offer and no waiting comment has that id; `tokenplace community review` shows those that wait."""

    code = "no_such_entry"


def _now() -> datetime:
    return datetime.now(UTC)


class Desk:
    """Offers and comments, found by their id or its beginning. Methods raise ApiError when a file cannot be used."""

    def __init__(self, files: Files, now: Callable[[], datetime] = _now) -> None:
        self._files = files
        self._now = now

    def offers(self) -> list[Contribution]:
        """Every offer in the queue, the oldest first."""
        return self._files.queue.values()

    def comments(self) -> list[Vote]:
        """Comments that wait."""
        return [vote for vote in self._files.feedback.values() if vote.review is Review.PENDING]

    def find(self, id: str) -> Found:
        """What goes by this id. Raises NoSuchEntry when nothing does, or several things."""
        waiting: list[Found] = [*self.offers(), *self.comments()]
        found = [each for each in waiting if each.id.startswith(id)]
        if len(id) < _SHORTEST or not found:
            raise NoSuchEntry
        if len(found) > 1:
            raise NoSuchEntry(f"{len(found)} entries begin with {id!r}; give more of the id.")
        return found[0]

    def accept(self, id: str) -> Found:
        """Take an offer, or let a comment be shown. Raises NoSuchEntry, also for an offer that was accepted before."""
        found = self.find(id)
        if isinstance(found, Contribution):
            if found.decision is Decision.ACCEPTED:
                raise NoSuchEntry(f"This offer was accepted on {found.decided_at} already.")
            _change(self._files.queue, found, lambda each: [each.accepted(self._now()).fields()])
        else:
            _change(self._files.feedback, found, lambda each: [each.reviewed(accept=True).fields()])
        return found

    def decline(self, id: str) -> Found:
        """Delete an offer with everything its sender wrote, or a comment (its rating stays). Raises NoSuchEntry."""
        found = self.find(id)
        if isinstance(found, Contribution):
            _change(self._files.queue, found, lambda _: [])
        else:
            _change(self._files.feedback, found, lambda each: [each.reviewed(accept=False).fields()])
        return found


def _change(journal: Journal[Entry], found: Entry, change: Callable[[Entry], Changed]) -> None:
    def changed(entries: list[Entry]) -> Changed:
        for each in entries:
            if each.id == found.id:
                yield from change(each)
            else:
                yield each.fields()

    with journal.writing() as pen:
        pen.rewrite(changed)
