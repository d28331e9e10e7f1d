"""Serves the built pages (`site/`, made by `npm run build` in `web/`) as a plain ASGI application.

Every file is read once and found by its exact path, so that no path can reach anything else. Names under `assets/`
carry a hash of their content and may be kept for ever; the others are asked for again each time.

The policy lets the page load and speak to nothing but the address it came from, forbids inline scripts and styles, and
with Trusted Types leaves the sanitiser as the only way to turn a model's words into elements. The one exception is a
page's import map, which browsers take inline only: it holds the hashes of the scripts that are loaded later, and the
policy names its own, so that nothing else can stand in its place.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",  # attached pictures and exports never leave the page as addresses
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)

_ALWAYS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
]
_TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
_IMPORT_MAP = re.compile(rb'<script type="importmap">(.*?)</script>', re.DOTALL)
_FOR_EVER = b"public, max-age=31536000, immutable"
_ASK_AGAIN = b"no-cache"


@dataclass(frozen=True)
class _File:
    """One file of the page."""

    content: bytes
    content_type: bytes
    caching: bytes

    @cached_property
    def etag(self) -> bytes:
        """Changes with the content."""
        return b'"' + hashlib.sha256(self.content).hexdigest()[:32].encode() + b'"'

    @cached_property
    def policy(self) -> bytes:
        """The content security policy that it is served with."""
        found = _IMPORT_MAP.search(self.content) if self.content_type.startswith(b"text/html") else None
        if found is None:
            return POLICY.encode()
        digest = base64.b64encode(hashlib.sha256(found[1]).digest()).decode()
        return POLICY.replace("script-src 'self'", f"script-src 'self' 'sha256-{digest}'").encode()

    @cached_property
    def gzipped(self) -> bytes:
        """Compressed when first asked for, and the same bytes on every machine."""
        return gzip.compress(self.content, 9, mtime=0)


def create_page(otherwise: App | None = None) -> App:
    """The chat at `/` and the notice board at `/community`, with their files.

    What is not the page's goes to `otherwise`, or is answered with 404.

    Raises FileNotFoundError when the page was not built into the package.
    """
    found = {f"/{path}": file for path, file in _read(files("tokenplace.web").joinpath("site"))}
    if "/index.html" not in found:
        raise FileNotFoundError("The page is not in the package; run `npm ci && npm run build` in web/.")
    for path in [path for path in found if path.endswith(".html")]:
        found[path.removesuffix("index.html").removesuffix(".html")] = found.pop(path)  # /community.html is /community

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        file = found.get(scope["path"]) if scope["type"] == "http" else None
        if file is not None:
            await _serve(file, scope, send)
        elif otherwise is not None:
            await otherwise(scope, receive, send)
        elif scope["type"] == "http":
            await _refuse(send, HTTPStatus.NOT_FOUND, "not_found", "There is nothing here.")

    return page


def _read(folder: Traversable, under: str = "") -> Iterator[tuple[str, _File]]:
    for entry in folder.iterdir():
        path = f"{under}{entry.name}"
        if entry.is_dir():
            yield from _read(entry, f"{path}/")
            continue
        content_type = _TYPES.get(f".{entry.name.rpartition('.')[2]}")
        if content_type is not None:
            caching = _FOR_EVER if path.startswith("assets/") else _ASK_AGAIN
            yield path, _File(entry.read_bytes(), content_type, caching)


async def _serve(file: _File, scope: Scope, send: Send) -> None:
    method = scope["method"]
    if method not in ("GET", "HEAD"):
        extra: Headers = [(b"allow", b"GET, HEAD")]
        await _refuse(send, HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "This can only be read.", extra)
        return
    asked = {name: value for name, value in scope["headers"] if name in (b"accept-encoding", b"if-none-match")}
    zipped = b"gzip" in asked.get(b"accept-encoding", b"")
    headers: Headers = [
        *_ALWAYS,
        (b"content-security-policy", file.policy),
        (b"cache-control", file.caching),
        (b"etag", file.etag),
        (b"vary", b"accept-encoding"),
    ]
    if file.etag in asked.get(b"if-none-match", b""):
        await _send(send, HTTPStatus.NOT_MODIFIED, headers, b"")
        return
    content = file.gzipped if zipped else file.content
    headers += [(b"content-type", file.content_type), (b"content-length", str(len(content)).encode())]
    if zipped:
        headers.append((b"content-encoding", b"gzip"))
    await _send(send, HTTPStatus.OK, headers, b"" if method == "HEAD" else content)


async def _refuse(send: Send, status: HTTPStatus, code: str, message: str, extra: Headers | None = None) -> None:
    """An error in OpenAI's shape, like every other of the programs that serve this page."""
    shape = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    body = json.dumps(shape, separators=(",", ":")).encode()
    headers: Headers = [
        *_ALWAYS,
        (b"content-security-policy", POLICY.encode()),
        *(extra or []),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await _send(send, status, headers, body)


async def _send(send: Send, status: HTTPStatus, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
