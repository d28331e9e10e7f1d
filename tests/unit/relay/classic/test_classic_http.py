"""The classic routes over HTTP: the original's shapes byte for byte, bad input named, waiting that wakes at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenplace.errors import TokenPlaceError
from tokenplace.relay.address import Client
from tokenplace.relay.asgi import App, Receive, Scope, Send
from tokenplace.relay.classic.bounds import MAX_BODY, SMALL_BODY
from tokenplace.relay.classic.http import ClassicDoor
from unit.relay.classic.classic_desk import ELSEWHERE, ENVELOPE, HOME, ClassicDesk, a_key, records, told
from unit.relay.fake_time import now, run
from unit.relay.web import Exchange, Reply, ask, asking

JSON = [("content-type", "application/json")]
POSTS = ("/faucet", "/sink", "/source", "/retrieve", "/stream/source", "/stream/retrieve")
QUESTION = {"server_public_key": "K", "client_public_key": "C", **ENVELOPE}
NOTHING = b'{"error":"No response available for the given public key"}\n'


class _Desk(ClassicDesk):
    """A desk whose clock is the loop's."""

    def __init__(self) -> None:
        super().__init__()
        self.room._clock = now

    @property
    def now(self) -> float:
        return now()

    @now.setter
    def now(self, _: float) -> None:
        pass


class Door:
    """The classic routes, asked from an address."""

    def __init__(self, invited: str | None = None) -> None:
        self.desk = _Desk()
        self._invited = invited
        self._door = ClassicDoor(self.desk.room, now, self._admit)

    def _admit(self, token: str | None, _: Client) -> None:
        if self._invited is not None and token != self._invited:
            raise TokenPlaceError("Not invited.")

    def at(self, address: str) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["client"] = (address, 1)
            await self._door(scope, receive, send)

        return app

    async def post(self, path: str, content: Any, *, at: str = HOME, token: str | None = None) -> Reply:
        headers = [*JSON, *([("x-relay-server-token", token)] if token else [])]
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return await ask(self.at(at), "POST", path, headers=headers, body=[body])

    async def get(self, path: str, method: str = "GET") -> Reply:
        return await ask(self.at(HOME), method, path)

    @asynccontextmanager
    async def posting(self, path: str, content: Any, *, at: str = HOME) -> AsyncIterator[Exchange]:
        async with asking(self.at(at), "POST", path, headers=JSON, body=[json.dumps(content).encode()]) as exchange:
            yield exchange


def test_a_whole_round_trip_has_the_original_s_bytes() -> None:
    async def main() -> None:
        door = Door()
        assert (await door.get("/next_server")).json()["error"]["code"] == 503
        polled = await door.post("/sink", {"server_public_key": "K"})
        assert polled.status == 200
        assert polled.headers["content-type"] == "application/json"
        assert set(polled.json()) == {"next_ping_in_x_seconds", "sink_token"}
        assert (await door.get("/next_server")).body == b'{"server_public_key":"K"}\n'

        sent = await door.post("/faucet", QUESTION, at=ELSEWHERE)
        assert sent.status == 200
        assert set(sent.json()) == {"message", "request_id", "retrieve_token"}
        assert (await door.post("/retrieve", {"client_public_key": "C"}, at=ELSEWHERE)).body == NOTHING

        work = (await door.post("/sink", {"server_public_key": "K"})).json()
        assert {name: work[name] for name in ("client_public_key", *ENVELOPE)} == {"client_public_key": "C", **ENVELOPE}
        assert "stream" not in work
        assert "batch" not in work
        done = await door.post("/source", {"client_public_key": "C", **told("answer"), "extra": 1})
        assert done.status == 200
        assert set(done.json()) == {"message"}
        read = (await door.post("/retrieve", {"client_public_key": "C"}, at=ELSEWHERE)).json()
        assert read == {**told("answer"), "request_id": sent.json()["request_id"]}
        assert (await door.post("/retrieve", {"client_public_key": "C"}, at=ELSEWHERE)).body == NOTHING

    run(main)


