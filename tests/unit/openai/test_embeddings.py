from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from tokenplace.errors import ApiError, EngineError
from tokenplace.openai import errors
from tokenplace.openai.asking import Traits
from tokenplace.openai.embeddings import ask_embedding, embeddings_answer, read_embedding

ABLE = Traits(embeddings=True, context=8, vocabulary=100)


def read(**fields: Any) -> Any:
    return read_embedding(json.dumps({"model": "m", "input": "hi", **fields}).encode())


def told(*vectors: Any, **more: Any) -> dict[str, Any]:
    data = [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return {"data": data, "usage": {"prompt_tokens": 5, "total_tokens": 5}, **more}


@pytest.mark.parametrize(
    ("given", "inputs"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_inputs_are_texts_or_tokens_one_or_many(given: Any, inputs: list[Any]) -> None:
    assert read(input=given).inputs == inputs
    assert ask_embedding(read(input=given), ABLE, model="m")["input"] == given


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"store": False}, "store"),
        ({"temperature": 1}, "temperature"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(**fields)
    assert caught.value.param == param


def test_a_model_that_makes_none_is_refused() -> None:
    with pytest.raises(ApiError) as caught:
        ask_embedding(read(), Traits(embeddings=False), model="m")
    assert (caught.value.param, caught.value.code) == ("model", "unsupported_value")


def test_tokens_that_do_not_exist_or_do_not_fit_are_refused() -> None:
    with pytest.raises(ApiError) as caught:
        ask_embedding(read(input=[[1], [100]]), ABLE, model="m")
    assert caught.value.param == "input"
    with pytest.raises(ApiError) as caught:
        ask_embedding(read(input=[1] * 9), ABLE, model="m")
    assert caught.value.code == "context_length_exceeded"


def test_vectors_come_as_numbers_in_the_order_of_the_inputs() -> None:
    engine = told([0.5, 1.5], [2.5, 3.5])
    engine["data"].reverse()
    answer, cost = embeddings_answer(read(input=["a", "b"]), engine, model="shown")
    assert [item["embedding"] for item in answer["data"]] == [[0.5, 1.5], [2.5, 3.5]]
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert (answer["model"], answer["object"], cost) == ("shown", "list", {"prompt_tokens": 5, "total_tokens": 5})


def test_base64_is_32_bit_floats_little_endian() -> None:
    answer, _ = embeddings_answer(read(encoding_format="base64"), told([0.5, -2.0]), model="m")
    assert struct.unpack("<2f", base64.b64decode(answer["data"][0]["embedding"])) == (0.5, -2.0)


def test_an_upstream_that_only_knows_base64_is_understood() -> None:
    text = base64.b64encode(struct.pack("<2f", 0.5, -2.0)).decode()
    answer, _ = embeddings_answer(read(), told(text), model="m")
    assert answer["data"][0]["embedding"] == [0.5, -2.0]


def test_dimensions_are_honoured_only_as_they_are() -> None:
    assert embeddings_answer(read(dimensions=2), told([1.0, 2.0]), model="m")
    with pytest.raises(ApiError) as caught:
        embeddings_answer(read(dimensions=1), told([1.0, 2.0]), model="m")
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize("engine", [None, {}, {"data": []}, told([]), told(["x"]), told("AAA"), {"data": [{}]}])
def test_what_is_no_list_of_vectors_is_the_engines_failure(engine: Any) -> None:
    with pytest.raises(EngineError):
        embeddings_answer(read(), engine, model="m")


def test_llamas_500_for_a_long_input_is_the_callers_context_error() -> None:
    message = "input (401 tokens) is too large to process. increase the physical batch size (current batch size: 64)"
    error = errors.translate(500, json.dumps({"error": {"code": 500, "message": message}}).encode(), context=8)
    assert isinstance(error, ApiError)
    assert (error.status, error.code) == (400, "context_length_exceeded")
    assert "64 tokens" in error.message
    assert "401 tokens" in error.message
