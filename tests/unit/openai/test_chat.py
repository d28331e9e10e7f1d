from __future__ import annotations

from typing import Any

import pytest

from tokenplace.errors import EngineError
from tokenplace.openai.chat import ChatAssembly, ChatOrder, ChatRepair, Chunk, new_id
from tokenplace.openai.forced import Forcing
from tokenplace.openai.tools import Function
from tokenplace.openai.usage import Tally

CALLABLE = (Function(name="weather"),)
USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}}


def order(**fields: Any) -> ChatOrder:
    return ChatOrder(**{"model": "m", "created": 1_700_000_000, **fields})


def delta(index: int = 0, finish: str | None = None, logprobs: Any = None, **fields: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": fields, "finish_reason": finish}
    if logprobs is not None:
        choice["logprobs"] = logprobs
    return {"id": "theirs", "created": 5, "model": "/secret/path.gguf", "choices": [choice], "timings": {}}


def call(index: int | None = 0, id: str | None = None, **function: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"function": function}
    if index is not None:
        told["index"] = index
    if id is not None:
        told["id"] = id
    return delta(tool_calls=[told])


def repaired(wanted: ChatOrder, *chunks: dict[str, Any]) -> list[Chunk]:
    repair = ChatRepair(wanted, Tally(wanted.choices))
    return [out for chunk in chunks for out in repair.take(chunk)] + repair.end()


def whole(wanted: ChatOrder, *chunks: dict[str, Any]) -> dict[str, Any]:
    tally = Tally(wanted.choices)
    repair, assembly = ChatRepair(wanted, tally), ChatAssembly(wanted)
    for chunk in chunks:
        assembly.take(repair.take(chunk))
    assembly.take(repair.end())
    return assembly.whole(tally.told)


def deltas(chunks: list[Chunk], index: int = 0) -> list[dict[str, Any]]:
    return [c["delta"] for chunk in chunks for c in chunk["choices"] if c["index"] == index]


def finishes(chunks: list[Chunk]) -> list[str]:
    return [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]


PLAIN = (delta(role="assistant", content=None), delta(content="Hel"), delta(content="lo"), delta(finish="stop"))


def test_a_chunk_is_exactly_openais() -> None:
    wanted = order()
    chunks = repaired(wanted, *PLAIN)
    assert chunks[1] == {
        "id": wanted.id,
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "m",
        "system_fingerprint": None,
        "choices": [{"index": 0, "delta": {"content": "Hel"}, "logprobs": None, "finish_reason": None}],
    }


def test_the_role_comes_first_and_the_finish_reason_last_and_alone() -> None:
    assert deltas(repaired(order(), *PLAIN)) == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]


def test_a_role_that_the_engine_lost_is_told_all_the_same() -> None:
    assert deltas(repaired(order(), *PLAIN[1:])) == deltas(repaired(order(), *PLAIN))


def test_words_and_finish_reason_in_one_chunk_become_two() -> None:
    chunks = repaired(order(), delta(role="assistant", content="Hello", finish="stop"))
    assert deltas(chunks) == [{"role": "assistant", "content": "", "refusal": None}, {"content": "Hello"}, {}]


def test_an_answer_without_words_has_a_role_and_a_finish_reason() -> None:
    chunks = repaired(order(), delta(finish="stop"))
    assert deltas(chunks) == [{"role": "assistant", "content": "", "refusal": None}, {}]


def test_the_id_is_one_for_the_whole_answer_and_new_for_each() -> None:
    ids = {chunk["id"] for chunk in repaired(order(), *PLAIN)}
    assert len(ids) == 1
    assert ids.isdisjoint({chunk["id"] for chunk in repaired(order(), *PLAIN)})
    assert new_id("chatcmpl-").startswith("chatcmpl-")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("content_filter", "content_filter"),
        ("something new", "stop"),
    ],
)
def test_every_engines_reason_becomes_one_of_openais(theirs: str, ours: str) -> None:
    assert finishes(repaired(order(), delta(content="a"), delta(finish=theirs))) == [ours]


