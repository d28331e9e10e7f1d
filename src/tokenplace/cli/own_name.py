"""Keeps pages of strangers away from a gateway on a person's own machine, where nobody shows a key.

A browser asks whatever a page wants it to. Of another origin's answers it shows the page nothing, but it does send the
question; and a page whose own name suddenly resolves to this machine (DNS rebinding) may read the answer too. What
such a page cannot change are two headers: `Host` has its name, and so has `Origin`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

from tokenplace.relay.asgi import App, Receive, Scope, Send, header, marked, respond

_NOT_PUBLIC = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".test")
"""Endings that no public name server answers for, so that nobody can point a page's name of them to here."""


class OwnName:
    """Passes on what is asked under a name of this machine: an address, a name without dots, or one of `names`."""

    def __init__(self, app: App, names: Iterable[str] = ()) -> None:
        self._app = app
        self._names = frozenset(name.strip().lower().rstrip(".") for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http" and (told := self._wrong(scope)) is not None:
            status, code, message = told
            shape = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
            body = b"" if scope["method"] == "HEAD" else json.dumps(shape, separators=(",", ":")).encode()
            await respond(marked(scope, send), status, body, b"application/json")
            return
        await self._app(scope, receive, send)

    def _wrong(self, scope: Scope) -> tuple[HTTPStatus, str, str] | None:
        host, origin = header(scope, b"host"), header(scope, b"origin")
        if host and not self._ours(f"//{host}"):
            return (
                HTTPStatus.MISDIRECTED_REQUEST,
                "wrong_host",
                "A gateway that asks for no API key answers under names of its own machine only; "
                "list further ones in TOKEN_PLACE_GATEWAY_NAMES.",
            )
        if origin and origin.startswith(("http:", "https:")) and not self._ours(origin):
            return (
                HTTPStatus.FORBIDDEN,
                "wrong_origin",
                "A page of another machine may not ask a gateway that asks for no API key.",
            )
        return None

    def _ours(self, url: str) -> bool:
        try:
            name = (urlsplit(url).hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in self._names:
            return True
        return name != "" and ("." not in name or name.endswith(_NOT_PUBLIC) or _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
