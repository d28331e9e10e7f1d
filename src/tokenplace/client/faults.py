"""Everything that can go wrong on the way to an answer, in OpenAI's error shape."""

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
)
from tokenplace.wire.messages import Outcome

_SERVER, _BUSY, _CALLER = "server_error", "rate_limit_error", "invalid_request_error"


def as_api_error(error: TokenPlaceError) -> ApiError:
    """What the program is told."""
    match error:
        case ApiError():
            return error
        case NoNode() | RelayUnreachable() | JobFailed(outcome=Outcome.QUEUE_TIMEOUT | "engine_full"):
            down = HTTPStatus.SERVICE_UNAVAILABLE
            return ApiError(error.message, status=down, type=_SERVER, code=error.code, retry_after=10)
        case Refused(status=status, retry_after=retry_after):
            kind = _BUSY if status == HTTPStatus.TOO_MANY_REQUESTS else _SERVER if status >= 500 else _CALLER
            return ApiError(error.message, status=status, type=kind, code=error.code, retry_after=retry_after)
        case TooLarge():
            return ApiError(error.message, status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE, code=error.code)
        case _:
            return ApiError(error.message, status=HTTPStatus.BAD_GATEWAY, type=_SERVER, code=error.code)
