"""A relay's classic routes, as a program calls them that waits for one thing after the other.

Where the relay is one of ours it names questions, hands out tokens and lets a caller wait; where it is the original,
answers are polled for, as it was made for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx2 as httpx

from tokenplace.errors import Refused, RelayUnreachable
from tokenplace.wire.classic import MAX_LINE

WAIT = 25.0
"""Seconds to wait for an answer in one request: below what proxies give up at."""

_FIRST_LOOK = 3.0
"""An original relay's client waits so long before it asks for the answer the first time."""

_NOTHING_YET = "No response available"
_MARGIN = 10.0

_MAY_BREAK = 3
"""Connections in a row that may break while an answer is waited for."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that a relay has taken. An original relay names nothing."""

    client_key: str
    request_id: str | None = None
    token: str | None = None

    def fields(self) -> dict[str, Any]:
        """What asking for its answer sends."""
        named = {"request_id": self.request_id, "retrieve_token": self.token}
        return {"client_public_key": self.client_key, **{name: value for name, value in named.items() if value}}

    @property
    def named(self) -> bool:
        """Whether the relay lets its caller wait."""
        return self.request_id is not None


class ClassicRelay:
    """One relay (or gateway) at a base URL."""

    def __init__(self, base_url: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._http = httpx.Client(base_url=base_url, headers={"accept-encoding": "identity"})
        self._sleep = sleep

    def close(self) -> None:
        """Give connections back."""
        self._http.close()

    def get(self, path: str, timeout: float) -> Any:
        """The JSON at a path; an HTTP error's too. Raises RelayUnreachable."""
        return self._call("GET", path, None, timeout)[1]

    def post(self, path: str, content: Mapping[str, Any], timeout: float) -> tuple[int, Any]:
        """Status and JSON (None where it is none). Raises RelayUnreachable."""
        return self._call("POST", path, content, timeout)

    def stream(self, path: str, content: Mapping[str, Any], timeout: float) -> Any:
        """An answer that is read as it comes: a context manager."""
        return self._http.stream("POST", path, json=content, timeout=timeout)

    # -- questions -------------------------------------------------------------------------------------------------

    def ask(self, fields: Mapping[str, Any], *, stream: bool, timeout: float = 30.0) -> Asked:
        """Hand over a question. Raises RelayUnreachable, or Refused with the relay's reason and status."""
        extra = {"bound": True, **({"stream": True} if stream else {})}
        status, told = self.post("/faucet", {**fields, **extra}, timeout)
        if status != HTTPStatus.OK or not isinstance(told, dict) or not (told.get("message") or told.get("success")):
            raise refusal(status, told)
        request_id, token = told.get("request_id"), told.get("retrieve_token")
        return Asked(
            str(fields["client_public_key"]),
            request_id if isinstance(request_id, str) else None,
            token if isinstance(token, str) else None,
        )

    def retrieve(self, asked: Asked, *, tries: int, delay: float, patience: float) -> dict[str, Any] | None:
        """The answer, or None while there is none. Raises RelayUnreachable, or Refused where there will be none.

        A relay that names questions is waited at for `patience` seconds, as long as it says that the question is
        alive; another is asked `tries` times with `delay` seconds between.
        """
        for told in self._asked_again("/retrieve", asked, tries, delay, patience):
            if "error" not in told:
                return told
        return None

    def pieces(self, asked: Asked, *, tries: int, delay: float, patience: float) -> Iterator[dict[str, Any]]:
        """What /stream/retrieve tells, as long as there is more. Raises as `retrieve`, and Refused when it dries up."""
        while True:
            for told in self._asked_again("/stream/retrieve", asked, tries, delay, patience):
                if "error" not in told:
                    break
            else:
                raise Refused("No further piece of the answer came in time.", code="no_progress")
            yield told
            if told.get("final"):
                return

    def cancel(self, asked: Asked) -> None:
        """Nobody wants the answer any more. Raises RelayUnreachable."""
        if asked.named:
            self.post("/retrieve", {**asked.fields(), "cancel": True}, 10.0)

    def first_look(self, asked: Asked) -> None:
        """Give an original relay's node the time that it takes at least."""
        if not asked.named:
            self._sleep(_FIRST_LOOK)

    def pause(self, seconds: float) -> None:
        """Wait before trying again."""
        self._sleep(seconds)

    def _asked_again(
        self, path: str, asked: Asked, tries: int, delay: float, patience: float
    ) -> Iterator[dict[str, Any]]:
        until = time.monotonic() + patience
        left, broken = tries, 0
        while (time.monotonic() < until) if asked.named else left > 0:
            wait = {"wait": min(WAIT, max(0.0, until - time.monotonic()))} if asked.named else {}
            try:
                status, told = self.post(path, {**asked.fields(), **wait}, WAIT + _MARGIN)
            except RelayUnreachable:
                broken += 1
                if not asked.named or broken > _MAY_BREAK:
                    raise
                self._sleep(1.0)  # some proxy does not like to wait; the question is still there
                continue
            broken = 0
            if not isinstance(told, dict) or status != HTTPStatus.OK:
                raise refusal(status, told)
            if "error" in told and not str(told["error"]).startswith(_NOTHING_YET):
                raise refusal(status, told)
            yield told
            left -= 1
            if not asked.named and left:
                self._sleep(delay)

    def _call(self, method: str, path: str, content: Mapping[str, Any] | None, timeout: float) -> tuple[int, Any]:
        try:
            response = self._http.request(method, path, json=content, timeout=timeout)
        except httpx.HTTPError as error:
            raise RelayUnreachable(
                f"{self._http.base_url} cannot be reached ({type(error).__name__}); check the address and the network."
            ) from error
        if len(response.content) > 2 * MAX_LINE:
            return response.status_code, None
        try:
            return response.status_code, response.json()
        except (ValueError, RecursionError):
            return response.status_code, None


def refusal(status: int, told: object) -> Refused:
    """What a relay's or gateway's error says, in whichever of the shapes it comes."""
    content = told if isinstance(told, dict) else {}
    error = content.get("error")
    parts = error if isinstance(error, dict) else {}
    message = parts.get("message") if parts else error
    code = content.get("reason") or parts.get("code")
    return Refused(
        message if isinstance(message, str) and message else f"The relay answered {status}.",
        code=code if isinstance(code, str) else "relay_error",
        status=status,
    )
