"""`tokenplace community`: what an operator does with offers of machines and with comments."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from tokenplace.cli.friendly import friendly
from tokenplace.cli.invite import seconds_of

if TYPE_CHECKING:
    from tokenplace.community.contributions import Contribution
    from tokenplace.community.desk import Desk
    from tokenplace.community.feedback import Vote

community_app = typer.Typer(
    help="The notice board: look through what was sent, accept it or decline it.", no_args_is_help=True
)
Id = Annotated[str, typer.Argument(help="The id, or the first letters of it, four at least.")]
Invite = Annotated[
    bool, typer.Option("--invite", help="Make an invitation also where the relay takes every node until now.")
]
Expires = Annotated[
    str | None, typer.Option(help="How long the invitation holds: 12h, 30d, 8w.", show_default="for ever")
]


@community_app.command("list")
def community_list() -> None:
    """Every offer of a machine in the queue, one line each, accepted or not."""
    with friendly("relay"):
        from tokenplace.community.texts import on_one_line

        offers = _desk().offers()
        for each in offers:
            offer = each.offer
            line = f"{each.submitted_at}  {offer.operator_name}, {offer.region}: {', '.join(offer.capabilities)}"
            typer.echo(f"{each.id[:8]}  {each.decision:8}  {on_one_line(line)}")
        if not offers:
            typer.echo("Nobody has offered a machine.")


@community_app.command("review")
def community_review() -> None:
    """What waits for a decision, in full: offers with how to reach their senders, and comments."""
    with friendly("relay"):
        from tokenplace.community.contributions import Decision

        desk = _desk()
        offers = [each for each in desk.offers() if each.decision is Decision.PENDING]
        comments = desk.comments()
        for each in offers:
            _show_offer(each)
        for vote in comments:
            _show_comment(vote)
        typer.echo(
            f"{len(offers)} offers and {len(comments)} comments wait. "
            "`tokenplace community accept ID` or `decline ID` decides."
        )


@community_app.command("accept")
def community_accept(id: Id, invite: Invite = False, expires: Expires = None) -> None:
    """Take an offer and make an invitation for its sender; or let a comment be shown."""
    with friendly("relay"):
        from tokenplace.community.contributions import Contribution

        seconds = None if expires is None else seconds_of(expires)
        accepted = _desk().accept(id)
        if not isinstance(accepted, Contribution):
            typer.echo("Accepted: the leaderboard shows this comment now.")
            return
        _show_offer(accepted)
        _invite(accepted, invite, seconds)


@community_app.command("decline")
def community_decline(id: Id) -> None:
    """Delete an offer with all that its sender wrote; or a comment, whose rating stays."""
    with friendly("relay"):
        from tokenplace.community.contributions import Contribution

        declined = _desk().decline(id)
        what = "The offer and its contact are" if isinstance(declined, Contribution) else "The comment is"
        typer.echo(f"Declined. {what} deleted.")


def _desk() -> Desk:
    from tokenplace.community.desk import Desk
    from tokenplace.community.files import Files
    from tokenplace.community.settings import CommunitySettings

    def told(path: object, what: str) -> None:
        typer.secho(f"{path} {what}", err=True, fg=typer.colors.YELLOW)

    return Desk(Files(CommunitySettings(), told))


def _invite(accepted: Contribution, wanted: bool, seconds: int | None) -> None:
    """The invitation that an accepted offer brings; its token is told once and kept nowhere.

    A relay that takes every node would take only invited ones from its first invitation on: that is not ours to start.
    """
    from tokenplace.relay.invitations import InvitationFile
    from tokenplace.relay.settings import RelaySettings

    settings = RelaySettings()
    file = InvitationFile(settings.invitation_file)
    if not (wanted or settings.tokens or file.read()):
        typer.echo("Accepted. This relay takes every node, so that no invitation is needed.")
        return
    now = int(time.time())
    made, token = file.create(f"offer {accepted.id[:8]}", now, None if seconds is None else now + seconds)
    typer.echo(
        "Accepted. Send this to them, by a way that only they read; it is not shown again:\n\n"
        f"  TOKEN_PLACE_RELAY_SERVER_TOKEN={token}\n\n"
        f"`tokenplace relay invite revoke {made.id}` withdraws it."
    )


def _show_offer(each: Contribution) -> None:
    from tokenplace.community.texts import on_one_line

    offer = each.offer
    rows = {
        "name": offer.operator_name,
        "region": offer.region,
        "available": offer.availability,
        "can do": ", ".join(offer.capabilities),
        "hardware": offer.hardware,
        "notes": offer.notes,
        **offer.contact,
    }
    typer.secho(f"offer {each.id}  {on_one_line(each.submitted_at)}", bold=True)
    for name, said in rows.items():
        if said:
            typer.echo(f"  {name:10} {on_one_line(said)}")


def _show_comment(vote: Vote) -> None:
    from tokenplace.community.texts import on_one_line

    typer.secho(f"comment {vote.id}  on {on_one_line(vote.model)}, {vote.rating:g} of 5", bold=True)
    typer.echo(f"  {on_one_line(vote.comment)}")
