"""The classic routes over HTTP: bodies in, the room's answers out, and waiting for news where the caller asks to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from tokenplace.errors import NodeUnknown, Refused, TokenPlaceError, WireError, whole_seconds
from tokenplace.relay.address import Client, client_address
from tokenplace.relay.asgi import ClientGone, Headers, Receive, Scope, Send, count_stream, header, marked, respond
from tokenplace.relay.body import OwnMemory, read_body
from tokenplace.relay.classic import shapes
from tokenplace.relay.classic.bounds import (
    MAX_BODY,
    MAX_CHUNK,
    MAX_WAITING,
    MAX_WAITING_PER_ADDRESS,
    SMALL_BODY,
)
from tokenplace.relay.classic.listening import listening
from tokenplace.relay.classic.polling import Caller
from tokenplace.relay.classic.questions import Owner, Question, digest, full, pack
from tokenplace.relay.classic.room import ClassicRoom, Polled, Read
from tokenplace.relay.guesses import TooManyGuesses

NEXT_SERVER, FAUCET, SINK, SOURCE = "/next_server", "/faucet", "/sink", "/source"
RETRIEVE, STREAM_SOURCE, STREAM_RETRIEVE = "/retrieve", "/stream/source", "/stream/retrieve"

Admit = Callable[[str | None, Client], None]
"""Whether a node with this invitation (or none) at that address may serve. Raises TokenPlaceError."""

Content = dict[str, Any] | bytes
Handler = Callable[[Scope, Receive, str], Awaitable[Content]]


class ClassicDoor:
    """Answers every route of the classic protocol. `admit` decides who may poll and answer."""

    def __init__(self, room: ClassicRoom, clock: Callable[[], float], admit: Admit) -> None:
        self._room = room
        self._clock = clock
        self._admit = admit
        self._waiting: Counter[str] = Counter()
        self._routes: dict[str, tuple[str, Handler]] = {
            NEXT_SERVER: ("GET", self._next_server),
            FAUCET: ("POST", self._faucet),
            SINK: ("POST", self._sink),
            SOURCE: ("POST", self._source),
            RETRIEVE: ("POST", self._retrieve),
            STREAM_SOURCE: ("POST", self._stream_source),
            STREAM_RETRIEVE: ("POST", self._stream_retrieve),
        }

    def __contains__(self, path: str) -> bool:
        """Whether this path is one of the classic routes."""
        return path in self._routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every fault of the caller is a named error in JSON."""
        path, method = scope["path"], scope["method"]
        send = marked(scope, send)
        allowed, handler = self._routes[path]
        try:
            if method == "OPTIONS":  # and no word to pages of other origins: mailboxes go by the address that asks
                await _respond(send, HTTPStatus.OK, b"", [_allow(allowed)])
                return
            if method != allowed and (method, allowed) != ("HEAD", "GET"):
                raise Refused("This route does not take that method.", code="method_not_allowed", status=405)
            if method == "POST":
                _check_type(scope)
            content = await handler(scope, receive, client_address(scope).key)
            await _respond(send, HTTPStatus.OK, content if isinstance(content, bytes) else pack(content))
        except ClientGone:
            return
        except TokenPlaceError as error:
            self._room.refusals[error.code] += 1
            found = shapes.fault(error, as_object=_as_object(path, error))
            extra: Headers = [_allow(allowed)] if found.status == HTTPStatus.METHOD_NOT_ALLOWED else []
            if found.retry_after is not None:
                extra.append((b"retry-after", whole_seconds(found.retry_after).encode()))
            await _respond(send, found.status, pack(found.content), extra)

    # -- clients ---------------------------------------------------------------------------------------------------

    async def _next_server(self, *_: object) -> Content:
        server = self._room.next_server(self._clock())
        if server is None:
            return {"error": {"message": "No server is connected now; try again shortly.", "code": 503}}
        named = {"key_id": server.key_id, "node": server.node}
        return {shapes.SERVER_KEY: server.key, **{name: value for name, value in named.items() if value is not None}}

    async def _faucet(self, scope: Scope, receive: Receive, address: str) -> Content:
        fields = await self._read(scope, receive, address, MAX_BODY)
        shapes.require(fields, shapes.SERVER_KEY, *shapes.FIELDS)
        if fields.get(shapes.CLIENT_KEY) is None:
            if fields.get("stream"):
                raise WireError(f"A stream needs a {shapes.CLIENT_KEY}.")
            self._room.unanswerable()
            return {"message": "Nobody is asked: without a client_public_key no answer could be read."}
        body = {shapes.CLIENT_KEY: shapes.client_key(fields), **shapes.words(fields, *shapes.FIELDS)}
        if fields.get("stream"):
            await count_stream(scope)
        question, token = self._room.ask(
            address,
            shapes.server_key(fields),
            body,
            stream=bool(fields.get("stream")),
            bound=bool(fields.get("bound")),
            now=self._clock(),
        )
        return {"message": "Request received", "request_id": question.id, "retrieve_token": token}

    async def _retrieve(self, scope: Scope, receive: Receive, address: str) -> Content:
        fields = await self._read(scope, receive, address, SMALL_BODY)
        owner, request_id, token = _reader(fields, address)
        if fields.get("cancel"):
            return self._cancel(owner, request_id, token)
        return await self._answered(self._room.retrieve, shapes.retrieved, fields, owner, receive)

    async def _stream_retrieve(self, scope: Scope, receive: Receive, address: str) -> Content:
        fields = await self._read(scope, receive, address, SMALL_BODY)
        owner, _, _ = _reader(fields, address)
        return await self._answered(self._room.stream_retrieve, shapes.streamed, fields, owner, receive)

    def _cancel(self, owner: Owner, request_id: str | None, token: str | None) -> Content:
        if request_id is None:
            raise WireError("Name the question to cancel with its request_id.")
        try:
            self._room.cancel(owner, request_id, token)
        except Refused as error:
            return shapes.fault(error, as_object=False).content
        return {"message": "Cancelled", "request_id": request_id}

    async def _answered(
        self,
        look: Callable[[Owner, str | None, str | None, float], Read | Question | None],
        shape: Callable[[Read], bytes],
        fields: dict[str, Any],
        owner: Owner,
        receive: Receive,
    ) -> Content:
        """Look until there is something, or the caller has waited long enough. Faults of a question come with 200."""
        _, request_id, token = _reader(fields, owner.address)
        until = self._clock() + shapes.wait_seconds(fields, self._room.timing.wait)
        try:
            found = look(owner, request_id, token, self._clock())
            if isinstance(found, Question) and self._clock() < until and self._may_wait(owner.address):
                found = await self._look_again(look, found, (owner, request_id, token), until, receive)
        except Refused as error:
            return shapes.fault(error, as_object=False).content
        if isinstance(found, Read):
            return shape(found)
        return shapes.nothing_yet(found, named=request_id is not None)

    async def _look_again(
        self,
        look: Callable[[Owner, str | None, str | None, float], Read | Question | None],
        found: Read | Question | None,
        reader: tuple[Owner, str | None, str | None],
        until: float,
        receive: Receive,
    ) -> Read | Question | None:
        mailboxes = self._room.mailboxes
        owner = found.owner if isinstance(found, Question) else reader[0]
        try:
            with self._counted(reader[0].address):
                async with listening(mailboxes.bell(owner), receive) as ear:
                    while isinstance(found, Question) and await ear.news(until - self._clock()):
                        found = look(*reader, self._clock())
        finally:
            mailboxes.hush(owner)
        return found

    # -- nodes that poll -------------------------------------------------------------------------------------------

    async def _sink(self, scope: Scope, receive: Receive, address: str) -> Content:
        caller = self._caller(scope, address)
        fields = await self._read(scope, receive, address, SMALL_BODY)
        told, batch = shapes.server_key(fields), shapes.batch_size(fields)
        wait = shapes.wait_seconds(fields, self._room.timing.wait)
        token = shapes.sink_token(fields)
        node = self._room.visit(caller, told, token, batch=batch, now=self._clock())
        polled = self._room.hand_out(node, batch, self._clock())
        if not polled.jobs and wait and self._may_wait(address):
            node.waiting += 1
            try:
                with self._counted(address):
                    polled = await self._work(polled, batch, self._clock() + wait, receive)
            finally:
                node.waiting -= 1
                node.heard = self._clock()
        return shapes.polled(polled, batch, waited=wait > 0)

    async def _work(self, polled: Polled, batch: int, until: float, receive: Receive) -> Polled:
        """Wait for work for a node. What nobody can be handed any more is not taken out."""
        async with listening(polled.node.bell, receive) as ear:
            while not polled.jobs and not self._room.draining and await ear.news(until - self._clock()):
                polled = self._room.hand_out(polled.node, batch, self._clock())
        return polled

    async def _source(self, scope: Scope, receive: Receive, address: str) -> Content:
        caller = self._caller(scope, address)
        fields = await self._read(scope, receive, address, MAX_BODY)
        key, answer = shapes.client_key(fields), shapes.words(fields, *shapes.FIELDS)
        request_id, token = shapes.optional(fields, "request_id"), shapes.sink_token(fields)
        wanted = self._room.answer(caller, key, answer, request_id, token, self._clock())
        return {"message": "Response received" if wanted else "Response received; nobody waits for it any more"}

    async def _stream_source(self, scope: Scope, receive: Receive, address: str) -> Content:
        caller = self._caller(scope, address)
        fields = await self._read(scope, receive, address, MAX_CHUNK, any_json=True)
        shapes.require(fields, "session_id", "chunk")
        session, token = shapes.optional(fields, "session_id"), shapes.sink_token(fields)
        if session is None:
            raise WireError("session_id is a text.")
        final = bool(fields.get("final"))
        self._room.piece(caller, session, _packed(fields["chunk"]), token, final=final, now=self._clock())
        return {"message": "Chunk received", "final": final}

    def _caller(self, scope: Scope, address: str) -> Caller:
        """Who polls. Raises Refused where it may not, or has guessed too often at an invitation."""
        token = header(scope, b"x-relay-server-token")
        try:
            self._admit(token, client_address(scope))
        except TooManyGuesses:
            raise
        except TokenPlaceError as error:
            raise Refused(error.message, code="not_invited", status=HTTPStatus.UNAUTHORIZED) from None
        return Caller(address, digest(token or ""))

    # -- bodies and waiting ----------------------------------------------------------------------------------------

    async def _read(
        self, scope: Scope, receive: Receive, address: str, most: int, *, any_json: bool = False
    ) -> dict[str, Any]:
        """The body's object. Its memory is reserved from the sender's share before it is kept."""
        memory = OwnMemory(self._room.mailboxes.shares, full)
        body = await read_body(scope, receive, "A body here", most, memory, address)
        try:
            return shapes.parse(body, any_json=any_json)
        finally:
            memory.release(len(body), address)

    def _may_wait(self, address: str) -> bool:
        return self._waiting.total() < MAX_WAITING and self._waiting[address] < MAX_WAITING_PER_ADDRESS

    @contextmanager
    def _counted(self, address: str) -> Iterator[None]:
        self._waiting[address] += 1
        try:
            yield
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]


