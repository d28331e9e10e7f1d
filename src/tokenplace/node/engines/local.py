"""Which model servers run on this machine already, so that nobody downloads a model twice.

Well-known ports of the loopback address are asked for `/v1/models`, all at once, and the answer tells who it is.
Nothing is taken over by itself: the owner is told the flag, or asked. Our own gateway answers there too, and passes
on what nodes answer: it is left out, or a node would ask itself in a circle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx

PORTS: Mapping[int, str] = {
    11434: "Ollama",
    1234: "LM Studio",
    8080: "llama-server",
    8000: "vLLM",
    30000: "SGLang",
}
"""Where each listens unless it is told otherwise. Another may be found there; then its answer counts."""

PATIENCE = httpx.Timeout(1.5, connect=0.5)
"""Seconds: a server on this machine that takes longer is busy with something else."""

MAX_LIST = 1024 * 1024
_OURS = "x-token-place-privacy"
_OWNERS = {"llamacpp": "llama-server", "vllm": "vLLM", "sglang": "SGLang", "library": "Ollama"}


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """A server that was found. `models` is empty where it has none yet, or wants a key to tell."""

    name: str
    url: str
    models: tuple[str, ...]
    needs_key: bool = False

    @property
    def flag(self) -> str:
        """What chooses it."""
        return f"--engine {self.url}"

    def sentence(self) -> str:
        """One line for its owner."""
        if self.needs_key:
            return f"{self.name} runs at {self.url} and wants a key: set TOKEN_PLACE_UPSTREAM_KEY, then {self.flag}"
        if not self.models:
            return f"{self.name} runs at {self.url} but has no model yet; load one there, then {self.flag}"
        shown = ", ".join(self.models[:3]) + (f" and {len(self.models) - 3} more" if len(self.models) > 3 else "")
        return f"{self.name} runs at {self.url} with {shown}: serve it with {self.flag}"


def find_local_engines(ports: Mapping[int, str] = PORTS, *, host: str = "127.0.0.1") -> Sequence[LocalEngine]:
    """Who answers, in the order of the ports. Blocking, two seconds at most; nothing is raised.

    No key is sent along: whatever listens on such a port is not known yet.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(ports))) as pool:
        found = pool.map(lambda port: _ask(f"http://{host}:{port}", ports[port]), ports)
        return tuple(each for each in found if each is not None)


def _ask(url: str, usual: str) -> LocalEngine | None:
    try:
        with (
            httpx.Client(timeout=PATIENCE, trust_env=False) as client,
            client.stream("GET", f"{url}/v1/models", follow_redirects=False) as answer,
        ):
            if _OURS in answer.headers:
                return None
            if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                return LocalEngine(usual, url, (), needs_key=True)
            if answer.status_code != httpx.codes.OK:
                return None
            body = b""
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > MAX_LIST:
                    return None
        return _read(url, usual, json.loads(body))
    except (httpx.HTTPError, ValueError, RecursionError):
        return None


def _read(url: str, usual: str, told: Any) -> LocalEngine | None:
    """What its list says; None where it is no list of models."""
    listed = told.get("data", ...) if isinstance(told, dict) else ...
    if listed is None:
        listed = []  # Ollama without any model
    if not isinstance(listed, list):
        return None
    models = [model for model in listed if isinstance(model, dict) and isinstance(model.get("id"), str)]
    owners = {str(model.get("owned_by")) for model in models}
    if "token.place" in owners:
        return None
    name = next((_OWNERS[owner] for owner in owners if owner in _OWNERS), usual)
    return LocalEngine(name, url, tuple(model["id"] for model in models if model["id"].isprintable()))
