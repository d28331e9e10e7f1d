"""The status page beside a node, and the commands that talk to it: `tokenplace node status|pause|resume`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from socket import socket
from typing import Any

import httpx2 as httpx
import structlog
import typer
from rich.console import Console

from tokenplace.cli.live import view
from tokenplace.errors import TokenPlaceError
from tokenplace.node.http import StatusPortTaken, answering, bind
from tokenplace.node.resources import Gauge, NvidiaCards
from tokenplace.node.service import NodeService
from tokenplace.node.settings import NodeSettings
from tokenplace.node.status import CONTROL, StatusPage

_ADDRESS_FILE = "status-address"
_log = structlog.get_logger("tokenplace.node")


class NodeNotHere(TokenPlaceError):
    """No node runs on this machine, or its status page is switched off."""

    code = "node_not_here"


@dataclass(frozen=True, slots=True)
class Page:
    """The node's status page. Without a `url` it is not served, but still tells."""

    page: StatusPage
    url: str | None

    def fields(self) -> dict[str, Any]:
        """What `/status.json` shows."""
        return self.page.fields()


@asynccontextmanager
async def status_page(node: NodeService, settings: NodeSettings) -> AsyncIterator[Page]:
    """Serve the status page while the block runs; without a free port the node works all the same."""
    gauge = Gauge(NvidiaCards())
    page = StatusPage(node, settings.status_host, gauge.resources, gauge.power)
    listener = _listener(settings)
    if listener is None:
        yield Page(page, None)
        return
    url = _url(listener)
    note = settings.home / _ADDRESS_FILE
    async with answering(listener, page.answer):
        with suppress(OSError):  # then `tokenplace node status` does not find it; the page is there all the same
            note.write_text(f"{url}\n", encoding="ascii")
        try:
            yield Page(page, url)
        finally:
            with suppress(OSError):
                if note.read_text(encoding="ascii").strip() == url:
                    note.unlink()


def _listener(settings: NodeSettings) -> socket | None:
    if not settings.status_port:
        return None
    try:
        listener = bind(settings.status_host, settings.status_port)
    except StatusPortTaken as error:
        _log.warning("status.off", reason=error.message)
        return None
    if listener.getsockname()[1] != settings.status_port:
        _log.info("status.moved", wanted=settings.status_port, port=listener.getsockname()[1])
    return listener


def _url(listener: socket) -> str:
    host, port = listener.getsockname()[:2]
    if ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def show(*, as_json: bool) -> None:
    """Print how the node on this machine stands. Raises NodeNotHere."""
    status = _ask(NodeSettings().home, "GET", "/status.json")
    if as_json:
        typer.echo(json.dumps(status))
    else:
        Console().print(view(status))


def tell(what: str) -> None:
    """Pause or resume the node on this machine. Raises NodeNotHere."""
    status = _ask(NodeSettings().home, "POST", f"/{what}")
    typer.echo(f"The node is {status['standing']}.")


def _ask(home: Path, method: str, path: str) -> Any:
    try:
        url = (home / _ADDRESS_FILE).read_text(encoding="ascii").strip()
        with httpx.Client(timeout=10.0, trust_env=False) as client:
            response = client.request(method, url + path, headers={CONTROL: "command"})
        content = response.json()
        if response.status_code != httpx.codes.OK:
            raise NodeNotHere(f"The node at {url} says: {content['error']['message']}")
        return content
    except (OSError, httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        raise NodeNotHere(
            f"No node answers for {home}. Start one with `tokenplace node`, with the same TOKEN_PLACE_STATE_DIR and "
            "with its status page on."
        ) from None
