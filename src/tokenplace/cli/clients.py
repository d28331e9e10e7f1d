"""A client from flags and environment."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tokenplace.client.client import Client
from tokenplace.client.settings import ClientSettings
from tokenplace.client.trust import Memory


def open_client(relays: Sequence[str]) -> Client:
    """The client that the settings describe; it remembers the nodes it meets. Raises WireError."""
    settings = ClientSettings.read(os.environ, relays)
    return Client(settings.relays, pins=settings.pins, memory=Memory(settings.memory))
