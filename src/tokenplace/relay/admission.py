"""Who may serve here: the proof of identity, the invitation, the deny list, and how many links one address may hold."""

from __future__ import annotations

import hmac
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from tokenplace.errors import TokenPlaceError, WireError
from tokenplace.relay.address import Client, IpNetwork, network_of
from tokenplace.relay.guesses import Guesses, TooManyGuesses
from tokenplace.relay.invitations import Book, digest_of, parse_book
from tokenplace.relay.watched import Rules
from tokenplace.wire.card import Card, hello_signing_input
from tokenplace.wire.ids import NodeId, parse_node_id
from tokenplace.wire.messages import Hello

Verifier = Callable[[bytes, bytes, bytes], bool]
"""(Ed25519 public key, signature, message) → whether it holds. Handed in by `cli`."""

LINKS_PER_ADDRESS = 64
"""A university behind one address lends many machines; more than this is somebody filling the list."""


SHORT_TOKEN = 16
"""Characters below which a token that somebody thought of is likely to be guessed."""

_log = structlog.get_logger("tokenplace.relay")


class NotAdmitted(TokenPlaceError):
    """This node may not serve here. `told` is the message with what the node itself said, for the node alone."""

    code = "not_admitted"

    def __init__(self, message: str = "", told: str | None = None) -> None:
        super().__init__(message)
        self.told = told if told is not None else self.message


class BadDenyList(TokenPlaceError):
    """The deny list cannot be read."""

    code = "bad_deny_list"


@dataclass(frozen=True, slots=True)
class DenyList:
    """Nodes and addresses that may not serve, whatever they show."""

    nodes: frozenset[NodeId] = frozenset()
    networks: tuple[IpNetwork, ...] = ()

    def denies(self, node: NodeId | None, client: Client) -> bool:
        """Whether this node, or a node at this address, is unwanted."""
        return node in self.nodes or (client.ip is not None and any(client.ip in each for each in self.networks))


def parse_deny_list(text: str) -> DenyList:
    """One node id, address or network a line; what follows a `#` is for people. Raises BadDenyList with the line."""
    nodes: set[NodeId] = set()
    networks: list[IpNetwork] = []
    for number, line in enumerate(text.splitlines(), start=1):
        word = line.partition("#")[0].strip()
        if not word:
            continue
        try:
            networks.append(network_of(word))
        except ValueError:
            try:
                nodes.add(parse_node_id(word))
            except WireError:
                raise BadDenyList(
                    f"TOKEN_PLACE_DENY, line {number}: {word[:60]!r} is no node id, no address and no network."
                ) from None
    return DenyList(frozenset(nodes), tuple(networks))


@dataclass(frozen=True, slots=True)
class Guest:
    """Somebody who was let in, and by what."""

    node: NodeId
    client: Client
    digest: str | None = None
    """Of the invitation from the file that was shown, if one was."""


