"""The OpenAI API over HTTP: one router, mounted under every prefix; the versions differ by data."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from tokenplace.client import faults
from tokenplace.client.client import Client
from tokenplace.errors import ApiError, TokenPlaceError, TooLarge, whole_seconds
from tokenplace.gateway.classic import PRIVACY, ClassicDesk
from tokenplace.gateway.counts import CONTENT_TYPE as COUNTS
from tokenplace.gateway.counts import Counts
from tokenplace.gateway.described import describe
from tokenplace.gateway.faults import as_api_error
from tokenplace.gateway.flavours import FLAVOURS, Flavour, Operation
from tokenplace.gateway.forward import Forwarded, Question
from tokenplace.gateway.keys import ApiKeys
from tokenplace.gateway.page import page
from tokenplace.gateway.shelf import Shelf
from tokenplace.openai import jsontext, refusals
from tokenplace.openai.catalogue import Catalogue
from tokenplace.openai.classic import CHAT, ENCRYPTED, FIELDS, PATHS, is_encrypted
from tokenplace.openai.models import listing
from tokenplace.openai.screening import PhraseScreen, has_token_ids, texts_of, unreadable
from tokenplace.relay.address import client_address
from tokenplace.relay.asgi import ClientGone, count_stream
from tokenplace.relay.body import Memory, OwnMemory, read_body
from tokenplace.relay.fairness import Shares
from tokenplace.sealing.operator import Operator
from tokenplace.wire.limits import MAX_QUEUED_BYTES, MAX_REQUEST

MAX_BODY = MAX_REQUEST - 128 * 1024
"""A plain request's bytes; the rest of a sealed request is its padding."""

PRIVACY_HEADER = "x-token-place-privacy"
_READ = ["GET", "HEAD"]
_NOTHING_ELSE = "default-src 'none'; style-src 'unsafe-inline'"
_OPERATOR = "x-token-place-operator"


