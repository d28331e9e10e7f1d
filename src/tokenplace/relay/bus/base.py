"""A bus: whoever listens to a topic hears what is published on it; nothing is kept for who comes later."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NewType, NoReturn, Protocol

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


class Listener(Protocol):
    """Who has a place on the bus. Called from the event loop, in between; neither call may raise."""

    def hear(self, data: bytes) -> None:
        """A letter on one of the topics."""

    def unheard(self, topic: Topic) -> None:
        """Something was published on a topic that nobody listens to."""


class Line(Protocol):
    """A place on the bus, while it stands."""

    def publish(self, letters: Sequence[Letter]) -> None:
        """Send some letters, without waiting: those of a line that broke are lost, which `ended` tells."""

    async def ended(self) -> NoReturn:
        """Wait until the line carries nothing any more. Raises BusBroken."""


class Bus(Protocol):
    """One process's way to a bus.

    What one process publishes over one line is heard in the order of publication, on whatever topics, or not at all: a
    listener that cannot follow, and one whose connection breaks, misses some of it and is not told what.
    """

    def join(self, topics: Sequence[Topic], listener: Listener) -> AbstractAsyncContextManager[Line]:
        """While the block runs, `listener` hears what is published on the topics. Raises BusBroken at its beginning."""
