"""No secret comes out: every program, command and route is driven with marked secrets, and all they say is searched."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from typer.main import get_command

from docs import generate
from stage import Program, Stage, free_port, get_json, staged, until
from tokenplace.cli.main import app
from tokenplace.config.variables import every_setting
from tokenplace.wire import routes

SECRETS = sorted({setting.variable for setting in every_setting() if setting.secret})
SERVING = ("up", "relay", "node", "gateway", "mcp")
"""Commands that run until they are stopped."""

API_KEY = "marked-api-key-9d1c"
PASSWORD = "marked-url-password-77ab"
HUB = "hf_markedHubToken0815"
CLIENTS_OWN = "marked-client-token-0042"


def mark(variable: str) -> str:
    """The secret that a variable holds in these tests."""
    return f"marked-{hashlib.sha256(variable.encode()).hexdigest()[:12]}"


MARKS = [API_KEY, PASSWORD, HUB, CLIENTS_OWN, *(mark(name) for name in SECRETS)]


class Ears:
    """Everything that came out, and from where."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def hear(self, where: str, text: str) -> None:
        self.heard.append((where, text))

    def leaks(self) -> list[str]:
        """Who said which secret, with what stood around it."""
        return [
            f"{where}: …{text[max(0, text.index(word) - 80) : text.index(word) + 80]!r}…"
            for where, text in self.heard
            for word in MARKS
            if word in text
        ]


def environment(*, store: bool = False) -> dict[str, str]:
    """Every secret setting, marked. A store's address is left out where a program would wait for the store."""
    env = {name: mark(name) for name in SECRETS}
    url = env.pop("TOKEN_PLACE_STORE_URL", None)
    if url is not None and store:
        env["TOKEN_PLACE_STORE_URL"] = f"valkey://user:{url}@127.0.0.1:{free_port()}/0"
    env["TOKEN_PLACE_API_KEYS"] = hashlib.sha256(API_KEY.encode()).hexdigest()
    env["HF_TOKEN"] = HUB  # not ours, but the node hands it to the hub
    env["TOKENPLACE_LOG_LEVEL"] = "DEBUG"
    return env


