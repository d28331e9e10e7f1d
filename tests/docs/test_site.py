"""The site: every page is in it, and every link in what was built leads somewhere."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import build_site
from docs.pages import ROOT, read


def listed(nav: object) -> Iterator[str]:
    """The pages that a navigation names."""
    match nav:
        case str(page):
            yield page
        case list(parts):
            for part in parts:
                yield from listed(part)
        case dict(parts):
            yield from listed(list(parts.values()))


def test_the_navigation_names_every_page_but_single_decisions() -> None:
    named = list(listed(tomllib.loads(read("zensical.toml"))["project"]["nav"]))
    places = {str(place) for place in build_site.places().values()}
    assert len(named) == len(set(named))
    assert set(named) <= places
    assert {place for place in places - set(named) if not place.startswith("adr/")} == set()


def test_links_are_written_anew_for_the_site_and_code_is_left_alone() -> None:
    page = ROOT / "docs" / "index.md"
    text = (
        "[a](../SECURITY.md#x) [b](adr/) [c](../deploy/render.py) [d](https://e.example/f.md)\n```\n[g](../h.md)\n```\n"
    )
    made = build_site.relinked(text, page, build_site.places())
    assert made == (
        "[a](project/security.md#x) [b](adr/README.md) c [d](https://e.example/f.md)\n```\n[g](../h.md)\n```\n"
    )


class Page(HTMLParser):
    """What a page points to, what can be pointed to in it, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in ("script", "img", "iframe") and "src" in found:
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "preload", "icon"):
            self.loads.append(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("the generator is not here: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, str(ROOT / "scripts/build_site.py"), str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert made.returncode == 0, made.stdout + made.stderr
    return {file: Page(file.read_text()) for file in sorted(folder.rglob("*.html"))}


@pytest.mark.heavy
def test_every_link_and_anchor_inside_the_site_leads_somewhere(site: dict[Path, Page]) -> None:
    dead = []
    for file, page in site.items():
        if file.name == "404.html":
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                dead.append(f"{file.parent.name}: {link}")
            elif parts.fragment and target in site and unquote(parts.fragment) not in site[target].anchors:
                dead.append(f"{file.parent.name}: {link} (no such place)")
    assert dead == []
    assert len(site) > 40


@pytest.mark.heavy
def test_the_site_loads_nothing_from_other_servers(site: dict[Path, Page]) -> None:
    abroad = {each for page in site.values() for each in page.loads if urlsplit(each).netloc}
    assert abroad == set()
    assert all("mermaid" not in file.read_text() for file in site), "a diagram that would be drawn by others' code"
