"""The directory and the registry: the contract's shapes, and what is live."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tokenplace.wire.ids import NodeId, show_node_id
from unit.community.boards import NODE, Stand

DIRECTORY = "/api/v1/community/providers"
REGISTRY = "/api/v1/server-providers"
LAB = {"id": "lab", "name": "Lab", "region": "us-west", "status": "online"}


def write(stand: Stand, *providers: Any, updated: str | None = "2025-02-01T00:00:00Z") -> None:
    content = {"updated": updated, "providers": list(providers)}
    (stand.folder / "providers.json").write_text(json.dumps(content))


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_an_entry_has_every_field_of_the_contract(tmp_path: Path, version: str) -> None:
    stand = Stand(tmp_path)
    write(
        stand,
        {
            "id": "lab",
            "name": "Lab",
            "region": "us-west",
            "endpoints": [{"type": " relay ", "url": " https://r.example "}, {"type": "relay"}, "x", {"url": 7}],
            "secret": "dropped",
        },
    )
    reply = await stand.get(f"/api/{version}/community/providers")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == {
        "object": "list",
        "data": [
            {
                "id": "lab",
                "name": "Lab",
                "region": "us-west",
                "latency_ms": None,
                "status": "unknown",
                "contact": {},
                "capabilities": [],
                "notes": None,
                "endpoints": [{"type": "relay", "url": "https://r.example"}],
            }
        ],
        "metadata": {"updated_at": "2025-02-01T00:00:00Z"},
    }


async def test_without_a_file_the_directory_is_empty(tmp_path: Path) -> None:
    reply = await Stand(tmp_path).get(DIRECTORY)
    assert (reply.status, reply.json()) == (200, {"object": "list", "data": [], "metadata": {"updated_at": None}})


async def test_a_bad_entry_hides_no_good_one_and_is_told_once(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    write(stand, {"id": "", "name": "x", "region": "y"}, "nonsense", LAB)
    for _ in range(3):
        assert [each["id"] for each in (await stand.get(DIRECTORY)).json()["data"]] == ["lab"]
    assert stand.told == ["providers.json has 2 entries that cannot be shown"]


@pytest.mark.parametrize("content", ["{", "[]", '{"providers": 7}', "\xff"])
async def test_a_file_that_is_no_directory_is_a_clear_fault(tmp_path: Path, content: str) -> None:
    stand = Stand(tmp_path)
    (tmp_path / "providers.json").write_text(content, "latin-1")
    for _ in range(2):
        reply = await stand.get(DIRECTORY)
        assert (reply.status, reply.json()["error"]["code"]) == (503, "provider_directory_unavailable")
    assert len(stand.told) == 1


async def test_an_edited_file_is_read_again(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    write(stand, LAB)
    assert len((await stand.get(DIRECTORY)).json()["data"]) == 1
    write(stand, LAB, {**LAB, "id": "second"})
    assert len((await stand.get(DIRECTORY)).json()["data"]) == 2
    (tmp_path / "providers.json").unlink()
    assert (await stand.get(DIRECTORY)).json()["data"] == []


async def test_an_entry_that_names_a_connected_node_is_online(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    write(stand, {**LAB, "status": "maintenance", "node": show_node_id(NODE)})
    stand.connect(NODE)
    [entry] = (await stand.get(DIRECTORY)).json()["data"]
    assert entry["status"] == "online"
    assert entry["nodes"] == [NODE]
    assert entry["live"] == {
        "connected": 1,
        "slots": 4,
        "free": 3,
        "models": ["echo", "tiny"],
        "since": "2026-05-01T11:58:30Z",
    }


async def test_what_the_file_calls_online_is_offline_when_its_node_is_not_there(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    write(stand, {**LAB, "endpoints": [{"type": "node", "url": NODE}]})
    [entry] = (await stand.get(DIRECTORY)).json()["data"]
    assert (entry["status"], entry["live"]["connected"], entry["live"]["since"]) == ("offline", 0, None)
    stand.connect(NODE, draining=True)
    [entry] = (await stand.get(DIRECTORY)).json()["data"]
    assert entry["status"] == "draining"


async def test_an_entry_of_several_nodes_adds_them_up(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    second, away = NodeId("b" * 32), NodeId("c" * 32)
    write(stand, {**LAB, "nodes": [NODE, second, away, "not an id"]})
    stand.connect(NODE, second)
    [entry] = (await stand.get(DIRECTORY)).json()["data"]
    assert (entry["status"], entry["live"]["connected"], entry["live"]["slots"]) == ("online", 2, 8)
    assert entry["nodes"] == [NODE, second, away]


async def test_the_relay_that_answers_knows_itself_in_the_directory(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    write(
        stand,
        {**LAB, "status": "unknown", "endpoints": [{"type": "relay", "url": "https://Relay.example/"}]},
        {**LAB, "id": "far", "endpoints": [{"type": "relay", "url": "https://other.example"}]},
    )
    stand.connect(NODE, names=["relay.example"])
    here, far = (await stand.get(DIRECTORY)).json()["data"]
    assert (here["status"], here["live"]["connected"]) == ("online", 1)
    assert "nodes" not in here, "who is connected is not told apart for a relay"
    assert "live" not in far


async def test_nodes_that_no_entry_names_are_not_in_the_directory(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    write(stand, LAB)
    stand.connect(NODE)
    assert NODE not in (await stand.get(DIRECTORY)).body.decode()


async def test_the_directory_comes_in_pages(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    write(stand, *({**LAB, "id": f"n{number}"} for number in range(5)))
    first = (await stand.get(f"{DIRECTORY}?limit=2")).json()
    assert [each["id"] for each in first["data"]] == ["n0", "n1"]
    last = (await stand.get(f"{DIRECTORY}?limit=3&offset={first['next_offset']}")).json()
    assert [each["id"] for each in last["data"]] == ["n2", "n3", "n4"]
    assert "next_offset" not in last


@pytest.mark.parametrize(
    ("query", "param"), [("limit=0", "limit"), ("limit=x", "limit"), ("limit=", "limit"), ("offset=-1", "offset")]
)
async def test_a_bad_page_is_named(tmp_path: Path, query: str, param: str) -> None:
    reply = await Stand(tmp_path).get(f"{DIRECTORY}?{query}")
    assert (reply.status, reply.json()["error"]["param"]) == (400, param)


# -- the registry --------------------------------------------------------------------------------------------------

YAML = """
metadata:
  updated_at: 2025-02-15T00:00:00Z
