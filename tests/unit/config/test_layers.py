"""Which layer wins, and what a person is told about layers."""

from __future__ import annotations

import json
import os
from itertools import combinations
from pathlib import Path

import pytest

from tokenplace.config.layers import PROCESS, Layers, read_layers
from tokenplace.config.original import ADVICE, KEYS, VARIABLES
from tokenplace.config.variables import PROGRAMS, every_setting
from tokenplace.errors import ConfigError

RELAYS = "TOKEN_PLACE_RELAYS"

LAYERS = (
    "config/user_config.json",
    "config.json",
    "config.toml",
    ".env",
    ".env.production",
    ".env.local",
    "named.env",
    "environment",
)
"""The weakest first."""


class Machine:
    """A directory to work in, a home for configuration, and an environment."""

    def __init__(self, root: Path) -> None:
        self.folder, self.home = root / "work", root / "home"
        (self.home / "config").mkdir(parents=True)
        self.folder.mkdir()
        self.environ: dict[str, str] = {"TOKEN_PLACE_ENV": "production"}

    def env_file(self, name: str, *lines: str) -> Path:
        path = self.folder / name
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    def document(self, content: object, name: str = "config.json") -> Path:
        path = self.home / name
        path.write_text(json.dumps(content))
        return path

    def say(self, layer: str, model: str) -> str:
        """Let one layer name the node's model; gives the origin that should be told."""
        if layer == "environment":
            self.environ["TOKEN_PLACE_MODEL"] = model
            return PROCESS
        if layer.startswith("config"):
            path = self.home / layer
            toml = f'[node]\nmodel = "{model}"\n'
            path.write_text(toml if path.suffix == ".toml" else json.dumps({"node": {"model": model}}))
            return f"{path}: node.model"
        if layer == "named.env":
            self.environ["TOKEN_PLACE_ENV_FILE"] = str(self.folder / layer)
        return str(self.env_file(layer, f"TOKEN_PLACE_MODEL={model}"))

    def layers(self, *programs: str) -> Layers:
        return read_layers(self.environ, self.folder, self.home, programs or ("node",))

    def text(self, name: str, *programs: str) -> str | None:
        value = self.layers(*programs).values.get(name)
        return value.text if value else None


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# -- precedence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weaker", "stronger"), list(combinations(LAYERS, 2)))
def test_the_stronger_of_two_layers_wins(machine: Machine, weaker: str, stronger: str) -> None:
    machine.say(weaker, "lost")
    origin = machine.say(stronger, "won")
    value = machine.layers().values["TOKEN_PLACE_MODEL"]
    assert (value.text, value.origin) == ("won", origin)


@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_alone_is_heard(machine: Machine, layer: str) -> None:
    origin = machine.say(layer, "here")
    value = machine.layers().values["TOKEN_PLACE_MODEL"]
    assert (value.text, value.origin) == ("here", origin)


def test_an_empty_value_in_the_process_environment_wins_too(machine: Machine) -> None:
    machine.say(".env", "lost")
    machine.environ["TOKEN_PLACE_MODEL"] = ""
    assert machine.text("TOKEN_PLACE_MODEL") == ""


def test_the_process_environment_chooses_the_environment_not_the_dotenv_file(machine: Machine) -> None:
    machine.env_file(".env", "TOKEN_PLACE_ENV=testing")
    machine.env_file(".env.testing", "TOKEN_PLACE_MODEL=wrong")
    machine.env_file(".env.production", "TOKEN_PLACE_MODEL=right")
    assert machine.text("TOKEN_PLACE_MODEL") == "right"


def test_the_dotenv_file_chooses_the_environment_when_the_process_does_not(machine: Machine) -> None:
    del machine.environ["TOKEN_PLACE_ENV"]
    machine.env_file(".env", "TOKEN_PLACE_ENV=testing")
    machine.env_file(".env.testing", "TOKEN_PLACE_MODEL=right")
    assert machine.text("TOKEN_PLACE_MODEL") == "right"


def test_a_dotenv_file_may_name_the_further_files(machine: Machine) -> None:
    config = machine.folder / "mine.json"
    config.write_text('{"node": {"slots": 3}}')
    machine.env_file("further.env", "TOKEN_PLACE_MODEL=further")
    machine.env_file(".env", "TOKEN_PLACE_ENV_FILE=further.env", "TOKEN_PLACE_CONFIG=mine.json")
    assert machine.text("TOKEN_PLACE_MODEL") == "further"
    assert machine.text("TOKEN_PLACE_SLOTS") == "3"


