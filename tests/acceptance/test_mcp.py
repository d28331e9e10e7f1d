"""Tools of the person's own, and token.place as a tool: real servers and real clients of the official SDK."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from typer.testing import CliRunner, Result

from stage import Program, Stage, all_free, free_port, staged, terminal, until
from tokenplace.cli.main import app

CALCULATOR = """
import asyncio, os, sys
from mcp.server.mcpserver import MCPServer

server = MCPServer("calculator", log_level="WARNING")

@server.tool()
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b

@server.tool()
def crash() -> str:
    "Ends the server."
    os._exit(3)

@server.tool()
async def slow() -> str:
    "Takes long."
    with open(sys.argv[1], "a") as seen:
        try:
            print("began", file=seen, flush=True)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("cancelled", file=seen, flush=True)
            raise
    return "at last"

if len(sys.argv) > 2:
    server.run("streamable-http", port=int(sys.argv[2]))
else:
    server.run("stdio")
"""


class Model(ThreadingHTTPServer):
    """An OpenAI server that does as it is told: `call NAME JSON` calls a tool, a result is repeated, else it echoes."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Asked)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def deltas(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        self.asked.append(body)
        last = body["messages"][-1]
        first = _question(body)
        again = first.startswith("again") and body.get("tool_choice") != "none"
        if last["role"] == "tool" and not again:
            results = [each["content"] for each in body["messages"] if each["role"] == "tool"]
            return [{"content": "tool: "}, {"content": results[-1]}]
        if not first.startswith(("call", "again")):
            return [{"content": f"echo: {first}"}]
        _, name, arguments = first.split(" ", 2)
        begin: dict[str, Any] = {
            "index": 0,
            "id": "call_1",
            "type": "function",
            "function": {"name": name, "arguments": ""},
        }
        pieces = [arguments[:5], arguments[5:]]
        more = [{"index": 0, "function": {"arguments": piece}} for piece in pieces]
        return [{"tool_calls": [call]} for call in (begin, *more)]


def _question(body: dict[str, Any]) -> str:
    """What the person asked last."""
    content: str = next(each for each in reversed(body["messages"]) if each["role"] == "user")["content"]
    return content


