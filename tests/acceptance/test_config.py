"""`tokenplace config`, and programs that find their settings in files."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stage import Program, free_port, get_json, staged

MARKER = "s3cret-invitation"


class Person:
    """Somebody in a directory, with a home for configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home" / "token.place"
        kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
        self.env = {**kept, "XDG_CONFIG_HOME": str(folder / "home"), "XDG_STATE_HOME": str(folder / "state")}

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tokenplace.cli.main", *arguments],
            cwd=self.folder,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "tokenplace.cli.main", *arguments],
            cwd=self.folder,
            env={**self.env, "PYTHONUNBUFFERED": "1", **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def config(self, content: object) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "config.json").write_text(json.dumps(content))

    def shown(self, program: str, **env: str) -> dict[str, dict[str, object]]:
        ran = self.run("config", "show", "--program", program, "--json", **env)
        assert ran.returncode == 0, ran.stderr
        return {row["name"]: row for row in json.loads(ran.stdout)}


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


def test_show_tells_every_value_with_its_origin_and_hides_secrets(person: Person) -> None:
    (person.folder / ".env").write_text(f"TOKEN_PLACE_RELAY_SERVER_TOKEN={MARKER}\n")
    person.config({"relay": {"drain_seconds": 3}})
    rows = person.shown("relay", TOKENPLACE_LOG_LEVEL="DEBUG")
    told = {name: (row["value"], row["origin"], row["hidden"]) for name, row in rows.items()}
    assert told["TOKENPLACE_LOG_LEVEL"] == ("DEBUG", "environment", False)
    assert told["TOKEN_PLACE_RELAY_SERVER_TOKEN"] == (None, str(person.folder / ".env"), True)
    assert told["RELAY_GRACEFUL_TIMEOUT"] == ("3", f"{person.home / 'config.json'}: relay.drain_seconds", False)
    assert told["RELAY_PORT"] == ("", "default", False)
    for ran in (person.run("config", "show"), person.run("config", "show", "--json")):
        assert MARKER not in ran.stdout + ran.stderr


def test_show_hides_the_password_in_an_address(person: Person) -> None:
    rows = person.shown("client", TOKEN_PLACE_RELAYS="https://me:hunter2@relay.example")
    assert rows["TOKEN_PLACE_RELAYS"]["value"] == "https://***@relay.example"


def test_show_says_which_value_cannot_be_and_where_it_stands(person: Person) -> None:
    person.config({"node": {"slots": 1000}})
    ran = person.run("config", "show", "--program", "node")
    assert ran.returncode == 1
    assert f"TOKEN_PLACE_SLOTS ({person.home / 'config.json'}: node.slots): Input should be less than" in ran.stderr


def test_path_lists_the_files_in_their_order(person: Person) -> None:
    (person.folder / ".env").write_text("")
    ran = person.run("config", "path", TOKEN_PLACE_ENV="production")
    assert ran.stdout.splitlines() == [
        f"{person.home / 'config' / 'user_config.json'}  (not there)",
        f"{person.home / 'config.json'}  (not there)",
        f"{person.home / 'config.toml'}  (not there)",
        f"{person.folder / '.env'}  (read)",
        f"{person.folder / '.env.production'}  (not there)",
        f"{person.folder / '.env.local'}  (not there)",
    ]
    assert not person.home.exists(), "looking makes no directories"


def test_set_writes_a_file_for_its_owner_only_and_the_value_holds(person: Person) -> None:
    assert person.run("config", "set", "node.slots", "3").returncode == 0
    assert person.run("config", "set", "TOKEN_PLACE_CONTEXT", "2048").returncode == 0
    assert person.run("config", "set", "gateway.port", "9000").returncode == 0
    file = person.home / "config.json"
    assert json.loads(file.read_text()) == {"node": {"slots": 3, "context": 2048}, "gateway": {"port": 9000}}
    assert person.shown("gateway")["--port"]["value"] == "9000"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert person.shown("node")["TOKEN_PLACE_SLOTS"]["value"] == "3"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("relay.server_token", MARKER), "is a secret, and secrets are not written here"),
        (("TOKEN_PLACE_UPSTREAM_KEY", MARKER), "is a secret, and secrets are not written here"),
        (("node.slots", "many"), "TOKEN_PLACE_SLOTS (node.slots): Input should be a valid integer"),
        (("node.slot", "3"), "There is no setting node.slot. Did you mean node.slots?"),
        (("TOKEN_PLACE_RELAYS", "http://x"), "name one of node.relays, client.relays"),
    ],
)
def test_set_refuses_secrets_impossible_values_and_unknown_names(
    person: Person, arguments: tuple[str, str], says: str
) -> None:
    ran = person.run("config", "set", *arguments)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert says in ran.stderr
    assert MARKER not in ran.stderr
    assert not person.home.exists()


