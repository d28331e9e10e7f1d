"""An original client and an original node, written from the contract: plain HTTP, nothing of ours on the wire.

They know the original's fields and no others, wait by sleeping, and take for an error what the original took for one.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from original import OriginalKeys


def call(
    url: str, content: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """One request as the original's library makes it, on a connection of its own."""
    data = json.dumps(content).encode() if content is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@dataclass
class OriginalClient:
    """Asks and polls. `pause` stands for the original's two seconds between polls."""

    url: str
    keys: OriginalKeys = field(default_factory=OriginalKeys)
    pause: float = 0.2
    server: str | None = None

    def ask(self, text: str, **fields: Any) -> None:
        if self.server is None:
            self.server = call(f"{self.url}/next_server")[1]["server_public_key"]
        sealed = self.keys.seal_relay([{"role": "user", "content": text}], self.server)
        body = {"server_public_key": self.server, "client_public_key": self.keys.key, **sealed, **fields}
        status, told = call(f"{self.url}/faucet", body)
        assert status == 200, told
        assert "message" in told or told.get("success")

    def poll(self) -> Any:
        """One look into the mailbox; None for the one error that lets the original go on."""
        status, told = call(f"{self.url}/retrieve", {"client_public_key": self.keys.key})
        assert status == 200
        if "error" in told:
            assert told["error"].startswith("No response available"), told
            return None
        return self.keys.open(told)

    def wait(self, tries: int = 150) -> Any:
        for _ in range(tries):
            if (answer := self.poll()) is not None:
                return answer
            threading.Event().wait(self.pause)
        raise AssertionError("no answer came")


class OriginalNode:
    """Polls, answers one job at a time in the thread that polls, and sleeps as long as it is told.

    It loses its first `broken` jobs, and thinks until `thought` is set.
    """

    def __init__(
        self, url: str, *, token: str | None = None, thought: threading.Event | None = None, broken: int = 0
    ) -> None:
        self.keys = OriginalKeys()
        self.pings: list[float] = []
        self.refused: list[int] = []
        self.took = self.answered = 0
        self._url = url
        self._headers = {"X-Relay-Server-Token": token} if token else {}
        self._thought = thought
        self._broken = broken
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> OriginalNode:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._stop.wait(self._cycle())

    def _cycle(self) -> float:
        status, told = call(f"{self._url}/sink", {"server_public_key": self.keys.key}, self._headers)
        if status != 200:
            self.refused.append(status)
            return 1.0
        ping = told["next_ping_in_x_seconds"]
        assert isinstance(ping, int | float)
        self.pings.append(ping)
        if "client_public_key" in told:
            names = ("client_public_key", "chat_history", "cipherkey", "iv")
            assert all(isinstance(told[name], str) for name in names)
            self.took += 1
            self._answer({name: told[name] for name in names})
        return float(ping)

    def _answer(self, job: dict[str, str]) -> None:
        if self._broken:
            self._broken -= 1
            return  # the original loses a job on any failure and says nothing
        if self._thought is not None:
            self._thought.wait(60)
        history = self.keys.open(job)
        told = [*history, {"role": "assistant", "content": f"original: {history[-1]['content']}"}]
        body = {"client_public_key": job["client_public_key"], **self.keys.seal_relay(told, job["client_public_key"])}
        status, _ = call(f"{self._url}/source", body, self._headers)
        self.answered += status == 200
