from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from tokenplace.errors import ApiError, EngineCrashed, EngineError, EngineFull
from tokenplace.node.api import Answer, NodeApi
from tokenplace.node.engines.base import EngineAnswer, JsonObject
from tokenplace.openai.asking import Traits
from tokenplace.openai.catalogue import AdapterEntry, ModelFile
from tokenplace.openai.events import EventParser
from tokenplace.openai.screening import PhraseScreen
from tokenplace.wire.card import ModelCard
from tokenplace.wire.ids import ModelId

PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, EMBEDDINGS, IMAGES = "/v1/responses", "/v1/embeddings", "/v1/images/generations"
HELLO = [{"role": "user", "content": "hello"}]
DONE = b"data: [DONE]\n\n"


class ScriptedAnswer:
    """Says what it was told to say, then fails if it was told to fail."""

    def __init__(self, script: Sequence[bytes | Exception], status: int, content_type: str) -> None:
        self.status = status
        self.content_type = content_type
        self.given = 0
        self._script = script

    async def chunks(self) -> AsyncIterator[bytes]:
        for part in self._script:
            if isinstance(part, Exception):
                raise part
            self.given += 1
            yield part


class ScriptedEngine:
    """An engine whose every answer is written beforehand; remembers what it was asked and when it was let go."""

    slots = 4
    ready = True

    def __init__(
        self,
        *script: bytes | Exception,
        status: int = 200,
        content_type: str = "text/event-stream",
        refuses: Exception | None = None,
    ) -> None:
        self.models = [ModelCard(ModelId("tiny"), 2048, ("chat",)), ModelCard(ModelId("eye"), 512, ("vision",))]
        self.asked: list[tuple[str, JsonObject]] = []
        self.open_answers = 0
        self.last: ScriptedAnswer | None = None
        self._script = script
        self._status = status
        self._content_type = content_type
        self._refuses = refuses

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def wait_ready(self, ready: bool = True) -> None: ...

    @asynccontextmanager
    async def open(self, path: str, body: JsonObject) -> AsyncIterator[EngineAnswer]:
        self.asked.append((path, body))
        if self._refuses is not None:
            raise self._refuses
        self.last = ScriptedAnswer(self._script, self._status, self._content_type)
        self.open_answers += 1
        try:
            yield self.last
        finally:
            self.open_answers -= 1


def event(*choices: dict[str, Any], **more: Any) -> bytes:
    return b"data: " + json.dumps({"choices": choices, **more}).encode() + b"\n\n"


def words(text: str, index: int = 0) -> bytes:
    return event({"index": index, "delta": {"content": text}, "finish_reason": None})


def finish(reason: str = "stop", index: int = 0) -> bytes:
    return event({"index": index, "delta": {}, "finish_reason": reason})


