"""The dashboard asks for what there is, and what there is has a meaning."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from docs.generate import metric_families
from docs.pages import ROOT

BOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "token.place.json").read_text())
QUERIES = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
QUERIES += [each["query"]["query"] for each in BOARD["templating"]["list"] if each["type"] == "query"]


def known() -> dict[str, set[str]]:
    """Every series by its name, with its labels."""
    series: dict[str, set[str]] = {}
    for name, kind, labels, _ in metric_families():
        own = set(labels.split(", ")) - {""}
        series[name] = own
        if kind == "histogram":
            series |= {f"{name}_bucket": own | {"le"}, f"{name}_sum": own, f"{name}_count": own}
    return series


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_names_metrics_and_labels_that_exist(query: str) -> None:
    series = known()
    asked = re.findall(r"\b(?:tokenplace|process|python)_\w+", query)
    assert asked
    for name in asked:
        assert name in series or name in ("process_resident_memory_bytes", "process_cpu_seconds_total"), name
    allowed = {"instance"}.union(*(series.get(name, set()) for name in asked))
    for group in re.findall(r"by \(([^)]*)\)", query):
        assert {label.strip() for label in group.split(",")} <= allowed
    for selector in re.findall(r"\{([^}]*)\}", query):
        assert set(re.findall(r"(\w+)=~?", selector)) <= allowed


def test_every_panel_has_a_place_of_its_own() -> None:
    cells = [
        (x, y)
        for panel in BOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_every_metric_says_what_it_tells() -> None:
    for name, _, _, told in metric_families():
        assert told.strip(), name