class Gateway:
    """The routes. `hosted` says that this is not the client's own machine, and the answers say so too."""

    def __init__(
        self,
        client: Client,
        catalogue: Catalogue,
        *,
        hosted: bool,
        service: str,
        keys: ApiKeys,
        shelf: Shelf,
        screen: PhraseScreen,
        counts: Counts,
        classic: ClassicDesk,
        memory: Memory,
    ) -> None:
        self._client = client
        self._classic = classic
        self._catalogue = catalogue
        self._service = service
        self._keys = keys
        self._shelf = shelf
        self._screen = screen
        self._counts = counts
        self._memory = memory
        self._privacy = "gateway" if hosted else "end-to-end"

    def router(self, flavour: Flavour) -> APIRouter:
        """The routes of one version."""
        router = APIRouter()
        known = [Depends(self._known)]

        async def models(request: Request) -> Response:
            return self._json(request, listing((await self._shelf.listed(flavour.version)).values()))

        async def model(request: Request, model_id: str) -> Response:
            listed = await self._shelf.listed(flavour.version)
            found = listed.get(self._catalogue.canonical(model_id))
            if found is None:
                raise ApiError(
                    f"There is no model {model_id[:256]!r} here. There are: {', '.join(listed)}.",
                    status=HTTPStatus.NOT_FOUND,
                    param="model",
                    code="model_not_found",
                )
            return self._json(request, found.entry())

        async def health(request: Request) -> Response:
            content = {
                "status": "ok",
                "version": flavour.version.value,
                "service": self._service,
                "timestamp": int(time.time()),
            }
            return self._json(request, content)

        router.add_api_route("/models", models, methods=_READ, dependencies=known)
        router.add_api_route("/models/{model_id:path}", model, methods=_READ, dependencies=known)
        router.add_api_route("/health", health, methods=_READ)
        router.add_api_route("/public-key", self._public_key, methods=_READ, dependencies=known)
        router.add_api_route("/public-key/rotate", self._rotate, methods=["POST"])
        for operation in flavour.operations:
            router.add_api_route(operation.path, self._asking(flavour, operation), methods=["POST"], dependencies=known)
        return router

    def _asking(self, flavour: Flavour, operation: Operation) -> Any:
        async def ask(request: Request) -> Response:
            return await self._ask(request, flavour, operation)

        return ask

    async def _public_key(self, request: Request) -> Response:
        model = request.query_params.get("model")
        if model:
            model = await self._shelf.chosen(self._catalogue.canonical(model[:256]))
        return self._json(request, await self._classic.public_key(self._program(request), model))

    async def _rotate(self, request: Request) -> Response:
        authorization = request.headers.get("authorization", "")
        bearer = authorization.removeprefix("Bearer ") if authorization.startswith("Bearer ") else ""
        shown = request.headers.get(_OPERATOR, "").strip() or bearer.strip()
        return self._json(request, await self._classic.rotate(self._program(request), shown))

    def _program(self, request: Request) -> str:
        """Who asks: the holder of an API key, else an address."""
        return self._keys.holder(request.headers.get("authorization", "")) or client_address(request.scope).key

    async def _known(self, request: Request) -> None:
        self._keys.check(request.headers.get("authorization", ""))

    async def _ask(self, request: Request, flavour: Flavour, operation: Operation) -> Response:
        async with self._body_of(request) as body:
            return await self._answer(request, flavour, operation, jsontext.read_object(body))

    @asynccontextmanager
    async def _body_of(self, request: Request) -> AsyncIterator[bytes]:
        """The request's body; its memory is taken until a question was made of it. Raises ApiError and Refused."""
        _check_type(request)
        client = client_address(request.scope).key
        try:
            body = await read_body(request.scope, request.receive, "A request", MAX_BODY, self._memory, client)
        except TooLarge:
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            raise ApiError(f"A request may have {MAX_BODY} bytes.", status=status, code="request_too_large") from None
        except ClientGone:  # nobody reads this any more, but it must not look like a fault of ours
            raise ApiError("The request ended before its body did.", code="client_left") from None
        try:
            yield body
        finally:
            self._memory.release(len(body), client)

    async def _answer(
        self, request: Request, flavour: Flavour, operation: Operation, content: dict[str, Any]
    ) -> Response:
        encrypted = is_encrypted(content)
        if encrypted and operation.node_path not in PATHS:
            raise refusals.unsupported(ENCRYPTED, "Chat and completions can be encrypted in the original's way.")
        model = content.get("model")
        if not (isinstance(model, str) and model) and not (model is None and operation.draws):
            raise ApiError(
                "Say which model: the `model` field is missing." if model is None else "`model` is a model's id.",
                param="model",
                code="missing_required_parameter" if model is None else "invalid_type",
            )
        stream = content.get("stream")
        if stream and not flavour.streams:
            raise ApiError(
                "This version answers in JSON only; streaming is in v2: use /v2 or /api/v2 as the base URL.",
                param="stream",
                code="unsupported_parameter",
            )
        if stream:
            await count_stream(request.scope)
        sealed_words = content.pop("messages", None) if encrypted else None
        self._look(content)
        canonical, chosen = "", None
        if model is not None and not operation.draws:
            canonical = self._catalogue.canonical(model)
            content["model"] = canonical
            chosen = await self._shelf.chosen(canonical)
        if encrypted:
            if sealed_words is not None:
                content["messages"] = sealed_words
            return await self._ask_encrypted(request, operation, content, chosen or canonical)
        for name in FIELDS:  # null or false: a plain request
            content.pop(name, None)
        question = Question(operation.node_path, jsontext.write(content), chosen, stream is True)
        return Forwarded(
            self._client,
            question,
            self.marks(request),
            lambda error: as_api_error(error, self._catalogue, canonical),
            self._counts.add,
        )

    async def _ask_encrypted(
        self, request: Request, operation: Operation, content: dict[str, Any], model: str
    ) -> Response:
        """Hand a request that the node opens to the node that can; in completions only the answer is sealed."""
        program = self._program(request)
        chat = operation.node_path == CHAT
        owner = self._classic.owner(program, content) if chat else self._classic.answerer(program, model)
        question = Question(
            operation.node_path,
            jsontext.write(content),
            None,
            content.get("stream") is True,
            node=await owner,
            classic=True,
        )
        marks = self.marks(request)
        if chat:
            marks[PRIVACY_HEADER] = PRIVACY
        return Forwarded(self._client, question, marks, faults.as_api_error, self._counts.add)

    def _look(self, content: dict[str, Any]) -> None:
        """Have every word read, where this gateway is told to. Raises ApiError."""
        if self._screen.empty:
            return
        if (hidden := has_token_ids(content)) is not None:
            raise unreadable(hidden)
        self._screen(texts_of(content))

    def _json(self, request: Request, content: object, status: int = 200) -> Response:
        body = b"" if request.method == "HEAD" else jsontext.write(content)
        headers = self.marks(request)
        return Response(body, status, headers, media_type="application/json")

    def marks(self, request: Request) -> dict[str, str]:
        """The headers that every answer has."""
        return {PRIVACY_HEADER: self._privacy, "x-request-id": _request_id(request)}

    def fault(self, request: Request, error: TokenPlaceError, headers: dict[str, str] | None = None) -> Response:
        """Any of our errors as an answer."""
        told = as_api_error(error, self._catalogue, "")
        answer = self._json(request, told.as_json(), told.status)
        answer.headers.update(headers or {})
        if told.retry_after is not None:
            answer.headers["retry-after"] = whole_seconds(told.retry_after)
        if told.status == HTTPStatus.UNAUTHORIZED:
            answer.headers["www-authenticate"] = "Bearer"
        return answer

    def options(self, request: Request, allowed: str) -> Response:
        """What may be done at a path. No CORS: a page of a stranger has no business with a person's own gateway."""
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={**self.marks(request), "allow": allowed})