ROLE = event({"index": 0, "delta": {"role": "assistant", "content": None}, "finish_reason": None})
USAGE = event(usage={"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11})
HELLO_WORLD = (ROLE, words("Hello"), words(" world"), finish(), USAGE, DONE)


def request(**fields: Any) -> bytes:
    return json.dumps({"model": "tiny", "messages": HELLO, **fields}).encode()


class Got:
    """What came out of one answer."""

    def __init__(self, status: int, content_type: str, pieces: list[bytes], usage: dict[str, Any]) -> None:
        self.status, self.content_type, self.pieces, self.usage = status, content_type, pieces, usage
        self.body = b"".join(pieces)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        return error

    @property
    def chunks(self) -> list[Any]:
        *events, last = EventParser().feed(self.body)
        assert last.done
        return [json.loads(each.data) for each in events]

    @property
    def text(self) -> str:
        return "".join(c["delta"].get("content") or "" for chunk in self.chunks for c in chunk["choices"])


async def ask(api: NodeApi, body: bytes, path: str = CHAT) -> Got:
    async with api.answer(path, body) as answer:
        pieces = [piece async for piece in answer.body()]
        return Got(answer.status, answer.content_type, pieces, answer.usage)


async def read_into(sent: bytearray, answer: Answer) -> None:
    async for piece in answer.body():
        sent += piece


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stream_is_server_sent_events_that_end_in_done() -> None:
    got = await ask(NodeApi(ScriptedEngine(*HELLO_WORLD)), request(stream=True))
    assert (got.status, got.content_type) == (200, "text/event-stream; charset=utf-8")
    assert got.text == "Hello world"
    assert got.chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert got.body.endswith(DONE)


async def test_a_json_answer_is_put_together_from_the_stream() -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    got = await ask(NodeApi(engine, now=lambda: 1_700_000_000.9), request())
    assert (got.status, got.content_type) == (200, "application/json")
    assert got.json["choices"][0]["message"]["content"] == "Hello world"
    assert got.json["usage"] == {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    assert (got.json["created"], got.json["model"]) == (1_700_000_000, "tiny")
    assert engine.asked[0][1]["stream"] is True


async def test_a_completion_is_answered() -> None:
    script = event({"index": 0, "text": " upon", "finish_reason": "length"}), DONE
    body = json.dumps({"model": "tiny", "prompt": "Once", "echo": True}).encode()
    engine = ScriptedEngine(*script)
    got = await ask(NodeApi(engine), body, COMPLETIONS)
    assert got.json["choices"] == [
        {"index": 0, "text": "Once upon", "logprobs": None, "finish_reason": "length"},
    ]
    assert engine.asked[0][0] == COMPLETIONS


async def test_a_stream_of_completions_is_answered() -> None:
    script = b"data: null\n\n", event({"index": 0, "text": " upon", "finish_reason": "length"}), DONE
    body = json.dumps({"model": "tiny", "prompt": "Once", "stream": True}).encode()
    got = await ask(NodeApi(ScriptedEngine(*script)), body, COMPLETIONS)
    assert [choice["text"] for chunk in got.chunks for choice in chunk["choices"]] == [" upon", ""]


async def test_bytes_cut_anywhere_give_the_same_answer() -> None:
    stream = b"".join((ROLE, words("Grüße "), words("🦄"), finish(), USAGE, DONE))
    for size in (1, 2, 3, 7, 64, 10_000):
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        got = await ask(NodeApi(ScriptedEngine(*pieces)), request(stream=True))
        assert got.text == "Grüße 🦄"


async def test_every_piece_goes_out_before_the_next_is_taken_from_the_engine() -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    async with NodeApi(engine).answer(CHAT, request(stream=True)) as answer:
        assert engine.last is not None
        assert engine.last.given == 1
        taken = []
        async for piece in answer.body():
            taken.append((engine.last.given, b"Hello" in piece, b"world" in piece))
    assert taken[1:3] == [(2, True, False), (3, False, True)]


async def test_status_is_known_with_the_first_piece_also_of_a_json_answer() -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    async with NodeApi(engine).answer(CHAT, request()) as answer:
        assert engine.last is not None
        assert (answer.status, engine.last.given) == (200, 1)


async def test_llamas_progress_is_not_the_first_piece() -> None:
    progress = event({"index": 0, "delta": {"role": "assistant"}}, prompt_progress={"total": 30, "processed": 9})
    engine = ScriptedEngine(progress, progress, EngineCrashed())
    with pytest.raises(EngineCrashed):
        await ask(NodeApi(engine), request(stream=True))


async def test_leaving_lets_the_engine_go_at_once() -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    async with NodeApi(engine).answer(CHAT, request(stream=True)) as answer:
        async for _ in answer.body():
            break
        assert engine.open_answers == 1
    assert engine.open_answers == 0
    assert engine.last is not None
    assert engine.last.given < len(HELLO_WORLD)


async def test_nothing_needs_to_be_read() -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    async with NodeApi(engine).answer(CHAT, request()):
        pass
    assert engine.open_answers == 0


# ── Models ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_model_that_is_not_served_is_answered_with_those_that_are() -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    got = await ask(NodeApi(engine), request(model="gpt-9"))
    assert got.status == 404
    assert got.error == {
        "message": "The model 'gpt-9' does not exist or is not served here. These are: 'eye' and 'tiny'.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    assert engine.asked == []


async def test_an_alias_is_answered_and_the_answer_names_the_model_behind_it() -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    got = await ask(NodeApi(engine, aliases={"gpt-5-chat-latest": "tiny"}), request(model="gpt-5-chat-latest"))
    assert got.json["model"] == "tiny"
    assert engine.asked[0][1]["model"] == "tiny"


async def test_a_served_model_is_meant_by_its_own_name_even_where_that_is_an_alias() -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    assert (await ask(NodeApi(engine, aliases={"tiny": "huge"}), request())).json["model"] == "tiny"


async def test_the_slots_bound_the_choices_and_the_card_the_pictures() -> None:
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": PNG}]}]
    api = NodeApi(ScriptedEngine(*HELLO_WORLD))
    assert (await ask(api, request(n=5))).error["param"] == "n"
    got = await ask(api, request(messages=picture, logprobs=True))
    assert got.error["param"] == "messages[0].content[0].type"
    assert (await ask(api, request(messages=picture, model="eye"))).status == 200


async def test_traits_outweigh_slots_and_card() -> None:
    api = NodeApi(ScriptedEngine(*HELLO_WORLD), traits=Traits(max_choices=1))
    assert (await ask(api, request(n=2))).error["param"] == "n"


# ── Refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/v1/images", "/v1/chat/completions/", "/", "", "/v1/models"])
async def test_another_path_is_unknown(path: str) -> None:
    got = await ask(NodeApi(ScriptedEngine()), request(), path)
    assert (got.status, got.error["code"]) == (404, "unknown_url")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model":"tiny"}', b"\xff"])
async def test_a_bad_request_never_reaches_the_engine(body: bytes) -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    got = await ask(NodeApi(engine), body)
    assert (got.status, got.content_type) == (400, "application/json")
    assert got.error["message"]
    assert engine.asked == []


async def test_a_refusal_is_told_to_the_worker_too() -> None:
    async with NodeApi(ScriptedEngine()).answer(CHAT, b"") as answer:
        assert answer.refusal is not None
        assert answer.refusal.code == "invalid_json"
        assert answer.usage == {"completion_tokens": 0}


async def test_words_can_be_screened_before_the_engine_reads_them() -> None:
    seen: list[Sequence[str]] = []

    def screen(said: Sequence[str]) -> None:
        seen.append(said)
        if "bad" in said[-1]:
            raise ApiError("No.", code="content_blocked")

    engine = ScriptedEngine(*HELLO_WORLD)
    api = NodeApi(engine, screen=screen)
    assert (await ask(api, request())).status == 200
    assert (await ask(api, request(messages=[*HELLO, {"role": "user", "content": "bad"}]))).status == 400
    assert (await ask(api, json.dumps({"model": "tiny", "prompt": "bad"}).encode(), COMPLETIONS)).status == 400
    assert seen == [["hello"], ["hello", "bad"], ["bad"]]
    assert len(engine.asked) == 1


async def test_what_the_engine_refuses_is_told_in_openais_shape() -> None:
    told = {
        "error": {"code": 400, "type": "exceed_context_size_error", "message": "", "n_prompt_tokens": 9, "n_ctx": 8}
    }
    engine = ScriptedEngine(json.dumps(told).encode(), status=400, content_type="application/json")
    got = await ask(NodeApi(engine), request(stream=True))
    assert (got.status, got.content_type) == (400, "application/json")
    assert (got.error["code"], got.error["param"]) == ("context_length_exceeded", "messages")


async def test_an_endless_refusal_is_not_read_to_its_end() -> None:
    engine = ScriptedEngine(*[b"x" * 65_536] * 100, status=400, content_type="text/html")
    assert (await ask(NodeApi(engine), request())).status == 400
    assert engine.last is not None
    assert engine.last.given <= 2


EARLY: list[tuple[ScriptedEngine, type[EngineError]]] = [
    (ScriptedEngine(refuses=EngineCrashed()), EngineCrashed),
    (ScriptedEngine(refuses=EngineError("nothing listens there")), EngineError),
    (ScriptedEngine(refuses=EngineFull()), EngineFull),
    (ScriptedEngine(), EngineCrashed),
    (ScriptedEngine(EngineCrashed()), EngineCrashed),
    (ScriptedEngine(DONE), EngineError),
    (ScriptedEngine(b"data: {\n\n"), EngineError),
    (ScriptedEngine(b"data: 5\n\n"), EngineError),
    (ScriptedEngine(b"data: {}\n\n"), EngineError),
    (ScriptedEngine(b'event: error\ndata: {"message":"x"}\n\n'), EngineError),
    (ScriptedEngine(b"data: " + b"x" * 9_000_000), EngineError),
    (ScriptedEngine(b"{}", content_type="application/json"), EngineError),
    (ScriptedEngine(b'{"error": {"message": "CUDA error"}}', status=500, content_type="application/json"), EngineError),
    (ScriptedEngine(b"{}", status=503, content_type="application/json"), EngineCrashed),
    (ScriptedEngine(b"{}", status=429, content_type="application/json"), EngineFull),
]


@pytest.mark.parametrize(("engine", "kind"), EARLY, ids=[str(at) for at in range(len(EARLY))])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_engine_that_fails_before_its_first_piece_raises_and_nothing_was_said(
    engine: ScriptedEngine, kind: type[EngineError], stream: bool
) -> None:
    with pytest.raises(EngineError) as failed:
        async with NodeApi(engine).answer(CHAT, request(stream=stream)):
            pass
    assert type(failed.value) is kind
    assert engine.open_answers == 0


REFUSALS: list[tuple[ScriptedEngine, int, str]] = [
    (ScriptedEngine(refuses=ApiError("No.", status=418, code="teapot")), 418, "teapot"),
    (ScriptedEngine(b'data: {"error":{"code":400,"message":"bad grammar"}}\n\n'), 400, "invalid_request_error"),
    (ScriptedEngine(b"{}", status=400, content_type="application/json"), 400, "invalid_request_error"),
]


@pytest.mark.parametrize(("engine", "status", "code"), REFUSALS, ids=[str(at) for at in range(len(REFUSALS))])
@pytest.mark.parametrize("stream", [True, False])
async def test_what_an_engine_finds_wrong_with_a_request_becomes_a_status(
    engine: ScriptedEngine, status: int, code: str, stream: bool
) -> None:
    got = await ask(NodeApi(engine), request(stream=stream))
    assert (got.status, got.content_type, got.error["code"]) == (status, "application/json", code)
    assert engine.open_answers == 0


async def test_a_refusal_that_is_read_slowly_holds_no_slot() -> None:
    engine = ScriptedEngine(b"{}", status=400, content_type="application/json")
    async with NodeApi(engine).answer(CHAT, request()) as answer:
        assert (answer.status, engine.open_answers) == (400, 0)


async def test_what_an_engine_finds_wrong_with_a_request_later_on_is_still_its_fault() -> None:
    engine = ScriptedEngine(ROLE, words("Hello"), b'data: {"error":{"code":400,"message":"context size exceeded"}}\n\n')
    async with NodeApi(engine).answer(CHAT, request(stream=True)) as answer:
        with pytest.raises(ApiError) as refused:
            await read_into(bytearray(), answer)
    assert refused.value.code == "context_length_exceeded"


LATE: list[tuple[bytes | Exception, ...]] = [
    (),
    (finish(),),
    (finish(), USAGE),
    (EngineCrashed(),),
    (EngineError("x"),),
    (b"data: {\n\n",),
    (b'data: {"error":{"code":500,"message":"x"}}\n\n',),
    (b'event: error\ndata: {"message":"x"}\n\n',),
    (b"data: " + b"x" * 9_000_000,),
    (event({"index": 7, "delta": {"content": "x"}}), DONE),
]


@pytest.mark.parametrize("rest", LATE, ids=[str(at) for at in range(len(LATE))])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_engine_that_fails_later_raises_and_nothing_looks_like_an_ending(
    rest: tuple[bytes | Exception, ...], stream: bool
) -> None:
    engine = ScriptedEngine(ROLE, words("Hello"), *rest)
    sent = bytearray()
    async with NodeApi(engine).answer(CHAT, request(stream=stream)) as answer:
        with pytest.raises(EngineError):
            await read_into(sent, answer)
        assert answer.status == 200
        assert answer.usage["completion_tokens"] >= 1
    assert DONE not in sent
    assert stream == (b"Hello" in sent)
    assert engine.open_answers == 0


async def test_the_usage_of_a_broken_answer_is_the_best_that_is_known() -> None:
    timed = event({"index": 0, "delta": {"content": "Hello"}}, timings={"cache_n": 2, "prompt_n": 30, "predicted_n": 5})
    async with NodeApi(ScriptedEngine(ROLE, timed)).answer(CHAT, request(stream=True)) as answer:
        with pytest.raises(EngineCrashed):
            await read_into(bytearray(), answer)
        assert answer.usage == {"prompt_tokens": 32, "completion_tokens": 5, "total_tokens": 37}


# ── Tools, end to end ────────────────────────────────────────────────────────────────────────────────────────────

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


async def test_a_model_without_tools_calls_them_through_a_schema() -> None:
    script = ROLE, words('{"name":"weather",'), words('"arguments":{"city":"Bonn"}}'), finish(), DONE
    engine = ScriptedEngine(*script)
    api = NodeApi(engine, traits=Traits(native_tools=False))
    got = await ask(api, request(tools=TOOLS, tool_choice="required"))
    (choice,) = got.json["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city":"Bonn"}'}
    assert "tools" not in engine.asked[0][1]


async def test_a_model_that_breaks_the_schema_is_a_failure_and_no_answer() -> None:
    engine = ScriptedEngine(ROLE, words("Sure, I can"), finish(), DONE)
    async with NodeApi(engine, traits=Traits(native_tools=False)).answer(CHAT, request(tools=TOOLS)) as answer:
        with pytest.raises(EngineError):
            await read_into(bytearray(), answer)


# ── Adapters, stand-ins, charters ────────────────────────────────────────────────────────────────────────────────

CAREFUL = AdapterEntry(
    id=ModelId("tiny:careful"),
    base=ModelId("tiny"),
    name="",
    description="",
    versions=frozenset(),
    charter="Be careful.",
)
CHARTER = {"role": "system", "content": "Be careful."}


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        (HELLO, [CHARTER, *HELLO]),
        ([CHARTER, *HELLO], [CHARTER, *HELLO]),
        ([{"role": "system", "content": "Rhyme."}, *HELLO], [CHARTER, {"role": "system", "content": "Rhyme."}, *HELLO]),
        (
            [*HELLO, {"role": "assistant", "content": "hi"}, *HELLO],
            [CHARTER, *HELLO, {"role": "assistant", "content": "hi"}, *HELLO],
        ),
    ],
)
async def test_a_charter_is_said_once_before_the_others(messages: Any, told: Any) -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    got = await ask(NodeApi(engine, adapters=[CAREFUL]), request(model="tiny:careful", messages=messages))
    assert engine.asked[0][1]["messages"] == told
    assert engine.asked[0][1]["model"] == "tiny"
    assert got.json["model"] == "tiny:careful"


async def test_a_charter_is_for_chats_and_responses_only() -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    api = NodeApi(engine, adapters=[CAREFUL])
    body = json.dumps({"model": "tiny:careful", "prompt": "Once"}).encode()
    assert (await ask(api, body, COMPLETIONS)).error["param"] == "model"
    body = json.dumps({"model": "tiny:careful", "input": "hello", "instructions": "Rhyme."}).encode()
    assert (await ask(api, body, RESPONSES)).json["model"] == "tiny:careful"
    assert engine.asked[0][1]["messages"] == [CHARTER, {"role": "system", "content": "Rhyme."}, *HELLO]


async def test_lora_weights_are_asked_for_by_the_adapters_own_name() -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    engine.models.append(ModelCard(ModelId("tiny:bold"), 2048, ("chat",)))
    bold = replace(CAREFUL, id=ModelId("tiny:bold"), file=ModelFile("bold.gguf"))
    got = await ask(NodeApi(engine, adapters=[bold]), request(model="tiny:bold"))
    assert engine.asked[0][1]["model"] == "tiny:bold"
    assert engine.asked[0][1]["messages"] == [CHARTER, *HELLO]
    assert got.json["model"] == "tiny:bold"


async def test_an_adapter_whose_base_or_weights_are_not_here_is_not_served() -> None:
    elsewhere = replace(CAREFUL, base=ModelId("huge"))
    weights = replace(CAREFUL, file=ModelFile("careful.gguf"))
    for adapter in (elsewhere, weights):
        got = await ask(NodeApi(ScriptedEngine(), adapters=[adapter]), request(model="tiny:careful"))
        assert (got.status, got.error["code"]) == (404, "model_not_found")


async def test_a_refusal_lists_adapters_among_what_is_served() -> None:
    got = await ask(NodeApi(ScriptedEngine(), adapters=[CAREFUL]), request(model="gpt-9"))
    assert "'eye', 'tiny' and 'tiny:careful'" in got.error["message"]


async def test_a_stand_in_tells_its_own_name_and_keeps_the_charter() -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    far = replace(CAREFUL, base=ModelId("huge"), id=ModelId("huge:careful"))
    api = NodeApi(engine, adapters=[far], stands_in_for=["huge", "huge:careful"], aliases={"gpt": "huge"})
    for name in ("huge", "gpt", "huge:careful"):
        assert (await ask(api, request(model=name))).json["model"] == "tiny"
    assert [asked["model"] for _, asked in engine.asked] == ["tiny"] * 3
    assert engine.asked[2][1]["messages"] == [CHARTER, *HELLO]
    assert (await ask(api, request(model="other"))).status == 404


# ── Pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────

LOOK = {
    "role": "user",
    "content": [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": PNG}}],
}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_node_without_eyes_says_what_the_file_says_and_asks_no_engine(stream: bool) -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    options = {"stream_options": {"include_usage": True}} if stream else {}
    got = await ask(NodeApi(engine), request(messages=[LOOK], stream=stream, **options))
    text = got.text if stream else got.json["choices"][0]["message"]["content"]
    assert text.startswith("Vision analysis: PNG image, 1x1 px, 33 bytes, square orientation.\n")
    assert "cannot look at this picture" in text
    usage = got.chunks[-1]["usage"] if stream else got.json["usage"]
    assert usage == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert engine.asked == []


async def test_only_the_last_turn_is_described_later_turns_are_answered_by_the_model() -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    turns = [LOOK, {"role": "assistant", "content": "A file."}, *HELLO]
    got = await ask(NodeApi(engine), request(messages=turns))
    assert got.json["choices"][0]["message"]["content"] == "Hello world"
    assert engine.asked[0][1]["messages"][0]["content"] == "What?\n[a picture that you cannot see: PNG, 1x1 px]"


async def test_a_model_with_eyes_gets_the_picture() -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    await ask(NodeApi(engine), request(messages=[LOOK], model="eye"))
    assert engine.asked[0][1]["messages"] == [LOOK]


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"logprobs": True},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"},
    ],
)
async def test_a_description_is_not_passed_off_for_json_a_call_or_scores(fields: Any) -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    got = await ask(NodeApi(engine), request(messages=[LOOK], **fields))
    assert (got.status, got.error["param"]) == (400, "messages[0].content[1].type")
    assert engine.asked == []


