"""Which model suits a machine, and how fast its memory is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tokenplace.node.roofline import READABLE, ROOM, file_bytes, read_bandwidth, suggestions
from tokenplace.openai.catalogue import Catalogue, ModelEntry, ModelFile

TOY, BASE, *_ = Catalogue.load().models


def model(id: str, size: int, **fields: object) -> ModelEntry:
    return replace(BASE, id=id, file=ModelFile(f"{id}.gguf", size), **fields)  # type: ignore[arg-type]


def names(*entries: ModelEntry, room: int = 10**12, speed: float = 100.0) -> list[str]:
    return [each.model for each in suggestions(entries, room=room, measured_bytes=10**8, tokens_per_second=speed)]


SMALL, MIDDLE, HUGE = model("small", 10**9), model("middle", 2 * 10**9), model("huge", 50 * 10**9)


def test_the_largest_that_answers_at_reading_speed_comes_first() -> None:
    assert names(SMALL, MIDDLE, HUGE) == ["middle", "small"]
    assert names(SMALL, MIDDLE, HUGE, speed=500 * READABLE) == ["huge", "middle", "small"]


def test_what_does_not_fit_into_memory_is_not_suggested() -> None:
    assert names(SMALL, MIDDLE, room=int(2 * 10**9 * ROOM) - 1) == ["small"]
    assert names(SMALL, room=1) == []


def test_toys_and_models_that_cannot_chat_are_not_suggested() -> None:
    assert names(replace(SMALL, toy=True), replace(SMALL, capabilities=("completions",))) == []


@pytest.mark.parametrize(
    ("parameters", "billions"), [("7B", 7), ("3.8B", 3.8), ("135M", 0.135), ("8x7B MoE", 56), ("20B (MoE)", 20)]
)
def test_a_size_that_nobody_noted_is_guessed_from_the_parameters(parameters: str, billions: float) -> None:
    unknown = replace(BASE, parameters=parameters, file=ModelFile("m.gguf"))
    assert file_bytes(unknown) == pytest.approx(billions * 0.61e9)


def test_every_model_of_the_catalogue_has_a_size_or_a_guess_near_it() -> None:
    for entry in Catalogue.load().models:
        size = file_bytes(entry)
        assert size is not None
        if entry.file.bytes is not None and not entry.toy:
            guess = file_bytes(replace(entry, file=ModelFile("m.gguf")))
            assert guess == pytest.approx(entry.file.bytes, rel=0.2), entry.id


def test_memory_is_read_at_a_speed_that_memory_has() -> None:
    speed = read_bandwidth(threads=2, room=256 * 1024 * 1024, seconds=0.02)
    assert 1e7 < speed < 1e13