def create_gateway(
    client: Client,
    *,
    hosted: bool,
    service: str,
    catalogue: Catalogue | None = None,
    api_keys: Iterable[str] = (),
    stand_in: bool = False,
    phrases: Iterable[str] = (),
    counts: Counts | None = None,
    operator: str | None = None,
    memory: Memory | None = None,
) -> FastAPI:
    """The gateway as an ASGI application; it holds `client` and closes nothing.

    `api_keys` are digests of the keys that may ask (none: everybody may). `stand_in` lets a served model answer to
    catalogue models that nobody serves. `phrases` are refused before anything is sealed. `counts` hears of every
    answer and is shown at /metrics. `operator` is the token of who may have classic keys replaced. `memory` is what
    bodies take theirs from while they are received, where that is not the gateway's own. Raises TokenPlaceError for a
    digest that is none.
    """
    catalogue = catalogue or Catalogue.load()
    counts = counts or Counts()
    gateway = Gateway(
        client,
        catalogue,
        hosted=hosted,
        service=service,
        keys=ApiKeys(api_keys),
        shelf=Shelf(client, catalogue, stand_in=stand_in),
        screen=PhraseScreen(phrases),
        counts=counts,
        classic=ClassicDesk(client, operator=Operator(operator) if operator else None),
        memory=memory or OwnMemory(Shares(MAX_QUEUED_BYTES)),
    )
    app = FastAPI(title="token.place", openapi_url=None, docs_url=None, redoc_url=None)
    for flavour in FLAVOURS:
        router = gateway.router(flavour)
        for prefix in flavour.prefixes:
            app.include_router(router, prefix=prefix)
    described = describe(FLAVOURS)
    document, shown = jsontext.write(described), page(described)

    async def openapi(request: Request) -> Response:
        return Response(document, headers=gateway.marks(request), media_type="application/json")

    async def docs(request: Request) -> Response:
        return HTMLResponse(shown, headers={**gateway.marks(request), "content-security-policy": _NOTHING_ELSE})

    async def metrics(_: Request) -> Response:
        return Response(counts.render(), media_type=COUNTS)

    app.add_route("/metrics", metrics, methods=_READ)
    app.add_route("/openapi.json", openapi, methods=_READ)
    app.add_route("/docs", docs, methods=_READ)

    async def ours(request: Request, error: Exception) -> Response:
        if not isinstance(error, TokenPlaceError):
            raise error
        return gateway.fault(request, error)

    async def theirs(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        allowed = (error.headers or {}).get("Allow", "") if isinstance(error, HTTPException) else ""
        if status == HTTPStatus.METHOD_NOT_ALLOWED and request.method == "OPTIONS":
            return gateway.options(request, allowed)
        return gateway.fault(request, _foreign(request, status), {"allow": allowed} if allowed else None)

    app.add_exception_handler(TokenPlaceError, ours)
    app.add_exception_handler(HTTPException, theirs)
    return app


def _foreign(request: Request, status: int) -> ApiError:
    match status:
        case HTTPStatus.NOT_FOUND:
            text, code = f"There is nothing at {request.url.path[:256]}; the API is under /v1 and /v2.", "not_found"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            text, code = f"{request.url.path[:256]} does not take {request.method[:32]}.", "method_not_allowed"
        case _:
            text, code = "The request cannot be understood.", "bad_request"
    return ApiError(text, status=status, code=code)


def _check_type(request: Request) -> None:
    # A page of another origin may send what says nothing of its type unasked, but never without saying whose it is.
    unsaid = "" if "origin" in request.headers else "application/json"
    kind = request.headers.get("content-type", unsaid).partition(";")[0].strip().lower()
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if not (kind == "application/json" or kind.endswith("+json")) or coding not in ("identity", ""):
        raise ApiError(
            "Send plain JSON, with the header `Content-Type: application/json`.",
            status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            code="unsupported_media_type",
        )


def _request_id(request: Request) -> str:
    given = request.headers.get("x-request-id", "")
    return given[:128] if given.isprintable() and given.isascii() and given else os.urandom(8).hex()
