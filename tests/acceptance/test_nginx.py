"""A relay behind a real nginx, with the very configuration that we ship."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stage import PATIENCE, Program, Stage, free_port, nodes_at, staged, until

SHIPPED = Path(__file__).parents[2] / "deploy" / "nginx" / "token.place.conf"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

pytestmark = [
    pytest.mark.nginx,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed; on Debian and Ubuntu: apt install nginx-light"),
]


@dataclass
class Proxied:
    """A relay and a node, met only through nginx."""

    stage: Stage
    relay: Program
    port: int
    certificate: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @contextmanager
    def asking(
        self, body: str, path: str = "/v2/chat/completions", source: str = "127.0.0.1"
    ) -> Iterator[http.client.HTTPResponse]:
        trust = ssl.create_default_context(cafile=str(self.certificate))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=PATIENCE, context=trust, source_address=(source, 0)
        )
        with closing(connection):
            connection.request("POST", path, body, {"content-type": "application/json"})
            with connection.getresponse() as response:
                yield response


def a_question(text: str, stream: bool = False) -> str:
    return json.dumps({"model": "echo", "stream": stream, "messages": [{"role": "user", "content": text}]})


def a_certificate(folder: Path) -> tuple[Path, Path]:
    """Of 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, secret


def configured(folder: Path, port: int, relay: int, certificate: Path, key: Path) -> Path:
    """The shipped file with this test's ports and certificate, inside the least nginx that can run it."""
    text = SHIPPED.read_text()
    for old, new in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("    listen [::]:443 ssl;\n", ""),
        ("server 127.0.0.1:5000;", f"server 127.0.0.1:{relay};"),
        ("/etc/letsencrypt/live/relay.example/fullchain.pem", str(certificate)),
        ("/etc/letsencrypt/live/relay.example/privkey.pem", str(key)),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "token.place.conf").write_text(text)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = folder / "nginx.conf"
    main.write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log stderr warn;\n"
        + ("user root;\n" if os.geteuid() == 0 else "")
        + "events { worker_connections 512; }\n"
        + f"http {{\n{temporary}proxy_buffering on;\ninclude {folder}/token.place.conf;\n}}\n"
    )
    return main


def start_nginx(here: Proxied, main: Path) -> None:
    assert NGINX is not None
    command = [NGINX, "-e", "stderr", "-p", str(main.parent), "-c", str(main)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    here.stage.programs.append(Program("nginx", process))
    until(lambda: _answers(here.port), "nginx to be up")


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    folder = tmp_path_factory.mktemp("nginx")
    certificate, key = a_certificate(folder)
    with staged(folder) as stage:
        relay = stage.relay(env={"TOKEN_PLACE_TRUSTED_PROXIES": "127.0.0.1", "API_RATE_LIMIT": "1000/minute"})
        port = free_port()
        main = configured(folder, port, int(relay.url.rsplit(":", 1)[1]), certificate, key)
        here = Proxied(stage, relay, port, certificate)
        start_nginx(here, main)
        stage.start(
            "node",
            ["node", "--engine", "echo", "--relay", here.url],
            {"TOKEN_PLACE_ECHO_DELAY": "0.2", "SSL_CERT_FILE": str(certificate)},
        )
        until(lambda: nodes_at(relay), "the node's WebSocket to come through nginx")
        yield here


def _answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def arrivals(response: http.client.HTTPResponse) -> list[tuple[float, str]]:
    """Each line of a stream with the time at which it came."""
    lines = []
    while line := response.readline():
        if text := line.decode().strip():
            lines.append((time.monotonic(), text))
    return lines


def words_of(lines: list[tuple[float, str]]) -> list[tuple[float, str]]:
    found = []
    for moment, line in lines:
        if line.startswith("data: {"):
            chunk: dict[str, Any] = json.loads(line[6:])
            found += [
                (moment, choice["delta"]["content"]) for choice in chunk["choices"] if choice["delta"].get("content")
            ]
    return found


def test_words_come_one_by_one_through_a_proxy_that_buffers(proxied: Proxied) -> None:
    with proxied.asking(a_question("one two three four five six seven eight", stream=True)) as response:
        assert response.status == 200
        lines = arrivals(response)
    assert lines[-1][1] == "data: [DONE]"
    words = words_of(lines)
    assert len(words) >= 6
    moments = [moment for moment, _ in words]
    assert moments[-1] - moments[0] > 0.1 * len(words), "it all came at once"


def test_a_sealed_chat_passes_through_the_proxy(proxied: Proxied) -> None:
    program = proxied.stage.start(
        "chat", ["chat", "--relay", proxied.url, "-m", "hello there"], {"SSL_CERT_FILE": str(proxied.certificate)}
    )
    assert program.process.wait(PATIENCE) == 0, program.text
    program.finish()
    assert "hello there" in program.text


def test_a_request_of_several_megabytes_passes(proxied: Proxied) -> None:
    with proxied.asking(a_question("x" * 3_000_000)) as response:
        told = json.loads(response.read())
    assert response.status in (200, 400), told
    assert response.status == 200 or told["error"]["code"] == "context_length_exceeded"


def test_errors_arrive_as_they_were_sent(proxied: Proxied) -> None:
    with proxied.asking("{", "/v1/chat/completions") as response:
        assert response.status == 400
        assert json.loads(response.read())["error"]["type"] == "invalid_request_error"


def test_each_client_behind_the_proxy_has_limits_of_its_own(tmp_path: Path) -> None:
    certificate, key = a_certificate(tmp_path)
    with staged(tmp_path) as stage:
        relay = stage.relay(env={"TOKEN_PLACE_TRUSTED_PROXIES": "127.0.0.1", "API_RATE_LIMIT": "2/minute"})
        port = free_port()
        main = configured(tmp_path, port, int(relay.url.rsplit(":", 1)[1]), certificate, key)
        here = Proxied(stage, relay, port, certificate)
        start_nginx(here, main)
        for source in ("127.0.0.2", "127.0.0.3"):
            statuses = []
            for _ in range(3):
                with here.asking(a_question("one"), source=source) as response:
                    statuses.append(response.status)
            assert statuses[2] == 429
            assert 429 not in statuses[:2], "somebody else's requests were counted against this client"


@pytest.mark.heavy
def test_a_long_silence_of_the_model_is_bridged_through_the_proxy(tmp_path: Path, proxied: Proxied) -> None:
    proxied.stage.start(
        "slow",
        ["node", "--engine", "echo", "--relay", proxied.url, "--status-port", "0"],
        {"TOKEN_PLACE_ECHO_DELAY": "12", "SSL_CERT_FILE": str(proxied.certificate)},
    )
    until(lambda: len(nodes_at(proxied.relay)) == 2, "the slow node to be listed")
    for _ in range(20):
        with proxied.asking(a_question("one", stream=True)) as response:
            lines = arrivals(response)
        if lines[0][1].startswith(":"):
            break
    began = lines[0][0]
    assert lines[0][1].startswith(":"), "a sign of life comes before the first word"
    assert words_of(lines)[0][0] > began
