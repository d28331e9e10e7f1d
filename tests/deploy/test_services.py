"""Service files: systemd's own verifier, and that each starts a command that exists."""

from __future__ import annotations

import configparser
import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.main import get_command

from docs.generate import leaves
from docs.pages import ROOT, blocks
from tokenplace.cli.main import app

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").rglob("*.service"))
PLISTS = sorted((DEPLOY / "launchd").glob("*.plist"))
GUIDE = "docs/how-to/run-as-a-service.md"


def is_a_command(words: list[str]) -> bool:
    """Whether `tokenplace` takes these words."""
    for path, command in leaves(get_command(app)):
        names = path.split()[1:]
        if words[: len(names)] == names:
            known = {name for option in command.params for name in option.opts}
            if {word for word in words[len(names) :] if word.startswith("--")} <= known:
                return True
    return False


def home(folder: Path) -> dict[str, str]:
    """Somebody's environment."""
    return {"HOME": str(folder), "USER": "ada", "PATH": os.environ["PATH"]}


def unit(path: Path) -> configparser.ConfigParser:
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[assignment,method-assign]
    read.read(path)
    return read


@pytest.mark.parametrize("path", UNITS, ids=lambda path: str(path.relative_to(DEPLOY)))
class TestUnits:
    @pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
    def test_systemd_finds_no_fault(self, path: Path, tmp_path: Path) -> None:
        """With a program that exists in the place of the one that is installed."""
        text, count = re.subn(r"^ExecStart=\S+", f"ExecStart={sys.executable}", path.read_text(), flags=re.MULTILINE)
        assert count == 1
        here = tmp_path / path.name
        here.write_text(text)
        (tmp_path / "run").mkdir(mode=0o700)
        whose = ["--user"] if path.parent.name == "user" else []
        ran = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *whose, str(here)],
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run")},
        )
        ours = [line for line in ran.stderr.splitlines() if path.name in line]
        assert (ran.returncode, ours) == (0, [])

    def test_it_starts_a_command_that_exists_and_lets_answers_end(self, path: Path) -> None:
        service = unit(path)["Service"]
        program, *words = shlex.split(service["ExecStart"])
        assert program.endswith("/bin/tokenplace")
        assert is_a_command(words)
        assert int(service["TimeoutStopSec"]) > 30
        assert service["Restart"] == "on-failure"
        assert service["NoNewPrivileges"] == "yes"

    @pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
    def test_a_unit_for_the_machine_gives_little_away(self, path: Path, tmp_path: Path) -> None:
        if path.parent.name == "user":
            return
        ran = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(path)],
            capture_output=True,
            text=True,
            timeout=100,
        )
        if "unrecognized option" in ran.stderr:
            pytest.skip("this systemd cannot look at files")
        assert ran.returncode == 0, ran.stdout[-400:]


@pytest.mark.parametrize("path", PLISTS, ids=lambda path: path.name)
def test_a_launch_agent_starts_a_command_that_exists(path: Path) -> None:
    agent = plistlib.loads(path.read_bytes())
    assert agent["Label"] == path.stem
    program, *words = agent["ProgramArguments"]
    assert program.endswith("/bin/tokenplace")
    assert is_a_command(words)
    assert agent["ExitTimeOut"] > 30
    assert agent["KeepAlive"] == {"SuccessfulExit": False}


def test_the_guide_s_line_for_macos_fills_the_agent_in(tmp_path: Path) -> None:
    [block] = [block for block in blocks(GUIDE, "") if "launchctl bootstrap" in block]
    line = next(line for line in block.replace("\\\n", "").splitlines() if line.startswith("sed"))
    (tmp_path / "Library/LaunchAgents").mkdir(parents=True)
    subprocess.run(
        ["sh", "-c", line],
        cwd=ROOT,
        check=True,
        timeout=30,
        env={"HOME": str(tmp_path), "USER": "ada", "PATH": os.environ["PATH"]},
    )
    [agent] = [plistlib.loads(file.read_bytes()) for file in (tmp_path / "Library/LaunchAgents").iterdir()]
    assert agent["ProgramArguments"][0] == "/Users/ada/tokenplace/bin/tokenplace"
    assert agent["EnvironmentVariables"]["TOKEN_PLACE_RELAYS"] == "https://YOUR.RELAY"


def test_the_guide_s_lines_for_a_user_of_linux_put_things_where_the_unit_looks(tmp_path: Path) -> None:
    [block] = [block for block in blocks(GUIDE, "") if "systemctl --user enable" in block]
    lines = [line for line in block.splitlines() if line.split()[0] in ("mkdir", "echo", "chmod", "cp")]
    subprocess.run(
        ["sh", "-ec", "\n".join(lines)],
        cwd=ROOT,
        check=True,
        timeout=30,
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
    )
    service = unit(tmp_path / ".config/systemd/user/tokenplace-node.service")["Service"]
    settings = Path(service["EnvironmentFile"].removeprefix("-").replace("%h", str(tmp_path)))
    assert settings.read_text() == "TOKEN_PLACE_RELAYS=https://relay.example\n"
    assert settings.stat().st_mode & 0o777 == 0o600
    assert "~/tokenplace/bin" in block
    assert service["ExecStart"].startswith("%h/tokenplace/bin/")


def test_the_windows_service_starts_the_launcher_and_the_launcher_a_node() -> None:
    service = ElementTree.parse(DEPLOY / "windows/tokenplace-node.xml").getroot()
    launcher = (service.findtext("executable") or "").rpartition("\\")[2]
    text = (DEPLOY / "windows" / launcher).read_bytes()
    assert text.count(b"\n") == text.count(b"\r\n"), "Windows' shell wants its own line ends"
    assert b'venv\\Scripts\\tokenplace.exe" node %*' in text
    assert {each.get("name") for each in service.findall("env")} == {"TOKEN_PLACE_STATE_DIR", "TOKEN_PLACE_MODELS_DIR"}
    assert (service.findtext("stoptimeout") or "").split()[0] == "45"
