"""A server that speaks OpenAI's API and looks at pictures: it says the size of each, as Pillow decodes them."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

MODEL = "eyes-1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        body = json.dumps(
            {"object": "list", "data": [{"id": self.server.model, "object": "model", "max_model_len": 4096}]}  # type: ignore[attr-defined]
        ).encode()
        self._head("application/json", len(body))
        self.wfile.write(body)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, asked))  # type: ignore[attr-defined]
        if self.path.endswith("/embeddings"):
            inputs = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
            data = [{"index": index, "embedding": [float(index), 1.0]} for index in range(len(inputs))]
            body = json.dumps({"data": data, "usage": {"prompt_tokens": 2, "total_tokens": 2}}).encode()
            self._head("application/json", len(body))
            self.wfile.write(body)
            return
        said = "I see " + " and ".join(map(_size, _pictures(asked)))
        events = b"".join(
            b"data: " + json.dumps(chunk).encode() + b"\n\n"
            for chunk in (
                {"choices": [{"index": 0, "delta": {"role": "assistant", "content": said}}]},
                {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
                {"choices": [], "usage": {"prompt_tokens": 300, "completion_tokens": 5, "total_tokens": 305}},
            )
        )
        events += b"data: [DONE]\n\n"
        self._head("text/event-stream", len(events))
        self.wfile.write(events)

    def _head(self, kind: str, length: int) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(length))
        self.end_headers()


def _pictures(asked: dict[str, Any]) -> list[str]:
    contents = [message["content"] for message in asked["messages"]]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


def _size(uri: str) -> str:
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    picture.load()
    return f"{picture.width}x{picture.height}"


@contextmanager
def eyes(model: str = MODEL) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """(its base URL, what it was asked) while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.asked, server.model = [], model  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", server.asked  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