def _reader(fields: dict[str, Any], address: str) -> tuple[Owner, str | None, str | None]:
    """Whose mailbox is asked for, which question of it, and the token. Raises WireError."""
    owner = Owner(digest(shapes.client_key(fields)), address)
    return owner, shapes.optional(fields, "request_id"), shapes.optional(fields, "retrieve_token")


def _packed(chunk: object) -> bytes:
    try:
        return pack(chunk)
    except RecursionError:
        raise WireError("The chunk is nested too deep.") from None


def _check_type(scope: Scope) -> None:
    """Only JSON that says so: what a page of another origin may send unasked is none."""
    kind = (header(scope, b"content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused("Send JSON, and say so in Content-Type.", code="unsupported_media_type", status=415)


def _as_object(path: str, error: TokenPlaceError) -> bool:
    """Whether the original told this error as an object; elsewhere it was the sentence alone."""
    return error.code == "not_invited" or (path == FAUCET and not isinstance(error, NodeUnknown))


def _allow(method: str) -> tuple[bytes, bytes]:
    return (b"allow", ("GET, HEAD, OPTIONS" if method == "GET" else f"{method}, OPTIONS").encode())


async def _respond(send: Send, status: int, body: bytes, extra: Headers | None = None) -> None:
    """As the original's framework wrote it: with a newline at the end."""
    await respond(send, status, body + b"\n" if body else b"", b"application/json", extra)