async def test_every_choice_of_a_description_is_whole() -> None:
    got = await ask(NodeApi(ScriptedEngine()), request(messages=[LOOK], n=2))
    assert [choice["finish_reason"] for choice in got.json["choices"]] == ["stop", "stop"]


async def test_a_response_describes_pictures_too() -> None:
    content = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": PNG}]
    body = json.dumps({"model": "tiny", "input": [{"role": "user", "content": content}]}).encode()
    got = await ask(NodeApi(ScriptedEngine()), body, RESPONSES)
    assert got.json["output"][0]["content"][0]["text"].startswith("Vision analysis: PNG")


async def test_a_bomb_is_refused_before_anybody_decodes_it() -> None:
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    uri = f"data:image/png;base64,{base64.b64encode(head).decode()}"
    picture = {"type": "image_url", "image_url": {"url": uri}}
    got = await ask(NodeApi(ScriptedEngine()), request(messages=[{"role": "user", "content": [picture]}], model="eye"))
    assert (got.status, got.error["param"]) == (400, "messages[0].content[0].image_url.url")
    assert "60000 x 60000" in got.error["message"]


# ── Responses, embeddings, pictures out ──────────────────────────────────────────────────────────────────────────


async def test_a_response_is_asked_for_as_a_chat() -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    api = NodeApi(engine, traits=Traits(defaults={"temperature": 0.25}))
    got = await ask(api, json.dumps({"model": "tiny", "input": "hello"}).encode(), RESPONSES)
    assert engine.asked[0][0] == CHAT
    assert (got.json["object"], got.json["status"], got.json["temperature"]) == ("response", "completed", 0.25)
    assert got.json["output"][0]["content"][0]["text"] == "Hello world"
    assert got.json["usage"]["total_tokens"] == 11
    assert got.usage["total_tokens"] == 11


