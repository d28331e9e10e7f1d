"""A bus: whoever listens to a topic hears what is published on it; nothing is kept for who comes later."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NewType, Protocol

from tokenplace.errors import TokenPlaceError

Topic = NewType("Topic", str)


class BusBroken(TokenPlaceError):
    """The store cannot be reached or does not answer; what was sent may be lost."""

    code = "bus_broken"


@dataclass(frozen=True, slots=True)
class Letter:
    """Bytes for everybody who listens to a topic."""

    to: Topic
    data: bytes


class Bus(Protocol):
    """One process's place on the bus.

    What one process publishes is heard in the order of publication, on whatever topics, or not at all: a listener
    that cannot follow, and one whose connection breaks, misses some of it and is not told what.
    """

    async def publish(self, letters: Sequence[Letter]) -> Sequence[int]:
        """Send some letters; how many listeners heard each. Raises BusBroken when that cannot be known."""

    def listen(self, topics: Sequence[Topic]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """While the block runs, what is published on the topics. Raises BusBroken, also while the letters are read."""

    async def aclose(self) -> None:
        """Let go of every connection."""
