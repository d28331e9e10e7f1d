"""Where the notice board is found. It stands under /api only, never under the short names /v1 and /v2."""

from __future__ import annotations

import re

PROVIDERS = ("/api/v1/community/providers", "/api/v2/community/providers")
SERVER_PROVIDERS = ("/api/v1/server-providers", "/api/v2/server-providers")
LEADERBOARD = "/api/v1/community/leaderboard"
FEEDBACK = "/api/v1/community/feedback"
CONTRIBUTIONS = "/api/v1/community/contributions"
SUMMARY = "/api/v1/community/contributions/summary"

PAGE = "/community"
"""The page for people; `web` serves it."""

_OURS = re.compile(r"(?:/api)?/v[12]/(?:community(?:/.*)?|server-providers)", re.DOTALL)


def is_notice(path: str) -> bool:
    """Whether a path is the notice board's to answer, be it with 404: a gateway has nothing at these either."""
    return _OURS.fullmatch(path) is not None
