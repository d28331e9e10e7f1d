"""`POST /v1/embeddings`: texts or tokens in, one vector for each out, as numbers or as base64 of 32-bit floats."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from tokenplace.errors import EngineError
from tokenplace.openai import refusals
from tokenplace.openai.asking import EngineBody, Traits, check_tokens
from tokenplace.openai.messages import Shape, string_or_array
from tokenplace.openai.requests import ModelName, Short, Tokens, prompt_tag, read

MAX_INPUTS = 2048
"""As many as OpenAI takes in one request."""

_Text = Annotated[str, Field(min_length=1)]

Input = Annotated[
    Annotated[_Text, Tag("<string>")]
    | Annotated[list[_Text], Field(min_length=1, max_length=MAX_INPUTS), Tag("<strings>")]
    | Annotated[Tokens, Tag("<tokens>")]
    | Annotated[list[Tokens], Field(min_length=1, max_length=MAX_INPUTS), Tag("<token lists>")],
    Discriminator(prompt_tag),
    BeforeValidator(string_or_array),
]


class EmbeddingRequest(Shape):
    """What is to become vectors."""

    model: ModelName
    input: Input
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    user: Short | None = None

    def check(self) -> None:
        """Nothing concerns several fields."""

    @property
    def inputs(self) -> list[str] | list[list[int]]:
        """One or more inputs, each words or tokens."""
        given = self.input
        if isinstance(given, str):
            return [given]
        if isinstance(given[0], int):
            return [given]
        return given


def read_embedding(body: bytes) -> EmbeddingRequest:
    """Read the body of a request. Raises ApiError (400), naming the parameter at fault."""
    return read(EmbeddingRequest, body, {})


def ask_embedding(request: EmbeddingRequest, traits: Traits, *, model: str) -> EngineBody:
    """The body for the engine, which is asked for numbers always. Raises ApiError."""
    if not traits.embeddings:
        raise refusals.unsupported_value(
            "model", "This model makes no embeddings on this node; look for the capability 'embeddings' in /v1/models."
        )
    for tokens in request.inputs:
        if not isinstance(tokens, str):
            check_tokens(tokens, traits, "input")
    return {"model": model, "input": request.input, "encoding_format": "float"}


def embeddings_answer(request: EmbeddingRequest, told: Any, *, model: str) -> tuple[dict[str, Any], dict[str, int]]:
    """OpenAI's answer out of the engine's, and its usage. Raises EngineError for what is none, ApiError.

    `dimensions` is honoured only where it is what the model gives: cutting a vector that was not trained for it
    would pass something else for the model's work.
    """
    vectors = _vectors(told, len(request.inputs))
    size = len(vectors[0])
    if request.dimensions not in (None, size):
        raise refusals.unsupported(
            "dimensions", f"This model's vectors have {size} numbers and cannot be shortened; leave it out."
        )
    as_text = request.encoding_format == "base64"
    usage = told.get("usage")
    prompt = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
    prompt = prompt if isinstance(prompt, int) else 0
    cost = {"prompt_tokens": prompt, "total_tokens": prompt}
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if as_text else vector}
        for index, vector in enumerate(vectors)
    ]
    return {"object": "list", "data": data, "model": model, "usage": cost}, cost


def _vectors(told: Any, wanted: int) -> list[list[float]]:
    """Every input's vector, in the order of the inputs."""
    try:
        by_index = {int(item["index"]): item["embedding"] for item in told["data"]}
        vectors = [by_index[index] for index in range(wanted)]
        if isinstance(vectors[0], str):  # an upstream that knows only base64
            vectors = [list(struct.unpack(f"<{len(raw) // 4}f", raw)) for raw in map(base64.b64decode, vectors)]
        if not all(vector and all(isinstance(number, int | float) for number in vector) for vector in vectors):
            raise ValueError
    except (KeyError, TypeError, ValueError, struct.error):
        raise EngineError("The model runtime sent something that is no list of embeddings.") from None
    return vectors


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
