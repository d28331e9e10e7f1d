"""The page as an ASGI application: what it serves, what it refuses, and what it tells browsers."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tokenplace.web.page import App, create_page

SITE = Path(__file__).parents[2] / "src" / "tokenplace" / "web" / "site"
NAMES = sorted(str(file.relative_to(SITE)) for file in SITE.rglob("*") if file.is_file() and file.suffix != ".html")
PAGES = {"/": "index.html", "/community": "community.html"}


async def ask(app: App, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("the page reads no bodies")

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await app({"type": "http", "method": method, "path": path, "headers": given}, receive, send)
    start, body = sent
    answered = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], answered, body["body"]


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_itself_is_asked_for_again_each_time(path: str) -> None:
    status, headers, body = await ask(create_page(), path)
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["cache-control"] == "no-cache"
    assert body == (SITE / PAGES[path]).read_bytes()
    assert (await ask(create_page(), path, if_none_match=headers["etag"]))[0] == 304


@pytest.mark.parametrize("name", NAMES)
async def test_every_file_has_its_type_and_a_hashed_one_is_kept(name: str) -> None:
    status, headers, body = await ask(create_page(), f"/{name}")
    assert status == 200
    assert body == (SITE / name).read_bytes()
    assert headers["content-type"].split(";")[0] in {"text/javascript", "text/css", "image/svg+xml"}
    assert ("immutable" in headers["cache-control"]) is name.startswith("assets/")
    assert headers["x-content-type-options"] == "nosniff"


async def test_files_travel_compressed_to_those_who_can_read_it() -> None:
    app = create_page()
    status, headers, body = await ask(app, "/", accept_encoding="br, gzip")
    assert status == 200
    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == (SITE / "index.html").read_bytes()
    _, headers, body = await ask(app, "/", "HEAD")
    assert body == b""
    assert int(headers["content-length"]) == (SITE / "index.html").stat().st_size


@pytest.mark.parametrize(
    "path",
    [
        "/index.html/",
        "/assets/",
        "/assets/../page.py",
        "/../page.py",
        "//etc/passwd",
        "/assets/%2e%2e/page.py",
        "/site/index.html",
        "",
    ],
)
async def test_no_path_reaches_anything_else(path: str) -> None:
    status, headers, body = await ask(create_page(), path)
    assert status == 404
    assert headers["content-type"] == "application/json"
    assert b'"not_found"' in body


async def test_the_page_takes_nothing() -> None:
    status, headers, _ = await ask(create_page(), "/", "POST")
    assert status == 405
    assert headers["allow"] == "GET, HEAD"


async def test_what_is_not_the_pages_goes_on() -> None:
    seen: list[str] = []

    async def otherwise(scope: Any, receive: Any, send: Any) -> None:
        del receive, send
        seen.append(scope["path"])

    app = create_page(otherwise)

    async def nothing(*_: Any) -> Any:
        return None

    await app({"type": "http", "method": "GET", "path": "/v1/models", "headers": []}, nothing, nothing)
    await app({"type": "websocket", "path": "/relay/v2/link", "headers": []}, nothing, nothing)
    assert seen == ["/v1/models", "/relay/v2/link"]


async def test_the_policy_leaves_no_way_out() -> None:
    policy = dict(
        part.split(" ", 1) for part in (await ask(create_page(), "/"))[1]["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["style-src"] == policy["connect-src"] == "'self'"
    assert re.fullmatch(r"'self' 'sha256-[^']+'", policy["script-src"])
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in str(policy)
    assert "http" not in str(policy)


@pytest.mark.parametrize("name", PAGES.values())
async def test_scripts_and_styles_are_named_with_their_hashes_and_none_is_inline(name: str) -> None:
    page = (SITE / name).read_text("utf-8")
    tags = re.findall(r"<(?:script(?= [^>]*src)|link rel=\"(?:stylesheet|modulepreload)\")[^>]*>", page)
    assert len(tags) >= 2
    for tag in tags:
        (path,) = re.findall(r"(?:src|href)=\"\./([^\"]+)\"", tag)
        (digest,) = re.findall(r"integrity=\"sha384-([^\"]+)\"", tag)
        assert hashlib.sha384((SITE / path).read_bytes()).digest() == base64.b64decode(digest)
    assert [tag for tag in re.findall(r"<script[^>]*>", page) if "src=" not in tag] == ['<script type="importmap">']
    assert not re.search(r"<style|\sstyle=|\son\w+=|https?://", page)


@pytest.mark.parametrize("path", PAGES)
async def test_scripts_that_are_loaded_later_have_their_hashes_in_a_map_that_nobody_can_replace(path: str) -> None:
    _, headers, body = await ask(create_page(), path)
    (text,) = re.findall(rb'<script type="importmap">(.*?)</script>', body, re.DOTALL)
    hashes = json.loads(text)["integrity"]
    assert set(hashes) == {f"./{name}" for name in NAMES if name.endswith(".js")}
    for name, digest in hashes.items():
        content = (SITE / name).read_bytes()
        assert digest == "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode()
    of_the_map = base64.b64encode(hashlib.sha256(text).digest()).decode()
    assert f"script-src 'self' 'sha256-{of_the_map}';" in headers["content-security-policy"]
    _, headers, _ = await ask(create_page(), "/nothing")
    assert "script-src 'self';" in headers["content-security-policy"]
