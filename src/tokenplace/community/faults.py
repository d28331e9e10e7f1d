"""How the notice board refuses."""

from __future__ import annotations

from http import HTTPStatus

from tokenplace.errors import ApiError


def bad(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """400: a part of the request is not what it must be."""
    return ApiError(message, param=param, code=code)


def directory_unavailable(what: str) -> ApiError:
    """503: the operator's file with the directory cannot be read at all."""
    return _away(f"The provider directory {what}.", code="provider_directory_unavailable")


def registry_unavailable(what: str) -> ApiError:
    """503: the operator's file with the registry cannot be read at all."""
    return _away(f"The provider registry {what}.", code="provider_registry_unavailable")


def not_readable() -> ApiError:
    """503: the file behind this route is there and the relay may not read it."""
    return _away("The file behind this cannot be read.", code="board_unavailable")


def not_writable() -> ApiError:
    """503: nothing can be kept, so nothing is promised."""
    return _away("Nothing can be written down at this relay now.", code="board_unavailable")


def busy() -> ApiError:
    """503: another process has held the file for too long."""
    error = _away("Too many write at once.", code="board_busy")
    error.retry_after = 5.0
    return error


def full() -> ApiError:
    """503: a file has reached its bound, and whoever runs the relay must look through it first."""
    return _away("The relay keeps no more of these until its operator has looked through them.", code="board_full")


def too_many(retry_after: float) -> ApiError:
    """429: this address has written enough for now."""
    return ApiError(
        "Enough was sent from your address for now; Retry-After says when more is taken.",
        status=HTTPStatus.TOO_MANY_REQUESTS,
        type="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after=retry_after,
    )


def voted() -> ApiError:
    """409: one vote for each model and day."""
    return ApiError(
        "You have rated this model today; tomorrow (UTC) you may rate it again.",
        status=HTTPStatus.CONFLICT,
        param="model_id",
        code="already_voted",
    )


def blocked(param: str) -> ApiError:
    """400: words that the operator does not want on the board."""
    return ApiError(
        f"`{param}` has words that are not wanted here; say it otherwise.",
        type="content_policy_violation",
        param=param,
        code="content_blocked",
    )


def unknown_model(model: str) -> ApiError:
    """404: nobody serves such a model here."""
    return ApiError(
        f"Nobody knows a model {model[:120]!r} here; the chat page and /v1/models list those there are.",
        status=HTTPStatus.NOT_FOUND,
        param="model_id",
        code="model_not_found",
    )


def _away(message: str, code: str) -> ApiError:
    return ApiError(
        f"{message} The log of the relay has the reason.",
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        type="internal_error",
        code=code,
    )
