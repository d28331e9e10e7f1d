"""`tokenplace relay invite`: who may serve at a relay of one's own."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from tokenplace.cli.friendly import friendly
from tokenplace.errors import TokenPlaceError

if TYPE_CHECKING:
    from tokenplace.relay.invitations import InvitationFile

invite_app = typer.Typer(help="Invitations for nodes: create, list, revoke.", no_args_is_help=True)

_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_LONGEST = 10 * 366 * 86400


def seconds_of(text: str) -> int:
    """A span such as 90m, 12h, 30d or 8w in seconds. Raises TokenPlaceError."""
    found = re.fullmatch(r"([0-9]{1,6})([mhdw])", text.strip().lower())
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= _LONGEST:
        raise TokenPlaceError(
            f"--expires: {text[:20]!r} is no span; write for example 12h, 30d or 8w, ten years at most."
        )
    return seconds


@invite_app.command("create")
def create(
    label: Annotated[str, typer.Option(help="For whom it is; only you see this.")],
    expires: Annotated[str | None, typer.Option(help="For how long: 12h, 30d, 8w.", show_default="for ever")] = None,
) -> None:
    """Make an invitation. Its token is shown once; a running relay takes it from now on."""
    with friendly("relay"):
        now = int(time.time())
        file = _file()
        made, token = file.create(label[:100], now, now + seconds_of(expires) if expires is not None else None)
        until = f", until {_date(made.expires)}" if made.expires is not None else ""
        typer.echo(f"Invitation {made.id} for {made.label!r}{until}. The node shows it as", err=True)
        typer.echo(f"TOKEN_PLACE_RELAY_SERVER_TOKEN={token}")
        typer.echo(f"It is not shown again. Kept (as a digest) in {file.path}", err=True)


@invite_app.command("list")
def list_() -> None:
    """All invitations, oldest first."""
    with friendly("relay"):
        now = time.time()
        kept = _file().read()
        for each in kept:
            until = _date(each.expires) if each.expires is not None else "-"
            typer.echo(f"{each.id}  {each.state(now):8}  {_date(each.created)}  {until:10}  {each.label}")
        if not kept:
            typer.echo("There are no invitations; unless the environment has some, every node may serve.", err=True)


@invite_app.command("revoke")
def revoke(
    invitation: Annotated[str, typer.Argument(help="The invitation's id, as `list` shows it.")],
) -> None:
    """Withdraw an invitation: nodes that came in with it are sent away within seconds."""
    with friendly("relay"):
        gone = _file().revoke(invitation, int(time.time()))
        typer.echo(f"Invitation {gone.id} for {gone.label!r} is withdrawn.", err=True)


def _file() -> InvitationFile:
    from tokenplace.cli.relay import read_settings
    from tokenplace.relay.invitations import InvitationFile

    return InvitationFile(read_settings()[0].invitation_file)


def _date(moment: int) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"
