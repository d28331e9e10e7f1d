"""Whatever /openapi.json allows may be asked, and much that it does not: nothing is answered with a fault of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from stage import Program, staged

EXAMPLES = 12
PATHS = [
    ("GET", "/v1/models"),
    ("GET", "/v2/models/{model_id}"),
    ("GET", "/v1/health"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v2/chat/completions"),
    ("POST", "/v2/completions"),
    ("POST", "/v2/responses"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/images/generations"),
    ("GET", "/api/v1/community/leaderboard"),
    ("GET", "/api/v2/community/providers"),
    ("POST", "/api/v1/community/feedback"),
    ("POST", "/api/v1/community/contributions"),
]
AWAY = "model_not_served"
"""The only reason for a status of 500 or more: nobody has that model now."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with staged(tmp_path_factory.mktemp("fuzz")) as stage:
        env = {"TOKEN_PLACE_COMMUNITY_LIMIT": "0", "TOKEN_PLACE_STAND_IN": "1"}
        relay = stage.relay(env=env)
        stage.node(relay, env=env)
        yield relay


@pytest.fixture(scope="module")
def document(gateway: Program) -> Any:
    config = SchemathesisConfig()
    return schemathesis.openapi.from_url(f"{gateway.url}/openapi.json", config=config)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("method", "path"), PATHS)
def test_nothing_that_is_asked_is_a_fault_of_ours(
    gateway: Program, document: Any, method: str, path: str, mode: GenerationMode
) -> None:
    operation = document[path][method]
    if mode is GenerationMode.NEGATIVE and not operation.body:
        pytest.skip("there is nothing to get wrong")

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if isinstance(case.body, dict) and case.body.get("model"):
            case.body["model"] = "echo"  # so that the request gets further than the choice of a node
        response = case.call(base_url=gateway.url, timeout=20)
        if response.status_code >= 400:
            error = response.json()["error"]
            fresh = {"public_key", "key_id"} if error["code"] == "key_expired" else set()
            assert set(error) == {"message", "type", "param", "code"} | fresh
            assert response.status_code < 500 or error["code"] == AWAY, response.text
        case.validate_response(
            response, checks=[status_code_conformance, content_type_conformance, response_schema_conformance]
        )

    ask()
