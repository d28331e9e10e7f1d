from __future__ import annotations

import io

import pytest
from PIL import Image

from tokenplace.node.render import render
from tokenplace.openai.drawing import Draft


@pytest.mark.parametrize(("width", "height"), [(32, 32), (1024, 32), (32, 1024), (200, 300)])
def test_a_picture_is_a_png_of_the_size_asked(width: int, height: int) -> None:
    picture = Image.open(io.BytesIO(render(Draft("A quiet sea at dawn", width, height, 1))))
    assert (picture.format, picture.size) == ("PNG", (width, height))


def test_the_same_draft_gives_the_same_bytes_and_another_seed_another_picture() -> None:
    draft = Draft("sea", 128, 128, 7)
    assert render(draft) == render(draft)
    assert render(Draft("sea", 128, 128, 8)) != render(draft)


def test_without_a_seed_the_words_choose_the_colours() -> None:
    assert render(Draft("sea", 64, 64, None)) == render(Draft("sea", 64, 64, None))
    assert render(Draft("sea", 64, 64, None)) != render(Draft("sky", 64, 64, None))
    assert render(Draft("sea", 64, 64, None, 1)) != render(Draft("sea", 64, 64, None))


@pytest.mark.parametrize("prompt", ["x" * 4000, "word " * 800, "𝄞 日本語 🦄", "\n\n\t", "a\0b"])
def test_any_prompt_has_a_picture(prompt: str) -> None:
    assert render(Draft(prompt, 64, 48, 3)).startswith(b"\x89PNG")


def test_the_gradient_goes_from_one_colour_to_another() -> None:
    picture = Image.open(io.BytesIO(render(Draft(".", 64, 256, 3)))).convert("RGB")
    assert picture.getpixel((0, 0)) != picture.getpixel((0, 255))
    assert picture.getpixel((0, 0)) == picture.getpixel((63, 0))