def test_a_finish_reason_that_the_engine_forgot_is_told_at_the_end() -> None:
    assert finishes(repaired(order(), delta(content="a"))) == ["stop"]
    assert finishes(repaired(order(), call(id="a", name="weather", arguments="{}"))) == ["tool_calls"]


def test_nothing_follows_a_finish_reason() -> None:
    chunks = repaired(order(), delta(content="a"), delta(finish="stop"), delta(content="b"), delta(finish="length"))
    assert finishes(chunks) == ["stop"]
    assert deltas(chunks)[-2:] == [{"content": "a"}, {}]


@pytest.mark.parametrize(
    "chunk",
    [
        {},
        {"choices": None},
        {"choices": [5]},
        {"choices": [{"index": 1, "delta": {}}]},
        {"choices": [{"index": -1, "delta": {}}]},
        {"choices": [{"index": "0", "delta": {}}]},
    ],
    ids=str,
)
def test_what_is_no_chunk_is_a_failure_of_the_engine(chunk: dict[str, Any]) -> None:
    with pytest.raises(EngineError):
        repaired(order(), chunk)


def test_an_end_without_a_word_is_a_failure_of_the_engine() -> None:
    with pytest.raises(EngineError):
        repaired(order())
    with pytest.raises(EngineError):
        repaired(order(choices=2), *PLAIN)


# ── Usage ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_usage_is_kept_back_where_the_stream_was_not_asked_for_it() -> None:
    chunks = repaired(order(), *PLAIN, USAGE)
    assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)


def test_usage_is_the_last_chunk_where_the_stream_was_asked_for_it() -> None:
    chunks = repaired(order(usage_in_stream=True), *PLAIN, USAGE)
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 4
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}


def test_the_usage_of_several_choices_is_told_once() -> None:
    both = [delta(index, content="a", finish="stop") for index in (0, 1)]
    chunks = repaired(order(choices=2, usage_in_stream=True), *both, USAGE, USAGE)
    assert [chunk["usage"] for chunk in chunks if chunk["usage"]] == [
        {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    ]


def test_usage_nobody_told_is_not_made_up() -> None:
    assert all(chunk["choices"] for chunk in repaired(order(usage_in_stream=True), *PLAIN))
    assert whole(order(), *PLAIN)["usage"] is None


def test_llamas_progress_is_no_piece_of_the_answer() -> None:
    progress = {**delta(role="assistant", content=None), "prompt_progress": {"total": 9, "cache": 0, "processed": 3}}
    repair = ChatRepair(order(), Tally())
    assert repair.take(progress) == []


# ── Several choices ──────────────────────────────────────────────────────────────────────────────────────────────


def test_choices_begin_in_their_order_whichever_the_engine_begins_with() -> None:
    chunks = repaired(order(choices=3), *(delta(index, content="x", finish="stop") for index in (2, 0, 1)))
    roles = [c["index"] for chunk in chunks for c in chunk["choices"] if "role" in c["delta"]]
    assert roles == [0, 1, 2]


def test_a_choice_of_which_nothing_came_is_a_failure_of_the_engine() -> None:
    with pytest.raises(EngineError):
        repaired(order(choices=2), delta(1, content="x", finish="stop"))


def test_choices_are_kept_apart() -> None:
    chunks = [
        delta(1, content="b1"),
        delta(0, content="a1"),
        delta(1, content="b2"),
        delta(1, finish="stop"),
        delta(0, finish="length"),
    ]
    answer = whole(order(choices=2), *chunks)
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["a1", "b1b2"]
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length", "stop"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]


# ── Log probabilities ────────────────────────────────────────────────────────────────────────────────────────────

SCORES = {
    "content": [
        {
            "id": 57,
            "token": "I",
            "bytes": [73],
            "logprob": -2.25,
            "top_logprobs": [
                {"id": 57, "token": "I", "bytes": [73], "logprob": -2.25},
                {"id": 5, "token": "Hello", "bytes": [72], "logprob": -2.5},
            ],
        }
    ]
}


@pytest.mark.parametrize("most", [0, 1, 2, 20])
def test_log_probabilities_have_openais_fields_and_as_many_alternatives_as_were_asked(most: int) -> None:
    chunks = repaired(order(top_alternatives=most), delta(content="I", logprobs=SCORES), delta(finish="stop"))
    scores = chunks[1]["choices"][0]["logprobs"]
    alternatives = [
        {"token": "I", "logprob": -2.25, "bytes": [73]},
        {"token": "Hello", "logprob": -2.5, "bytes": [72]},
    ]
    assert scores == {
        "content": [{"token": "I", "logprob": -2.25, "bytes": [73], "top_logprobs": alternatives[:most]}],
        "refusal": None,
    }
    assert chunks[0]["choices"][0]["logprobs"] is None


def test_log_probabilities_nobody_asked_for_are_not_told() -> None:
    chunks = repaired(order(), delta(content="I", logprobs=SCORES), delta(finish="stop"))
    assert all(chunk["choices"][0]["logprobs"] is None for chunk in chunks)
    assert whole(order(), delta(content="I", logprobs=SCORES))["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("logprob", [None, float("-inf"), -3.4e38, "x"])
def test_what_is_next_to_impossible_has_openais_number(logprob: Any) -> None:
    scores = {"content": [{"token": "a", "logprob": logprob, "bytes": None}]}
    (score,) = whole(order(top_alternatives=0), delta(content="a", logprobs=scores))["choices"][0]["logprobs"][
        "content"
    ]
    assert score == {"token": "a", "logprob": -9999.0, "bytes": None, "top_logprobs": []}


def test_the_log_probabilities_of_an_answer_are_all_there() -> None:
    answer = whole(order(top_alternatives=1), *[delta(content="I", logprobs=SCORES)] * 3)
    assert len(answer["choices"][0]["logprobs"]["content"]) == 3
    assert answer["choices"][0]["logprobs"]["refusal"] is None


# ── Tool calls ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_call_has_its_id_type_and_name_once_and_then_arguments() -> None:
    chunks = repaired(
        order(),
        delta(role="assistant", content=None, tool_calls=[{"index": 0, "id": "c", "function": {"name": "weather"}}]),
        call(arguments='{"city"'),
        call(arguments=':"Bonn"}'),
        delta(finish="tool_calls"),
    )
    assert deltas(chunks) == [
        {"role": "assistant", "content": None, "refusal": None},
        {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "weather", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ':"Bonn"}'}}]},
        {},
    ]
    assert finishes(chunks) == ["tool_calls"]