async def test_a_streamed_response_ends_with_its_completion_and_without_done() -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    body = json.dumps({"model": "tiny", "input": "hello", "stream": True}).encode()
    got = await ask(NodeApi(engine), body, RESPONSES)
    events = EventParser().feed(got.body)
    assert events[0].name == b"response.created"
    assert events[-1].name == b"response.completed"
    assert DONE not in got.body


async def test_a_streamed_response_that_breaks_has_no_ending() -> None:
    engine = ScriptedEngine(ROLE, words("Hello"), EngineCrashed())
    body = json.dumps({"model": "tiny", "input": "hello", "stream": True}).encode()
    sent = bytearray()
    async with NodeApi(engine).answer(RESPONSES, body) as answer:
        with pytest.raises(EngineCrashed):
            await read_into(sent, answer)
    assert b"response.output_text.delta" in sent
    assert b"response.completed" not in sent


async def test_what_is_wrong_with_a_response_is_named_as_it_came() -> None:
    told = {"error": {"type": "exceed_context_size_error", "message": "", "n_prompt_tokens": 9, "n_ctx": 8}}
    engine = ScriptedEngine(json.dumps(told).encode(), status=400, content_type="application/json")
    got = await ask(NodeApi(engine), json.dumps({"model": "tiny", "input": "hello"}).encode(), RESPONSES)
    assert (got.error["code"], got.error["param"]) == ("context_length_exceeded", "input")
    traits = Traits(native_tools=False)
    tool = {"type": "function", "name": "f"}
    fields = {"tools": [tool], "text": {"format": {"type": "json_object"}}}
    body = json.dumps({"model": "tiny", "input": "hello", **fields}).encode()
    assert (await ask(NodeApi(engine, traits=traits), body, RESPONSES)).error["param"] == "text.format"