def test_a_named_configuration_file_stands_alone(machine: Machine) -> None:
    machine.document({"node": {"model": "lost", "slots": 2}})
    named = machine.folder / "named.toml"
    named.write_text('[node]\nmodel = "won"\n')
    machine.environ["TOKEN_PLACE_CONFIG"] = str(named)
    assert machine.text("TOKEN_PLACE_MODEL") == "won"
    assert machine.text("TOKEN_PLACE_SLOTS") is None


def test_configuration_files_are_merged_table_by_table(machine: Machine) -> None:
    machine.document({"node": {"model": "first", "slots": 2}}, "config/user_config.json")
    machine.document({"node": {"model": "second"}})
    assert machine.text("TOKEN_PLACE_MODEL") == "second"
    assert machine.text("TOKEN_PLACE_SLOTS") == "2"


def test_null_in_a_file_means_that_nothing_is_set(machine: Machine) -> None:
    machine.document({"relay": {"server_registration_token": None}})
    assert machine.text("TOKEN_PLACE_RELAY_SERVER_TOKEN", "relay") is None


def test_a_section_speaks_to_its_own_program(machine: Machine) -> None:
    machine.document({"node": {"log_level": "DEBUG"}, "relay": {"log_level": "ERROR"}})
    assert machine.text("TOKENPLACE_LOG_LEVEL", "node") == "DEBUG"
    assert machine.text("TOKENPLACE_LOG_LEVEL", "relay", "gateway") == "ERROR"


# -- what a program gets -------------------------------------------------------------------------------------------


def test_only_what_is_missing_is_added_to_the_environment(machine: Machine) -> None:
    machine.env_file(".env", "TOKEN_PLACE_MODEL=a", "TOKEN_PLACE_SLOTS=2")
    machine.environ["TOKEN_PLACE_SLOTS"] = "4"
    assert machine.layers().additions() == {"TOKEN_PLACE_MODEL": "a"}


def test_a_configuration_file_gives_a_default_to_the_flag_and_does_not_beat_it(machine: Machine) -> None:
    machine.document({"relay": {"port": 6000}, "api": {"port": 9000}})
    layers = machine.layers("relay", "gateway")
    assert layers.flag_defaults() == {"relay": {"port": "6000"}, "gateway": {"port": "9000"}}
    assert layers.additions() == {}


def test_in_a_dotenv_file_the_relays_port_is_a_variable_like_in_the_environment(machine: Machine) -> None:
    machine.env_file(".env", "RELAY_PORT=6000")
    layers = machine.layers("relay")
    assert (layers.additions(), layers.flag_defaults()) == ({"RELAY_PORT": "6000"}, {})


def test_other_projects_variables_in_a_dotenv_file_are_not_ours(machine: Machine) -> None:
    machine.env_file(".env", "LD_PRELOAD=/tmp/x.so", "HTTPS_PROXY=http://x", "DATABASE_URL=x")
    layers = machine.layers()
    assert (layers.additions(), layers.notes) == ({}, ())


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "1"), (False, "0"), (3, "3"), (0.5, "0.5"), (["a", "b"], "a,b"), ("plain", "plain"), ([], "")],
)
def test_json_values_become_what_a_variable_would_say(machine: Machine, value: object, text: str) -> None:
    machine.document({"node": {"model": value}})
    assert machine.text("TOKEN_PLACE_MODEL") == text


def test_quotes_comments_exports_and_references_in_dotenv_files(machine: Machine) -> None:
    machine.environ["BASE"] = "llama"
    machine.env_file(
        ".env",
        "# a comment",
        "export TOKEN_PLACE_MODEL='${BASE}-3' # and another",
        'TOKEN_PLACE_SLOTS="${NOTHING:-5}"',
    )
    assert (machine.text("TOKEN_PLACE_MODEL"), machine.text("TOKEN_PLACE_SLOTS")) == ("llama-3", "5")


# -- the original's names ------------------------------------------------------------------------------------------


def test_the_originals_relay_lists_are_the_relays_of_a_node(machine: Machine) -> None:
    machine.document(
        {
            "relay": {
                "server_url": "http://one:5000/",
                "server_pool": ["http://one:5000", "http://two:5000"],
                "additional_servers": ["https://three", {"host": "four", "port": 5010}, {"base_url": "http://five"}],
            }
        }
    )
    expected = "http://one:5000,http://two:5000,https://three,http://four:5010,http://five"
    assert machine.text(RELAYS, "node") == expected
    assert machine.text(RELAYS, "relay") is None


