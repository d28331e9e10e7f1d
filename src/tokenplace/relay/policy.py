"""What an operator decided: whom to believe, how much one client may ask, who may serve, who may look inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tokenplace.relay.address import TrustedProxies
from tokenplace.relay.admission import LINKS_PER_ADDRESS
from tokenplace.relay.limits import Limiter
from tokenplace.relay.traffic import AccessLog


def nobody(_: str) -> str | None:
    """No API key is known here."""
    return None


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one relay. What is left out is open, as on a person's own machine."""

    proxies: TrustedProxies = field(default_factory=TrustedProxies)
    limiter: Limiter = field(default_factory=lambda: Limiter({}))
    holder: Callable[[str], str | None] = nobody
    """Whose API key an `Authorization` header shows; who shows a known one is counted by it, wherever they are."""
    invitations: Path | None = None
    denied: Path | None = None
    links_per_address: int = LINKS_PER_ADDRESS
    operator_token: str | None = None
    access_log: AccessLog = AccessLog.SOME