VECTORS = json.dumps({"data": [{"index": 0, "embedding": [0.5, 1.5]}], "usage": {"prompt_tokens": 3}}).encode()


async def test_embeddings_are_one_json_with_their_usage() -> None:
    engine = ScriptedEngine(VECTORS, content_type="application/json")
    api = NodeApi(engine, traits=Traits(embeddings=True))
    got = await ask(api, json.dumps({"model": "tiny", "input": "hello"}).encode(), EMBEDDINGS)
    assert got.json["data"][0]["embedding"] == [0.5, 1.5]
    assert got.usage == {"prompt_tokens": 3, "total_tokens": 3}
    assert engine.asked == [(EMBEDDINGS, {"model": "tiny", "input": "hello", "encoding_format": "float"})]


async def test_a_model_without_embeddings_is_refused_and_the_engine_not_asked() -> None:
    engine = ScriptedEngine(VECTORS)
    got = await ask(NodeApi(engine), json.dumps({"model": "tiny", "input": "hello"}).encode(), EMBEDDINGS)
    assert (got.status, got.error["param"]) == (400, "model")
    assert engine.asked == []


async def test_a_picture_is_drawn_without_an_engine() -> None:
    engine = ScriptedEngine()
    body = json.dumps({"prompt": "sea", "size": "64x32", "seed": 7, "n": 2, "model": "dall-e-2"}).encode()
    first, second = [await ask(NodeApi(engine, now=lambda: 5), body, IMAGES) for _ in range(2)]
    assert first.body == second.body
    assert base64.b64decode(first.json["data"][1]["b64_json"]).startswith(b"\x89PNG")
    assert engine.asked == []


