"""Programs of other authors, unmodified, over the whole sealed path with the embedded real model.

The openai SDK for Python has tests of its own beside this file. Here: openai for Node, llm, magentic and pydantic-ai.
Each is told a base URL and nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from stage import EMBEDDED, Program, staged

pytestmark = pytest.mark.model

NODE_SDK = "openai@7.57.0"
PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with staged(tmp_path_factory.mktemp("others")) as stage:
        relay = stage.relay()
        stage.node(relay, engine="llama", flags=["--slots", "4"])
        yield relay


# ── openai for Node ──────────────────────────────────────────────────────────────────────────────────────────────


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
    program.write_text((PROGRAMS / "with_openai_for_node.mjs").read_text())
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
    command = [shutil.which("llm", path=Path(sys.executable).parent) or "llm", "-m", "place", "--no-log"]
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


# ── Two libraries ────────────────────────────────────────────────────────────────────────────────────────────────


def told_by(program: str, gateway: Program) -> Any:
    """What a program of ours that uses the library prints. In a process of its own: libraries leave sockets open."""
    ran = subprocess.run(
        [sys.executable, str(PROGRAMS / program)],
        env={**os.environ, "BASE_URL": f"{gateway.url}/v2", "MODEL": EMBEDDED},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    return json.loads(ran.stdout.splitlines()[-1])


def test_magentic_chats_streams_and_gets_structured_answers(gateway: Program) -> None:
    """Jack Collins' library; structured answers go through tools that must be called."""
    told = told_by("with_magentic.py", gateway)
    assert told["whole"]
    assert told["pieces"] > 3
    assert set(told["city"]) == {"name"}


def test_pydantic_ai_chats_streams_and_gets_structured_answers(gateway: Program) -> None:
    """The library of pydantic's makers, over chat completions and over responses."""
    for told in told_by("with_pydantic_ai.py", gateway).values():
        assert told["whole"]
        assert told["pieces"] > 2
        assert told["tokens"] > 2
        assert set(told["city"]) == {"name"}
