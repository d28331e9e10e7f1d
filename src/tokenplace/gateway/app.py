"""The OpenAI API over HTTP: one router, mounted under every prefix; the versions differ by data."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from tokenplace.client.client import Client
from tokenplace.errors import ApiError, TokenPlaceError
from tokenplace.gateway.faults import as_api_error
from tokenplace.gateway.forward import Forwarded, Question
from tokenplace.openai import jsontext
from tokenplace.openai.catalogue import AdapterEntry, ApiVersion, Catalogue, ModelEntry
from tokenplace.openai.models import ListedModel, listing
from tokenplace.openai.requests import ChatRequest, CompletionRequest
from tokenplace.wire.limits import MAX_REQUEST

_SINCE = 1_735_689_600
"""`created` of every listed model: OpenAI's field must not change from call to call, and nothing hangs on it."""

MAX_BODY = MAX_REQUEST - 128 * 1024
"""A plain request's bytes; the rest of a sealed request is its padding."""


@dataclass(frozen=True, slots=True)
class Flavour:
    """One version of the API: what it lists, whether it streams, and where it is mounted."""

    version: ApiVersion
    streams: bool
    prefixes: tuple[str, ...]


FLAVOURS = (
    Flavour(ApiVersion.V1, streams=False, prefixes=("/v1", "/api/v1")),
    Flavour(ApiVersion.V2, streams=True, prefixes=("/v2", "/api/v2")),
)


class Gateway:
    """The routes. `hosted` says that this is not the asker's own machine, and the answers say so too."""

    def __init__(self, client: Client, catalogue: Catalogue, *, hosted: bool, service: str) -> None:
        self._client = client
        self._catalogue = catalogue
        self._service = service
        self._privacy = "gateway" if hosted else "end-to-end"

    def router(self, flavour: Flavour) -> APIRouter:
        """The routes of one version."""
        router = APIRouter()

        @router.get("/models", summary="What can be asked for, and how many nodes serve it now")
        async def models(request: Request) -> Response:
            return self._json(request, listing((await self._models(flavour)).values()))

        @router.get("/models/{model_id:path}", summary="One model; aliases are understood")
        async def model(request: Request, model_id: str) -> Response:
            known = await self._models(flavour)
            found = known.get(self._catalogue.canonical(model_id))
            if found is None:
                raise ApiError(
                    f"There is no model {model_id!r} here. There are: {', '.join(known)}.",
                    status=HTTPStatus.NOT_FOUND,
                    param="model",
                    code="model_not_found",
                )
            return self._json(request, found.entry())

        @router.get("/health", summary="Whether this gateway is up")
        async def health(request: Request) -> Response:
            content = {
                "status": "ok",
                "version": flavour.version.value,
                "service": self._service,
                "timestamp": int(time.time()),
            }
            return self._json(request, content)

        async def chat(request: Request) -> Response:
            return await self._ask(request, flavour, "/v1/chat/completions")

        async def completions(request: Request) -> Response:
            return await self._ask(request, flavour, "/v1/completions")

        for path, endpoint, shape, text in (
            ("/chat/completions", chat, ChatRequest, "Chat"),
            ("/completions", completions, CompletionRequest, "Complete a text"),
        ):
            router.add_api_route(
                path, endpoint, methods=["POST"], summary=text, openapi_extra=_documented(shape, flavour)
            )
        return router

    async def _models(self, flavour: Flavour) -> dict[str, ListedModel]:
        """What is served comes first; then what the catalogue knows and nobody serves now."""
        models: dict[str, ListedModel] = {}
        for served in await self._client.models():
            models[served.id] = ListedModel(
                id=served.id,
                created=_SINCE,
                context_length=served.card.context if served.card else None,
                capabilities=served.card.capabilities if served.card else (),
                nodes=served.nodes,
                loaded=True,
            )
        for entry in self._catalogue.versions[flavour.version]:
            base = models.get(entry.base)
            match entry:
                case AdapterEntry():
                    models.setdefault(
                        entry.id,
                        ListedModel(
                            id=entry.id,
                            created=_SINCE,
                            context_length=self._catalogue.weights_of(entry.id).context,
                            capabilities=self._catalogue.weights_of(entry.id).capabilities,
                            nodes=base.nodes if base else 0,
                            loaded=base.loaded if base else False,
                            base=entry.base,
                        ),
                    )
                case ModelEntry():
                    models.setdefault(
                        entry.id,
                        ListedModel(
                            id=entry.id,
                            created=_SINCE,
                            context_length=entry.context,
                            capabilities=entry.capabilities,
                        ),
                    )
        return models

    async def _ask(self, request: Request, flavour: Flavour, path: str) -> Response:
        content = jsontext.read_object(await _read(request))
        model = content.get("model")
        if not isinstance(model, str) or not model:
            raise ApiError(
                "Say which model: the `model` field is missing.", param="model", code="missing_required_parameter"
            )
        stream = content.get("stream")
        if stream and not flavour.streams:
            raise ApiError(
                "This version answers in JSON only; streaming is in v2: use /v2 or /api/v2 as the base URL.",
                param="stream",
                code="unsupported_parameter",
            )
        canonical = self._catalogue.canonical(model)
        body = jsontext.write({**content, "model": canonical})
        headers = {"x-token-place-privacy": self._privacy, "x-request-id": _request_id(request)}
        question = Question(path=path, body=body, model=canonical, stream=stream is True)
        return Forwarded(
            self._client, question, headers, lambda error: as_api_error(error, self._catalogue, canonical)
        )

    def _json(self, request: Request, content: object) -> Response:
        return JSONResponse(content, headers=self._marks(request))

    def _marks(self, request: Request) -> dict[str, str]:
        return {"x-token-place-privacy": self._privacy, "x-request-id": _request_id(request)}

    def fault(self, request: Request, error: TokenPlaceError) -> Response:
        """Any of our errors as an answer."""
        told = as_api_error(error, self._catalogue, "")
        headers = self._marks(request)
        if told.retry_after is not None:
            headers["retry-after"] = str(max(1, round(told.retry_after)))
        return JSONResponse(told.as_json(), status_code=told.status, headers=headers)


