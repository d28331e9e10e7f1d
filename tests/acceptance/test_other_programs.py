"""Programs of other authors, unmodified, over the whole sealed path with the embedded real model.

The openai SDK for Python has tests of its own beside this file. Here: openai for Node, llm, magentic and pydantic-ai.
Each is told a base URL and nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from stage import EMBEDDED, Program, staged

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("default::DeprecationWarning"),  # they may be out of date with each other
]

NODE_SDK = "openai@7.57.0"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with staged(tmp_path_factory.mktemp("others")) as stage:
        relay = stage.relay()
        stage.node(relay, engine="llama", flags=["--slots", "4"])
        yield relay


# ── openai for Node ──────────────────────────────────────────────────────────────────────────────────────────────

NODE_PROGRAM = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "not needed", maxRetries: 0 });
const model = process.env.MODEL, messages = [{ role: "user", content: "Say hello." }];
const told = {};
const whole = await client.chat.completions.create({ model, messages, max_tokens: 12 });
told.whole = [whole.choices[0].message.content, whole.usage.total_tokens];
let pieces = 0;
const stream = await client.chat.completions.create({ model, messages, max_tokens: 24, stream: true });
for await (const chunk of stream) if (chunk.choices[0]?.delta.content) pieces += 1;
told.pieces = pieces;
const parameters = {
  type: "object", properties: { city: { type: "string", maxLength: 12 } }, required: ["city"],
  additionalProperties: false,
};
const gathered = client.chat.completions.stream({
  model, messages: [{ role: "user", content: "What is the weather in Paris?" }], max_tokens: 80,
  tools: [{ type: "function", function: { name: "weather", parameters } }], tool_choice: "required",
});
const final = await gathered.finalChatCompletion();
told.call = final.choices[0].message.tool_calls[0].function;
const response = await client.responses.stream({ model, input: "Say hello.", max_output_tokens: 24 }).finalResponse()
  .catch((error) => ({ error: String(error) }));
const events = [];
for await (const event of await client.responses.create({ model, input: "Hi", max_output_tokens: 8, stream: true }))
  events.push(event.type);
told.events = [events[0], events.at(-1)];
told.response = response.error ?? response.output_text;
const vectors = await client.embeddings.create({ model, input: ["hello", "world"] });
told.vectors = vectors.data.map((item) => item.embedding.length);
told.models = (await client.models.list()).data.map((item) => item.id);
try { await client.chat.completions.create({ model: "nobody", messages }); }
catch (error) { told.error = [error.constructor.name, error.status, error.code]; }
console.log(JSON.stringify(told));
"""


@pytest.fixture(scope="session")
def node_sdk() -> Path:
    """A folder with npm's `openai` in it, kept between runs; skipped where npm or its registry cannot be reached."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node.js and npm are not installed, so the openai SDK for Node cannot be run")
    folder = Path(platformdirs.user_cache_dir("token.place", appauthor=False)) / "tests" / NODE_SDK.replace("@", "-")
    if not (folder / "node_modules" / "openai" / "package.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        installed = subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-save", NODE_SDK],
            cwd=folder,
            capture_output=True,
            timeout=90,
            check=False,
        )
        if installed.returncode:
            pytest.skip(f"npm cannot fetch {NODE_SDK}: {installed.stderr.decode(errors='replace')[-200:]}")
    return folder


def test_openai_for_node_works_unmodified(gateway: Program, node_sdk: Path, tmp_path: Path) -> None:
    program = node_sdk / f"{tmp_path.name}.mjs"  # beside node_modules, where Node looks for packages
    program.write_text(NODE_PROGRAM)
    try:
        ran = subprocess.run(
            ["node", str(program)],
            env={**os.environ, "BASE_URL": f"{gateway.url}/v2", "MODEL": EMBEDDED},
            capture_output=True,
            timeout=100,
            check=False,
        )
    finally:
        program.unlink()
    assert ran.returncode == 0, ran.stderr.decode()
    told = json.loads(ran.stdout)
    assert told["whole"][0]
    assert told["whole"][1] > 10
    assert told["pieces"] > 3
    assert told["call"]["name"] == "weather"
    assert set(json.loads(told["call"]["arguments"])) == {"city"}
    assert told["events"][0] == "response.created"
    assert told["events"][1] in ("response.completed", "response.incomplete")
    assert told["response"]
    assert told["vectors"] == [576, 576]
    assert told["models"][0] == EMBEDDED
    assert told["error"] == ["NotFoundError", 404, "model_not_found"]


# ── llm ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_llm_answers_and_streams(gateway: Program, tmp_path: Path) -> None:
    """Simon Willison's command line tool, with a model in its configuration file as its manual says."""
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: place\n  model_name: {EMBEDDED}\n  api_base: {gateway.url}/v2\n"
    )
    command = [shutil.which("llm", path=Path(os.sys.executable).parent) or "llm", "-m", "place", "--no-log"]
    for flags in ([], ["--no-stream"], ["-s", "Be brief."], ["-o", "temperature", "0"]):
        ran = subprocess.run(
            [*command, *flags, "-o", "max_tokens", "12", "Say hello."],
            env={**os.environ, "LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "not needed"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr.decode()
        assert ran.stdout.strip()


# ── magentic ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_magentic_chats_streams_and_gets_structured_answers(gateway: Program) -> None:
    """Jack Collins' library; structured answers go through tools that must be called."""
    from magentic import StreamedStr, UserMessage
    from magentic.chat_model.openai_chat_model import OpenaiChatModel
    from pydantic import BaseModel

    class City(BaseModel):
        name: str

    model = OpenaiChatModel(EMBEDDED, base_url=f"{gateway.url}/v2", api_key="not needed", max_tokens=60, temperature=0)
    assert model.complete([UserMessage("Say hello.")]).content
    streamed: Any = model.complete([UserMessage("Say hello.")], output_types=[StreamedStr]).content
    assert len(list(streamed)) > 3
    city: Any = model.complete([UserMessage("Name the capital of France.")], output_types=[City]).content
    assert isinstance(city, City)


# ── pydantic-ai ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def agents(gateway: Program) -> Any:
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    def make(kind: str) -> Any:
        provider = OpenAIProvider(base_url=f"{gateway.url}/v2", api_key="not needed")
        return {"chat": OpenAIChatModel, "responses": OpenAIResponsesModel}[kind](EMBEDDED, provider=provider)

    return make


@pytest.mark.parametrize("kind", ["chat", "responses"])
async def test_pydantic_ai_answers_and_streams(agents: Any, kind: str) -> None:
    from pydantic_ai import Agent

    agent = Agent(agents(kind), model_settings={"max_tokens": 24, "temperature": 0})
    assert (await agent.run("Say hello.")).output
    async with agent.run_stream("Say hello.") as answer:
        said = [piece async for piece in answer.stream_text(delta=True, debounce_by=None)]
    assert len(said) > 2
    assert answer.usage.output_tokens > 2


@pytest.mark.parametrize("kind", ["chat", "responses"])
async def test_pydantic_ai_runs_a_tool_and_gets_a_structured_answer(agents: Any, kind: str) -> None:
    from pydantic import BaseModel, Field
    from pydantic_ai import Agent

    class City(BaseModel):
        name: str = Field(max_length=20)

    agent = Agent(agents(kind), output_type=City, retries=3, model_settings={"max_tokens": 80, "temperature": 0})
    result = await agent.run("Name the capital of France.")
    assert isinstance(result.output, City)
