"""`tokenplace verify`: one line and one status."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import typer

from tokenplace.errors import SignatureError, WrongSignature
from tokenplace.sealing.minisign import PublicKey
from tokenplace.sealing.signature import check, read_public_key, read_signature

GOOD, BAD, UNCHECKED = 0, 1, 2

_SUFFIXES = (".minisig", ".sig")
_PIECE = 1 << 20
_MOST = 64 * 1024
"""No key and no signature is larger."""


def run(file: Path, signature: Path | None, public_key: str | None) -> int:
    """Say in one line whether `file` is what was signed, and give the status."""
    try:
        key = _key(public_key, files("tokenplace.sealing") / "release.pub")
        found = signature or _beside(file)
        checked = check(key, read_signature(_read(found)), pieces(file))
    except WrongSignature as wrong:
        return _say(f"{file}: BAD. {wrong.message}", BAD)
    except SignatureError as error:
        return _say(f"{file}: not checked. {error.message}", UNCHECKED)
    comment = f" Signed with it: {_printable(checked.trusted_comment)}" if checked.trusted_comment else ""
    return _say(f"{file}: good, signature {found}.{comment}", GOOD)


def pieces(file: Path) -> Iterator[bytes]:
    """A file in pieces of a mebibyte. Raises SignatureError when it cannot be read."""
    try:
        with file.open("rb") as opened:
            while piece := opened.read(_PIECE):
                yield piece
    except OSError as error:
        raise SignatureError(f"{file} cannot be read ({error.strerror}).") from None


def _say(line: str, status: int) -> int:
    typer.echo(line, err=status != GOOD)
    return status


def _key(named: str | None, ours: Traversable) -> PublicKey:
    """The key that was named (a file, or minisign's text), else the key of our releases."""
    if named is None:
        if not ours.is_file():
            raise SignatureError("This build knows no key of token.place's releases; name one with --public-key.")
        return read_public_key(ours.read_text(encoding="utf-8"))
    if named.startswith("RW") and len(named) == 56 and not Path(named).exists():
        return read_public_key(named)
    return read_public_key(_read(Path(named)))


def _beside(file: Path) -> Path:
    for suffix in _SUFFIXES:
        found = file.with_name(file.name + suffix)
        if found.exists():
            return found
    raise SignatureError(f"There is no {file.name}.minisig and no {file.name}.sig beside it; name the signature.")


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST + 1)
        if len(raw) > _MOST:
            raise SignatureError(f"{path} is too large to be a key or a signature.")
        return raw.decode()
    except OSError as error:
        raise SignatureError(f"{path} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise SignatureError(f"{path} is no text, so it is neither a key nor a signature.") from None


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)
