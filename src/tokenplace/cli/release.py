"""`tokenplace release`: what a maintainer does with the files of a release."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import typer

from tokenplace.cli.verify import pieces
from tokenplace.errors import SignatureError
from tokenplace.sealing.minisign import SecretKey, shown
from tokenplace.sealing.signature import hash_of, plain_text

CHECKSUMS = "checksums.txt"


def make_key(key: Path, public_key: Path, password_file: Path | None, *, encrypted: bool) -> None:
    """Make a key pair; files that are there are left alone. Raises SignatureError."""
    for path in (key, public_key):
        if path.exists():
            raise SignatureError(f"{path} is there already; a key is never overwritten.")
    password = _password(password_file, new=True)() if encrypted else None
    if password == "":
        raise SignatureError("The password is empty; say --unencrypted if that is meant.")
    made = SecretKey.generate()
    _write(key, made.to_text(password), mode=0o600)
    _write(public_key, made.public.text, mode=0o644)
    if password is None:
        typer.echo(f"tokenplace: {key} lies open; whoever reads it can sign", err=True)
    typer.echo(f"key {shown(made.public.key_id)}: secret in {key}, public in {public_key}")


def sign_files(
    files: Iterable[Path], key: Path, password_file: Path | None, *, comment: str | None, plain: bool
) -> None:
    """Write a signature beside each file. Raises SignatureError."""
    try:
        text = key.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        raise SignatureError(f"{key} cannot be read as a secret key.") from None
    secret = SecretKey.parse(text, _password(password_file, new=False))
    for file in files:
        if plain:
            signature = file.with_name(f"{file.name}.sig")
            _write(signature, plain_text(secret.sign_plain(b"".join(pieces(file)))), mode=0o644)
        else:
            signature = file.with_name(f"{file.name}.minisig")
            told = comment or f"timestamp:{int(time.time())}\tfile:{file.name}\thashed"
            _write(signature, secret.sign(hash_of(pieces(file)), told).text, mode=0o644)
        typer.echo(str(signature))


def write_checksums(folder: Path) -> None:
    """`checksums.txt` as `sha256sum --check` reads it, over every file but itself and signatures.

    Raises SignatureError for a folder that cannot be read or is empty.
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file() and _counts(path))
    except OSError as error:
        raise SignatureError(f"{folder} cannot be read ({error.strerror}).") from None
    if not names:
        raise SignatureError(f"There are no files in {folder}.")
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in names]
    _write(folder / CHECKSUMS, "".join(lines), mode=0o644)
    typer.echo(str(folder / CHECKSUMS))


def _counts(path: Path) -> bool:
    return path.name != CHECKSUMS and path.suffix not in (".minisig", ".sig") and not path.name.startswith(".")


def _sha256(file: Path) -> str:
    whole = hashlib.sha256()
    for piece in pieces(file):
        whole.update(piece)
    return whole.hexdigest()


def _password(file: Path | None, *, new: bool) -> Callable[[], str]:
    """Where the password comes from: a file's first line, or the terminal."""

    def read() -> str:
        if file is None:
            said: str = typer.prompt("Password of the signing key", hide_input=True, confirmation_prompt=new, err=True)
            return said
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise SignatureError(f"{file} cannot be read.") from None
        return lines[0] if lines else ""

    return read


def _write(path: Path, text: str, mode: int) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as opened:
                opened.write(text)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise SignatureError(f"{path} cannot be written ({error.strerror}).") from None
