"""Everything that can go wrong behind the gateway, in OpenAI's error shape."""

from __future__ import annotations

from http import HTTPStatus

from tokenplace.client import faults
from tokenplace.errors import ApiError, NoNode, TokenPlaceError
from tokenplace.openai.catalogue import Catalogue


def as_api_error(error: TokenPlaceError, catalogue: Catalogue, model: str) -> ApiError:
    """What the program is told. A model that exists but is not served now is 503, one that never was is 404."""
    if not isinstance(error, NoNode):
        return faults.as_api_error(error)
    if model in catalogue.entries:
        status, code = HTTPStatus.SERVICE_UNAVAILABLE, "model_not_served"
        return ApiError(error.message, status=status, type="server_error", param="model", code=code, retry_after=10)
    message = f"Nobody knows a model {model!r}. {error.message}"
    return ApiError(message, status=HTTPStatus.NOT_FOUND, param="model", code="model_not_found")
