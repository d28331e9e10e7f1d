"""Limits as a program meets them: the OpenAI SDK against a real relay that hosts a gateway."""

from __future__ import annotations

import socket
import urllib.request

import pytest
from openai import OpenAI, RateLimitError
from openai.types.chat import ChatCompletionUserMessageParam

from stage import Stage, get_json, metric, until

HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "hello"}]


def test_a_program_hears_where_it_stands_and_when_it_may_come_back(stage: Stage) -> None:
    relay = stage.relay(env={"API_RATE_LIMIT": "4/minute", "API_STREAM_RATE_LIMIT": "1/minute"})
    stage.node(relay)
    with OpenAI(base_url=f"{relay.url}/v2", api_key="none", max_retries=0) as program:
        raw = program.chat.completions.with_raw_response.create(model="echo", messages=HELLO)
        assert raw.headers["x-ratelimit-remaining-requests"] == "3"
        assert raw.headers["ratelimit"].startswith('"requests";r=3;t=')
        with program.chat.completions.create(model="echo", messages=HELLO, stream=True) as stream:
            assert list(stream)
        with pytest.raises(RateLimitError) as streams:
            program.chat.completions.create(model="echo", messages=HELLO, stream=True)
        program.chat.completions.create(model="echo", messages=HELLO)
        with pytest.raises(RateLimitError) as requests:
            program.chat.completions.create(model="echo", messages=HELLO)
        for refused in (streams.value, requests.value):
            assert refused.code == "rate_limit_exceeded"
            assert 1 <= int(refused.response.headers["retry-after"]) <= 60
        assert list(program.models.list())
    for _ in range(20):
        assert get_json(f"{relay.url}/livez") == {"status": "alive"}
    assert metric(relay, "tokenplace_relay_limited_total") == 2


def test_who_leaves_in_the_middle_of_a_request_is_no_fault_of_ours(stage: Stage) -> None:
    relay = stage.relay()
    host, port = relay.url.removeprefix("http://").split(":")
    for path in ("/v1/chat/completions", "/api/v2/completions", "/relay/v2/jobs?node=" + "a" * 32, "/faucet"):
        with socket.create_connection((host, int(port))) as wire:
            head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{{"
            wire.sendall(head.encode())
    until(lambda: metric(relay, 'tokenplace_relay_requests_total{route="ask"') >= 2, "both questions to be over")
    with urllib.request.urlopen(f"{relay.url}/metrics", timeout=20) as response:
        assert b'status="5' not in response.read()
    relay.end()
    relay.finish()
    assert "Traceback" not in relay.text
