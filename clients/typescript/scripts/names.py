"""Writes the table in `src/openai/names.ts` from the catalogue, or checks it (`--check`)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tokenplace.openai.catalogue import Catalogue

FILE = Path(__file__).parents[1] / "src" / "openai" / "names.ts"
TABLE = re.compile(r"(?<=string>> = \{\n).*?(?=^\})", re.DOTALL | re.MULTILINE)


def table() -> str:
    """One line for each name that is not served under itself."""
    catalogue = Catalogue.load()
    names = [*catalogue.aliases, *(adapter.id for adapter in catalogue.adapters)]
    served = {name: catalogue.served_as(catalogue.canonical(name)) for name in names}
    return "".join(f"  '{name}': '{id}',\n" for name, id in sorted(served.items()) if name != id)


def main() -> None:
    """Write, or check."""
    text = FILE.read_text(encoding="utf-8")
    fresh = TABLE.sub(table(), text)
    if "--check" in sys.argv:
        sys.exit(0 if text == fresh else f"{FILE.name} is not what the catalogue says; run {Path(__file__).name}")
    FILE.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()
