"""An event loop whose time jumps to whatever is next, so that minutes pass in a moment and nothing sleeps."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Jumping(selectors.DefaultSelector):
    """Where a real loop would wait for a timer, time is moved to it."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everybody waits for something that will never come")
        if not ready and timeout:
            self.passed += timeout
        return ready


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """See the module. Starts at 1000."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return 1000.0 + self._jumping.passed


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main` under time that jumps."""
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(main())


def now() -> float:
    """The running loop's time."""
    return asyncio.get_running_loop().time()
