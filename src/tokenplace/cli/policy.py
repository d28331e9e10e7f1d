"""A relay's settings as its rules."""

from __future__ import annotations

from collections.abc import Callable

from tokenplace.relay.address import TrustedProxies
from tokenplace.relay.limits import Budget, Limiter, LocalCounts, SharedCounts, least, read_limits
from tokenplace.relay.policy import Policy, nobody
from tokenplace.relay.settings import RelaySettings


def policy_of(
    settings: RelaySettings, *, holder: Callable[[str], str | None] = nobody, shared: SharedCounts | None = None
) -> Policy:
    """What the settings say; `shared` counts for all replicas. Raises TokenPlaceError for what cannot be read."""
    rate, quota = read_limits(settings.rate, "API_RATE_LIMIT"), read_limits(settings.daily_quota, "API_DAILY_QUOTA")
    budgets = {
        Budget.REQUESTS: least([*rate, *quota]),
        Budget.STREAMS: read_limits(settings.stream_rate, "API_STREAM_RATE_LIMIT"),
        Budget.RESUMES: read_limits(settings.resume_rate, "TOKEN_PLACE_RESUME_RATE_LIMIT"),
        Budget.LINKS: read_limits(settings.link_rate, "TOKEN_PLACE_LINK_RATE_LIMIT"),
    }
    return Policy(
        proxies=TrustedProxies(settings.trusted_proxies, settings.forwarded_header),
        limiter=Limiter(budgets, shared or LocalCounts(), everybody=settings.counts_everybody),
        holder=holder,
        invitations=settings.invitation_file,
        denied=settings.denied,
        links_per_address=settings.links_per_address,
        operator_token=settings.operator,
        access_log=settings.access_log,
    )
