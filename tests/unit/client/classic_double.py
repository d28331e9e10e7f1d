"""A server that answers a script's calls over real HTTP and remembers them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any] | bytes | None
"""Status and JSON, or the bytes of an event stream, or nothing: the connection breaks."""


@dataclass
class Double:
    """Answers by path; `heard` is what was posted, in order."""

    answer: Callable[[str, dict[str, Any]], Reply]
    url: str = ""
    heard: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def paths(self) -> list[str]:
        return [path for path, _ in self.heard]


@contextmanager
def serving(answer: Callable[[str, dict[str, Any]], Reply]) -> Iterator[Double]:
    """A double that listens while the block runs."""
    double = Double(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply({})

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _reply(self, content: dict[str, Any]) -> None:
            double.heard.append((self.path, content))
            reply = double.answer(self.path, content)
            if reply is None:
                self.close_connection = True
                return
            status, body, kind = 200, b"", "text/event-stream"
            if isinstance(reply, bytes):
                body = reply
            else:
                status, kind = reply[0], "application/json"
                body = reply[1] if isinstance(reply[1], bytes) else json.dumps(reply[1]).encode()
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    double.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
