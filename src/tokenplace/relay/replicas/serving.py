"""Streams of clients at other replicas whose node is here: the owner's side. Pure.

The broker here does everything: queue, job table, credit, outcome. A Reader stands where a client's connection would.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tokenplace.errors import Refused, TokenPlaceError, TooLarge, WireError
from tokenplace.relay.broker import Broker
from tokenplace.relay.jobs import Step
from tokenplace.relay.replicas.errands import parse_total
from tokenplace.relay.replicas.messages import Frame, Kind, pack_fields, parse_fields
from tokenplace.relay.replicas.peers import Peer
from tokenplace.relay.replicas.wires import Haste
from tokenplace.relay.tickets import Ticket
from tokenplace.wire.classic import job_of
from tokenplace.wire.ids import JobId, NodeId, parse_job_id, parse_node_id
from tokenplace.wire.limits import MAX_REQUEST
from tokenplace.wire.messages import Outcome, Reason


@dataclass(slots=True, eq=False)
class Upload:
    """A request that arrives in parts. Its memory is reserved."""

    node: NodeId
    linger: float
    size: int
    client: str
    body: bytearray = field(default_factory=bytearray)


class Reader:
    """A ticket's client, far away: called when there is something to take, it sends it on."""

    __slots__ = ("_peer", "_place", "_step", "sent", "stream", "taken", "ticket")

    def __init__(self, peer: Peer, stream: int, ticket: Ticket, place: int) -> None:
        self.stream = stream
        self.ticket = ticket
        self.taken = self.sent = 0
        self._peer = peer
        self._place = place
        self._step = ticket.job.step

    @property
    def holds(self) -> bool:
        """Whether the ticket is still this reader's."""
        return self.ticket.wake is self

    def __call__(self) -> None:
        """Wake up: send on what waits, then how it stands or ended."""
        ticket, out = self.ticket, self._peer.out
        if not self.holds:
            self._end(Reason(Outcome.MOVED, "The client goes on over another connection."))
            return
        data = ticket.take()
        if data:
            out.put(Kind.DATA, self.stream, data, Haste.SOON if self.sent else Haste.NOW)
            self.sent += len(data)
        if ticket.ended is not None:
            self._end(ticket.ended)
        else:
            self.look(self._place)

    def look(self, place: int) -> None:
        """Say where the job stands, if that has changed."""
        if place != self._place or self.ticket.job.step is not self._step:
            self._place, self._step = place, self.ticket.job.step
            self._peer.out.put(Kind.STATE, self.stream, stand(self.ticket, place), Haste.LATER)

    def _end(self, reason: Reason) -> None:
        if self._peer.readers.pop(self.stream, None) is not None:
            self._peer.out.put(Kind.ENDED, self.stream, pack_fields(reason.fields()))


