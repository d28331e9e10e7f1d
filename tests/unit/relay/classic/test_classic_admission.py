"""Nodes that poll come past the same doorkeeper as those that dial in."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from tokenplace.relay.address import Client
from tokenplace.relay.admission import Admission, NotAdmitted

HERE = Client(ip_address("192.0.2.1"), "192.0.2.1")
DENIED = Client(ip_address("198.51.100.9"), "198.51.100.9")


def test_where_nobody_is_invited_everybody_may_poll() -> None:
    Admission(lambda *_: True).admit_poller(None, HERE)


@pytest.mark.parametrize("token", [None, "", "guess"])
def test_without_a_good_invitation_nobody_polls(token: str | None) -> None:
    admission = Admission(lambda *_: True, tokens=["one", "two"])
    for good in ("one", "two"):
        admission.admit_poller(good, HERE)
    with pytest.raises(NotAdmitted):
        admission.admit_poller(token, HERE)


def test_who_is_on_the_deny_list_does_not_poll_whatever_it_shows(tmp_path: Path) -> None:
    denied = tmp_path / "denied"
    denied.write_text("198.51.100.0/24  # noise\n")
    admission = Admission(lambda *_: True, tokens=["one"], denied=denied)
    admission.admit_poller("one", HERE)
    with pytest.raises(NotAdmitted):
        admission.admit_poller("one", DENIED)
