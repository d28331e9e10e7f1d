"""The commands around the programs: their configuration, and the signatures of releases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokenplace.cli.friendly import friendly

config_app = typer.Typer(help="Settings: what holds and why, the files, writing one value.", no_args_is_help=True)
release_app = typer.Typer(help="For maintainers: keys, checksums and signatures of a release.", no_args_is_help=True)

SecretKey = Annotated[Path, typer.Option("--key", help="The secret key's file.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option("--password-file", help="A file whose first line is the key's password.", show_default="asks"),
]


@config_app.command("show")
def config_show(
    program: Annotated[
        str | None, typer.Option(help="Only relay, node, gateway, client or community.", show_default="all")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """Every setting's value and where it comes from; secrets are hidden."""
    with friendly():
        from tokenplace.cli.config import show

        show(program, as_json=as_json)


@config_app.command("path")
def config_path() -> None:
    """The files that settings are read from, the weakest first."""
    with friendly():
        from tokenplace.cli.config import paths

        paths()


@config_app.command("set")
def config_set(
    key: Annotated[str, typer.Argument(help="As in relay.port, or the variable's name.")],
    value: Annotated[str, typer.Argument(help="The value, as JSON or as plain text.")],
) -> None:
    """Write one value into the configuration file; never a secret."""
    with friendly():
        from tokenplace.cli.config import set_value

        set_value(key, value)


@config_app.command("save")
def config_save(file: Annotated[Path, typer.Argument(help="The JSON file to write.")]) -> None:
    """Write the values that hold now into a file, with null for secrets."""
    with friendly():
        from tokenplace.cli.config import save

        save(file)


def verify(
    file: Annotated[Path, typer.Argument(help="What was signed.")],
    signature: Annotated[
        Path | None, typer.Argument(help="Its signature; FILE.minisig or FILE.sig unless told.")
    ] = None,
    public_key: Annotated[
        str | None, typer.Option("--public-key", help="A key's file (minisign or PEM), or minisign's key itself: RW….")
    ] = None,
) -> None:
    """Check a file's signature: status 0 good, 1 bad, 2 could not be checked."""
    from tokenplace.cli.verify import run

    raise typer.Exit(run(file, signature, public_key))


@release_app.command("keygen")
def release_keygen(
    key: SecretKey,
    public_key: Annotated[Path, typer.Option("--public-key", help="Where the public key goes.")],
    password_file: PasswordFile = None,
    unencrypted: Annotated[bool, typer.Option("--unencrypted", help="Without a password, for tests only.")] = False,
) -> None:
    """Make a signing key in minisign's format."""
    with friendly():
        from tokenplace.cli.release import make_key

        make_key(key, public_key, password_file, encrypted=not unencrypted)


@release_app.command("sign")
def release_sign(
    files: Annotated[list[Path], typer.Argument(help="What to sign, each on its own.")],
    key: SecretKey,
    password_file: PasswordFile = None,
    comment: Annotated[
        str | None, typer.Option("--comment", help="Signed along with each file.", show_default="time and file name")
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="The original's format, FILE.sig, in place of minisign's FILE.minisig.")
    ] = False,
) -> None:
    """Sign files, so that minisign and `tokenplace verify` can check them."""
    with friendly():
        from tokenplace.cli.release import sign_files

        sign_files(files, key, password_file, comment=comment, plain=plain)


@release_app.command("checksums")
def release_checksums(
    folder: Annotated[Path, typer.Argument(help="The directory of a release's files.")],
) -> None:
    """Write checksums.txt (SHA-256) over every file of a release."""
    with friendly():
        from tokenplace.cli.release import write_checksums

        write_checksums(folder)
