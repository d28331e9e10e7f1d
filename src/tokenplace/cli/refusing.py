"""Errors that the server itself tells, before any application is asked."""

from __future__ import annotations

import json


def error_body(status: int, code: str, message: str) -> bytes:
    """An error in OpenAI's shape, as every door here tells it."""
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    shape = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return json.dumps(shape, separators=(",", ":")).encode()