class _Tattler(BaseHTTPRequestHandler):
    """A server at the engine's address that repeats the key in its errors, as some do."""

    def do_GET(self) -> None:
        self._answer(200, {"object": "list", "data": [{"id": "parrot", "object": "model"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        key = self.headers.get("authorization", "")
        self._answer(
            401, {"error": {"message": f"Incorrect API key provided: {key}", "type": "auth", "code": "bad_key"}}
        )

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def tattler() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Tattler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    thread.join(10)
    server.server_close()


# -- programs and their routes -------------------------------------------------------------------------------------


def ask(url: str, method: str, path: str, headers: dict[str, str], body: bytes | None) -> str:
    """Everything that one request brought back."""
    split = urlsplit(url)
    assert split.hostname is not None
    connection = http.client.HTTPConnection(split.hostname, split.port, timeout=20)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return f"{answer.status} {answer.getheaders()} {answer.read(1 << 20).decode(errors='replace')}"
    except (OSError, http.client.HTTPException) as error:
        return repr(error)
    finally:
        connection.close()


def paths_of(program: Program) -> list[str]:
    """Routes of the relay's own, and those that its document lists."""
    own = [value for name, value in vars(routes).items() if name.isupper() and value.startswith("/")]
    listed = list(get_json(f"{program.url}/openapi.json")["paths"])
    return sorted({*own, *listed, "/", "/docs", "/community", "/nowhere", "/v1/models/x"})


def drive(ears: Ears, program: Program) -> None:
    """Ask for everything, with rubbish and with secrets in the headers."""
    operator, invitation = mark("TOKEN_PLACE_OPERATOR_TOKEN"), mark("TOKEN_PLACE_RELAY_SERVER_TOKEN")
    who: list[dict[str, str]] = [
        {},
        {"Authorization": f"Bearer {API_KEY}"},
        {"Authorization": f"Bearer {CLIENTS_OWN}", "X-Relay-Server-Token": CLIENTS_OWN, "X-Api-Key": CLIENTS_OWN},
        {"Authorization": f"Bearer {operator}", "X-Relay-Server-Token": invitation},
    ]
    bodies: dict[str, list[bytes | None]] = {
        "GET": [None],
        "DELETE": [None],
        "POST": [b'{"model": "none", "messages": []}'],
    }
    wanted = [
        (method, path.replace("{model}", "x").replace("{id}", "x"), headers, body)
        for path in paths_of(program)
        for method, choices in bodies.items()
        for body in choices
        for headers in who
        if path != routes.LINK
    ]

    def one(request: tuple[str, str, dict[str, str], bytes | None]) -> None:
        method, path, headers, body = request
        typed = {**headers, "Content-Type": "application/json"}
        ears.hear(f"{program.name} {method} {path}", ask(program.url, method, path, typed, body))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, wanted))
    ears.hear(f"{program.name} /metrics", ask(program.url, "GET", "/metrics", {}, None))


def test_programs_at_work_say_no_secret(tmp_path: Path, tattler: str) -> None:
    ears, env = Ears(), environment()
    with staged(tmp_path) as stage:
        relay = stage.relay(env=env)
        stage.node(relay, env=env)
        other = stage.node(relay, engine=tattler, env=env, name="tattled")
        refused = stage.start("refused", ["node", "--relay", relay.url, "--engine", "echo", "--status-port", "0"],
                              {"TOKEN_PLACE_RELAY_SERVER_TOKEN": CLIENTS_OWN})  # fmt: skip
        until(lambda: "invitation" in refused.text, "the stranger to be told why")
        gateway = serve_gateway(stage, relay, env)
        for program in (relay, gateway):
            drive(ears, program)
        for url in (relay.url, gateway.url):
            question = json.dumps({"model": "parrot", "messages": [{"role": "user", "content": "hi"}]}).encode()
            headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
            ears.hear("the tattler's answer", ask(url, "POST", "/v1/chat/completions", headers, question))
        said = next(text for where, text in ears.heard if where == "the tattler's answer")
        assert "200" not in said[:4], said
        assert other.process.poll() is None
        for program in stage.programs:
            program.end(30)
            program.finish()
            ears.hear(f"output of {program.name}", program.text)
    assert len(ears.heard) > 200
    assert ears.leaks() == []


def serve_gateway(stage: Stage, relay: Program, env: dict[str, str]) -> Program:
    port = free_port()
    gateway = stage.start("gateway", ["gateway", "--port", str(port), "--relay", relay.url], env)
    gateway.url = f"http://127.0.0.1:{port}"
    stage.up(gateway, lambda: get_json(f"{gateway.url}/v1/health"))
    return gateway


# -- commands ------------------------------------------------------------------------------------------------------

COMMANDS = [(path.split()[1:], command) for path, command in generate.leaves(get_command(app))]


def test_no_command_says_a_secret_whatever_it_is_given(tmp_path: Path) -> None:
    """With a junk argument each, with and without `--json`, against a relay that is not there."""
    ears = Ears()
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
    own = {name: str(tmp_path / name) for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")}
    env = {
        **kept,
        **own,
        **environment(store=True),
        "TOKEN_PLACE_RELAYS": f"http://me:{PASSWORD}@127.0.0.1:{free_port()}",
    }
    (tmp_path / ".env").write_text("".join(f"{name}={mark(name)}\n" for name in SECRETS))
    runs: list[list[str]] = [["--version"], ["--help"], ["--nonsense"]]
    for words, command in COMMANDS:
        if words[0] in SERVING and len(words) == 1:
            runs.append([*words, "--nonsense"])
            continue
        arguments = ["x" for each in command.params if each.param_type_name == "argument"]
        arguments += ["--quick"] if words == ["doctor"] else []
        runs.append([*words, *arguments])
        if any("--json" in each.opts for each in command.params):
            runs.append([*words, *arguments, "--json"])
    runs += [["chat", "-m", "hello"], ["config", "set", "relay.server_token", CLIENTS_OWN]]

    asked = [each for each in runs if each[0] != "bench"]  # which measures this machine for a while
    said = tmp_path / "said"
    said.mkdir()
    subprocess.run(
        [sys.executable, "-c", FORKED, str(said)],
        cwd=tmp_path,
        env=env,
        input=json.dumps(asked).encode(),
        capture_output=True,
        timeout=300,
        check=True,
    )
    for number, arguments in enumerate(asked):
        ears.hear(" ".join(arguments), (said / str(number)).read_text(errors="replace"))
    assert "tokenplace" in (said / "0").read_text()
    assert ears.leaks() == []


FORKED = """
import json, os, pkgutil, runpy, sys, traceback
from importlib import import_module
import tokenplace.cli
for module in pkgutil.iter_modules(tokenplace.cli.__path__):
    if module.name != "main":
        import_module(f"tokenplace.cli.{module.name}")

def run(number, arguments):
    out = os.open(os.path.join(sys.argv[1], str(number)), os.O_WRONLY | os.O_CREAT)
    for stream, into in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (out, 2)):
        os.dup2(stream, into)
    sys.argv = ["tokenplace", *arguments]
    try:
        runpy.run_module("tokenplace.cli.main", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush(); sys.stderr.flush()

running = set()
for number, arguments in enumerate(json.load(sys.stdin)):
    if len(running) == 3:
        running.remove(os.wait()[0])
    child = os.fork()
    if not child:
        run(number, arguments)
        os._exit(0)
    running.add(child)
for _ in running:
    os.wait()
"""
"""Runs each command in a fork of a process that has imported them all: what they say is the same, many times faster."""


def test_a_relay_whose_store_is_not_there_does_not_say_its_password(tmp_path: Path) -> None:
    ears = Ears()
    with staged(tmp_path) as stage:
        relay = stage.start("relay", ["relay", "--port", str(free_port())], environment(store=True))
        until(lambda: relay.process.poll() is not None or "relay.startup" in relay.text, "a word of the relay")
        relay.end(30)
        relay.finish()
        ears.hear("relay", relay.text)
    assert ears.leaks() == []


# -- objects -------------------------------------------------------------------------------------------------------


def test_no_settings_object_shows_a_secret_and_no_error_of_one_does() -> None:
    from pydantic import ValidationError

    ears = Ears()
    for room in sorted({setting.program for setting in every_setting()} - {"client"}):
        for kind in generate.settings_classes(room):
            given = {name: mark(name) for name in SECRETS}
            made = kind(**given)
            for text in (repr(made), str(made), repr(made.model_dump()), made.model_dump_json()):
                ears.hear(kind.__name__, text)
            for name in given:
                try:
                    kind(**{**given, name: {"not": [mark(name)]}})
                except ValidationError as error:
                    ears.hear(f"{kind.__name__} error", f"{error} {error!r}")
        assert import_module(f"tokenplace.{room}.settings")
    assert ears.heard
    assert ears.leaks() == []


def test_a_secret_that_came_out_would_be_found() -> None:
    ears = Ears()
    ears.hear("somewhere", f"before {mark(SECRETS[0])} after")
    assert len(ears.leaks()) == 1
    assert "TOKEN_PLACE_RELAY_SERVER_TOKEN" in SECRETS