def test_the_originals_keys_reach_their_successors(machine: Machine) -> None:
    machine.document(
        {
            "relay": {"server_registration_token": "t0ken", "cluster_only": True},
            "model": {"context_size": 2048, "use_mock": True},
            "paths": {"models_dir": "/models"},
        }
    )
    layers = machine.layers("node")
    assert layers.notes == ()
    assert {name: value.text for name, value in layers.values.items() if value.in_document} == {
        "TOKEN_PLACE_RELAY_SERVER_TOKEN": "t0ken",
        "TOKEN_PLACE_RELAY_CLUSTER_ONLY": "1",
        "TOKEN_PLACE_CONTEXT": "2048",
        "USE_MOCK_LLM": "1",
        "TOKEN_PLACE_MODELS_DIR": "/models",
    }


_ALL_KEYS = """
server.host server.port server.debug server.workers server.timeout server.base_url relay.host relay.port
relay.server_url relay.server_pool relay.server_pool_secondary relay.workers relay.additional_servers
relay.server_registration_token relay.cluster_only relay.cloudflare_fallback_urls relay.request_timeout api.host
api.port api.relay_url api.cors_origins security.encryption_enabled security.key_size security.key_expiry_days
model.default_model model.fallback_model model.filename model.url model.download_chunk_size_mb
model.download_timeout model.use_mock model.n_gpu_layers model.gpu_memory_headroom_percent
model.enforce_gpu_memory_headroom model.context_size model.chat_format model.max_tokens model.temperature
model.top_p model.stop_tokens paths.models_dir constants.KB version
"""


@pytest.mark.parametrize("key", _ALL_KEYS.split())
def test_every_key_of_the_original_is_honoured_or_answered_with_one_line(machine: Machine, key: str) -> None:
    table, _, name = key.partition(".")
    machine.document({table: {name: "1"}} if name else {table: "1"})
    layers = machine.layers(*PROGRAMS)
    honoured = any(value.in_document for value in layers.values.values())
    if honoured:
        assert layers.notes == ()
    else:
        [note] = layers.notes
        assert f"nothing reads {key} any more: " in note


_ALL_VARIABLES = """
RELAY_HOST RELAY_PORT USE_MOCK_LLM TOKENPLACE_LOG_LEVEL API_FALLBACK_URLS API_BASE_URL ENVIRONMENT
TOKENPLACE_RELAY_UPSTREAM_URL TOKENPLACE_GPU_HOST GPU_SERVER_HOST TOKENPLACE_GPU_PORT GPU_SERVER_PORT
TOKEN_PLACE_RELAY_SERVER_TOKEN TOKEN_PLACE_RELAY_SERVER_TOKENS API_RATE_LIMIT API_STREAM_RATE_LIMIT API_DAILY_QUOTA
CONTENT_MODERATION_MODE CONTENT_MODERATION_BLOCKLIST CONTENT_MODERATION_INCLUDE_DEFAULTS
TOKEN_PLACE_PROVIDER_REGISTRY TOKEN_PLACE_MODEL_FEEDBACK_PATH TOKEN_PLACE_CONTRIBUTION_QUEUE TOKEN_PLACE_ENV
TOKEN_PLACE_ENV_FILE TOKEN_PLACE_CONFIG TOKEN_PLACE_RELAY_UPSTREAMS PERSONAL_GAMING_PC_URL
TOKEN_PLACE_RELAY_CLOUDFLARE_URLS TOKEN_PLACE_RELAY_CLOUDFLARE_URL TOKEN_PLACE_RELAY_CLUSTER_ONLY SERVICE_NAME
PLATFORM TOKEN_PLACE_PERF_MONITOR TOKEN_PLACE_PERF_SAMPLES RELAY_WORKERS RELAY_THREADS RELAY_GRACEFUL_TIMEOUT
RELAY_TIMEOUT RELAY_WORKER_TMP_DIR CONTAINER_RUNTIME CONTAINER_TEST_IMAGE TEST_COVERAGE RUN_E2E
RUN_DSPACE_INTEGRATION PROD_SERVER_HOST PROD_RELAY_HOST PROD_API_HOST
"""

OWN = {"TOKEN_PLACE_ENV", "TOKEN_PLACE_ENV_FILE", "TOKEN_PLACE_CONFIG"}