class _Asked(BaseHTTPRequestHandler):
    server: Model

    def do_GET(self) -> None:
        self._send("application/json", json.dumps({"object": "list", "data": [{"id": "scripted"}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        deltas = self.server.deltas(body)
        why = "tool_calls" if "tool_calls" in deltas[-1] else "stop"
        chunks: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        chunks.append({"index": 0, "delta": {}, "finish_reason": why})
        base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted"}
        lines = [f"data: {json.dumps({**base, 'choices': [chunk]})}\n\n" for chunk in chunks]
        self._send("text/event-stream", "".join([*lines, "data: [DONE]\n\n"]))

    def _send(self, kind: str, text: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("mcp")) as made:
        yield made


@pytest.fixture(scope="module")
def relay(scene: Stage, model: Model) -> Program:
    """A relay with a node whose model does as it is told, and one that echoes slowly enough to be stopped."""
    made = scene.relay()
    scene.node(made, engine=model.url, name="scripted")
    scene.node(made, delay=0.02, name="echo")
    return made


class Servers:
    """A file of MCP servers, and what the slow tool has seen."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "calculator.py"
        self.program.write_text(CALCULATOR)
        self.seen = folder / "seen"
        self.file = folder / "servers.json"
        self.write({"calc": self.local()})

    def local(self) -> dict[str, Any]:
        return {"command": sys.executable, "args": [str(self.program), str(self.seen)], "disabledTools": []}

    def write(self, servers: dict[str, Any]) -> None:
        self.file.write_text(json.dumps({"mcpServers": servers}))


@pytest.fixture
def servers(tmp_path: Path) -> Servers:
    return Servers(tmp_path)


def arguments(relay: Program, servers: Servers, message: str, *flags: str) -> list[str]:
    return ["chat", "--relay", relay.url, "--mcp", str(servers.file), "-m", message, "--model", "scripted", *flags]


def say(relay: Program, servers: Servers, message: str, *flags: str) -> Result:
    """The command, in this process: a new one takes a second."""
    env = {"XDG_STATE_HOME": str(servers.file.parent)}
    said = CliRunner().invoke(app, arguments(relay, servers, message, *flags), env=env)
    assert said.exit_code == 0, said.output
    return said


# -- the person's tools --------------------------------------------------------------------------------------------


def test_an_allowed_tool_runs_here_and_its_result_goes_back_to_the_model(
    relay: Program, model: Model, servers: Servers
) -> None:
    command = arguments(relay, servers, 'call add {"a": 2, "b": 40}', "--allow-tool", "add")
    said = subprocess.run(
        [sys.executable, "-m", "tokenplace.cli.main", *command],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "XDG_STATE_HOME": str(servers.file.parent)},
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, "tool: 42\n", "")
    offered = {tool["function"]["name"]: tool["function"] for tool in model.asked[-2]["tools"]}
    assert set(offered) == {"add", "crash", "slow"}
    assert offered["add"]["description"] == "Add two numbers."
    assert offered["add"]["parameters"]["required"] == ["a", "b"]
    call, result = model.asked[-1]["messages"][-2:]
    assert call["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 2, "b": 40}'}
    assert result == {"role": "tool", "tool_call_id": "call_1", "content": "42"}


def test_in_a_pipe_a_tool_that_was_not_allowed_is_refused_and_the_model_is_told(
    relay: Program, servers: Servers
) -> None:
    said = say(relay, servers, 'call add {"a": 1, "b": 1}', "--allow-tool", "other/add")
    assert said.stdout.startswith("tool: Refused: the person has not allowed this tool")
    assert said.stderr.splitlines() == [
        "No server offers a tool called other/add.",
        "calc/add was not run: --allow-tool calc/add would let it.",
    ]


def test_tools_of_one_name_on_two_servers_get_names_of_their_own_over_stdio_and_http(
    relay: Program, servers: Servers
) -> None:
    port = free_port()
    far = subprocess.Popen(
        [sys.executable, str(servers.program), str(servers.seen), str(port)], stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: _answers(port), "the server on HTTP")
        servers.write(
            {"near": servers.local(), "far": {"url": f"http://127.0.0.1:{port}/mcp", "headers": {"X-A": "b"}}}
        )
        said = say(relay, servers, 'call far_add {"a": 3, "b": 4}', "--allow-tool", "far/add")
        assert (said.stdout, said.stderr) == ("tool: 7\n", "")
        refused = say(relay, servers, 'call near_add {"a": 3, "b": 4}', "--allow-tool", "far/add")
        assert "near/add was not run" in refused.stderr
    finally:
        far.terminate()
        far.wait(10)


def _answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def test_an_answer_that_fails_or_is_interrupted_ends_the_servers_too(
    relay: Program, servers: Servers, stage: Stage
) -> None:
    lost = stage.start("lost", arguments(relay, servers, "x", "--model", "nobody-serves-this"))
    assert lost.process.wait(20) == 1
    lost.finish()
    assert lost.text.startswith("tokenplace: No node serves")
    assert lost.text.count("\n") == 1

    chat = stage.start("chat", arguments(relay, servers, "call slow {}", "--allow-tool", "slow"))
    until(servers.seen.exists, "the tool to run")
    [server] = chat.children()
    chat.kill(signal.SIGINT)
    assert chat.process.wait(10) == 130
    chat.finish()
    assert chat.text == ""
    assert not Path(f"/proc/{server}").exists()
    assert servers.seen.read_text() == "began\ncancelled\n"


def test_servers_that_do_not_start_are_one_line_each_and_the_others_serve(relay: Program, servers: Servers) -> None:
    servers.write(
        {
            "gone": {"command": "/nowhere/at-all"},
            "rude": {"command": sys.executable, "args": ["-c", "raise SystemExit('no key')"]},
            "dead": {"url": f"http://127.0.0.1:{free_port()}/mcp"},
            "calc": servers.local(),
        }
    )
    said = say(relay, servers, 'call add {"a": 1, "b": 2}', "--allow-tool", "add")
    assert said.stdout == "tool: 3\n"
    lines = said.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["gone", "rude", "dead"]
    assert "No such file" in lines[0]
    assert "It said: no key." in lines[1]


def test_in_the_terminal_the_person_is_asked_and_ctrl_c_stops_a_tool(
    relay: Program, model: Model, servers: Servers, tmp_path: Path
) -> None:
    with terminal(["chat", "--relay", relay.url, "--model", "scripted", "--mcp", str(servers.file)], tmp_path) as chat:
        chat.wait_for("calc/add, calc/crash")
        chat.wait_for("you ›")
        chat.type('call add {"a": 20, "b": 1}\r')
        chat.wait_for('run calc/add {"a": 20, "b": 1} ? y(es), n(o), a(lways) ›')
        chat.type("n\r")
        chat.wait_for("tool: Refused: the person has not allowed")
        chat.wait_for("you ›")
        chat.type('call add {"a": 30, "b": 2}\r')
        chat.wait_for('run calc/add {"a": 30, "b": 2} ?')
        chat.type("a\r")
        chat.wait_for("tool: 32")
        chat.type('call add {"a": 40, "b": 3}\r')
        chat.wait_for("tool: 43")

        chat.type("call slow {}\r")
        chat.wait_for("run calc/slow {} ?")
        chat.type("\x03")
        chat.wait_for("stopped")
        chat.seen = ""
        chat.type("call slow {}\r")
        chat.wait_for("run calc/slow {} ?")
        chat.type("y\r")
        until(servers.seen.exists, "the tool to run")
        chat.type("\x03")
        chat.wait_for("stopped")
        until(lambda: servers.seen.read_text() == "began\ncancelled\n", "the server to be told")
        chat.type("hello again\r")
        chat.wait_for("echo: hello again")
        chat.type("\x04")
        assert chat.ended() == 0
    messages = model.asked[-1]["messages"]
    assert [each["content"] for each in messages if each["role"] == "tool"].count(
        "Not run: the person stopped it."
    ) == 2
    assert messages[-1] == {"role": "user", "content": "hello again"}


def test_calls_that_fail_are_told_to_the_model_and_never_end_the_chat(
    relay: Program, model: Model, servers: Servers, tmp_path: Path
) -> None:
    flags = ["--model", "scripted", "--mcp", str(servers.file), "--allow-tool", "add", "--allow-tool", "calc/crash"]
    with terminal(["chat", "--relay", relay.url, *flags], tmp_path) as chat:
        for message, answer in (
            ("call subtract {}", "tool: Error: there is no tool called 'subtract'."),
            ("call add nonsense", "tool: Error: the arguments are not a JSON object; the tool was not run."),
            ('call add {"a": "many", "b": 1}', "valid integer"),
            ('again add {"a": 50, "b": 2}', "The model has called tools 8 times; now it has to answer in words."),
            ("call crash {}", "tool: Error: the server of this tool has crashed."),
            ("call crash {}", "tool: Error: the server of this tool is not running any more."),
            ("hello", "echo: hello"),
        ):
            chat.wait_for("you ›")
            chat.seen = ""
            chat.type(f"{message}\r")
            chat.wait_for(answer)
        assert "Traceback" not in chat.seen
        chat.type("\x04")
        assert chat.ended() == 0
    again = [body["tool_choice"] for body in model.asked if _question(body).startswith("again")]
    assert again == [*["auto"] * 8, "none"]
    assert "tools" not in model.asked[-1], "no server is left"


# -- token.place as a tool -----------------------------------------------------------------------------------------


@asynccontextmanager
async def on_stdio(relay: Program, folder: Path) -> AsyncIterator[Client]:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "tokenplace.cli.main", "mcp", "--relay", relay.url],
        env={"XDG_STATE_HOME": str(folder)},
    )
    with (folder / "stderr").open("w") as noise:
        async with Client(stdio_client(server, errlog=noise)) as client:
            yield client
    assert (folder / "stderr").read_text() == ""


@asynccontextmanager
async def on_http(relay: Program, folder: Path) -> AsyncIterator[Client]:
    port = free_port()
    with staged(folder) as stage:
        program = stage.start("mcp", ["mcp", "--relay", relay.url, "--http", str(port)])
        url = f"http://127.0.0.1:{port}/mcp"
        until(lambda: f"MCP: {url}" in program.text, "the server on HTTP")
        rebound = await asyncio.to_thread(httpx2.post, url, json={}, headers={"host": "evil.example"})
        assert rebound.status_code == 421, "a web page whose name was rebound to this machine"
        async with Client(url) as client:
            yield client
        assert program.end() == 0
        assert "Traceback" not in program.text


@pytest.mark.parametrize("served", [on_stdio, on_http])
async def test_a_real_client_lists_models_chats_and_cancels(relay: Program, tmp_path: Path, served: Any) -> None:
    async with served(relay, tmp_path) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"chat", "list_models"}
        assert tools["chat"].input_schema["required"] == ["message"]

        models = (await client.call_tool("list_models")).structured_content["result"]
        assert [(model["id"], model["nodes"]) for model in models] == [("echo", 1), ("scripted", 1)]

        answer = await client.call_tool("chat", {"message": "hello", "model": "echo", "temperature": 0})
        assert not answer.is_error
        assert answer.content[0].text == "echo: hello"
        assert answer.structured_content == {"text": "echo: hello", "model": "echo", "finish_reason": "stop"}

        wrong = await client.call_tool("chat", {"message": "hello", "model": "nobody-serves-this"})
        assert wrong.is_error
        assert "Served now: echo, scripted" in wrong.content[0].text

        call = asyncio.create_task(client.call_tool("chat", {"message": "word " * 400, "model": "echo"}))
        await asyncio.to_thread(until, lambda: not all_free(relay), "the answer to begin")
        call.cancel()
        await asyncio.wait([call])
        await asyncio.to_thread(until, lambda: all_free(relay), "the node to be told", 2.0)
        assert (await client.call_tool("chat", {"message": "still there", "model": "echo"})).content[
            0
        ].text == "echo: still there"


def test_without_a_relay_the_calling_model_is_told_and_the_server_stays(tmp_path: Path) -> None:
    async def ask() -> None:
        nowhere = StdioServerParameters(
            command=sys.executable,
            args=["-m", "tokenplace.cli.main", "mcp", "--relay", f"http://127.0.0.1:{free_port()}"],
            env={"XDG_STATE_HOME": str(tmp_path)},
        )
        async with Client(nowhere) as client:
            for _ in range(2):
                said = await client.call_tool("list_models")
                assert said.is_error
                assert "cannot be reached" in said.content[0].text  # type: ignore[union-attr]

    asyncio.run(ask())