def test_a_batch_is_only_named_where_the_node_asked_for_one() -> None:
    async def main() -> None:
        door = Door()
        await door.post("/sink", {"server_public_key": "K"})
        for client in "CDE":
            fields = {**QUESTION, "client_public_key": client, "stream": client == "D"}
            await door.post("/faucet", fields, at=ELSEWHERE)
        work = (await door.post("/sink", {"server_public_key": "K", "max_batch_size": "2"})).json()
        assert [job["client_public_key"] for job in work["batch"]] == ["C", "D"]
        assert [job["stream"] for job in work["batch"]] == [False, True]
        assert [("stream_session_id" in job) for job in work["batch"]] == [False, True]
        assert work["client_public_key"] == "C"
        assert work["next_ping_in_x_seconds"] == 0
        assert type(work["next_ping_in_x_seconds"]) is int

    run(main)


def test_a_stream_has_the_original_s_shape() -> None:
    async def main() -> None:
        door = Door()
        await door.post("/sink", {"server_public_key": "K"})
        await door.post("/faucet", {**QUESTION, "stream": True}, at=ELSEWHERE)
        work = (await door.post("/sink", {"server_public_key": "K"})).json()
        assert work["stream"] is True
        session = work["stream_session_id"]
        assert (await door.post("/stream/retrieve", {"client_public_key": "C"}, at=ELSEWHERE)).body == NOTHING
        for chunk, final in ((None, False), ({"a": ["é"]}, True)):
            told_so = await door.post("/stream/source", {"session_id": session, "chunk": chunk, "final": final})
            assert told_so.json()["final"] is final
        read = (await door.post("/stream/retrieve", {"client_public_key": "C"}, at=ELSEWHERE)).json()
        read.pop("request_id")
        assert read == {"stream": True, "session_id": session, "chunks": [None, {"a": ["é"]}], "final": True}
        gone = await door.post("/stream/source", {"session_id": session, "chunk": 1})
        assert gone.status == 404
        assert isinstance(gone.json()["error"], str)

    run(main)


@pytest.mark.parametrize(
    ("path", "content", "status", "shape"),
    [
        ("/faucet", {}, 400, dict),
        ("/faucet", {**QUESTION, "iv": 1}, 400, dict),
        ("/faucet", {**QUESTION, "client_public_key": None, "stream": True}, 400, dict),
        ("/faucet", {**QUESTION, "server_public_key": "nobody's"}, 404, str),
        ("/faucet", b"no json", 400, dict),
        ("/faucet", [], 400, dict),
        ("/sink", {}, 400, str),
        ("/sink", {"server_public_key": None}, 400, str),
        ("/sink", {"server_public_key": []}, 400, str),
        ("/sink", {"server_public_key": "K", "max_batch_size": 0}, 400, str),
        ("/sink", {"server_public_key": "K", "max_batch_size": "many"}, 400, str),
        ("/sink", b'{"server_public_key": "K", "max_batch_size": Infinity}', 400, str),
        ("/sink", {"server_public_key": "K", "wait": -1}, 400, str),
        ("/sink", [1], 400, str),
        ("/source", {"client_public_key": "C"}, 400, str),
        ("/source", {"client_public_key": "C", **ENVELOPE}, 403, str),
        ("/retrieve", {}, 400, str),
        ("/retrieve", {"client_public_key": 5}, 400, str),
        ("/retrieve", b"[" * 60_000, 400, str),
        ("/stream/source", {"session_id": "s"}, 400, str),
        ("/stream/source", {"session_id": "s", "chunk": 1}, 404, str),
        ("/stream/source", {"session_id": None, "chunk": 1}, 400, str),
        ("/stream/retrieve", {}, 400, str),
    ],
)
def test_what_is_wrong_is_named_in_the_original_s_shape(
    path: str, content: Any, status: int, shape: type[object]
) -> None:
    async def main() -> None:
        reply = await Door().post(path, content)
        assert reply.status == status
        error = reply.json()["error"]
        assert type(error) is shape
        if isinstance(error, dict):
            assert error["code"] == status
            assert error["message"]
        assert reply.json()["reason"]

    run(main)