class Serving:
    """All streams that other replicas have opened here."""

    def __init__(self, broker: Broker) -> None:
        self.counts: Counter[str] = Counter()
        self._broker = broker

    def hear(self, peer: Peer, frame: Frame, now: float) -> None:
        """A frame of an opener. Raises WireError when it is none; what the broker refuses is told."""
        stream = frame.stream
        try:
            match frame.kind:
                case Kind.SUBMIT:
                    self._begin(peer, stream, parse_fields(frame.payload))
                case Kind.PART:
                    self._go_on(peer, stream, frame.payload, now)
                case Kind.ATTACH:
                    self._attach(peer, stream, parse_fields(frame.payload), now)
                case Kind.CANCEL:
                    fields = parse_fields(frame.payload)
                    self._broker.cancel(_job(fields), _node(fields))
                    peer.out.put(Kind.OPENED, stream, pack_fields({}))
                case Kind.TAKEN:
                    self._taken(peer, stream, parse_total(frame.payload), now)
                case Kind.LEFT:
                    self._left(peer, stream, now)
        except TokenPlaceError as error:
            peer.out.put(Kind.REFUSED, stream, pack_fields(_told(error)))

    def look(self, peer: Peer) -> None:
        """Now and then: tell who waits how far they have come. An offer wakes nobody, nor does a shorter queue."""
        for reader in peer.readers.values():
            waits = reader.ticket.job.step is Step.QUEUED
            reader.look(self._broker.position(reader.ticket) if waits else 0)

    def drop(self, peer: Peer, now: float) -> None:
        """The way to a peer broke. Its clients' connections count as broken too."""
        for upload in peer.uploads.values():
            self._broker.release(upload.size, upload.client)
        peer.uploads.clear()
        readers = list(peer.readers.values())
        peer.readers.clear()
        for reader in readers:
            self._leave(reader, now)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _begin(self, peer: Peer, stream: int, fields: dict[str, Any]) -> None:
        node, client = _node(fields), _client(peer, fields)
        size = _whole(fields, "size")
        if size > MAX_REQUEST:
            raise TooLarge(f"A sealed request has at most {MAX_REQUEST} bytes.")
        self._broker.check_door(node, client)
        self._broker.reserve(size, client)
        peer.uploads[stream] = Upload(node, _seconds(fields), size, client)

    def _go_on(self, peer: Peer, stream: int, part: bytes, now: float) -> None:
        upload = peer.uploads.get(stream)
        if upload is None:
            return  # refused at its first word
        upload.body += part
        if len(upload.body) < upload.size:
            return
        del peer.uploads[stream]
        sealed = bytes(upload.body[: upload.size])
        try:
            ticket = self._broker.submit(job_of(sealed), sealed, upload.node, upload.linger, now, upload.client)
        except TokenPlaceError:
            self._broker.release(upload.size, upload.client)
            raise
        self.counts["submit"] += 1
        self._open(peer, stream, ticket)

    def _attach(self, peer: Peer, stream: int, fields: dict[str, Any], now: float) -> None:
        job, node, client = _job(fields), _node(fields), _client(peer, fields)
        ticket = self._broker.attach(job, node, _whole(fields, "next"), _seconds(fields), now, client)
        self.counts["attach"] += 1
        self._open(peer, stream, ticket)

    def _open(self, peer: Peer, stream: int, ticket: Ticket) -> None:
        place = self._broker.position(ticket)
        reader = Reader(peer, stream, ticket, place)
        ticket.wake = reader
        peer.readers[stream] = reader
        peer.out.put(Kind.OPENED, stream, stand(ticket, place), Haste.LATER)
        reader()  # what has come already, as when the client takes over a ticket

    def _taken(self, peer: Peer, stream: int, total: int, now: float) -> None:
        reader = peer.readers.get(stream)
        if reader is None or not reader.taken < total <= reader.sent:
            return
        size, reader.taken = total - reader.taken, total
        if reader.holds:
            self._broker.taken(reader.ticket, size, now)

    def _left(self, peer: Peer, stream: int, now: float) -> None:
        upload = peer.uploads.pop(stream, None)
        if upload is not None:
            self._broker.release(upload.size, upload.client)
        reader = peer.readers.pop(stream, None)
        if reader is not None:
            self._leave(reader, now)

    def _leave(self, reader: Reader, now: float) -> None:
        if reader.holds:
            self._broker.leave(reader.ticket, now)


def stand(ticket: Ticket, place: int) -> bytes:
    """For OPENED and STATE."""
    return pack_fields({"step": ticket.job.step.value, "position": place})


def _told(error: TokenPlaceError) -> dict[str, object]:
    status, retry_after = 400, None
    match error:
        case Refused():
            status, retry_after = int(error.status), error.retry_after
        case TooLarge():
            status = 413
    return {"code": error.code, "message": error.message, "status": status, "retry_after": retry_after}


def _client(peer: Peer, fields: dict[str, Any]) -> str:
    """Whose it is, as far as the opener tells: enough for fair shares."""
    return f"{peer.id}/{fields.get('client', '')}"


def _node(fields: dict[str, Any]) -> NodeId:
    return parse_node_id(str(fields.get("node")))


def _job(fields: dict[str, Any]) -> JobId:
    return parse_job_id(str(fields.get("job")))


def _whole(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or value < 0:
        raise WireError(f"{name} is a whole number.")
    return value


def _seconds(fields: dict[str, Any]) -> float:
    value = fields.get("linger")
    if not isinstance(value, int | float) or value < 0:
        raise WireError("linger is a number of seconds.")
    return float(value)