# ── Moderation ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"model": "tiny", "messages": [{"role": "system", "content": "kill"}, *HELLO]}),
        (CHAT, {"model": "eye", "messages": [{"role": "user", "content": [{"type": "text", "text": "kill"}]}]}),
        (
            CHAT,
            {
                "model": "tiny",
                "messages": [
                    *HELLO,
                    {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                    },
                    {"role": "tool", "tool_call_id": "c", "content": "how to kill"},
                ],
            },
        ),
        (CHAT, {"model": "tiny", "messages": HELLO, "functions": [{"name": "f", "description": "Kill."}]}),
        (COMPLETIONS, {"model": "tiny", "prompt": ["one", "kill"]}),
        (RESPONSES, {"model": "tiny", "input": "kill"}),
        (RESPONSES, {"model": "tiny", "input": "hello", "instructions": "kill"}),
        (EMBEDDINGS, {"model": "tiny", "input": ["kill"]}),
        (IMAGES, {"prompt": "kill"}),
    ],
)  # fmt: skip
async def test_every_way_of_words_is_screened(path: str, body: dict[str, Any]) -> None:
    engine = ScriptedEngine(*HELLO_WORLD)
    api = NodeApi(engine, screen=PhraseScreen(["kill"]), traits=Traits(embeddings=True))
    got = await ask(api, json.dumps(body).encode(), path)
    assert (got.status, got.error["type"], got.error["code"]) == (400, "content_policy_violation", "content_blocked")
    assert engine.asked == []


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (COMPLETIONS, {"model": "tiny", "prompt": [1, 2]}, "prompt"),
        (EMBEDDINGS, {"model": "tiny", "input": [[1], [2]]}, "input"),
    ],
)
async def test_token_ids_are_no_way_around_the_screen(path: str, body: dict[str, Any], param: str) -> None:
    api = NodeApi(ScriptedEngine(*HELLO_WORLD), screen=PhraseScreen(["kill"]), traits=Traits(embeddings=True))
    assert (await ask(api, json.dumps(body).encode(), path)).error["param"] == param
