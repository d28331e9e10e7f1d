"""`tokenplace voucher`: vouch for nodes, so that whoever trusts you may trust them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from tokenplace.cli.friendly import friendly
from tokenplace.errors import TokenPlaceError

voucher_app = typer.Typer(help="Vouch for nodes: a signed list that clients may trust.", no_args_is_help=True)
_ISSUER = "issuer-identity"
_DAY_MS = 24 * 60 * 60 * 1000


@voucher_app.command("make")
def make(
    nodes: Annotated[list[str], typer.Argument(help="Ids of the nodes you vouch for.")],
    days: Annotated[int, typer.Option(min=1, max=3650, help="For how many days.")] = 90,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here.", show_default="stdout")] = None,
) -> None:
    """Sign a voucher with your identity as an issuer, which is made at the first time and kept in the state folder."""
    with friendly():
        from tokenplace.node.home import load_identity
        from tokenplace.wire.ids import parse_node_id, show_node_id

        issuer = load_identity(_home(), _ISSUER)
        ids = [parse_node_id(node) for node in nodes]
        voucher = issuer.sign_voucher(ids, now_ms=time.time_ns() // 1_000_000, life_ms=days * _DAY_MS)
        if output is None:
            typer.echo(voucher.text)
        else:
            _write(output, voucher.text + "\n")
        typer.echo(
            f"Clients believe it with TOKEN_PLACE_TRUSTED_ISSUERS={show_node_id(voucher.issuer)} "
            f"and TOKEN_PLACE_VOUCHERS={output or 'FILE'}",
            err=True,
        )


@voucher_app.command("show")
def show(file: Annotated[Path, typer.Argument(help="A voucher's file.")]) -> None:
    """What a voucher says, and whether its signature holds. Exit code 1 when it does not, or when it has expired."""
    with friendly():
        from tokenplace.sealing.identity import verify_voucher
        from tokenplace.wire.ids import show_node_id
        from tokenplace.wire.voucher import Voucher

        text = _read(file)
        voucher = Voucher.parse(text)
        typer.echo(f"issuer   {show_node_id(voucher.issuer)}")
        typer.echo(f"expires  {datetime.fromtimestamp(voucher.expires_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC")
        for node in voucher.nodes:
            typer.echo(f"node     {show_node_id(node)}")
        verify_voucher(text, [voucher.issuer], now_ms=time.time_ns() // 1_000_000)
        typer.echo("The signature holds.")


def _home() -> Path:
    from tokenplace.node.settings import NodeSettings

    return NodeSettings().home


def _read(file: Path) -> str:
    try:
        return file.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenPlaceError(f"{file} cannot be read ({type(error).__name__}).") from None


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text)
    except OSError as error:
        raise TokenPlaceError(f"{file} cannot be written: {error.strerror}.") from None
