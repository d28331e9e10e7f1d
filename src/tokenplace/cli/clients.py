"""A client from flags and environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tokenplace.client.client import Client
from tokenplace.client.settings import VOUCHERS_VARIABLE, ClientSettings
from tokenplace.client.trust import Memory
from tokenplace.errors import TokenPlaceError


def open_client(relays: Sequence[str]) -> Client:
    """The client that the settings describe; it remembers the nodes it meets. Raises TokenPlaceError."""
    settings = ClientSettings.read(os.environ, relays)
    client = Client(settings.relays, pins=settings.pins, issuers=settings.issuers, memory=Memory(settings.memory))
    for file in settings.vouchers:
        try:
            client.trust.vouch(_text(file))
        except TokenPlaceError as error:
            raise TokenPlaceError(f"{VOUCHERS_VARIABLE}: {file}: {error.message}") from None
    return client


def _text(file: Path) -> str:
    try:
        return file.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenPlaceError(f"it cannot be read ({type(error).__name__})") from None
