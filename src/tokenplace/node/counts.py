"""What a node has done since it started: numbers, never a word. Pure: the clock is handed in.

The owner calls `look` about twice a second: then every open answer is asked what it has cost so far, so that the speed
of this moment is known, and an answer that breaks off has cost what it cost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tokenplace.openai.usage import Usage
from tokenplace.wire.ids import JobId
from tokenplace.wire.messages import Outcome

WINDOW = 5.0
"""Seconds over which the speed of this moment is taken."""


@dataclass(slots=True)
class _Answer:
    began: float
    usage: Callable[[], Usage] = dict
    prompt: int = 0
    completion: int = 0


@dataclass(slots=True)
class Counts:
    """Sums over all answers. `seconds` is the time people were being answered, added up over the answers."""

    began: float
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0
    last_job: float | None = None
    _open: dict[JobId, _Answer] = field(default_factory=dict)
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def running(self) -> int:
        """Answers being given now."""
        return len(self._open)

    @property
    def last_asked(self) -> float:
        """When the last request came, or the node began."""
        return self.began if self.last_job is None else self.last_job

    def begin(self, job: JobId, now: float) -> None:
        """A request was taken."""
        self._open[job] = _Answer(now)
        self.last_job = now

    def watch(self, job: JobId, usage: Callable[[], Usage]) -> None:
        """From now on `usage()` tells, in OpenAI's fields, what this answer has cost so far."""
        if job in self._open:
            self._open[job].usage = usage

    def look(self, now: float) -> None:
        """Count what has come since the last look."""
        for answer in self._open.values():
            self._count(answer, now)

    def end(self, job: JobId, outcome: str, now: float) -> None:
        """An answer is over, one way or the other."""
        answer = self._open.pop(job, None)
        if answer is None:
            return
        self._count(answer, now)
        self.seconds += now - answer.began
        match outcome:
            case Outcome.DONE:
                self.done += 1
            case Outcome.CANCELLED:
                self.cancelled += 1
            case _:
                self.failed += 1

    def speed(self, now: float) -> float:
        """Tokens per second of all answers together, at this moment."""
        self._forget(now)
        if not self._recent:
            return 0.0
        span = max(1.0, min(WINDOW, now - self._recent[0][0]))
        return sum(tokens for _, tokens in self._recent) / span

    def _count(self, answer: _Answer, now: float) -> None:
        usage = answer.usage()
        prompt, completion = _whole(usage.get("prompt_tokens")), _whole(usage.get("completion_tokens"))
        if prompt > answer.prompt:
            self.prompt_tokens += prompt - answer.prompt
            answer.prompt = prompt
        if completion > answer.completion:
            self.tokens += completion - answer.completion
            self._recent.append((now, completion - answer.completion))
            answer.completion = completion
            self._forget(now)

    def _forget(self, now: float) -> None:
        while self._recent and now - self._recent[0][0] > WINDOW:
            self._recent.popleft()


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
