from __future__ import annotations

import json
from typing import Any

import pytest

from tokenplace.errors import ApiError
from tokenplace.openai.drawing import RENDERER, Draft, drawing_answer, read_drawing


def read(**fields: Any) -> Any:
    return read_drawing(json.dumps({"prompt": " a sea ", **fields}).encode())


@pytest.mark.parametrize(
    ("fields", "pixels"),
    [
        ({}, (512, 512)),
        ({"size": "auto"}, (512, 512)),
        ({"size": "256x128"}, (256, 128)),
        ({"size": " 1024X32 "}, (1024, 32)),
        ({"width": 64, "height": 96}, (64, 96)),
    ],
)
def test_the_size_is_said_in_one_of_two_ways(fields: dict[str, Any], pixels: tuple[int, int]) -> None:
    assert read(**fields).pixels == pixels


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": "  "}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "x" * 4001}, "prompt"),
        ({"size": "big"}, "size"),
        ({"size": "31x512"}, "size"),
        ({"size": "1025x512"}, "size"),
        ({"size": "64x64", "width": 64, "height": 64}, "size"),
        ({"width": 64}, "height"),
        ({"width": 64, "height": 4000}, "height"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        ({"n": 0}, "n"),
        ({"n": 5}, "n"),
        ({"response_format": "url"}, "response_format"),
        ({"quality": "hd"}, "quality"),
        ({"style": "vivid"}, "style"),
        ({"output_format": "webp"}, "output_format"),
        ({"stream": True}, "stream"),
        ({"negative_prompt": "x"}, "negative_prompt"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(**fields)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_what_programs_send_out_of_habit_passes() -> None:
    assert read(quality="auto", output_format="png", background="auto", moderation="auto", response_format="b64_json")


def test_each_of_several_pictures_is_another_draft() -> None:
    assert [draft.seed for draft in read(seed=7, n=3).drafts] == [7, 8, 9]
    assert len({(draft.seed, draft.number) for draft in read(n=4).drafts}) == 4


def test_the_answer_tells_the_prompt_size_seed_and_who_drew() -> None:
    answer = drawing_answer(read(seed=7, model="dall-e-3"), [b"png"], created=5)
    assert answer == {
        "created": 5,
        "data": [{"b64_json": "cG5n", "revised_prompt": "a sea"}],
        "size": "512x512",
        "model": RENDERER,
        "output_format": "png",
        "seed": 7,
    }
    assert "seed" not in drawing_answer(read(), [b""], created=5)


def test_a_draft_is_a_value() -> None:
    assert Draft("a", 1, 2, None) == Draft("a", 1, 2, None)