CALLS: list[tuple[str, list[dict[str, Any]], list[tuple[str, str]]]] = [
    (
        "one after the other",
        [
            call(0, "a", name="f", arguments=""),
            call(0, arguments="{}"),
            call(1, "b", name="g", arguments="[]"),
        ],
        [("f", "{}"), ("g", "[]")],
    ),
    (
        "interleaved",
        [
            call(0, "a", name="f", arguments=""),
            call(1, "b", name="g", arguments=""),
            call(0, arguments="1"),
            call(1, arguments="2"),
            call(0, arguments="3"),
        ],
        [("f", "13"), ("g", "2")],
    ),
    (
        "without ids",
        [call(0, name="f", arguments="{}"), call(1, name="g", arguments="{}")],
        [("f", "{}"), ("g", "{}")],
    ),
    (
        "without places",
        [
            call(None, "a", name="f", arguments="{}"),
            call(None, "b", name="g", arguments="{}"),
        ],
        [("f", "{}"), ("g", "{}")],
    ),
    (
        "all at place 0",
        [
            call(0, "a", name="f", arguments="{}"),
            call(0, "b", name="g", arguments="{}"),
        ],
        [("f", "{}"), ("g", "{}")],
    ),
    (
        "the same head every time",
        [
            call(0, "a", name="f", arguments="{"),
            call(0, "a", name="f", arguments="}"),
        ],
        [("f", "{}")],
    ),
    ("arguments as an object", [call(0, "a", name="f", arguments={"x": 1})], [("f", '{"x":1}')]),
    (
        "without a place after the first",
        [
            call(None, "a", name="f", arguments=""),
            call(None, arguments="{}"),
        ],
        [("f", "{}")],
    ),
]


