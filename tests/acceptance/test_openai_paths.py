"""Responses, embeddings, pictures, adapters, moderation and keys, over the whole sealed path."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image
from pydantic import BaseModel

import eyes
from stage import EMBEDDED, Program, Stage, staged
from tokenplace.client.client import Client
from tokenplace.openai.catalogue import Catalogue

SAY: Any = [{"role": "user", "content": "Say hello."}]


def sdk(gateway: Program, version: str = "v2", key: str = "not needed") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/{version}", api_key=key, max_retries=0)


def picture(width: int, height: int, form: str = "PNG") -> str:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 90)).save(out, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


def looking(*uris: str) -> Any:
    content: list[Any] = [{"type": "text", "text": "What is this?"}]
    content += [{"type": "image_url", "image_url": {"url": uri}} for uri in uris]
    return [{"role": "user", "content": content}]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A demonstration: the embedded model answers to every id of the catalogue."""
    with staged(tmp_path_factory.mktemp("paths")) as stage:
        env = {"TOKEN_PLACE_STAND_IN": "1"}
        relay = stage.relay(env=env)
        stage.node(relay, engine="llama", flags=["--slots", "4"], env=env)
        yield relay


# ── Responses ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.model
def test_a_response_is_created_in_json(gateway: Program) -> None:
    with sdk(gateway, "v1") as client:
        answer = client.responses.create(model=EMBEDDED, input="Say hello.", max_output_tokens=40)
    assert answer.output_text
    assert (answer.object, answer.model, answer.store) == ("response", EMBEDDED, False)  # type: ignore[attr-defined]
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


@pytest.mark.model
def test_a_response_streams_openais_events_in_order(gateway: Program) -> None:
    with sdk(gateway) as client:
        events = list(client.responses.create(model=EMBEDDED, input=SAY, max_output_tokens=24, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds.count("response.output_text.delta") > 3
    assert kinds[-1] in ("response.completed", "response.incomplete")


WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "Weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


@pytest.mark.model
def test_the_sdks_stream_helper_gathers_a_call_and_takes_its_result(gateway: Program) -> None:
    question: Any = {"role": "user", "content": "What is the weather in Paris?"}
    with sdk(gateway) as client:
        with client.responses.stream(
            model=EMBEDDED, input=[question], tools=[WEATHER], tool_choice="required", max_output_tokens=80
        ) as stream:
            final = stream.get_final_response()
        (call,) = [item for item in final.output if item.type == "function_call"]
        assert call.name == "weather"
        assert set(json.loads(call.arguments)) == {"city"}
        result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny, 30 degrees."}
        items: Any = [question, *final.output, result]
        after = client.responses.create(model=EMBEDDED, input=items, tools=[WEATHER], max_output_tokens=30)
    assert after.output_text


class Person(BaseModel):
    name: str
    age: int


@pytest.mark.model
def test_the_sdk_parses_a_response_into_a_shape(gateway: Program) -> None:
    with sdk(gateway, "v1") as client:
        answer = client.responses.parse(
            model=EMBEDDED, input="Tom is five years old.", text_format=Person, max_output_tokens=100
        )
    assert isinstance(answer.output_parsed, Person)


@pytest.mark.model
@pytest.mark.parametrize("param", [{"previous_response_id": "resp_1"}, {"store": True}, {"background": True}])
def test_what_needs_a_memory_is_refused_by_name(gateway: Program, param: dict[str, Any]) -> None:
    with sdk(gateway) as client, pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=EMBEDDED, input="hi", **param)
    assert caught.value.param == next(iter(param))


# ── Embeddings ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.model
def test_embeddings_are_the_same_as_numbers_and_as_base64(gateway: Program) -> None:
    with sdk(gateway, "v1") as client:
        packed = client.embeddings.create(model=EMBEDDED, input=["hello", "world"])  # the SDK asks for base64
        plain = client.embeddings.create(model=EMBEDDED, input=["hello", "world"], encoding_format="float")
    assert len(packed.data) == 2
    assert packed.data[1].embedding == pytest.approx(plain.data[1].embedding, abs=1e-6)
    assert packed.usage.total_tokens == packed.usage.prompt_tokens > 0


@pytest.mark.model
def test_an_input_that_is_too_long_is_a_context_error(gateway: Program) -> None:
    with sdk(gateway, "v1") as client, pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=EMBEDDED, input="hello " * 2000)
    assert caught.value.code == "context_length_exceeded"


