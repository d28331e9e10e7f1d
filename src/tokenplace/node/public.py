"""Reading what a relay tells anybody: bounded, with the proxies this machine is set up for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx2 as httpx

from tokenplace.errors import RelayUnreachable

_PATIENCE = httpx.Timeout(10.0)


async def read_public(url: str, params: Mapping[str, str] | None = None, *, most: int, what: str) -> tuple[int, Any]:
    """The status and the JSON at an address, of at most `most` bytes. Raises RelayUnreachable, which says `what`."""
    body = b""
    try:
        async with (
            httpx.AsyncClient(timeout=_PATIENCE) as client,
            client.stream("GET", url, params=params) as response,
        ):
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > most:
                    raise RelayUnreachable(f"{what}: it is too long to read.")
        return response.status_code, json.loads(body)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
        raise RelayUnreachable(f"{what} ({type(error).__name__}).") from error