providers:
  - id: local-dev
    name: Local
    region: local
    status: active
    latency_ms: 12
    notes: a note
    contact: {email: ops@example.org}
    endpoints:
      - {type: relay, url: "http://localhost:5010", weight: 3}
  - {id: half, name: Half}
  - {id: broken, name: B, region: r, status: s, endpoints: [{type: relay}]}
"""


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_the_registry_is_read_from_yaml_in_the_contracts_shape(tmp_path: Path, version: str) -> None:
    stand = Stand(tmp_path)
    (tmp_path / "servers.yaml").write_text(YAML)
    reply = await stand.get(f"/api/{version}/server-providers")
    assert reply.json() == {
        "object": "list",
        "data": [
            {
                "id": "local-dev",
                "name": "Local",
                "region": "local",
                "status": "active",
                "endpoints": [{"type": "relay", "url": "http://localhost:5010", "weight": 3}],
                "notes": "a note",
                "contact": {"email": "ops@example.org"},
            }
        ],
        "metadata": {"updated_at": "2025-02-15T00:00:00Z"},
    }
    assert stand.told == ["servers.yaml has 2 entries that cannot be shown"]


async def test_the_registry_knows_live_nodes_too(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    (tmp_path / "servers.yaml").write_text(f"providers: [{{id: a, name: A, region: r, status: active, node: {NODE}}}]")
    stand.connect(NODE)
    [entry] = (await stand.get(REGISTRY)).json()["data"]
    assert (entry["status"], entry["live"]["slots"]) == ("online", 4)


@pytest.mark.parametrize(
    "content",
    [
        None,
        "- a list",
        "a: [",
        "metadata: 7",
        "providers: 7",
        "a: &a [*a]",
        "{1: !!set {x}}",
        "!!python/object:os.x {}",
    ],
)
async def test_a_registry_that_was_named_and_cannot_be_used_is_a_fault_with_a_code(
    tmp_path: Path, content: str | None
) -> None:
    stand = Stand(tmp_path)
    if content is not None:
        (tmp_path / "servers.yaml").write_text(content)
    reply = await stand.get(REGISTRY)
    error = reply.json()["error"]
    assert (reply.status, error["type"], error["code"]) == (503, "internal_error", "provider_registry_unavailable")
    assert str(tmp_path) not in error["message"]


async def test_the_shipped_examples_can_all_be_shown() -> None:
    root = Path(__file__).parents[3] / "config"
    stand = Stand(root / "community", registry=root / "server_providers.yaml")
    assert {each["id"] for each in (await stand.get(DIRECTORY)).json()["data"]} == {
        "token-place-lab",
        "community-eu-testnet",
    }
    registry = (await stand.get(REGISTRY)).json()
    assert registry["data"][0]["id"] == "local-dev"
    assert registry["metadata"]["updated_at"] == "2025-02-15T00:00:00Z"
    assert stand.told == []
