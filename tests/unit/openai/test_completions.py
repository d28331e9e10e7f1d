from __future__ import annotations

from typing import Any

import pytest

from tokenplace.errors import EngineError
from tokenplace.openai.chat import Chunk
from tokenplace.openai.completions import CompletionAssembly, CompletionOrder, CompletionRepair
from tokenplace.openai.usage import Tally


def order(**fields: Any) -> CompletionOrder:
    return CompletionOrder(**{"model": "m", "created": 1_700_000_000, **fields})


def piece(text: str, index: int = 0, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"text": text, "index": index, "finish_reason": finish, **more}], "timings": {}}


def usage(prompt: int, completion: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def both(wanted: CompletionOrder, *chunks: dict[str, Any]) -> tuple[list[Chunk], dict[str, Any]]:
    tally = Tally()
    repair, assembly = CompletionRepair(wanted, tally), CompletionAssembly(wanted)
    out = [made for chunk in chunks for made in repair.take(chunk)] + repair.end()
    assembly.take(out)
    return out, assembly.whole(tally.told)


def test_chunks_and_whole_answer_are_exactly_openais() -> None:
    wanted = order()
    last = {**piece("", finish="length"), "usage": usage(2, 2)}
    chunks, answer = both(wanted, piece(" a"), piece(" time"), last)
    assert chunks[0] == {
        "id": wanted.id,
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "m",
        "system_fingerprint": None,
        "choices": [{"index": 0, "text": " a", "logprobs": None, "finish_reason": None}],
    }
    assert chunks[-1]["choices"] == [{"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}]
    assert answer == {
        "id": wanted.id,
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "m",
        "choices": [{"index": 0, "text": " a time", "logprobs": None, "finish_reason": "length"}],
        "usage": usage(2, 2),
        "system_fingerprint": None,
    }
    assert wanted.id.startswith("cmpl-")


def test_the_usage_of_every_choice_comes_in_one_last_chunk() -> None:
    ends = [{**piece("a", index, "stop"), "usage": usage(2, 3)} for index in (0, 1)]
    tally = Tally(per_prompt=2)
    repair = CompletionRepair(order(choices=2, usage_in_stream=True), tally)
    chunks = [made for chunk in ends for made in repair.take(chunk)] + repair.end()
    assert [chunk["usage"] for chunk in chunks] == [None] * 4 + [usage(2, 6)]


def test_an_echo_comes_before_the_first_words_of_each_choice() -> None:
    wanted = order(choices=2, echoes=("Once", "Twice"))
    _, answer = both(wanted, piece(" more", 1), piece(" upon", 0), piece("", 0, "stop"), piece("", 1, "stop"))
    assert [choice["text"] for choice in answer["choices"]] == ["Once upon", "Twice more"]


def test_an_answer_without_words_is_still_an_answer() -> None:
    _, answer = both(order(), piece("", finish="stop"))
    assert answer["choices"][0] == {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}


SCORES = {
    "content": [
        {
            "id": 1,
            "token": " the",
            "bytes": [32],
            "logprob": -0.5,
            "top_logprobs": [
                {"id": 1, "token": " the", "bytes": [32], "logprob": -0.5},
                {"id": 2, "token": " a", "bytes": [32], "logprob": -1.5},
            ],
        }
    ]
}


def test_log_probabilities_in_the_shape_of_chat_become_four_lists() -> None:
    chunks, answer = both(order(top_alternatives=2), *[piece(" the", logprobs=SCORES)] * 2, piece("", finish="stop"))
    top = {" the": -0.5, " a": -1.5}
    assert chunks[1]["choices"][0]["logprobs"] == {
        "tokens": [" the"],
        "token_logprobs": [-0.5],
        "top_logprobs": [top],
        "text_offset": [4],
    }
    assert answer["choices"][0]["logprobs"] == {
        "tokens": [" the", " the"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [top, top],
        "text_offset": [0, 4],
    }


def test_zero_alternatives_tell_the_chosen_token_alone() -> None:
    _, answer = both(order(top_alternatives=0), piece(" the", logprobs=SCORES), piece("", finish="stop"))
    scores = answer["choices"][0]["logprobs"]
    assert (scores["tokens"], scores["top_logprobs"]) == ([" the"], None)


def test_log_probabilities_in_openais_own_shape_pass() -> None:
    theirs = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}], "text_offset": [7]}
    _, answer = both(order(top_alternatives=1), piece("a", logprobs=theirs), piece("", finish="stop"))
    assert answer["choices"][0]["logprobs"] == {**theirs, "text_offset": [0]}


@pytest.mark.parametrize("chunk", [{}, {"choices": "x"}, piece("a", index=1), {"choices": [None]}], ids=str)
def test_what_is_no_chunk_is_a_failure_of_the_engine(chunk: dict[str, Any]) -> None:
    with pytest.raises(EngineError):
        both(order(), chunk)


def test_an_end_without_an_answer_is_a_failure_of_the_engine() -> None:
    with pytest.raises(EngineError):
        both(order())


def test_a_finish_reason_that_the_engine_forgot_is_told_at_the_end() -> None:
    _, answer = both(order(), piece("a"))
    assert answer["choices"][0]["finish_reason"] == "stop"