@pytest.mark.parametrize("key", ["K", 5, 2.5, True, "ключ"])
def test_a_server_may_be_named_by_any_scalar(key: object) -> None:
    async def main() -> None:
        door = Door()
        assert (await door.post("/sink", {"server_public_key": key})).status == 200
        assert (await door.get("/next_server")).json() == {"server_public_key": key}
        assert (await door.post("/faucet", {**QUESTION, "server_public_key": key})).status == 200

    run(main)


def test_a_sink_token_is_told_once_and_must_not_be_guessable() -> None:
    async def main() -> None:
        door = Door()
        assert "sink_token" in (await door.post("/sink", {"server_public_key": "K"})).json()
        assert "sink_token" not in (await door.post("/sink", {"server_public_key": "K"})).json()
        assert (await door.post("/sink", {"server_public_key": "L", "sink_token": "short"})).status == 400
        brought = {"server_public_key": "L", "sink_token": "sixteen letters!"}
        assert set((await door.post("/sink", brought)).json()) == {"next_ping_in_x_seconds"}
        assert (await door.post("/sink", brought, at=ELSEWHERE)).status == 200
        assert (await door.post("/sink", {"server_public_key": "L"})).status == 403

    run(main)


def test_a_question_without_a_client_key_is_taken_and_nobody_is_bothered() -> None:
    async def main() -> None:
        door = Door()
        await door.post("/sink", {"server_public_key": "K"})
        assert (await door.post("/faucet", {**QUESTION, "client_public_key": None})).status == 200
        assert "client_public_key" not in (await door.post("/sink", {"server_public_key": "K"})).json()

    run(main)


def test_without_the_invitation_nobody_serves() -> None:
    async def main() -> None:
        door = Door("sesame")
        for path, content in (
            ("/sink", {"server_public_key": "K"}),
            ("/source", {"client_public_key": "C", **ENVELOPE}),
            ("/stream/source", {"session_id": "s", "chunk": 1}),
        ):
            for token in (None, "guess"):
                reply = await door.post(path, content, token=token)
                assert reply.status == 401
                assert reply.json()["error"]["code"] == 401
            assert (await door.post(path, content, token="sesame")).status != 401
        assert (await door.post("/retrieve", {"client_public_key": "C"})).status == 200, "clients need none"

    run(main)


def test_other_methods_and_types_are_refused_in_json() -> None:
    async def main() -> None:
        door = Door()
        for path in POSTS:
            reply = await door.get(path)
            assert (reply.status, reply.headers["allow"]) == (405, "POST, OPTIONS")
            assert reply.json()["error"]
            plain = await ask(door.at(HOME), "POST", path, headers=[("content-type", "text/plain")], body=[b"{}"])
            assert plain.status == 415
            options = await door.get(path, "OPTIONS")
            assert (options.status, options.body, options.headers["allow"]) == (200, b"", "POST, OPTIONS")
            assert not [name for name in options.headers if name.startswith("access-control")]

    run(main)


