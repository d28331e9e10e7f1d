"""The pages of the documentation, read as text."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_AT_THE_ROOT = ("README", "CONTRIBUTING", "SECURITY", "CODE_OF_CONDUCT", "AGENTS", "CLAUDE", "CHANGELOG")
_BLOCK = re.compile(r"^```([a-z]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| `([^`]+)`", re.MULTILINE)


def read(name: str) -> str:
    """A page by its path from the root."""
    return (ROOT / name).read_text()


def every_page() -> list[Path]:
    """Every page that people read."""
    return [
        *(ROOT / f"{name}.md" for name in _AT_THE_ROOT),
        ROOT / "llms.txt",
        ROOT / "spec" / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]


def blocks(name: str, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return [text for kind, text in _BLOCK.findall(read(name)) if kind == language]


def without_code(text: str) -> str:
    """A page without its code blocks."""
    return _BLOCK.sub("", text)


def first_cells(name: str) -> list[str]:
    """What stands in code in the first column of a page's tables."""
    return _ROW.findall(read(name))
