"""Encrypted requests of the original's API: their fields, and how they are refused in OpenAI's shape."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from tokenplace.errors import ApiError
from tokenplace.openai import refusals

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
PATHS = (CHAT, COMPLETIONS)
"""What can be asked in the original's encrypted way."""

ENCRYPTED = "encrypted"
CLIENT_KEY = "client_public_key"
KEY_ID = "key_id"
FIELDS = (ENCRYPTED, CLIENT_KEY, KEY_ID)
"""Fields of an encrypted request beside OpenAI's own."""

ENCRYPTION_ERROR = "encryption_error"
KEY_EXPIRED = "key_expired"

_TOLD = frozenset({"context_length_exceeded", "content_blocked"})
"""Refusals of sealed words that quote nothing of them."""

_MESSAGE = re.compile(r"messages(\[\d{1,6}\])?")


class KeyExpired(ApiError):
    """The request is sealed to a key that nobody holds (any more); the error brings the key to seal to instead."""

    def __init__(self, public_key: str, key_id: str) -> None:
        super().__init__(
            "The key that this request is sealed to was replaced or is not known; seal it to the `public_key` that "
            "stands in this error, and send it again.",
            type=ENCRYPTION_ERROR,
            param=KEY_ID,
            code=KEY_EXPIRED,
        )
        self.public_key = public_key
        self.key_id = key_id

    def as_json(self) -> dict[str, dict[str, str | None]]:
        """OpenAI's error body with the fresh key in it."""
        return {"error": {**super().as_json()["error"], "public_key": self.public_key, "key_id": self.key_id}}


def cannot_open() -> ApiError:
    """The one answer to whatever does not open: altered, sealed to another key, sent before, or not what is sealed.

    Which of them it was is not told, and takes the same time: else the node would open messages for strangers.
    """
    return ApiError(
        "This request does not open here: it was altered, sealed to another key, sent before, or what is sealed in it "
        "is no list of messages as JSON. Seal a fresh one to the key of /v1/public-key.",
        type=ENCRYPTION_ERROR,
        param="messages",
        code=ENCRYPTION_ERROR,
    )


def is_encrypted(fields: Mapping[str, Any]) -> bool:
    """Whether a request asks to be opened by the node only. Raises ApiError for what says it only half."""
    encrypted = fields.get(ENCRYPTED)
    if encrypted is not None and not isinstance(encrypted, bool):
        raise refusals.wrong_type(ENCRYPTED, "a boolean", encrypted)
    if encrypted:
        return True
    if fields.get(CLIENT_KEY) is not None:
        raise refusals.invalid(CLIENT_KEY, "Only an answer to a request with `encrypted: true` is sealed to a key.")
    if fields.get(KEY_ID) is not None:
        raise refusals.invalid(KEY_ID, "Only a request with `encrypted: true` is sealed to a key.")
    return False


def discreet(refusal: ApiError) -> ApiError:
    """A refusal of sealed words for an answer in the open: where it stands and its code, and none of the words."""
    param = refusal.param or ""
    if not param.startswith("messages") or refusal.code in _TOLD:
        return refusal
    found = _MESSAGE.match(param)
    place = found[0] if found else "messages"
    return ApiError(
        f"What is sealed in `{place}` is not what this call takes; the reference of parameters says what it is.",
        status=refusal.status,
        type=refusal.type,
        param=place,
        code=refusal.code,
    )


def nobody_opens() -> ApiError:
    """No node with a classic key is there."""
    return ApiError(
        "No connected node opens encrypted requests now. Try again in a moment; a node does unless it was started "
        "with TOKEN_PLACE_CLASSIC=off.",
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        type="server_error",
        code="no_classic_node",
        retry_after=10,
    )
