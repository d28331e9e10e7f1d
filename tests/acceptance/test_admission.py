"""Invitations and the deny list, with real programs: a running relay hears of every change."""

from __future__ import annotations

from pathlib import Path

from stage import PATIENCE, Program, Stage, free_port, get_json, nodes_at, until
from tokenplace.wire import routes


def invite(stage: Stage, *arguments: str) -> str:
    """`tokenplace relay invite …` where the relay of the stage keeps its state."""
    program = stage.start("relay", ["relay", "invite", *arguments])
    assert program.process.wait(PATIENCE) == 0, program.text
    program.finish()
    return program.text


def a_node(stage: Stage, relay: Program, token: str = "") -> Program:
    env = {"TOKEN_PLACE_RELAY_SERVER_TOKEN": token} if token else {}
    return stage.start("node", ["node", "--engine", "echo", "--relay", relay.url], env)


def test_an_invitation_comes_and_goes_while_the_relay_runs(stage: Stage) -> None:
    relay = stage.relay("--blind")
    said = invite(stage, "create", "--label", "bob", "--expires", "30d")
    token = next(line for line in said.splitlines() if "=" in line).partition("=")[2]
    name = said.split()[1]
    stranger = a_node(stage, relay)
    until(lambda: "TOKEN_PLACE_RELAY_SERVER_TOKEN" in stranger.text, "the stranger to hear what it lacks")
    assert nodes_at(relay) == []
    stranger.end()
    guest = a_node(stage, relay, token)
    until(lambda: nodes_at(relay), "the invited node to be listed")
    listed = invite(stage, "list")
    assert name in listed
    assert "valid" in listed
    assert token not in listed
    invite(stage, "revoke", name)
    until(lambda: not nodes_at(relay), "the node to be sent away")
    until(lambda: "withdrawn" in guest.text, "the node to hear why")
    assert get_json(f"{relay.url}{routes.HEALTHZ}")["knownServers"] == 0


def test_a_node_on_the_deny_list_is_sent_away(stage: Stage, tmp_path: Path) -> None:
    denied = tmp_path / "denied"
    relay = stage.relay("--blind", env={"TOKEN_PLACE_DENY": str(denied)})
    node = stage.node(relay)
    denied.write_text(f"{nodes_at(relay)[0]['node']}  # answers nonsense\n")
    until(lambda: not nodes_at(relay), "the node to be sent away")
    until(lambda: "operator" in node.text, "the node to hear why")


def test_a_policy_that_cannot_be_read_stops_the_relay_with_one_line(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "denied").write_text("nobody in particular\n")
    for env, word in (
        ({"API_RATE_LIMIT": "often"}, "API_RATE_LIMIT"),
        ({"TOKEN_PLACE_TRUSTED_PROXIES": "*"}, "TOKEN_PLACE_TRUSTED_PROXIES"),
        ({"TOKEN_PLACE_DENY": str(tmp_path / "denied")}, "line 1"),
    ):
        program = stage.start("relay", ["relay", "--port", "0"], env)
        assert program.process.wait(PATIENCE) == 1
        program.finish()
        assert word in program.text
        assert "Traceback" not in program.text


def test_up_invites_its_own_node(stage: Stage) -> None:
    invite(stage, "create", "--label", "a friend")
    program = stage.start("relay", ["up", "--engine", "echo", "--port", str(free_port())])
    until(lambda: "Ready at" in program.text, "the first answer")
    assert "sealed here, opened only by node" in program.text
