"""What the doctor says of the way to a relay: each fault produced for real, on loopback."""

from __future__ import annotations

import datetime
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from proxy import proxying
from stage import Program, free_port, nodes_at, staged
from tokenplace.node.checkup import network
from tokenplace.node.checkup.finding import Finding, Verdict

NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with staged(tmp_path_factory.mktemp("doctor")) as stage:
        yield stage.relay("--blind", env={"TOKEN_PLACE_RELAY_SERVER_TOKENS": "the-token"})


@contextmanager
def serving(*, date: float | None = None, body: bytes = b'{"status":"alive"}', context: Any = None) -> Iterator[str]:
    """Something that answers requests like a relay, but has no link."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            upgrade = "upgrade" in self.headers.get("Connection", "").lower()
            self.send_response_only(404 if upgrade else 200)
            if date is not None:
                self.send_header("Date", formatdate(date, usegmt=True))
            self.send_header("Content-Length", "0" if upgrade else str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"" if upgrade else body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def last(found: list[Finding]) -> tuple[str, Verdict]:
    return found[-1].name, found[-1].verdict


async def test_a_relay_that_takes_us_is_ok_in_every_line_and_nothing_stays_behind(relay: Program) -> None:
    found = await network.relay(relay.url, "the-token")
    assert [(each.name, each.verdict) for each in found] == [
        ("name", Verdict.OK),
        ("reach", Verdict.OK),
        ("clock", Verdict.OK),
        ("link", Verdict.OK),
    ]
    assert "welcome after" in found[-1].seen
    assert all(node["models"] == [] and node["slots"] == 0 for node in nodes_at(relay))


@pytest.mark.parametrize(("token", "says"), [(None, "TOKEN_PLACE_RELAY_SERVER_TOKEN"), ("wrong", "ask its operator")])
async def test_an_invitation_that_is_missing_or_wrong_is_told(relay: Program, token: str | None, says: str) -> None:
    found = await network.relay(relay.url, token)
    assert last(found) == ("admission", Verdict.BAD)
    assert says in found[-1].todo
    assert "wrong" not in found[-1].todo


async def test_a_name_that_does_not_exist_is_told() -> None:
    found = await network.relay("https://nowhere.invalid", None)
    assert last(found) == ("name", Verdict.BAD)
    assert "DNS" in found[-1].todo


async def test_an_address_that_is_none_is_told() -> None:
    assert last(await network.relay("ftp://relay.example", None)) == ("address", Verdict.BAD)


async def test_a_closed_port_is_told() -> None:
    found = await network.relay(f"http://127.0.0.1:{free_port()}", None)
    assert last(found) == ("reach", Verdict.BAD)
    assert "firewall" in found[-1].todo


async def test_something_else_that_listens_there_is_no_relay() -> None:
    for body in (b"<h1>Welcome</h1>", b"[]", b'{"status":"ok"}'):
        with serving(body=body) as url:
            found = await network.relay(url, None)
        assert last(found) == ("reach", Verdict.BAD)
        assert "is no relay" in found[-1].seen


async def test_a_way_that_does_not_pass_websockets_is_told_apart() -> None:
    with serving() as url:
        found = await network.relay(url, None)
    assert last(found) == ("link", Verdict.BAD)
    assert "404" in found[-1].seen
    assert "WebSocket" in found[-1].todo


@pytest.mark.parametrize(
    ("off", "verdict"), [(0.0, Verdict.OK), (-60.0, Verdict.HINT), (1000.0, Verdict.BAD), (-4000.0, Verdict.BAD)]
)
async def test_a_clock_that_is_off_is_told_with_by_how_much(off: float, verdict: Verdict) -> None:
    with serving(date=NOW) as url:
        found = await network.relay(url, None, wall=lambda: NOW + off)
    clock = next(each for each in found if each.name == "clock")
    assert clock.verdict is verdict
    if off:
        assert f"{abs(off):.0f} s {'ahead' if off > 0 else 'behind'}" in clock.seen


async def test_a_relay_that_tells_no_time_is_no_fault() -> None:
    with serving(date=None) as url:
        found = await network.relay(url, None)
    assert next(each for each in found if each.name == "clock").verdict is Verdict.OK


def certificate(folder: Path) -> ssl.SSLContext:
    """One that nobody has vouched for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay.example")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = folder / "both.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def test_a_certificate_that_nobody_vouches_for_is_told(tmp_path: Path) -> None:
    with serving(context=certificate(tmp_path)) as url:
        found = await network.relay(url, None)
    assert last(found) == ("reach", Verdict.BAD)
    assert "is not who it says" in found[-1].seen
    assert "SSL_CERT_FILE" in found[-1].todo


async def test_encryption_where_there_is_none_is_told(relay: Program) -> None:
    found = await network.relay(relay.url.replace("http:", "https:"), None)
    assert last(found) == ("reach", Verdict.BAD)


async def test_through_a_proxy_requests_and_websocket_pass(relay: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxying() as proxy:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("no_proxy", "")
        found = await network.relay(relay.url, "the-token")
    assert last(found) == ("link", Verdict.OK), found
    assert all(proxy.url.removeprefix("http://") in found[index].seen for index in (0, 1, 3))
    assert any(asked.startswith("CONNECT ") for asked in proxy.asked)


async def test_a_proxy_that_refuses_is_named(relay: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxying(status=407) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("http://", "http://me:secret@"))
        monkeypatch.setenv("no_proxy", "")
        found = await network.relay(relay.url, "the-token")
    assert last(found)[1] is Verdict.BAD
    assert "secret" not in str(found)
    assert "proxy" in found[-1].todo


async def test_a_relay_that_is_exempt_from_the_proxy_is_reached_without(
    relay: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert last(await network.relay(relay.url, "the-token")) == ("link", Verdict.OK)
