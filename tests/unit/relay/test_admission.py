"""Who may serve: invitations, the deny list, links per address."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tokenplace.errors import TokenPlaceError
from tokenplace.relay.address import Client
from tokenplace.relay.admission import Admission, BadDenyList, Guest, NotAdmitted, parse_deny_list
from tokenplace.relay.guesses import Guesses
from tokenplace.relay.invitations import BadInvitations, InvitationFile
from tokenplace.wire.ids import show_node_id
from tokenplace.wire.messages import Hello
from unit.relay.test_links import ME, a_card

HOST = "relay.example"
ANN = Client(ip_address("198.51.100.1"), "198.51.100.1")
NONCE = bytes(32)


def a_hello(token: str | None = None) -> Hello:
    return Hello(a_card(), ME.sign_hello(NONCE, HOST), HOST, 1, token)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Door:
    """An admission with files of its own and a clock of its own."""

    def __init__(self, folder: Path, *, tokens: tuple[str, ...] = (), links: int = 64) -> None:
        self.now = 1_000_000.0
        self.invitations = InvitationFile(folder / "invitations.json")
        self.denied = folder / "denied"
        self._folder, self._tokens, self._links = folder, tokens, links

    def open(self, guesses: Guesses | None = None) -> Admission:
        return Admission(
            lambda *_: True,
            tokens=self._tokens,
            invitations=self.invitations.path,
            denied=self.denied,
            links_per_address=self._links,
            wall=lambda: self.now,
            guesses=guesses,
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


def test_a_file_that_says_nothing_any_more_does_not_open_the_door(door: Door) -> None:
    door.invite()
    admission = door.open()
    door.invitations.path.write_text('{"format": 1, "invitations": []}')
    for each in (admission, door.open()):
        with pytest.raises(NotAdmitted):
            enter(each)
        assert each.by_invitation


def test_a_file_that_cannot_be_reached_is_not_one_that_is_missing(door: Door, tmp_path: Path) -> None:
    (tmp_path / "no folder").write_text("")
    for file in ("invitations", "denied"):
        path = {file: tmp_path / "no folder" / "file"}
        with pytest.raises(TokenPlaceError, match="cannot be read"):
            Admission(lambda *_: True, invitations=path.get("invitations"), denied=path.get("denied"))


def test_a_door_whose_first_invitations_cannot_be_read_is_closed_until_they_can(door: Door) -> None:
    admission = door.open()
    enter(admission)
    door.invitations.path.write_text("{")
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(NotAdmitted):
                enter(admission)
    assert [line["event"] for line in logs] == ["relay.file_unreadable"], "once, however often it is looked at"
    door.invitations.path.unlink()
    _, token = door.invite()
    enter(admission, token)


def test_how_the_door_stands_is_told_without_a_secret(door: Door) -> None:
    with capture_logs() as logs:
        door.open().announce()
    assert logs[-1]["admission"] == "every node"
    _, token = door.invite()
    door.denied.write_text("198.51.100.0/24\n")
    admission = Admission(
        lambda *_: True, tokens=["0123456789abcdef", "weak"], invitations=door.invitations.path, denied=door.denied
    )
    with capture_logs() as logs:
        admission.announce()
    assert {"admission": "by invitation", "invitations": 1, "tokens": 2, "denied": 1}.items() <= logs[-1].items()
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["relay.token_short"]
    assert not any(word in str(logs) for word in (token, "weak", "0123456789abcdef"))


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


def test_a_mapped_address_on_the_deny_list_is_the_address_it_maps(door: Door) -> None:
    for line in ("::ffff:198.51.100.1", "::ffff:198.51.100.0/120", "::ffff:0:0/96"):
        assert parse_deny_list(line).denies(None, ANN), line
    assert not parse_deny_list("::ffff:198.51.100.2").denies(None, ANN)


def test_who_guesses_is_heard_no_more_and_nobody_else_is_refused_for_it(tmp_path: Path) -> None:
    door, clock = Door(tmp_path, tokens=("one",)), Clock()
    _, made = door.invite()
    admission = door.open(Guesses(clock))
    other = Client(ip_address("198.51.100.2"), "198.51.100.2")
    for number in range(10):
        with pytest.raises(NotAdmitted, match="not one of"):
            enter(admission, str(number))
    with pytest.raises(NotAdmitted, match="60 seconds"):
        enter(admission, "one")
    enter(admission, "one", other)
    assert enter(admission, made).digest, "nobody guesses 32 random bytes: who has them is let in"
    clock.now += 60
    enter(admission, "one")


def test_a_node_that_shows_the_same_wrong_invitation_again_and_again_guesses_nothing(tmp_path: Path) -> None:
    door = Door(tmp_path, tokens=("one",))
    name, old = door.invite()
    admission = door.open()
    door.invitations.revoke(name, int(door.now))
    for _ in range(50):
        for token in ("of another relay", old, None):
            with pytest.raises(NotAdmitted):
                enter(admission, token)
    enter(admission, "one")


def test_the_name_a_stranger_dialled_is_told_to_the_stranger_alone(door: Door) -> None:
    words = "my secret sentence"
    hello = Hello(a_card(), ME.sign_hello(NONCE, words), words, 1, None)
    with pytest.raises(NotAdmitted) as caught:
        door.open().admit(hello, NONCE, "a host that is words", ANN)
    for said in (words, "words"):
        assert said not in caught.value.message
        assert said in caught.value.told


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
