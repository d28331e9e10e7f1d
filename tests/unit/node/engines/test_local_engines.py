"""Model servers on this machine: real HTTP servers that answer as Ollama, LM Studio, llama-server and vLLM do."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from stage import free_port
from tokenplace.cli.offers import with_offers
from tokenplace.node.engines.local import LocalEngine, find_local_engines
from tokenplace.node.settings import NodeSettings

OLLAMA = {
    "object": "list",
    "data": [{"id": "llama3.2:latest", "object": "model", "created": 1730000000, "owned_by": "library"}],
}
LM_STUDIO = {
    "data": [{"id": "qwen2.5-7b-instruct", "object": "model", "owned_by": "organization_owner"}],
    "object": "list",
}
LLAMA_SERVER = {
    "models": [{"name": "m.gguf"}],
    "object": "list",
    "data": [{"id": "m.gguf", "object": "model", "owned_by": "llamacpp", "meta": {"n_ctx_train": 8192}}],
}
VLLM = {
    "object": "list",
    "data": [{"id": "meta/llama", "object": "model", "owned_by": "vllm", "max_model_len": 8192, "permission": [{}]}],
}


@contextmanager
def answering(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Iterator[int]:
    """The port of a server that gives this to `/v1/models`, and 404 to everything else."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(status if self.path == "/v1/models" else 404)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.mark.parametrize(
    ("usual", "body", "name", "models"),
    [
        ("Ollama", OLLAMA, "Ollama", ("llama3.2:latest",)),
        ("LM Studio", LM_STUDIO, "LM Studio", ("qwen2.5-7b-instruct",)),
        ("llama-server", LLAMA_SERVER, "llama-server", ("m.gguf",)),
        ("vLLM", VLLM, "vLLM", ("meta/llama",)),
        ("vLLM", LLAMA_SERVER, "llama-server", ("m.gguf",)),
        ("Ollama", {"object": "list", "data": None}, "Ollama", ()),
    ],
)
def test_each_is_known_by_its_answer_before_its_port(usual: str, body: Any, name: str, models: tuple[str, ...]) -> None:
    with answering(body) as port:
        [found] = find_local_engines({port: usual})
    assert (found.name, found.models) == (name, models)
    assert found.flag == f"--engine http://127.0.0.1:{port}"
    assert found.flag in found.sentence()


@pytest.mark.parametrize("body", [b"<html>a router</html>", b"[]", {"data": "x"}, {"hello": "world"}, b"[" * 100_000])
def test_what_is_no_model_server_is_passed_over(body: Any) -> None:
    with answering(body) as port:
        assert find_local_engines({port: "Ollama"}) == ()


def test_a_port_where_nobody_listens_is_passed_over() -> None:
    assert find_local_engines({free_port(): "Ollama"}) == ()


def test_our_own_gateway_is_never_offered_to_a_node() -> None:
    with answering(VLLM, headers={"x-token-place-privacy": "end-to-end"}) as port:
        assert find_local_engines({port: "vLLM"}) == ()


def test_a_server_that_wants_a_key_is_told_with_the_variable_and_hears_none() -> None:
    with answering({"error": "no"}, status=401) as port:
        [found] = find_local_engines({port: "vLLM"})
    assert found.needs_key
    assert "TOKEN_PLACE_UPSTREAM_KEY" in found.sentence()


class TestOffers:
    FOUND = LocalEngine("Ollama", "http://127.0.0.1:11434", ("llama3.2",))

    def test_where_nobody_is_asked_the_flag_is_told_and_nothing_taken(self, capsys: pytest.CaptureFixture[str]) -> None:
        settings = NodeSettings.model_validate({})
        assert with_offers(settings, ask=False, find=lambda: [self.FOUND]) == settings
        assert "--engine http://127.0.0.1:11434" in capsys.readouterr().err

    @pytest.mark.parametrize("chosen", [{"TOKEN_PLACE_ENGINE": "llama"}, {"TOKEN_PLACE_MODEL": "x"}])
    def test_who_has_chosen_is_not_asked(self, chosen: dict[str, str]) -> None:
        def find() -> list[LocalEngine]:
            raise AssertionError("nobody should look")

        settings = NodeSettings.model_validate(chosen)
        assert with_offers(settings, ask=True, find=find) is settings

    @pytest.mark.parametrize(("said", "engine"), [("y", "http://127.0.0.1:11434"), ("n", "llama"), ("", "llama")])
    def test_at_a_terminal_the_owner_is_asked_and_no_is_the_default(self, said: str, engine: str) -> None:
        asking = (
            "from tokenplace.cli.offers import with_offers\n"
            "from tokenplace.node.engines.local import LocalEngine\n"
            "from tokenplace.node.settings import NodeSettings\n"
            "found = LocalEngine('Ollama', 'http://127.0.0.1:11434', ('llama3.2',))\n"
            "print(with_offers(NodeSettings.model_validate({}), ask=True, find=lambda: [found]).engine)"
        )
        told = subprocess.run(
            [sys.executable, "-c", asking], input=f"{said}\n", capture_output=True, text=True, timeout=60, check=True
        )
        assert told.stdout.strip() == engine
        assert "Serve what Ollama has" in told.stderr