@pytest.mark.parametrize("name", _ALL_VARIABLES.split())
def test_every_variable_of_the_original_is_honoured_or_answered(machine: Machine, name: str) -> None:
    if name in OWN or name in {setting.variable for setting in every_setting()}:
        return
    machine.environ[name] = "1"
    notes = machine.layers().notes
    if VARIABLES[name].common:
        assert notes == (), "a name that others use too is told of by `config show` alone"
    else:
        assert notes == (f"nothing reads {name} any more: {VARIABLES[name].advice}",)


def test_what_is_honoured_is_not_also_called_retired() -> None:
    assert set(VARIABLES).isdisjoint({setting.variable for setting in every_setting()})
    assert set(KEYS).isdisjoint(ADVICE) or all(KEYS[key] for key in set(KEYS) & set(ADVICE))


# -- slips of the pen ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TOKEN_PLACE_RELAY", " Did you mean TOKEN_PLACE_RELAYS?"),
        ("TOKENPLACE_LOGLEVEL", " Did you mean TOKENPLACE_LOG_LEVEL?"),
        ("TOKEN_PLACE_XYZZY", ""),
    ],
)
def test_a_misspelt_variable_is_told_with_what_was_meant(machine: Machine, name: str, meant: str) -> None:
    machine.environ[name] = "marker-value"
    assert machine.layers().notes == (f"nothing reads {name}.{meant}",)


def test_a_misspelt_key_is_told_with_its_file(machine: Machine) -> None:
    path = machine.document({"relay": {"drain_second": 3}})
    assert machine.layers("relay").notes == (
        f"{path}: nothing reads relay.drain_second. Did you mean relay.drain_seconds?",
    )


def test_retired_keys_with_one_answer_share_one_line(machine: Machine) -> None:
    machine.document({"server": {"host": "x", "port": 1, "workers": 4}})
    [note] = machine.layers().notes
    assert "server.host, server.port, server.workers any more" in note


# -- what cannot be used -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["TOKEN_PLACE_ENV_FILE", "TOKEN_PLACE_CONFIG"])
def test_a_named_file_that_is_missing_stops_the_program(machine: Machine, name: str) -> None:
    machine.environ[name] = "nowhere.env"
    with pytest.raises(ConfigError, match=f"{name} names .*nowhere.env, and there is no such file"):
        machine.layers()


def test_a_line_that_is_no_assignment_stops_the_program(machine: Machine) -> None:
    path = machine.env_file(".env", "TOKEN_PLACE_MODEL=a", "TOKEN_PLACE_RELAY_SERVER_TOKEN='s3cret")
    with pytest.raises(ConfigError) as caught:
        machine.layers()
    assert caught.value.message == f"{path}, line 2 is not of the form NAME=VALUE."


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[1]", "must hold one table"),
        ('{"node": {"model": [["deep"]]}}', "too deep"),
        ('{"node": {"adapters": ["a,b"]}}', "too deep"),
    ],
)
def test_a_document_that_cannot_be_used_stops_the_program(machine: Machine, text: str, says: str) -> None:
    (machine.home / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=says):
        machine.layers()


def test_toml_that_cannot_be_read_stops_the_program(machine: Machine) -> None:
    (machine.home / "config.toml").write_text("[node\n")
    with pytest.raises(ConfigError, match="is not TOML"):
        machine.layers()


@pytest.mark.parametrize("name", ["../up", "a/b", ".", "-x y"])
def test_the_environments_name_cannot_lead_out_of_the_directory(machine: Machine, name: str) -> None:
    machine.environ["TOKEN_PLACE_ENV"] = name
    with pytest.raises(ConfigError, match="one word"):
        machine.layers()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_a_strangers_dotenv_file_in_a_directory_for_all_is_passed_over(machine: Machine) -> None:
    path = machine.env_file(".env", "TOKEN_PLACE_RELAYS=http://evil")
    machine.folder.chmod(0o1777)
    os.chown(path, 12345, 12345)
    layers = machine.layers()
    assert RELAYS not in layers.values
    assert layers.notes == (f"{path} is passed over: it is not yours, and anybody may write in its directory",)


def test_a_value_does_not_show_in_a_repr(machine: Machine) -> None:
    machine.env_file(".env", "TOKEN_PLACE_RELAY_SERVER_TOKEN=s3cret")
    assert "s3cret" not in repr(machine.layers("relay"))


def test_reading_makes_no_directories(tmp_path: Path) -> None:
    read_layers({}, tmp_path, tmp_path / "none" / "token.place")
    assert list(tmp_path.iterdir()) == []
