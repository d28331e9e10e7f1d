"""A notice board on files of a test, with a clock of its own, and requests to it without a socket."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tokenplace.community.allowance import Allowance
from tokenplace.community.board import Board, Screen
from tokenplace.community.counts import Counts
from tokenplace.community.desk import Desk
from tokenplace.community.files import Files
from tokenplace.community.http import Noticeboard
from tokenplace.community.live import Live, LiveNode
from tokenplace.community.settings import CommunitySettings
from tokenplace.wire.ids import NodeId

NODE = NodeId("a" * 32)
OFFER: dict[str, Any] = {
    "operator_name": " Ada ",
    "region": "eu-west",
    "availability": "evenings",
    "capabilities": ["gpu", "openai-compatible"],
    "contact": {"email": "ada@example.org"},
    "hardware": "one GPU",
    "unknown": "dropped",
}


class Reply:
    """One answer."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    def json(self) -> Any:
        return json.loads(self.body)


class Stand:
    """A board in a folder; `today` can be moved, `lives` says who is connected."""

    def __init__(
        self, folder: Path, *, hourly: int = 0, screen: Screen | None = None, registry: Path | None = None
    ) -> None:
        self.folder = folder
        self.today = datetime(2026, 5, 1, 12, tzinfo=UTC)
        self.seconds = 0.0
        self.told: list[str] = []
        self.lives = Live()
        self.models = {"tiny": "tiny", "alias": "tiny", "other": "other"}
        self.counts = Counts()
        settings = CommunitySettings(
            TOKEN_PLACE_COMMUNITY_DIR=folder,
            TOKEN_PLACE_MODEL_FEEDBACK_PATH=None,
            TOKEN_PLACE_CONTRIBUTION_QUEUE=None,
            TOKEN_PLACE_PROVIDER_REGISTRY=registry or folder / "servers.yaml",
        )
        files = Files(settings, lambda path, what: self.told.append(f"{path.name} {what}"))
        said: dict[str, Any] = {"screen": screen} if screen else {}
        self.board = Board(files, now=self._now, **said)
        self.desk = Desk(files, self._now)
        self.app = Noticeboard(
            self.board,
            _elsewhere,
            live=lambda: self.lives,
            known=self.models.get,
            address=lambda scope: str(scope["client"][0]),
            allowance=Allowance(hourly, lambda: self.seconds),
            counts=self.counts,
        )

    def _now(self) -> datetime:
        return self.today

    @property
    def queue(self) -> Path:
        return self.folder / "contribution_queue.jsonl"

    @property
    def feedback(self) -> Path:
        return self.folder / "model_feedback.jsonl"

    def connect(self, *nodes: NodeId, names: Sequence[str] = (), draining: bool = False) -> None:
        there = {node: LiveNode(node, ("tiny", "echo"), 4, 3, 90.0, draining) for node in nodes}
        self.lives = Live(there, frozenset(names))

    def next_day(self) -> None:
        self.today += timedelta(days=1)

    async def get(self, target: str, method: str = "GET") -> Reply:
        return await self.ask(method, target)

    async def post(
        self, target: str, content: Any, *, client: str = "192.0.2.1", kind: str = "application/json"
    ) -> Reply:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return await self.ask("POST", target, body, [("content-type", kind)], client)

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Sequence[tuple[str, str]] = (),
        client: str = "192.0.2.1",
    ) -> Reply:
        path, _, query = target.partition("?")
        reply = Reply()
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                reply.status = message["status"]
                reply.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                reply.body += message["body"]

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers],
            "client": (client, 1),
        }
        await self.app(scope, receive, send)
        return reply


async def _elsewhere(scope: Any, receive: Any, send: Any) -> None:
    del scope, receive
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b"elsewhere"})


def lines(path: Path) -> list[dict[str, Any]]:
    """Every line, read strictly: a torn one fails here."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


Make = Callable[..., Stand]
