"""A person vouches for a node; another, who trusts that person, asks it and nobody else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from stage import Stage, nodes_at


def tokenplace(*arguments: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tokenplace.cli.main", *arguments]
    env = {**os.environ, "XDG_STATE_HOME": str(home), "XDG_CONFIG_HOME": str(home), **env}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def test_only_nodes_that_are_vouched_for_are_asked(stage: Stage, tmp_path: Path) -> None:
    relay = stage.relay()
    stage.node(relay, name="friend")
    friend = nodes_at(relay)[0]["node"]
    stage.node(relay, name="stranger")
    stranger = next(node["node"] for node in nodes_at(relay) if node["node"] != friend)

    file = tmp_path / "friends.voucher"
    made = tokenplace("voucher", "make", friend, "--output", str(file), home=tmp_path / "issuer")
    assert made.returncode == 0, made.stderr
    issuer = re.search(r"TOKEN_PLACE_TRUSTED_ISSUERS=([a-z2-7-]+)", made.stderr)
    assert issuer is not None
    shown = tokenplace("voucher", "show", str(file), home=tmp_path)
    assert (shown.returncode, "The signature holds." in shown.stdout) == (0, True)

    trusting = {"TOKEN_PLACE_TRUSTED_ISSUERS": issuer[1], "TOKEN_PLACE_VOUCHERS": str(file)}
    ask = ("chat", "--relay", relay.url, "--message", "hello")
    for _ in range(3):
        asked = tokenplace(*ask, home=tmp_path, **trusting)
        assert (asked.returncode, asked.stdout) == (0, "echo: hello\n"), asked.stderr
    answered = {node["node"]: node["answered"] for node in nodes_at(relay)}
    assert answered == {friend: 3, stranger: 0}

    nobody = tokenplace(*ask, home=tmp_path, TOKEN_PLACE_TRUSTED_ISSUERS=issuer[1])
    assert nobody.returncode == 1
    assert "vouched for" in nobody.stderr


def test_a_voucher_that_was_altered_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "friends.voucher"
    assert tokenplace("voucher", "make", "a" * 32, "-o", str(file), home=tmp_path).returncode == 0
    head, _, tail = file.read_text().partition(".")
    file.write_text(f"{head}.{tail[:9]}{'b' if tail[9] == 'a' else 'a'}{tail[10:]}")
    shown = tokenplace("voucher", "show", str(file), home=tmp_path)
    assert shown.returncode == 1
    assert "not signed by who it says" in shown.stderr
    asked = tokenplace(
        "chat", "--message", "x", home=tmp_path, TOKEN_PLACE_TRUSTED_ISSUERS="a" * 32, TOKEN_PLACE_VOUCHERS=str(file)
    )
    assert asked.returncode == 1
    assert str(file) in asked.stderr
    assert "Traceback" not in asked.stderr
