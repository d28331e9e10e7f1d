"""Builds the documents as a site: `python scripts/build_site.py [DIRECTORY]` (site), strictly.

The generator wants all pages in one folder; ours stand where people look for them in a repository. So the pages of
`docs/` and those of the root are brought together in a folder of their own, and links between them are written anew. A
link to a file that is no page becomes the file's name.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
CONFIGURATION = ROOT / "zensical.toml"
ELSEWHERE = {
    "README.md": "project/readme.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CODE_OF_CONDUCT.md": "project/conduct.md",
    "SECURITY.md": "project/security.md",
    "AGENTS.md": "project/agents.md",
    "CHANGELOG.md": "project/changes.md",
    "spec/README.md": "reference/vectors.md",
}
"""Pages outside `docs/`, each with its place in the site."""

_LINK = re.compile(r"\[([^\]]*)\]\((?!\w+:|#)([^)\s#]*)(#[^)\s]*)?\)")
_BLOCK = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def places() -> dict[Path, Path]:
    """Every page with its place in the site."""
    pages = {page: page.relative_to(DOCS) for page in sorted(DOCS.rglob("*.md"))}
    return {**pages, **{ROOT / source: Path(place) for source, place in ELSEWHERE.items()}}


def relinked(text: str, page: Path, known: dict[Path, Path]) -> str:
    """The page's text, with links that lead to where the pages are in the site; code blocks stay as they are."""

    def anew(found: re.Match[str]) -> str:
        words, target, anchor = found[1], found[2], found[3] or ""
        path = (page.parent / target).resolve()
        if path.is_dir():
            path = next((path / name for name in ("index.md", "README.md") if (path / name) in known), path)
        if path not in known:
            return words
        return f"[{words}]({os.path.relpath(known[path], known[page].parent)}{anchor})"

    parts = _BLOCK.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(anew, part) for part in parts)


def stage(folder: Path) -> None:
    """All pages in one folder."""
    known = places()
    for page, place in known.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(relinked(page.read_text(), page, known))


def build(target: Path) -> None:
    """The site, anew. Raises CalledProcessError when the generator has anything to say against a page."""
    with tempfile.TemporaryDirectory() as folder:
        staged = Path(folder)
        stage(staged / "pages")
        shutil.copy(CONFIGURATION, staged)
        subprocess.run([sys.executable, "-m", "zensical", "build", "--clean", "--strict"], check=True, cwd=staged)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(staged / "html", target)
    shutil.copy(ROOT / "llms.txt", target)


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "site"))
