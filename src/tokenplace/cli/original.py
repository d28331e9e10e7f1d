"""The original's three programs and their flags, each a door to the command that does the work today."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from urllib.parse import urlsplit

from tokenplace.cli.config import take
from tokenplace.client.settings import ClientSettings
from tokenplace.errors import TokenPlaceError

_DEFAULT_URL, _DEFAULT_PORT = "http://localhost", 5000


def relay() -> None:
    """`python relay.py`: a relay with a gateway. With `--use_mock_llm` an echo node serves beside it."""
    parser = argparse.ArgumentParser(description="token.place relay")
    parser.add_argument("--port", type=int)
    parser.add_argument("--host")
    parser.add_argument("--use_mock_llm", action="store_true", help="answer with the echo engine, for tests")
    args = parser.parse_args()
    given = {"--host": args.host, "--port": args.port}
    address = [word for flag, value in given.items() if value is not None for word in (flag, str(value))]
    _settle("relay")
    if args.use_mock_llm or os.environ.get("USE_MOCK_LLM") == "1":
        _run(["up", *address, "--engine", "echo"])
    _run(["relay", *address])


def server() -> None:
    """`python server.py`: a node with its status page. Without relay flags it serves those that the environment
    names, else the one on this machine."""
    parser = argparse.ArgumentParser(description="token.place node")
    parser.add_argument("--relay_url")
    parser.add_argument("--relay_port", type=int)
    parser.add_argument("--server_host", help="where the status page listens")
    parser.add_argument("--server_port", type=int, help="port of the status page and /health")
    parser.add_argument("--use_mock_llm", action="store_true", help="answer with the echo engine, for tests")
    args = parser.parse_args()
    command = ["node"]
    if args.relay_url or args.relay_port:
        command += ["--relay", _joined(args.relay_url or _DEFAULT_URL, args.relay_port or _DEFAULT_PORT)]
    given = {"--status-host": args.server_host, "--status-port": args.server_port}
    command += [word for flag, value in given.items() if value is not None for word in (flag, str(value))]
    _run([*command, "--engine", "echo"] if args.use_mock_llm else command)


def client() -> None:
    """`python client.py`: a chat in the terminal."""
    parser = argparse.ArgumentParser(description="token.place chat")
    parser.add_argument("--relay_port", type=int)
    parser.add_argument("--message", help="ask this, print the answer, end")
    args = parser.parse_args()
    _settle("chat")
    relays = ClientSettings.read(os.environ).relays
    relay_url = _joined(_DEFAULT_URL, args.relay_port) if args.relay_port else relays[0]
    _run(["chat", "--relay", relay_url, *(["--message", args.message] if args.message else [])])


def _settle(command: str) -> None:
    """Let the configuration's layers count here as well; what is wrong with them the command itself will say."""
    with suppress(TokenPlaceError):
        take(command, silent=True)


def _joined(url: str, port: int) -> str:
    """The original gives the port apart; a URL that has one keeps it."""
    return url if urlsplit(url).port else f"{url.rstrip('/')}:{port}"


def _run(arguments: list[str]) -> None:
    from tokenplace.cli.main import app

    sys.exit(app(arguments))
