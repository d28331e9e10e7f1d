"""Everything that can go wrong behind the gateway, in OpenAI's error shape."""

from __future__ import annotations

from http import HTTPStatus

from tokenplace.errors import (
    ApiError,
    JobFailed,
    NoNode,
    Refused,
    RelayUnreachable,
    TokenPlaceError,
    TooLarge,
    WireError,
)
from tokenplace.openai.catalogue import Catalogue
from tokenplace.wire.messages import Outcome

_SERVER, _BUSY, _CALLER = "server_error", "rate_limit_error", "invalid_request_error"


def as_api_error(error: TokenPlaceError, catalogue: Catalogue, model: str) -> ApiError:
    """What the program is told. A model that exists but is not served now is 503, one that never was is 404."""
    match error:
        case ApiError():
            return error
        case NoNode():
            if model in catalogue.entries:
                status, code = HTTPStatus.SERVICE_UNAVAILABLE, "model_not_served"
                return ApiError(error.message, status=status, type=_SERVER, param="model", code=code, retry_after=10)
            return ApiError(error.message, status=HTTPStatus.NOT_FOUND, param="model", code="model_not_found")
        case RelayUnreachable():
            return _down(error, retry_after=5)
        case Refused(status=status, retry_after=retry_after):
            kind = _BUSY if status == HTTPStatus.TOO_MANY_REQUESTS else _SERVER if status >= 500 else _CALLER
            return ApiError(error.message, status=status, type=kind, code=error.code, retry_after=retry_after)
        case JobFailed(outcome=Outcome.QUEUE_TIMEOUT):
            return _down(error, retry_after=10)
        case TooLarge():
            return ApiError(error.message, status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE, code=error.code)
        case WireError():
            return ApiError(error.message, status=HTTPStatus.BAD_GATEWAY, type=_SERVER, code=error.code)
        case _:
            return ApiError(error.message, status=HTTPStatus.BAD_GATEWAY, type=_SERVER, code=error.code)


def _down(error: TokenPlaceError, *, retry_after: float) -> ApiError:
    return ApiError(
        error.message,
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        type=_SERVER,
        code=error.code,
        retry_after=retry_after,
    )
