"""The original's three programs and their flags, each a door to the command that does the work today."""

from __future__ import annotations

import argparse
import os
import sys
from urllib.parse import urlsplit

from tokenplace.client.settings import ClientSettings

_DEFAULT_URL, _DEFAULT_PORT = "http://localhost", 5000


def relay() -> None:
    """`python relay.py`: a relay with a gateway. With `--use_mock_llm` an echo node serves beside it."""
    parser = argparse.ArgumentParser(description="token.place relay")
    parser.add_argument("--port", type=int, default=_DEFAULT_PORT)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--use_mock_llm", action="store_true", help="answer with the echo engine, for tests")
    args = parser.parse_args()
    if args.use_mock_llm or os.environ.get("USE_MOCK_LLM") == "1":
        _run(["up", "--host", args.host, "--port", str(args.port), "--engine", "echo"])
    _run(["relay", "--host", args.host, "--port", str(args.port)])


def server() -> None:
    """`python server.py`: a node. It listens nowhere, so the original's address flags are taken and not needed."""
    parser = argparse.ArgumentParser(description="token.place node")
    parser.add_argument("--relay_url", default=_DEFAULT_URL)
    parser.add_argument("--relay_port", type=int, default=_DEFAULT_PORT)
    parser.add_argument("--server_host", help="not needed any more: a node only dials out")
    parser.add_argument("--server_port", type=int, help="not needed any more: a node only dials out")
    parser.add_argument("--use_mock_llm", action="store_true", help="answer with the echo engine, for tests")
    args = parser.parse_args()
    command = ["node", "--relay", _joined(args.relay_url, args.relay_port)]
    _run([*command, "--engine", "echo"] if args.use_mock_llm else command)


def client() -> None:
    """`python client.py`: a chat in the terminal."""
    parser = argparse.ArgumentParser(description="token.place chat")
    parser.add_argument("--relay_port", type=int)
    parser.add_argument("--message", help="ask this, print the answer, end")
    args = parser.parse_args()
    relays = ClientSettings.read(os.environ).relays
    relay_url = _joined(_DEFAULT_URL, args.relay_port) if args.relay_port else relays[0]
    _run(["chat", "--relay", relay_url, *(["--message", args.message] if args.message else [])])


def _joined(url: str, port: int) -> str:
    """The original gives the port apart; a URL that has one keeps it."""
    return url if urlsplit(url).port else f"{url.rstrip('/')}:{port}"


def _run(arguments: list[str]) -> None:
    from tokenplace.cli.main import app

    sys.exit(app(arguments))
