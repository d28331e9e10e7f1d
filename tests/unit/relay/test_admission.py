"""Who may serve: invitations, the deny list, links per address."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

import pytest

from tokenplace.errors import TokenPlaceError
from tokenplace.relay.address import Client
from tokenplace.relay.admission import Admission, BadDenyList, Guest, NotAdmitted, parse_deny_list
from tokenplace.relay.invitations import BadInvitations, InvitationFile
from tokenplace.wire.ids import show_node_id
from tokenplace.wire.messages import Hello
from unit.relay.test_links import ME, a_card

HOST = "relay.example"
ANN = Client(ip_address("198.51.100.1"), "198.51.100.1")
NONCE = bytes(32)


def a_hello(token: str | None = None) -> Hello:
    return Hello(a_card(), ME.sign_hello(NONCE, HOST), HOST, 1, token)


class Door:
    """An admission with files of its own and a clock of its own."""

    def __init__(self, folder: Path, *, tokens: tuple[str, ...] = (), links: int = 64) -> None:
        self.now = 1_000_000.0
        self.invitations = InvitationFile(folder / "invitations.json")
        self.denied = folder / "denied"
        self._folder, self._tokens, self._links = folder, tokens, links

    def open(self) -> Admission:
        return Admission(
            lambda *_: True,
            tokens=self._tokens,
            invitations=self.invitations.path,
            denied=self.denied,
            links_per_address=self._links,
            wall=lambda: self.now,
        )

    def invite(self, expires: int | None = None) -> tuple[str, str]:
        made, token = self.invitations.create("bob", int(self.now), expires)
        return made.id, token


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def enter(admission: Admission, token: str | None = None, client: Client = ANN) -> Guest:
    return admission.admit(a_hello(token), NONCE, HOST, client)


def test_without_invitations_every_node_may_serve(door: Door) -> None:
    admission = door.open()
    assert not admission.by_invitation
    assert enter(admission).digest is None


def test_an_invitation_made_while_the_relay_runs_counts_at_once(door: Door) -> None:
    admission = door.open()
    _, token = door.invite()
    assert enter(admission, token).digest is not None
    with pytest.raises(NotAdmitted, match="TOKEN_PLACE_RELAY_SERVER_TOKEN"):
        enter(admission)
    with pytest.raises(NotAdmitted, match="not one of"):
        enter(admission, token + "x")
    assert admission.refused == {"not_invited": 2}


def test_a_withdrawn_invitation_lets_nobody_in_and_sends_away_who_came_with_it(door: Door) -> None:
    name, token = door.invite()
    _, other = door.invite()
    admission = door.open()
    guests = [enter(admission, token), enter(admission, other)]
    assert list(admission.unwelcome(guests)) == []
    door.invitations.revoke(name, int(door.now))
    assert admission.refresh()
    assert [guest for guest, _ in admission.unwelcome(guests)] == guests[:1]
    with pytest.raises(NotAdmitted, match="revoked"):
        enter(admission, token)


def test_to_withdraw_the_last_invitation_does_not_open_the_door(door: Door) -> None:
    name, _ = door.invite()
    admission = door.open()
    door.invitations.revoke(name, int(door.now))
    for each in (admission, door.open()):
        with pytest.raises(NotAdmitted):
            enter(each)


def test_a_file_that_vanishes_under_a_running_relay_does_not_open_the_door(door: Door) -> None:
    _, token = door.invite()
    admission = door.open()
    door.invitations.path.unlink()
    with pytest.raises(NotAdmitted):
        enter(admission)
    enter(admission, token)


def test_an_invitation_ends_when_it_was_told_to(door: Door) -> None:
    _, token = door.invite(expires=int(door.now) + 60)
    admission = door.open()
    guest = enter(admission, token)
    door.now += 61
    assert [gone for gone, _ in admission.unwelcome([guest])] == [guest]
    with pytest.raises(NotAdmitted, match="expired"):
        enter(admission, token)


def test_invitations_of_the_environment_hold_beside_those_of_the_file(tmp_path: Path) -> None:
    door = Door(tmp_path, tokens=("one", "two"))
    _, token = door.invite()
    admission = door.open()
    assert [enter(admission, each).digest is None for each in ("one", "two", token)] == [True, True, False]


def test_a_token_is_kept_nowhere_and_the_file_is_its_owner_s(door: Door) -> None:
    _, token = door.invite()
    text = door.invitations.path.read_text()
    assert token not in text
    assert token.removeprefix("tpi_") not in text
    assert stat.S_IMODE(door.invitations.path.stat().st_mode) == 0o600


def test_two_who_invite_at_once_lose_nothing(door: Door) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = [each.result()[0] for each in [pool.submit(door.invite) for _ in range(40)]]
    assert {each.id for each in door.invitations.read()} == set(made)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2, "invitations": []}', '{"format": 1, "invitations": [{"id": 1}]}']
)
def test_a_broken_file_is_told_at_the_start_and_changes_nothing_later(door: Door, text: str) -> None:
    _, token = door.invite()
    admission = door.open()
    door.invitations.path.write_text(text)
    assert not admission.refresh()
    enter(admission, token)
    with pytest.raises(TokenPlaceError):
        door.open()
    with pytest.raises(BadInvitations):
        door.invite()
    assert door.invitations.path.read_text() == text, "what cannot be read is not written over"


def test_who_is_on_the_deny_list_may_not_serve_and_is_sent_away(door: Door) -> None:
    admission = door.open()
    guest = enter(admission)
    door.denied.write_text(f"# a comment\n\n{show_node_id(guest.node)}  # and why\n")
    admission.refresh()
    assert [gone for gone, _ in admission.unwelcome([guest])] == [guest]
    with pytest.raises(NotAdmitted, match="operator"):
        enter(admission)
    door.denied.write_text("198.51.100.0/24\n2001:db8::1\n")
    admission.refresh()
    assert [gone for gone, _ in admission.unwelcome([guest])] == [guest]
    with pytest.raises(NotAdmitted), admission.link(ANN):
        pass
    door.denied.write_text("")
    admission.refresh()
    enter(admission)


def test_a_slip_in_the_deny_list_names_its_line(door: Door) -> None:
    with pytest.raises(BadDenyList, match="line 2"):
        parse_deny_list("10.0.0.1\nsomebody\n")
    door.denied.write_text("somebody\n")
    with pytest.raises(BadDenyList):
        door.open()


def test_one_address_holds_so_many_links(tmp_path: Path) -> None:
    admission = Door(tmp_path, links=2).open()
    other = Client(ip_address("198.51.100.2"), "198.51.100.2")
    with admission.link(ANN), admission.link(ANN), admission.link(other):
        assert admission.open_links == 3
        with pytest.raises(NotAdmitted, match="2 links"), admission.link(ANN):
            pass
    with admission.link(ANN):
        assert admission.open_links == 1
    assert admission.open_links == 0


def test_a_node_s_identity_is_looked_at_before_its_invitation(door: Door) -> None:
    _, token = door.invite()
    forged = Admission(lambda *_: False, invitations=door.invitations.path)
    with pytest.raises(NotAdmitted, match="challenge"):
        enter(forged, token)
    assert forged.refused == {"no_proof": 1}


def test_the_file_can_be_read_by_people(door: Door) -> None:
    door.invite()
    (kept,) = json.loads(door.invitations.path.read_text())["invitations"]
    assert kept["label"] == "bob"