def test_set_leaves_a_file_alone_that_holds_a_secret(person: Person) -> None:
    person.config({"relay": {"server_registration_token": MARKER}})
    before = (person.home / "config.json").read_text()
    ran = person.run("config", "set", "node.slots", "3")
    assert ran.returncode == 1
    assert "holds a secret (relay.server_registration_token)" in ran.stderr
    assert (person.home / "config.json").read_text() == before


def test_save_writes_what_holds_with_null_for_secrets(person: Person) -> None:
    (person.folder / ".env").write_text(f"TOKEN_PLACE_RELAY_SERVER_TOKEN={MARKER}\nTOKEN_PLACE_SLOTS=3\n")
    assert person.run("config", "save", "saved.json").returncode == 0
    text = (person.folder / "saved.json").read_text()
    assert MARKER not in text
    saved = json.loads(text)
    assert saved["node"]["slots"] == "3"
    assert saved["relay"]["server_token"] is None
    person.env["TOKEN_PLACE_CONFIG"] = "saved.json"
    (person.folder / ".env").unlink()
    assert person.shown("node")["TOKEN_PLACE_SLOTS"]["value"] == "3", "and can be read again"


# -- programs ------------------------------------------------------------------------------------------------------


def test_a_misspelt_variable_is_told_and_does_not_stop_the_program(person: Person) -> None:
    ran = person.run("models", "list", TOKEN_PLACE_MODELDIR="/x", GPU_SERVER_PORT="3000")
    assert ran.returncode == 0
    assert "nothing reads TOKEN_PLACE_MODELDIR. Did you mean TOKEN_PLACE_MODELS_DIR?" in ran.stderr
    assert "nothing reads GPU_SERVER_PORT any more: nodes dial the relay" in ran.stderr


def test_a_file_that_cannot_be_read_is_one_line_and_help_still_works(person: Person) -> None:
    ran = person.run("models", "list", TOKEN_PLACE_ENV_FILE="nowhere")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert (
        ran.stderr
        == f"tokenplace: TOKEN_PLACE_ENV_FILE names {person.folder / 'nowhere'}, and there is no such file.\n"
    )
    assert person.run("--version", TOKEN_PLACE_ENV_FILE="nowhere").returncode == 0


def test_whoever_asks_is_told_that_a_dotenv_file_chooses_the_relay(person: Person) -> None:
    (person.folder / ".env").write_text(f"TOKEN_PLACE_RELAYS=http://127.0.0.1:{free_port()}\n")
    ran = person.run("chat", "-m", "Hello")
    assert f"TOKEN_PLACE_RELAYS is taken from {person.folder / '.env'}" in ran.stderr
    named = person.run("chat", "-m", "Hello", TOKEN_PLACE_RELAYS=f"http://127.0.0.1:{free_port()}")
    assert "is taken from" not in named.stderr


@pytest.mark.parametrize(
    ("where", "flag", "env", "expected"),
    [
        ("dotenv", False, False, "file"),
        ("document", False, False, "file"),
        ("document", True, False, "flag"),
        ("dotenv", True, False, "file"),
        ("document", True, True, "env"),
        ("dotenv", True, True, "env"),
    ],
)
def test_where_a_relay_listens(person: Person, where: str, flag: bool, env: bool, expected: str) -> None:
    ports = {name: free_port() for name in ("file", "flag", "env")}
    if where == "dotenv":
        (person.folder / ".env").write_text(f"RELAY_PORT={ports['file']}\n")
    else:
        person.config({"relay": {"port": ports["file"]}})
    flags = ["--port", str(ports["flag"])] if flag else []
    variables = {"RELAY_PORT": str(ports["env"])} if env else {}
    with staged(person.folder) as stage:
        relay = Program("relay", person.start("relay", "--blind", *flags, **variables))
        stage.programs.append(relay)
        url = f"http://127.0.0.1:{ports[expected]}"
        stage.up(relay, lambda: get_json(f"{url}/healthz"))
        health = get_json(f"{url}/healthz")
    version = person.run("--version").stdout.split()
    assert [health["version"], health["build"]] == [version[1], version[3]]