# ── Adapters and stand-ins ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.model
@pytest.mark.parametrize("name", ["gpt-3.5-turbo", "gpt-5-chat-latest", "llama-3-8b-instruct:alignment", "gpt-oss-20b"])
def test_a_stand_in_answers_and_tells_its_own_name(gateway: Program, name: str) -> None:
    with sdk(gateway) as client:
        answer = client.chat.completions.create(model=name, messages=SAY, max_tokens=3)
        listed = {model.id: model for model in client.models.list().data}
    assert answer.model == EMBEDDED
    assert listed["gpt-oss-20b"].stand_in == EMBEDDED  # type: ignore[attr-defined]
    assert listed["gpt-oss-20b"].nodes == 0  # type: ignore[attr-defined]


async def test_an_adapter_is_its_base_under_a_charter_for_every_kind_of_client(stage: Stage) -> None:
    base, adapter = "llama-3-8b-instruct", "llama-3-8b-instruct:alignment"
    charter = {"role": "system", "content": Catalogue.load().adapters[0].charter}
    with eyes.eyes(base) as (url, asked):
        relay = stage.relay()
        stage.node(relay, engine=url)
        with sdk(relay) as client:
            answer = client.chat.completions.create(model=adapter, messages=SAY)
            listed = client.models.retrieve(adapter)
        async with Client([relay.url]) as sealed:
            again = await sealed.chat([charter, *SAY], model=adapter)
            plain = await sealed.chat(SAY, model="gpt-5-chat-latest")
    assert [answer.model, again["model"], plain["model"]] == [adapter, adapter, base]
    assert [request["model"] for _, request in asked] == [base] * 3
    assert [request["messages"] for _, request in asked] == [[charter, *SAY], [charter, *SAY], SAY]
    assert (listed.nodes, listed.parent) == (1, base)  # type: ignore[attr-defined]


# ── Pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.model
def test_a_model_without_eyes_says_what_the_file_says_and_that_it_is_only_that(gateway: Program) -> None:
    with sdk(gateway, "v1") as client:
        answer = client.chat.completions.create(model=EMBEDDED, messages=looking(picture(60, 40)))
        later: Any = [
            *looking(picture(60, 40)),
            {"role": "assistant", "content": "A file."},
            {"role": "user", "content": "Say hello."},
        ]
        after = client.chat.completions.create(model=EMBEDDED, messages=later, max_tokens=5)
    text = answer.choices[0].message.content or ""
    assert text.startswith("Vision analysis: PNG image, 60x40 px, ")
    assert "landscape orientation." in text
    assert "cannot look" in text
    assert not (after.choices[0].message.content or "").startswith("Vision")


@pytest.mark.model
@pytest.mark.parametrize(
    "uri",
    [
        "https://example.org/cat.png",
        "file:///etc/passwd",
        "data:image/png;base64,%%%",
        "data:image/png;base64,AAAA",
        "data:text/html;base64,AAAA",
    ],
)
def test_pictures_that_cannot_be_used_are_clear_errors(gateway: Program, uri: str) -> None:
    with sdk(gateway) as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=EMBEDDED, messages=looking(uri))
    assert caught.value.param == "messages[0].content[1].image_url.url"


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Program, list[Any]]]:
    """A node before a server that looks."""
    with staged(tmp_path_factory.mktemp("eyes")) as stage, eyes.eyes() as (url, asked):
        relay = stage.relay()
        env = {"TOKEN_PLACE_VISION_MODELS": eyes.MODEL, "TOKEN_PLACE_EMBEDDING_MODELS": eyes.MODEL}
        stage.node(relay, engine=url, env=env)
        yield relay, asked


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_model_with_eyes_looks_at_the_very_picture(seeing: tuple[Program, list[Any]], form: str) -> None:
    gateway, _ = seeing
    with sdk(gateway) as client:
        answer = client.chat.completions.create(
            model=eyes.MODEL, messages=looking(picture(31, 17, form), picture(2, 3))
        )
        content: Any = [{"type": "input_image", "image_url": picture(9, 8, form)}]
        response = client.responses.create(model=eyes.MODEL, input=[{"role": "user", "content": content}])
        listed = client.models.retrieve(eyes.MODEL)
    assert answer.choices[0].message.content == "I see 31x17 and 2x3"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 300
    assert response.output_text == "I see 9x8"
    assert "vision" in listed.capabilities  # type: ignore[attr-defined]


