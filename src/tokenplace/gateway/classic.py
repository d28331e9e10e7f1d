"""Encrypted requests of the original's API: which node's key a program is given, and to which node a request goes.

Nothing is opened here. A request goes to the node that owns the key it is sealed to, inside the sealed exchange, so
that the relay sees neither its options nor, for completions, its prompt. How the node is found, in this order:

1. by the request's `key_id`;
2. by the key that this program (its API key, else its address) was last given here;
3. the only node with a classic key, where there is just one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, TypeVar

from tokenplace.client.classic import ClassicNode
from tokenplace.client.client import Client
from tokenplace.errors import ApiError, TokenPlaceError
from tokenplace.openai import refusals
from tokenplace.openai.classic import KEY_ID, KeyExpired, nobody_opens
from tokenplace.sealing.operator import Operator
from tokenplace.sealing.rsa import ClassicPublicKey
from tokenplace.wire.classic import is_key_id
from tokenplace.wire.ids import ModelId, NodeId

T = TypeVar("T")

PRIVACY = "classic"
"""What `x-token-place-privacy` says of an encrypted answer: read by nobody between program and node, and sealed in the
classic envelope, which is weaker than the sealed exchange."""

ROTATE = "/v1/public-key/rotate"
"""What a node calls an operator's order."""

MAX_PROGRAMS = 4096
"""Programs whose last key is remembered, and keys whose node is."""

_PATIENCE = 20.0
"""Seconds a node may take to make a key."""


@dataclass(frozen=True, slots=True)
class Given:
    """A key that was given out, and by whom it is held."""

    node: NodeId
    key_id: str


