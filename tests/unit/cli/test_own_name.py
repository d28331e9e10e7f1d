"""Whose pages may ask a gateway on a person's own machine."""

from __future__ import annotations

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from tokenplace.cli.own_name import OwnName

OURS = ["127.0.0.1:8000", "localhost", "[::1]:8000", "192.168.1.7", "gateway:8000", "box.local", "my.host.internal"]
THEIRS = ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "1.evil.example."]


def ask(names: tuple[str, ...] = (), **headers: str) -> tuple[int, str]:
    http = TestClient(OwnName(PlainTextResponse("asked"), names))
    answer = http.post("/v1/chat/completions", headers=headers)
    return answer.status_code, "asked" if answer.text == "asked" else answer.json()["error"]["code"]


@pytest.mark.parametrize("host", OURS)
def test_names_of_this_machine_are_answered(host: str) -> None:
    assert ask(host=host) == (200, "asked")
    assert ask(host=host, origin=f"http://{host}") == (200, "asked")


@pytest.mark.parametrize("host", THEIRS)
def test_a_name_that_somebody_pointed_here_is_not_answered(host: str) -> None:
    assert ask(host=host, origin=f"http://{host}") == (421, "wrong_host")


@pytest.mark.parametrize("name", THEIRS)
def test_a_page_from_elsewhere_asks_nothing_here(name: str) -> None:
    assert ask(host="127.0.0.1:8000", origin=f"https://{name}") == (403, "wrong_origin")


@pytest.mark.parametrize("origin", ["null", "file://", "tauri://localhost", "http://localhost:5173"])
def test_programs_and_pages_of_this_machine_may_say_what_they_are(origin: str) -> None:
    assert ask(host="127.0.0.1", origin=origin) == (200, "asked")


def test_a_name_that_its_owner_listed_is_one_of_ours() -> None:
    listed = ("llm.example",)
    assert ask(listed, host="LLM.example:443", origin="https://llm.example") == (200, "asked")
    assert ask(listed, host="other.example") == (421, "wrong_host")


@pytest.mark.parametrize("host", ["[::1", "[", "a@b@c.example", "//evil.example"])
def test_a_host_that_is_none_is_refused_and_no_fault_of_ours(host: str) -> None:
    assert ask(host=host)[0] == 421