def test_bodies_are_refused_before_they_are_read() -> None:
    async def main() -> None:
        door = Door()
        for path, most in (("/faucet", MAX_BODY), ("/sink", SMALL_BODY)):
            claimed = await ask(door.at(HOME), "POST", path, headers=[*JSON, ("content-length", str(most + 1))])
            assert claimed.status == 413
            long = [b"x" * 60_000] * (most // 60_000 + 2)
            assert (await ask(door.at(HOME), "POST", path, headers=JSON, body=long)).status == 413
        assert door.desk.room.mailboxes.shares.held == 0

    run(main)


_FIELDS = st.sampled_from(
    [
        *("server_public_key", "client_public_key", "chat_history", "cipherkey", "iv", "stream", "max_batch_size"),
        *("session_id", "chunk", "final", "request_id", "retrieve_token", "sink_token", "bound", "cancel"),
    ]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("K"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(POSTS), st.binary(max_size=40) | st.dictionaries(_FIELDS, _VALUES, max_size=8))
def test_no_body_is_ever_our_fault(path: str, content: Any) -> None:
    async def main() -> None:
        door = Door()
        await door.post("/sink", {"server_public_key": "K"})
        reply = await door.post(path, content)
        assert reply.status < 500
        assert reply.json() is not None

    run(main)


def test_who_waits_for_an_answer_is_woken_by_it() -> None:
    async def main() -> None:
        door = Door()
        await door.post("/sink", {"server_public_key": "K"})
        await door.post("/faucet", QUESTION, at=ELSEWHERE)
        began = now()
        async with door.posting("/retrieve", {"client_public_key": "C", "wait": 30}, at=ELSEWHERE) as waiting:
            await asyncio.sleep(7)
            await door.post("/sink", {"server_public_key": "K"})
            assert not waiting.reply.status
            await door.post("/source", {"client_public_key": "C", **told("answer")})
            await waiting.until_body(2)
        assert waiting.reply.json()["chat_history"] == "answer"
        assert now() - began == pytest.approx(7, abs=0.1)

    run(main)


def test_who_waits_in_vain_is_answered_after_the_time_it_asked_for_and_at_most_thirty_seconds() -> None:
    async def main() -> None:
        for asked, passed in ((3, 3), (1000, 30), (None, 0)):
            door = Door()
            await door.post("/sink", {"server_public_key": "K"})
            sent = (await door.post("/faucet", QUESTION, at=ELSEWHERE)).json()
            began = now()
            named = {"request_id": sent["request_id"], "retrieve_token": sent["retrieve_token"]}
            reply = await door.post("/retrieve", {"client_public_key": "C", "wait": asked, **named}, at=ELSEWHERE)
            assert now() - began == pytest.approx(passed, abs=0.1)
            assert reply.json()["error"].startswith("No response available")
            assert reply.json()["state"] == "waiting"

    run(main)


def test_a_node_that_waits_is_woken_by_work_and_is_not_gone_meanwhile() -> None:
    async def main() -> None:
        door = Door()
        began = now()
        async with door.posting("/sink", {"server_public_key": "K", "wait": 30}) as waiting:
            await asyncio.sleep(29)
            door.desk.room.tick(now())
            sent = await door.post("/faucet", QUESTION, at=ELSEWHERE)
            assert sent.status == 200
            await waiting.until_body(2)
        assert waiting.reply.json()["client_public_key"] == "C"
        assert waiting.reply.json()["next_ping_in_x_seconds"] == 0
        assert now() - began == pytest.approx(29, abs=0.1)

    run(main)


def test_a_node_that_hung_up_is_not_handed_the_work() -> None:
    async def main() -> None:
        door = Door()
        async with door.posting("/sink", {"server_public_key": "K", "wait": 30}):
            await asyncio.sleep(1)
        await door.post("/faucet", QUESTION, at=ELSEWHERE)
        assert (await door.post("/sink", {"server_public_key": "K"})).json()["client_public_key"] == "C"

    run(main)


def test_a_modern_node_s_pieces_wake_who_waits_for_them() -> None:
    async def main() -> None:
        door = Door()
        node = door.desk.modern(1, a_key("modern"))
        server = (await door.get("/next_server")).json()
        assert server == {"server_public_key": a_key("modern"), "key_id": f"{1:016x}", "node": node.id}
        await door.post("/faucet", {**QUESTION, **server, "stream": True}, at=ELSEWHERE)
        sid = node.an_offer()
        node.accept(sid)
        async with door.posting("/stream/retrieve", {"client_public_key": "C", "wait": 30}, at=ELSEWHERE) as waiting:
            await asyncio.sleep(1)
            (part,) = records({"message": {"n": 1}})
            node.send(sid, 0, part)
            await waiting.until_body(2)
        assert waiting.reply.json()["chunks"] == [{"n": 1}]

    run(main)


def test_a_question_can_be_cancelled_by_name() -> None:
    async def main() -> None:
        door = Door()
        await door.post("/sink", {"server_public_key": "K"})
        sent = (await door.post("/faucet", QUESTION, at=ELSEWHERE)).json()
        fields = {"client_public_key": "C", "request_id": sent["request_id"], "cancel": True}
        assert (await door.post("/retrieve", {**fields, "retrieve_token": "guess"}, at=ELSEWHERE)).json()["error"]
        assert (await door.post("/retrieve", fields, at=ELSEWHERE)).json()["message"] == "Cancelled"
        assert "client_public_key" not in (await door.post("/sink", {"server_public_key": "K"})).json()

    run(main)