@pytest.mark.parametrize(("how", "chunks", "calls"), CALLS, ids=[how for how, _, _ in CALLS])
def test_calls_are_put_together(how: str, chunks: list[dict[str, Any]], calls: list[tuple[str, str]]) -> None:
    answer = whole(order(), *chunks, delta(finish="stop"))
    (choice,) = answer["choices"]
    told = choice["message"]["tool_calls"]
    assert [(each["function"]["name"], each["function"]["arguments"]) for each in told] == calls
    assert len({each["id"] for each in told}) == len(calls)
    assert all(each["type"] == "function" and each["id"] for each in told)
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None


def test_a_call_without_a_name_is_a_failure_of_the_engine() -> None:
    with pytest.raises(EngineError):
        repaired(order(), call(0, "a", arguments="{}"))


def test_the_older_form_has_one_function_call() -> None:
    chunks = [
        call(0, "a", name="f", arguments=""),
        call(0, arguments="{}"),
        call(1, "b", name="g", arguments="{}"),
        delta(finish="tool_calls"),
    ]
    assert deltas(repaired(order(legacy=True), *chunks)) == [
        {"role": "assistant", "content": None, "refusal": None},
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{}"}},
        {},
    ]
    (choice,) = whole(order(legacy=True), *chunks)["choices"]
    assert choice["message"]["function_call"] == {"name": "f", "arguments": "{}"}
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "function_call"


# ── Forced calls ─────────────────────────────────────────────────────────────────────────────────────────────────

OPTIONAL = Forcing(CALLABLE, required=False)


def test_a_forced_call_is_told_as_a_call() -> None:
    pieces = ['{"name"', ':"weather","argu', 'ments":{"city":', '"Bonn"}', "}"]
    (choice,) = whole(order(forcing=OPTIONAL), *(delta(content=piece) for piece in pieces), delta(finish="stop"))[
        "choices"
    ]
    (made,) = choice["message"]["tool_calls"]
    assert made["id"].startswith("call_")
    assert made["function"] == {"name": "weather", "arguments": '{"city":"Bonn"}'}
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")


def test_words_instead_of_a_forced_call_are_told_as_words() -> None:
    pieces = ['{"response"', ':"Hel', "lo", '"}']
    chunks = repaired(order(forcing=OPTIONAL), *(delta(content=piece) for piece in pieces), delta(finish="stop"))
    assert deltas(chunks)[1:] == [{"content": "Hel"}, {"content": "lo"}, {}]
    assert finishes(chunks) == ["stop"]


def test_a_forced_call_that_became_too_long_says_so() -> None:
    chunks = repaired(
        order(forcing=OPTIONAL), delta(content='{"name":"weather","arguments":{"ci'), delta(finish="length")
    )
    assert finishes(chunks) == ["length"]


def test_a_forced_call_that_the_engine_did_not_end_is_its_failure() -> None:
    with pytest.raises(EngineError):
        repaired(order(forcing=OPTIONAL), delta(content='{"name":"weather"'), delta(finish="stop"))


def test_the_older_form_can_be_forced() -> None:
    wanted = order(forcing=Forcing(CALLABLE, required=True), legacy=True)
    (choice,) = whole(wanted, delta(content='{"name":"weather","arguments":{}}'), delta(finish="stop"))["choices"]
    assert choice["message"]["function_call"] == {"name": "weather", "arguments": "{}"}
    assert choice["finish_reason"] == "function_call"


# ── The whole answer ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_whole_answer_is_exactly_openais() -> None:
    wanted = order(metadata={"a": "b"})
    assert whole(wanted, *PLAIN, USAGE) == {
        "id": wanted.id,
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
        "system_fingerprint": None,
        "metadata": {"a": "b"},
    }


def test_an_empty_answer_has_empty_words() -> None:
    assert whole(order(), delta(finish="stop"))["choices"][0]["message"]["content"] == ""


def test_refusals_and_thoughts_are_kept_apart_from_words() -> None:
    chunks = [
        delta(reasoning_content="hm, "),
        delta(reasoning_content="no"),
        delta(refusal="No."),
        delta(finish="stop"),
    ]
    message = whole(order(), *chunks)["choices"][0]["message"]
    assert (message["content"], message["refusal"], message["reasoning_content"]) == (None, "No.", "hm, no")
