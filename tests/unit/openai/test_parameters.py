"""docs/reference/parameters.md says of every parameter what the code does, and names a test that exists."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tokenplace.gateway.flavours import OPERATIONS, Operation
from tokenplace.openai.drawing import NOT_DRAWN
from tokenplace.openai.requests import NOT_HONOURED
from tokenplace.openai.responses import NOT_KEPT

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/reference/parameters.md").read_text(encoding="utf-8")
REFUSED: Mapping[str, Mapping[str, Any]] = {
    "/chat/completions": NOT_HONOURED,
    "/completions": NOT_HONOURED,
    "/responses": NOT_KEPT,
    "/embeddings": {},
    "/images/generations": NOT_DRAWN,
}
_ROW = re.compile(r"^\| `(\w+)` \| (honoured|translated|refused|no effect) \| .* \| `(\S+)::(\w+)` \|$", re.M)


def rows(operation: Operation) -> list[tuple[str, str, str, str]]:
    section = PAGE.split(f"\n## {operation.path}\n")[1].partition("\n## ")[0]
    found = _ROW.findall(section)
    assert len(found) == section.count("\n|") - 2, "every line of the table can be read"
    return found


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.path)
def test_the_page_has_every_parameter_once_and_no_other(operation: Operation) -> None:
    named = [name for name, *_ in rows(operation)]
    taken = {field.alias or name for name, field in operation.shape.model_fields.items()}
    assert sorted(named) == sorted(taken | set(REFUSED[operation.path]))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.path)
def test_what_the_code_refuses_by_name_is_refused_on_the_page(operation: Operation) -> None:
    said = {name: verdict for name, verdict, *_ in rows(operation)}
    assert {said[name] for name in REFUSED[operation.path]} <= {"refused"}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.path)
def test_every_test_that_is_named_exists(operation: Operation) -> None:
    for _, _, path, test in rows(operation):
        assert re.search(rf"def {test}\(", (ROOT / path).read_text(encoding="utf-8")), f"{path}::{test}"
