"""API keys of a hosted gateway: who shows one of them may ask. Only their digests are known here.

A key is a long random string, so that one SHA-256 is enough: there is nothing to guess. Digests are compared, not
keys, so that the time of the comparison says nothing of a key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from http import HTTPStatus

from tokenplace.errors import ApiError, TokenPlaceError

_DIGEST = re.compile(r"[0-9a-f]{64}")


class ApiKeys:
    """The keys that are let in; none at all lets everybody in. Raises TokenPlaceError for what is no digest."""

    def __init__(self, digests: Iterable[str] = ()) -> None:
        self._digests = frozenset(digest.strip(" -").lower().removeprefix("sha256:") for digest in digests)
        if not all(map(_DIGEST.fullmatch, self._digests)):
            raise TokenPlaceError("TOKEN_PLACE_API_KEYS holds the SHA-256 of each key, 64 hexadecimal digits.")

    def holder(self, authorization: str) -> str | None:
        """Who shows a known key in an `Authorization` header: the key's digest. None for anybody else."""
        scheme, _, key = authorization.partition(" ")
        digest = _digest(key.strip()) if self._digests and scheme.lower() == "bearer" else None
        return digest if digest in self._digests else None

    def check(self, authorization: str) -> None:
        """Look at an `Authorization` header. Raises ApiError (401)."""
        if not self._digests or self.holder(authorization) is not None:
            return
        key = authorization.partition(" ")[2]
        given = "The API key is not one of those known here." if key else "No API key was given."
        raise ApiError(
            f"{given} Send it as `Authorization: Bearer KEY`; who runs this gateway hands keys out.",
            status=HTTPStatus.UNAUTHORIZED,
            code="invalid_api_key",
        )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