def test_a_large_picture_passes_the_seal(seeing: tuple[Program, list[Any]]) -> None:
    gateway, _ = seeing
    noise = Image.effect_noise((1500, 1500), 90)
    out = io.BytesIO()
    noise.save(out, "PNG")
    assert len(out.getvalue()) > 1_500_000
    uri = f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
    with sdk(gateway) as client:
        answer = client.chat.completions.create(model=eyes.MODEL, messages=looking(uri))
    assert answer.choices[0].message.content == "I see 1500x1500"


def test_a_bomb_never_reaches_the_model(seeing: tuple[Program, list[Any]]) -> None:
    gateway, asked = seeing
    before = len(asked)
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (50_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    uri = f"data:image/png;base64,{base64.b64encode(head).decode()}"
    with sdk(gateway) as client, pytest.raises(openai.BadRequestError, match="50000 x 50000"):
        client.chat.completions.create(model=eyes.MODEL, messages=looking(uri))
    assert len(asked) == before


def test_an_upstreams_embeddings_are_passed_on(seeing: tuple[Program, list[Any]]) -> None:
    gateway, _ = seeing
    with sdk(gateway) as client:
        answer = client.embeddings.create(model=eyes.MODEL, input=["a", "b"])
    assert [item.embedding for item in answer.data] == [[0.0, 1.0], [1.0, 1.0]]


def test_pictures_are_drawn_the_same_for_the_same_seed(seeing: tuple[Program, list[Any]]) -> None:
    gateway, _ = seeing
    with sdk(gateway, "v1") as client:
        one, two, other = [
            client.images.generate(prompt="A quiet sea", size="256x256", extra_body={"seed": seed}).data
            for seed in (7, 7, 8)
        ]
        assert one is not None
        assert two is not None
        assert other is not None
        assert one[0].b64_json == two[0].b64_json != other[0].b64_json
        drawn = Image.open(io.BytesIO(base64.b64decode(one[0].b64_json or "")))
        assert (drawn.format, drawn.size) == ("PNG", (256, 256))
        assert one[0].revised_prompt == "A quiet sea"
        with pytest.raises(openai.BadRequestError) as caught:
            client.images.generate(prompt="A quiet sea", response_format="url")
    assert caught.value.param == "response_format"


# ── Moderation and keys ──────────────────────────────────────────────────────────────────────────────────────────


def test_blocked_words_are_refused_on_the_node_and_named_in_no_log(stage: Stage) -> None:
    relay = stage.relay()
    env = {"CONTENT_MODERATION_MODE": "block", "CONTENT_MODERATION_BLOCKLIST": "forbidden fruit, zxqj"}
    node = stage.node(relay, env=env)
    with sdk(relay) as client:
        for text in ("forbidden  FRUIT", "zx\u200bqj", "how to kill"):
            message: Any = [{"role": "user", "content": text}]
            with pytest.raises(openai.BadRequestError) as caught:
                client.chat.completions.create(model="echo", messages=message)
            assert (caught.value.type, caught.value.code) == ("content_policy_violation", "content_blocked")
        fine: Any = [{"role": "user", "content": "my skills with fruit"}]
        assert client.chat.completions.create(model="echo", messages=fine).choices[0].message.content
        with pytest.raises(openai.BadRequestError), sdk(relay, "v1") as drawing:
            drawing.images.generate(prompt="forbidden fruit")
    for program in (relay, node):
        assert "zxqj" not in program.text
        assert "forbidden" not in program.text.lower()


def test_moderation_is_off_unless_asked_for(stage: Stage) -> None:
    relay = stage.relay()
    stage.node(relay, env={"CONTENT_MODERATION_MODE": "off", "CONTENT_MODERATION_BLOCKLIST": "zxqj"})
    message: Any = [{"role": "user", "content": "kill zxqj"}]
    with sdk(relay) as client:
        assert client.chat.completions.create(model="echo", messages=message).choices[0].message.content


def test_a_hosted_gateway_may_want_keys(stage: Stage) -> None:
    relay = stage.relay(env={"TOKEN_PLACE_API_KEYS": hashlib.sha256(b"sesame").hexdigest()})
    stage.node(relay)
    with sdk(relay, key="sesame") as client:
        assert client.chat.completions.create(model="echo", messages=SAY).choices[0].message.content
    with sdk(relay, key="wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.models.list()
    assert caught.value.code == "invalid_api_key"
    assert httpx2.get(f"{relay.url}/v1/health", timeout=10).status_code == 200
