"""What an answer costs, counted while it comes: an answer that breaks off has cost something too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Usage = dict[str, Any]
"""OpenAI's usage object: prompt_tokens, completion_tokens, total_tokens and details."""


class Tally:
    """Listens to an engine's chunks.

    Engines tell usage in different ways: OpenAI once, at the end, for all choices together; llama.cpp once per
    choice, each with the whole prompt; others in every chunk. llama.cpp's private `timings` (in every chunk where it
    is asked for `timings_per_token`) know the tokens exactly, also in mid-answer. Where nothing is told, the pieces
    are counted: a piece is a token, or a few where a character takes several.
    """

    def __init__(self, per_prompt: int = 1) -> None:
        self._per_prompt = per_prompt
        self._settled: Usage | None = None
        self._closing: list[Mapping[str, Any]] = []
        self._of_choice: dict[int, Mapping[str, Any]] = {}
        self._counted: dict[int, int] = {}
        self._exact: dict[int, int] = {}
        self._prompt_of: dict[int, int] = {}

    def read(self, chunk: Mapping[str, Any], index: int | None) -> None:
        """Take what a chunk tells of usage; `index` is its choice, None where it has none."""
        usage = chunk.get("usage")
        if isinstance(usage, dict) and _whole(usage.get("prompt_tokens")) is not None:
            if index is None:
                self._closing.append(usage)
            else:
                self._of_choice[index] = usage
        timings = chunk.get("timings")
        if isinstance(timings, dict) and index is not None:
            cached, computed, predicted = (_whole(timings.get(key)) for key in ("cache_n", "prompt_n", "predicted_n"))
            if cached is not None and computed is not None:
                self._prompt_of[index // self._per_prompt] = cached + computed
            if predicted is not None:
                self._exact[index] = predicted
        progress = chunk.get("prompt_progress")
        if isinstance(progress, dict) and (total := _whole(progress.get("total"))) is not None:
            self._prompt_of[(index or 0) // self._per_prompt] = total

    def settle(self, usage: Usage) -> None:
        """The whole cost, of an answer that had no chunks."""
        self._settled = usage

    def count(self, index: int, tokens: int = 1) -> None:
        """A piece of choice `index` went by."""
        self._counted[index] = self._counted.get(index, 0) + tokens

    @property
    def told(self) -> Usage | None:
        """What the engine told of the whole answer, all choices together. None when it told nothing."""
        if self._settled is not None:
            return self._settled
        if self._closing:
            return _sum(self._closing, max(_tokens(usage, "prompt_tokens") for usage in self._closing))
        if self._of_choice:
            prompts: dict[int, int] = {}
            for index, usage in self._of_choice.items():
                prompt = index // self._per_prompt
                prompts[prompt] = max(prompts.get(prompt, 0), _tokens(usage, "prompt_tokens"))
            return _sum(list(self._of_choice.values()), sum(prompts.values()))
        return None

    @property
    def best(self) -> Usage:
        """The best that is known so far; `prompt_tokens` and `total_tokens` are left out while nobody knows them."""
        told = self.told
        if told is not None:
            return told
        completion = sum(
            max(self._exact.get(index, 0), self._counted.get(index, 0))
            for index in self._exact.keys() | self._counted.keys()
        )
        if not self._prompt_of:
            return {"completion_tokens": completion}
        prompt = sum(self._prompt_of.values())
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _tokens(usage: Mapping[str, Any], key: str) -> int:
    return _whole(usage.get(key)) or 0


def _sum(parts: list[Mapping[str, Any]], prompt: int) -> Usage:
    completion = sum(_tokens(part, "completion_tokens") for part in parts)
    usage: Usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    cached = [_tokens(part["prompt_tokens_details"], "cached_tokens") for part in parts if _has_details(part, "prompt")]
    if cached:
        usage["prompt_tokens_details"] = {"cached_tokens": max(cached), "audio_tokens": 0}
    thought = [
        _tokens(part["completion_tokens_details"], "reasoning_tokens")
        for part in parts
        if _has_details(part, "completion")
    ]
    if thought:
        usage["completion_tokens_details"] = {
            "reasoning_tokens": sum(thought),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        }
    return usage


def _has_details(part: Mapping[str, Any], of: str) -> bool:
    return isinstance(part.get(f"{of}_tokens_details"), dict)
