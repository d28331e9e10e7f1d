"""What the generated parts of the pages are made with: Markdown tables, and what docstrings say."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "tokenplace"

Rows = Iterable[Sequence[object]]
BAR = "\\|"


def table(head: Sequence[str], rows: Rows) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(str(cell).replace(chr(124), BAR) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def described(file: str, owner: str | None = None) -> dict[str, str]:
    """Names that are assigned in a module (or in one of its classes), each with the string that stands below it."""
    body: list[ast.stmt] = ast.parse((SOURCE / file).read_text()).body
    if owner is not None:
        body = next(node.body for node in body if isinstance(node, ast.ClassDef) and node.name == owner)
    found: dict[str, str] = {}
    for index, statement in enumerate(body):
        if isinstance(statement, ast.Assign):
            target: ast.expr = statement.targets[0]
        elif isinstance(statement, ast.AnnAssign):
            target = statement.target
        else:
            continue
        if isinstance(target, ast.Name):
            below = body[index + 1] if index + 1 < len(body) else None
            text = ast.get_docstring(ast.Module([below], [])) if isinstance(below, ast.Expr) else None
            found[target.id] = " ".join((text or "").split())
    return found
