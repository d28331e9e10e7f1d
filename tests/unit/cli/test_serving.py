"""Listening sockets."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tokenplace.cli.serving import PortTaken, address_of, bind


def test_connections_neither_wait_to_send_nor_fill_the_kernel() -> None:
    with bind("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        listener.setblocking(True)
        with listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * 128 * 1024


def test_a_taken_port_is_refused_or_the_next_one_used() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(PortTaken, match="--port"):
            bind("127.0.0.1", port)
        with bind("127.0.0.1", port, or_next=True) as second:
            assert second.getsockname()[1] > port


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]")])
def test_the_address_is_one_that_works_on_this_machine(host: str, shown: str) -> None:
    with bind(host, 0) as listener:
        assert address_of(listener) == f"http://{shown}:{listener.getsockname()[1]}"


def test_a_server_asks_for_as_many_open_files_as_it_may_have() -> None:
    resource = pytest.importorskip("resource")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, {0}));"
        "from tokenplace.cli.serving import max_files;"
        "print(max_files(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    ran = subprocess.run([sys.executable, "-c", code.format(hard)], capture_output=True, check=True, text=True)
    told, had = map(int, ran.stdout.split())
    assert told == had
    assert had == (65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536))