def create_gateway(client: Client, *, hosted: bool, service: str, catalogue: Catalogue | None = None) -> FastAPI:
    """The gateway as an ASGI application; it holds `client` and closes nothing."""
    gateway = Gateway(client, catalogue or Catalogue.load(), hosted=hosted, service=service)
    app = FastAPI(
        title="token.place",
        summary="OpenAI's API, answered by volunteers' machines, sealed on the way.",
        docs_url="/docs",
        redoc_url=None,
    )
    for flavour in FLAVOURS:
        router = gateway.router(flavour)
        for prefix in flavour.prefixes:
            app.include_router(router, prefix=prefix, tags=[f"{flavour.version} ({prefix})"])

    async def ours(request: Request, error: Exception) -> Response:
        if not isinstance(error, TokenPlaceError):
            raise error
        return gateway.fault(request, error)

    async def theirs(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return gateway.fault(request, _foreign(request, status))

    app.add_exception_handler(TokenPlaceError, ours)
    app.add_exception_handler(HTTPException, theirs)
    return app


def _foreign(request: Request, status: int) -> ApiError:
    match status:
        case HTTPStatus.NOT_FOUND:
            text, code = f"There is nothing at {request.url.path}; the API is under /v1 and /v2.", "not_found"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            text, code = f"{request.url.path} does not take {request.method}.", "method_not_allowed"
        case _:
            text, code = "The request cannot be understood.", "bad_request"
    return ApiError(text, status=status, code=code)


async def _read(request: Request) -> bytes:
    claimed = request.headers.get("content-length", "")
    body = bytearray()
    if not (claimed.isdigit() and int(claimed) > MAX_BODY):
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                break
        else:
            return bytes(body)
    raise ApiError(
        f"A request may have {MAX_BODY} bytes.", status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE, code="request_too_large"
    )


def _request_id(request: Request) -> str:
    given = request.headers.get("x-request-id", "")
    return given[:128] if given.isprintable() and given else os.urandom(8).hex()


def _documented(shape: type[Any], flavour: Flavour) -> dict[str, Any]:
    """The request's and answer's shapes for /openapi.json; reading is done by the node, on the sealed bytes."""
    schema = shape.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    answers: dict[str, Any] = {"application/json": {}}
    if flavour.streams:
        answers["text/event-stream"] = {}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {"200": {"description": "The answer, as OpenAI shapes it", "content": answers}},
    }
