"""WHERE THE PERSON IS: chooses a node, checks its card, seals, opens, resumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenplace.client.crypto_client import CryptoClient

__all__ = ["CryptoClient"]


def __getattr__(name: str) -> Any:
    """`CryptoClient` is loaded when somebody asks for it: importing the room stays cheap."""
    if name == "CryptoClient":
        from tokenplace.client.crypto_client import CryptoClient

        return CryptoClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
