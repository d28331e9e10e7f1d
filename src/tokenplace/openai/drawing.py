"""`POST /v1/images/generations`: what may be asked of the renderer, and the shape of its answer."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from tokenplace.openai import refusals
from tokenplace.openai.messages import Shape
from tokenplace.openai.refusals import Refusal
from tokenplace.openai.requests import INT64, ModelName, Short, read

RENDERER = "gradient-1"
"""What draws, whatever `model` was asked: a gradient with the prompt on it. The answer names it."""

LEAST_SIDE, MOST_SIDE, DEFAULT_SIDE = 32, 1024, 512
MAX_PROMPT = 4000
"""Characters; far more than have room on a picture."""
MOST_PICTURES = 4

_SIZE = re.compile(r"\s*(\d{2,4})[xX](\d{2,4})\s*")
_ONE = "Pictures are PNGs of one kind here; leave it out."

NOT_DRAWN: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "quality": (("auto", "standard"), _ONE),
    "style": ((), _ONE),
    "background": (("auto", "opaque"), _ONE),
    "output_format": (("png",), _ONE),
    "output_compression": ((100,), _ONE),
    "moderation": (("auto",), "The node's own rules apply."),
    "stream": ((False,), "A picture comes whole."),
    "partial_images": ((0,), "A picture comes whole."),
}
"""Parameters refused by name → (values that change nothing and pass, the reason)."""


def _prompt(text: str) -> str:
    text = text.strip()
    if not text:
        raise Refusal(refusals.invalid, "Say what to draw; the prompt is empty.", "empty_string")
    return text


def _size(text: str) -> str:
    if text != "auto" and not _SIZE.fullmatch(text):
        raise Refusal(refusals.invalid, "Expected WIDTHxHEIGHT in pixels, such as 512x512, or 'auto'.")
    return text


class DrawingRequest(Shape):
    """What to draw. `width` and `height` are the original's other way to say `size`."""

    prompt: Annotated[str, Field(max_length=MAX_PROMPT), AfterValidator(_prompt)]
    model: ModelName | None = None
    n: Annotated[int, Field(ge=1, le=10)] | None = None
    size: Annotated[str, AfterValidator(_size)] | None = None
    width: int | None = None
    height: int | None = None
    seed: Annotated[int, Field(ge=0, le=INT64)] | None = None
    response_format: Literal["b64_json", "url"] | None = None
    user: Short | None = None

    def check(self) -> None:
        """What concerns several fields at once. Raises ApiError."""
        if self.response_format == "url":
            raise refusals.unsupported_value(
                "response_format", "A picture at an address could be seen by whoever keeps it; ask for 'b64_json'."
            )
        if (self.n or 1) > MOST_PICTURES:
            raise refusals.above("n", MOST_PICTURES, self.n or 1, "No more pictures are drawn at once.")
        if (self.width is None) != (self.height is None):
            raise refusals.missing("height" if self.height is None else "width")
        if self.width is not None and self.size is not None:
            raise refusals.invalid("size", "Give it, or 'width' and 'height'; not both.")
        for param, side in zip(("width", "height"), self.pixels, strict=True):
            if not LEAST_SIDE <= side <= MOST_SIDE:
                param = param if self.width is not None else "size"
                why = f"Each side has {LEAST_SIDE} to {MOST_SIDE} pixels; got {side}."
                raise refusals.invalid(param, why)

    @property
    def pixels(self) -> tuple[int, int]:
        """(width, height)."""
        if self.width is not None and self.height is not None:
            return self.width, self.height
        found = _SIZE.fullmatch(self.size or "")
        return (int(found[1]), int(found[2])) if found else (DEFAULT_SIDE, DEFAULT_SIDE)

    @property
    def drafts(self) -> list[Draft]:
        """Each picture to be drawn: with a seed the next ones have the next seeds."""
        width, height = self.pixels
        return [
            Draft(self.prompt, width, height, None if self.seed is None else self.seed + number, number)
            for number in range(self.n or 1)
        ]


@dataclass(frozen=True, slots=True)
class Draft:
    """One picture. The same draft gives the same picture, byte for byte, with one version of the renderer."""

    prompt: str
    width: int
    height: int
    seed: int | None
    number: int = 0


def read_drawing(body: bytes) -> DrawingRequest:
    """Read the body of a request. Raises ApiError (400), naming the parameter at fault."""
    return read(DrawingRequest, body, NOT_DRAWN)


def drawing_answer(request: DrawingRequest, pictures: Sequence[bytes], *, created: int) -> dict[str, Any]:
    """OpenAI's answer, with the original's `size` and `seed` and the truth about who drew."""
    width, height = request.pixels
    answer: dict[str, Any] = {
        "created": created,
        "data": [
            {"b64_json": base64.b64encode(picture).decode(), "revised_prompt": request.prompt} for picture in pictures
        ],
        "size": f"{width}x{height}",
        "model": RENDERER,
        "output_format": "png",
    }
    if request.seed is not None:
        answer["seed"] = request.seed
    return answer