class Admission:
    """The doorkeeper for nodes. `names` are the host names this relay answers to, in place of the one in the request.

    `tokens` are invitations of the environment, which hold until a restart; those in the file `invitations` can be
    made and withdrawn while the relay runs, as lines of the file `denied` can. Where neither tokens nor that file are,
    nor ever were while this runs, every node may serve. `guesses` may be shared with other doors that ask for secrets.
    Raises TokenPlaceError when a file cannot be read.
    """

    def __init__(
        self,
        verify: Verifier,
        *,
        names: Sequence[str] = (),
        tokens: Sequence[str] = (),
        invitations: Path | None = None,
        denied: Path | None = None,
        links_per_address: int = LINKS_PER_ADDRESS,
        wall: Callable[[], float] = time.time,
        guesses: Guesses | None = None,
    ) -> None:
        self._verify = verify
        self._names = frozenset(name.lower() for name in names)
        self._tokens = [token.encode() for token in tokens]
        empty: Book = {}
        self._book = Rules(invitations, parse_book, empty) if invitations is not None else None
        self._denied = Rules(denied, parse_deny_list, DenyList()) if denied is not None else None
        self._guesses = guesses if guesses is not None else Guesses()
        self._most = links_per_address
        self._wall = wall
        self._links: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        """How often each rule turned a node away, for the metrics."""

    @property
    def by_invitation(self) -> bool:
        """Whether a node must show an invitation. A file that is there asks for one, whatever it says or said."""
        return bool(self._tokens) or (self._book is not None and self._book.there)

    @property
    def open_links(self) -> int:
        """How many links there are, also of those who have not introduced themselves yet."""
        return self._links.total()

    @contextmanager
    def link(self, client: Client) -> Iterator[None]:
        """Hold one of the links that an address may have. Raises NotAdmitted for one too many, or a denied address."""
        if self._denied is not None and self._denied.value.denies(None, client):
            raise self._refuse("denied", "Nodes at this address may not serve here; ask the relay's operator why.")
        if self._links[client.key] >= self._most and not client.is_here:
            raise self._refuse(
                "too_many_links", f"One address may hold {self._most} links to this relay, and this one does already."
            )
        self._links[client.key] += 1
        try:
            yield
        finally:
            self._links[client.key] -= 1
            if not self._links[client.key]:
                del self._links[client.key]

    def admit(self, hello: Hello, nonce: bytes, host: str, client: Client) -> Guest:
        """Whether this node is who it says and may serve. Raises NotAdmitted with what its owner should do.

        The node signed the name it dialled. Where this relay knows its own names, one of them it must be, so that
        nobody in between can pass our challenge on; where it does not, the request's Host has to do.
        """
        if hello.authority.lower() not in (self._names or {host.lower()}):
            ours = ", ".join(sorted(self._names))
            raise self._refuse(
                "wrong_name",
                f"A node dialled another name than {ours or 'the Host header it came with'}. Give --name as nodes dial "
                "it, with the port if that is not 443 or 80, or pass the Host header through the proxy.",
                f"You dialled {hello.authority[:40]!r}, this relay is {(ours or host)[:40]!r} (its --name).",
            )
        identity = hello.card.body.identity
        if not self._verify(identity, hello.signature, hello_signing_input(nonce, hello.authority)):
            raise self._refuse("no_proof", "The answer to the challenge is not signed by the node's identity key.")
        self.check_card(hello.card)
        self.refresh()
        try:
            digest = self._invitation(hello.token, client)
        except TooManyGuesses as error:
            raise self._refuse("not_invited", error.message) from None
        guest = Guest(hello.card.node, client, digest)
        if self._denied is not None and self._denied.value.denies(guest.node, client):
            raise self._refuse("denied", "This node may not serve here; ask the relay's operator why.")
        return guest

    def admit_poller(self, token: str | None, client: Client) -> None:
        """Whether a node of the classic protocol may serve, which has no card to show.

        Raises NotAdmitted, or TooManyGuesses.
        """
        self.refresh()
        self._invitation(token, client)
        if self._denied is not None and self._denied.value.denies(None, client):
            raise self._refuse("denied", "Nodes at this address may not serve here; ask the relay's operator why.")

    def check_card(self, card: Card) -> None:
        """Whether a card is signed by its identity. Raises NotAdmitted."""
        if not self._verify(card.body.identity, card.signature, card.signing_input()):
            raise self._refuse("no_proof", "The card is not signed by the node's identity key.")

    def refresh(self) -> bool:
        """Look whether the files have changed; True when there is news. Two looks at their state."""
        changed = [file.refresh() for file in (self._book, self._denied) if file is not None]
        return any(changed)

    def unwelcome(self, guests: Iterable[Guest]) -> Iterator[tuple[Guest, str]]:
        """Who of those inside may not stay, each with the reason."""
        now = self._wall()
        denied = self._denied.value if self._denied is not None else DenyList()
        for guest in guests:
            if denied.denies(guest.node, guest.client):
                yield guest, "This node may not serve here any more; ask the relay's operator why."
            elif guest.digest is not None and self._book is not None:
                invitation = self._book.value.get(guest.digest)
                if invitation is None or not invitation.holds(now):
                    yield guest, "The invitation was withdrawn or has expired; ask the relay's operator for another."

    def announce(self) -> None:
        """Say in the log who may serve here: an operator sees at the start whether the door is as it was meant."""
        short = sum(len(token) < SHORT_TOKEN for token in self._tokens)
        if short:
            _log.warning("relay.token_short", setting="TOKEN_PLACE_RELAY_SERVER_TOKEN(S)", tokens=short)
        denied = self._denied.value if self._denied is not None else DenyList()
        _log.info(
            "relay.admission",
            admission="by invitation" if self.by_invitation else "every node",
            invitations=len(self._book.value) if self._book is not None else 0,
            tokens=len(self._tokens),
            denied=len(denied.nodes) + len(denied.networks),
        )

    def _invitation(self, token: str | None, client: Client) -> str | None:
        """The digest of the invitation of the file that was shown; None where another or none was needed.

        Those of the file are random: nobody guesses one, so who has one is let in whatever its neighbours try.
        """
        if not self.by_invitation:
            return None
        if not token:
            raise self._refuse(
                "not_invited",
                "This relay takes nodes with an invitation only; set TOKEN_PLACE_RELAY_SERVER_TOKEN on the node.",
            )
        invitation = self._book.value.get(digest_of(token)) if self._book is not None else None
        if invitation is not None:
            if not invitation.holds(self._wall()):
                state = invitation.state(self._wall())
                raise self._refuse("not_invited", f"The invitation is {state}; ask its operator for another.")
            return invitation.digest
        self._guesses.check(client)
        given = token.encode("utf-8", "replace")
        if sum(hmac.compare_digest(given, known) for known in self._tokens) > 0:  # no early end
            return None
        self._guesses.wrong(client, token)
        raise self._refuse("not_invited", "The invitation is not one of this relay's; ask its operator for another.")

    def _refuse(self, rule: str, message: str, told: str | None = None) -> NotAdmitted:
        self.refused[rule] += 1
        return NotAdmitted(message, told)
