"""A picture without a model: a gradient of two colours with the prompt written on it. The only file with Pillow.

It is a placeholder and says so by its name; it shows programs the whole way of a picture on any machine. The same
draft gives the same bytes with one version of Pillow; its encoder and its font may change between versions.
"""

from __future__ import annotations

import hashlib
import io
import random
from typing import TYPE_CHECKING

from tokenplace.openai.drawing import Draft

if TYPE_CHECKING:
    from PIL import ImageFont

_MARGIN = 1 / 16
_LEAST_TEXT, _MOST_TEXT = 10, 40


def render(draft: Draft) -> bytes:
    """A PNG. Takes some ten milliseconds of one core, so call it in a thread."""
    from PIL import Image, ImageDraw, ImageFont

    top, bottom = _colours(draft)
    rows = Image.linear_gradient("L").resize((draft.width, draft.height))
    picture = Image.composite(Image.new("RGB", rows.size, bottom), Image.new("RGB", rows.size, top), rows)
    size = max(_LEAST_TEXT, min(_MOST_TEXT, draft.width // 16))
    font = ImageFont.load_default(size)
    margin = round(draft.width * _MARGIN)
    height = round(size * 1.3)
    lines = _lines(draft.prompt, font, draft.width - 2 * margin, max(1, (draft.height - 2 * margin) // height))
    pen = ImageDraw.Draw(picture)
    at = (draft.height - height * len(lines)) // 2
    for line in lines:
        pen.text((margin + 1, at + 1), line, font=font, fill=(0, 0, 0))
        pen.text((margin, at), line, font=font, fill=(255, 255, 255))
        at += height
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def _colours(draft: Draft) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Two colours out of the seed, or of the words where there is none."""
    if draft.seed is not None:
        dice = random.Random(draft.seed)  # noqa: S311 - a colour is no secret
    else:
        digest = hashlib.sha256(draft.prompt.encode()).digest()
        dice = random.Random(int.from_bytes(digest[:8], "big") + draft.number)  # noqa: S311 - a colour is no secret
    numbers = [dice.randrange(256) for _ in range(6)]
    return (numbers[0], numbers[1], numbers[2]), (numbers[3], numbers[4], numbers[5])


def _lines(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, most: int) -> list[str]:
    """The words in as many lines as there is room for; the last says when there were more."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        while font.getlength(word) > width and len(word) > 1:  # a word longer than a line is cut
            cut = max(1, int(len(word) * width / font.getlength(word)))
            lines, line = [*lines, *([line] if line else []), word[:cut]], ""
            word = word[cut:]
            if len(lines) > most:
                break
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) <= width:
            line = longer
        else:
            lines.append(line)
            line = word
        if len(lines) > most:
            break
    lines = [line for line in [*lines, line] if line]
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1][:-1] + "…"]
    return lines
