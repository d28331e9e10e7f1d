"""Which token.place this is: its version, and a digest of the very files that run.

The digest lets anybody compare a running relay with the list that a release brings (`builds.txt`). It is what the relay
says of itself: one that was changed to lie can say anything.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _installed
from importlib.resources import files
from importlib.resources.abc import Traversable


@cache
def version() -> str:
    """The installed version."""
    try:
        return _installed("tokenplace")
    except PackageNotFoundError:  # run from a copied tree
        return "unknown"


@cache
def build_digest() -> str:
    """`sha256:…` over the names and contents of every file of the installed package; compiled files do not count."""
    return digest_of(files("tokenplace"))


def digest_of(package: Traversable) -> str:
    """The digest of a package wherever it lies: in a directory or in an archive."""
    whole = hashlib.sha256()
    for name, file in sorted(_files(package, "")):
        whole.update(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {name}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def _files(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for each in folder.iterdir():
        if each.is_dir():
            if each.name != "__pycache__":
                found += _files(each, f"{prefix}{each.name}/")
        elif not each.name.endswith((".pyc", ".pyo")):
            found.append((prefix + each.name, each))
    return found
