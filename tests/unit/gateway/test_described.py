from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tokenplace.community import routes
from tokenplace.gateway.described import describe
from tokenplace.gateway.flavours import FLAVOURS, OPERATIONS
from tokenplace.gateway.page import page

DOCUMENT = describe(FLAVOURS)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_every_reference_leads_somewhere() -> None:
    found = set(references(DOCUMENT))
    assert found
    for reference in found:
        place: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_every_route_of_every_version_is_described() -> None:
    for flavour in FLAVOURS:
        for prefix in flavour.prefixes:
            for operation in flavour.operations:
                assert "post" in DOCUMENT["paths"][f"{prefix}{operation.path}"]
    assert "/v2/images/generations" not in DOCUMENT["paths"]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.path)
def test_every_parameter_of_a_shape_is_in_the_document(operation: Any) -> None:
    shape = DOCUMENT["components"]["schemas"][operation.shape.__name__]
    assert set(shape["properties"]) == {field.alias or name for name, field in operation.shape.model_fields.items()}


def test_the_notice_board_is_described_where_it_is_and_nowhere_else() -> None:
    described = {path for path in DOCUMENT["paths"] if "community" in path or "server-providers" in path}
    board = {
        value
        for name, value in vars(routes).items()
        if name.isupper() and name not in ("PAGE", "PROVIDERS", "SERVER_PROVIDERS", "_OURS")
    }
    assert described == board | {*routes.PROVIDERS, *routes.SERVER_PROVIDERS}


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1", "/v2", "/api/v2"])
def test_encrypted_requests_and_their_keys_are_described_where_they_are_taken(prefix: str) -> None:
    def bodies(path: str) -> str:
        return str(DOCUMENT["paths"][prefix + path]["post"]["requestBody"])

    assert "EncryptedChat" in bodies("/chat/completions")
    assert "EncryptedCompletion" in bodies("/completions")
    assert "Encrypted" not in bodies("/embeddings")
    assert "get" in DOCUMENT["paths"][f"{prefix}/public-key"]
    assert "post" in DOCUMENT["paths"][f"{prefix}/public-key/rotate"]


def test_only_what_streams_says_so() -> None:
    def kinds(path: str) -> set[str]:
        return set(DOCUMENT["paths"][path]["post"]["responses"]["200"]["content"])

    assert kinds("/v2/responses") == {"application/json", "text/event-stream"}
    assert kinds("/v1/responses") == kinds("/v2/embeddings") == {"application/json"}


def test_the_page_asks_no_other_host_for_anything_and_runs_nothing() -> None:
    shown = page(DOCUMENT)
    assert not re.search(r"https?://|<script|<link|<img|@import|url\(", shown)
    for path in DOCUMENT["paths"]:
        assert path in shown
    assert "max_completion_tokens" in shown
