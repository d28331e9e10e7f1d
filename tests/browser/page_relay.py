"""A relay that serves the page, for the browser tests: `python page_relay.py PORT [HOST]`. Serves until it is ended."""

from __future__ import annotations

import asyncio
import socket
import sys

from tokenplace.cli.serving import bind, configure_logs, serving, stop_signal
from tokenplace.relay.app import Relay
from tokenplace.relay.broker import Broker
from tokenplace.relay.proof import verify
from tokenplace.web.page import create_page


async def main(port: int, host: str) -> None:
    with stop_signal() as stop:
        listener = bind(host, port)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with serving(Relay(Broker(), verify, guest=create_page()), listener):
            await stop.wait()


configure_logs("WARNING")
asyncio.run(main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"))
