"""What an operator may write, and what is refused before a relay starts."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tokenplace.cli.policy import policy_of
from tokenplace.relay.limits import BadLimit, Budget
from tokenplace.relay.settings import RelaySettings


def written(**variables: str) -> RelaySettings:
    return RelaySettings.model_validate(variables)


@pytest.mark.parametrize("text", ["inf", "nan", "-1", "1e9"])
def test_the_drain_is_a_time_that_ends(text: str) -> None:
    with pytest.raises(ValidationError):
        written(RELAY_GRACEFUL_TIMEOUT=text)


@pytest.mark.parametrize(
    "name",
    [
        "TOKEN_PLACE_OPERATOR_TOKEN",
        "TOKEN_PLACE_KEY_ROTATION_TOKEN",
        "TOKEN_PLACE_RELAY_SERVER_TOKEN",
        "TOKEN_PLACE_RELAY_SERVER_TOKENS",
    ],
)
@pytest.mark.parametrize("token", ["p\u00e4sswort", "\udcff", "two\nlines"])
def test_a_token_that_no_header_can_carry_is_refused_in_one_sentence(name: str, token: str) -> None:
    with pytest.raises(ValidationError, match="ASCII") as refused:
        written(**{name: token})
    assert token not in str(refused.value)


def test_commas_alone_are_no_invitations() -> None:
    with pytest.raises(ValidationError, match="no invitation"):
        written(TOKEN_PLACE_RELAY_SERVER_TOKENS=" , ")
    assert written(TOKEN_PLACE_RELAY_SERVER_TOKENS=" ").tokens == []
    assert written(TOKEN_PLACE_RELAY_SERVER_TOKENS="a, ,b\n").tokens == ["a", "b"]


def test_rate_and_quota_of_one_length_are_one_window() -> None:
    found = written(API_RATE_LIMIT="10/minute; 500/day", API_DAILY_QUOTA="1000/day")
    windows = policy_of(found).limiter.budgets[Budget.REQUESTS]
    assert [(window.amount, window.get_expiry()) for window in windows] == [(10, 60), (500, 86400)]


def test_coming_back_has_a_wide_budget_of_its_own() -> None:
    (window,) = policy_of(written()).limiter.budgets[Budget.RESUMES]
    assert (window.amount, window.get_expiry()) == (600, 60)
    with pytest.raises(BadLimit, match="TOKEN_PLACE_RESUME_RATE_LIMIT"):
        policy_of(written(TOKEN_PLACE_RESUME_RATE_LIMIT="often"))
