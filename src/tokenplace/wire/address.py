"""Relay addresses as people write them."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from tokenplace.errors import WireError

_HERE = ("localhost", "127.", "::1")


def relay_address(text: str) -> SplitResult:
    """A relay's base URL. Without a scheme it is https, or http for this very machine. Raises WireError.

    A name or password in it is refused: addresses stand in logs and messages, and relays ask nobody for one.
    """
    text = text.strip()
    if "//" not in text:
        try:
            host = urlsplit(f"//{text}").hostname or ""
        except ValueError:
            host = ""
        text = f"{'http' if host.startswith(_HERE) else 'https'}://{text}"
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and text.isprintable()
        (parts.hostname or "").encode("idna")  # what cannot be looked up: an empty label, one of over 63 characters
    except ValueError:
        good = False
    if "@" in text.partition("//")[2].partition("/")[0]:
        raise WireError("A relay's address holds no name and no password; leave out what stands before the @.")
    if not good:
        raise WireError(f"A relay's address looks like https://relay.example; {text!r} does not.")
    return parts._replace(path=parts.path.rstrip("/"), query="", fragment="")
