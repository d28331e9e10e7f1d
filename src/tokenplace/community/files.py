"""The files behind the notice board, by their paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tokenplace.community import faults
from tokenplace.community.contributions import MOST_QUEUE_BYTES, Contribution, read_contribution
from tokenplace.community.feedback import MOST_FEEDBACK_BYTES, Vote, read_vote
from tokenplace.community.journal import Journal
from tokenplace.community.providers import NO_DIRECTORY, Listing, read_directory, read_registry
from tokenplace.community.settings import CommunitySettings
from tokenplace.community.voters import Voters
from tokenplace.watched import Away, Watched

Told = Callable[[Path, str], None]
"""Hears once of each state of a file in which something is wrong."""

_REGISTRY = Path("config/server_providers.yaml")


class Files:
    """Everything that is read from disk and written there."""

    def __init__(self, settings: CommunitySettings, told: Told) -> None:
        folder = settings.folder
        feedback = settings.feedback or folder / "model_feedback.jsonl"
        self._told = told
        self._last: dict[Path, str] = {}
        self._directory = Watched(folder / "providers.json", read_directory)
        self._registry = Watched(settings.registry or _REGISTRY, read_registry)
        self._must_be_there = settings.registry is not None
        self.voters = Voters(feedback.with_name(f".{feedback.name}.voters"))
        self.feedback: Journal[Vote] = Journal(
            feedback, read_vote, most_bytes=MOST_FEEDBACK_BYTES, skipped=self._skipped
        )
        self.queue: Journal[Contribution] = Journal(
            settings.queue or folder / "contribution_queue.jsonl",
            read_contribution,
            most_bytes=MOST_QUEUE_BYTES,
            skipped=self._skipped,
        )

    def directory(self) -> Listing:
        """`providers.json`; nothing where there is none. Raises ApiError (503)."""
        try:
            return self._whole(self._directory)
        except FileNotFoundError:
            return NO_DIRECTORY
        except Away as error:
            self._tell(self._directory.path, str(error))
            raise faults.directory_unavailable("cannot be read") from None

    def registry(self) -> Listing:
        """The registry; nothing where nobody set one up. Raises ApiError (503), also when the named file is missing."""
        try:
            return self._whole(self._registry)
        except FileNotFoundError:
            if not self._must_be_there:
                return Listing()
            self._tell(self._registry.path, "is missing")
            raise faults.registry_unavailable("is missing") from None
        except Away as error:
            self._tell(self._registry.path, str(error))
            raise faults.registry_unavailable("cannot be read") from None

    def _whole(self, file: Watched[Listing]) -> Listing:
        listing = file.value()
        if listing.skipped:
            self._tell(file.path, f"has {listing.skipped} entries that cannot be shown")
        else:
            self._last.pop(file.path, None)
        return listing

    def _skipped(self, path: Path, lines: int) -> None:
        self._tell(path, f"has {lines} lines that cannot be read")

    def _tell(self, path: Path, what: str) -> None:
        if self._last.get(path) != what:
            self._last[path] = what
            self._told(path, what)
