"""Which paths a gateway hands on to a relay."""

from __future__ import annotations

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from tokenplace.gateway.passage import Passage

NOBODY = "http://127.0.0.1:9"  # the discard port: nobody listens


def ask(path: str, method: str = "GET") -> tuple[int, str]:
    passage = Passage([NOBODY], otherwise=PlainTextResponse("ours", 404))
    answer = TestClient(passage, raise_server_exceptions=False).request(method, path)
    return answer.status_code, "ours" if answer.text == "ours" else answer.json()["error"]["code"]


@pytest.mark.parametrize(
    "path", ["/relay/v2/nodes", "/relay/v2/jobs", "/relay/v2/jobs/00ff", "/api/v1/community/leaderboard"]
)
def test_the_relay_s_routes_go_to_the_relay(path: str) -> None:
    assert ask(path) == (503, "relay_unreachable")


@pytest.mark.parametrize(
    "path",
    [
        "/relay/v2/jobs%00",
        "/relay/v2/jobs/%00",
        "/relay/v2/jobs/%0d%0aX:%20y",
        "/relay/v2/jobs/%2e%2e/%2e%2e/%2e%2e/metrics",
        "/relay/v2/jobs/%3fnode=x",
        "/relay/v2/jobs/%23",
        "/relay/v2/jobsier",
        "/relay/v2/jobs//x",
        "/api/v1/community/feedback%00",
        "/api/v1/community/%2e%2e/%2e%2e/%2e%2e/metrics",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_that_could_mean_another_one_there_stays_here(path: str, method: str) -> None:
    assert ask(path, method) == (404, "ours")


def test_a_request_that_claims_too_much_is_refused_before_it_is_read() -> None:
    passage = Passage([NOBODY], otherwise=PlainTextResponse("ours", 404))
    answer = TestClient(passage).post("/relay/v2/jobs", content=b"a", headers={"content-length": "99999999"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