class ClassicDesk:
    """Hands out keys and finds their nodes. `operator` is who may order keys to be replaced."""

    def __init__(
        self,
        client: Client,
        *,
        operator: Operator | None = None,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        limit: int = MAX_PROGRAMS,
    ) -> None:
        self._client = client
        self._operator = operator
        self._wall_ms = wall_ms
        self._limit = limit
        self._last: OrderedDict[str, Given] = OrderedDict()
        self._owners: OrderedDict[str, NodeId] = OrderedDict()

    # -- keys ------------------------------------------------------------------------------------------------------

    async def public_key(self, program: str, model: str | None) -> dict[str, str]:
        """The key that this program should seal to: the one it has, while that is good. Raises ApiError."""
        return self._give(program, await self._pick(program, ModelId(model) if model else None))

    async def rotate(self, program: str, shown: str) -> dict[str, Any]:
        """Pass the operator's order on to every node that may be his. Raises ApiError.

        `shown` is the token that came with the order.
        """
        operator = self._operator
        if operator is None:
            raise _not_allowed(
                "No operator's token is set here; start this gateway and its nodes with TOKEN_PLACE_OPERATOR_TOKEN.",
                HTTPStatus.SERVICE_UNAVAILABLE,
                "operator_auth_not_configured",
            )
        if not operator.is_token(shown):
            raise _not_allowed(
                "Show the operator's token in the header X-Token-Place-Operator, or as `Authorization: Bearer TOKEN`.",
                HTTPStatus.UNAUTHORIZED,
                "operator_token_invalid",
            )
        nodes = await self._client.classic_nodes()
        if not nodes:
            raise nobody_opens()
        told = await asyncio.gather(*(self._order(operator, each) for each in nodes))
        obeyed = [node for node in told if node is not None]
        if not obeyed:
            raise ApiError(
                f"None of the {len(nodes)} connected nodes obeys this operator. A node does that was started with "
                "the same TOKEN_PLACE_OPERATOR_TOKEN.",
                status=HTTPStatus.SERVICE_UNAVAILABLE,
                type="server_error",
                code="operator_not_obeyed",
            )
        last = self._last.get(program)
        mine = next((each for each in obeyed if last is not None and each.node == last.node), obeyed[0])
        return {**self._give(program, mine), "rotated": len(obeyed)}

    async def _order(self, operator: Operator, node: ClassicNode) -> ClassicNode | None:
        """The node with its fresh key, or None where it does not obey."""
        now_ms = self._wall_ms()
        order = await asyncio.to_thread(operator.order, node.node, now_ms)
        body = json.dumps({"time_ms": now_ms, "order": order}).encode()
        try:
            async with asyncio.timeout(_PATIENCE), self._client.ask(ROTATE, body, node=node.node) as answer:
                told = await answer.read()
                if answer.head.status != HTTPStatus.OK:
                    return None
            await self._client.classic_nodes(
                node=node.node, fresh=True
            )  # what is remembered of its card is out of date
            return replace(node, key=ClassicPublicKey.parse(json.loads(told)["public_key"]))
        except (TokenPlaceError, TimeoutError, ValueError, KeyError, TypeError):
            return None

    # -- ways ------------------------------------------------------------------------------------------------------

    async def owner(self, program: str, content: Mapping[str, Any]) -> NodeId:
        """The node that a sealed request is for. Raises ApiError, and KeyExpired with a key to seal to instead."""
        key_id = content.get(KEY_ID)
        if key_id is not None:
            if not is_key_id(key_id):
                raise refusals.invalid(KEY_ID, "A key's id is 16 hexadecimal digits, as public-key tells it.")
            return await self._holder(program, key_id)
        last = self._last.get(program)
        if last is not None:
            return await self._holder(program, last.key_id)
        nodes = await self._client.classic_nodes()
        if not nodes:
            raise nobody_opens()
        if len(nodes) > 1:
            raise ApiError(
                f"{len(nodes)} nodes have keys and nothing says to which of them this request is sealed: send the "
                "`key_id` that came with the key.",
                param=KEY_ID,
                code="missing_required_parameter",
            )
        return nodes[0].node

    async def answerer(self, program: str, model: str) -> NodeId:
        """A node for a request of which only the answer is to be sealed. Raises ApiError."""
        return (await self._pick(program, ModelId(model))).node

    async def _holder(self, program: str, key_id: str) -> NodeId:
        """The node that opens with this key, as its card tells now."""
        known = self._owners.get(key_id)
        if known is not None:
            for fresh in (False, True):
                if _holds(await self._client.classic_nodes(node=known, fresh=fresh), key_id) is not None:
                    return known
        found = _holds(await self._client.classic_nodes(), key_id)
        if found is None:
            given = self._give(program, await self._pick(program, None))
            raise KeyExpired(given["public_key"], given["key_id"])
        _remember(self._owners, key_id, found.node, self._limit)
        return found.node

    async def _pick(self, program: str, model: ModelId | None) -> ClassicNode:
        last = self._last.get(program)
        if last is not None:
            for node in await self._client.classic_nodes(node=last.node):
                if model is None or model in node.models:
                    return node
        nodes = await self._client.classic_nodes(model=model)
        if not nodes:
            raise nobody_opens()
        return nodes[0]

    def _give(self, program: str, node: ClassicNode) -> dict[str, str]:
        _remember(self._last, program, Given(node.node, node.key_id), self._limit)
        _remember(self._owners, node.key_id, node.node, self._limit)
        return {
            "public_key": node.key.wire,
            "key_id": node.key_id,
            "fingerprint": node.fingerprint,
            "node": node.node,
        }


def _holds(nodes: Sequence[ClassicNode], key_id: str) -> ClassicNode | None:
    """Who has this key: who shows it, before who says to have shown it once."""
    shown: Iterable[ClassicNode] = (node for node in nodes if node.key_id == key_id)
    once: Iterable[ClassicNode] = (node for node in nodes if key_id in node.previous)
    return next(iter(shown), None) or next(iter(once), None)


def _remember(memory: OrderedDict[str, T], name: str, value: T, limit: int) -> None:
    memory[name] = value
    memory.move_to_end(name)
    while len(memory) > limit:
        memory.popitem(last=False)


def _not_allowed(message: str, status: HTTPStatus, code: str) -> ApiError:
    return ApiError(message, status=status, type="authentication_error", code=code)
