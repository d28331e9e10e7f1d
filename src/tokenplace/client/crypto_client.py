"""The original's helper for encrypted conversations, with its names: one class that a script can use line by line.

    with CryptoClient("https://relay.example") as client:
        client.send_chat_message("Hello")

It seals with the classic envelope, which is as strong as `sealing.classic` says and no stronger. New programs use
`tokenplace.client.client.Client`, whose answers are authenticated and whose nodes are remembered.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlsplit

from tokenplace.client.classic_relay import Asked, ClassicRelay, refusal
from tokenplace.client.crypto_stream import ApiStream, Event, StreamOptions, relay_events
from tokenplace.errors import Refused, RelayUnreachable, SealError, TokenPlaceError, WireError
from tokenplace.sealing.classic import Envelope, open_classic, seal_classic
from tokenplace.sealing.padding import request_size
from tokenplace.sealing.rsa import ClassicKey, ClassicPublicKey

NEXT_SERVER, PUBLIC_KEY = "/next_server", "/api/v1/public-key"
CHAT, STREAMED_CHAT = "/api/v1/chat/completions", "/api/v2/chat/completions"
DEFAULT_MODEL = "llama-3-8b-instruct"

_OTHER_SERVER = frozenset(
    {
        "node_unknown",
        "node_lost",
        "node_draining",
        "key_expired",
        "key_unknown",
        "queue_timeout",
        "engine_failed",
        "engine_full",
    }
)
"""Reasons after which another server, or the same one's fresh key, may answer: nothing of the answer was seen."""

_NOT_NOW = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_SERVERS = 3
"""Servers that a message is tried with."""

Messages = Sequence[Mapping[str, Any]]
_log = logging.getLogger("tokenplace.client.crypto")


class CryptoClient:
    """Asks through a relay or gateway at `base_url`, with an RSA key of its own.

    What goes wrong on the way gives None or False, as it always did; `last_error` says what it was, and `debug` logs
    it. `patience` is for how many seconds an answer is waited for while the relay says that it is under way. Raises
    ValueError for a `base_url` that does not begin with http:// or https://.
    """

    def __init__(
        self,
        base_url: str,
        debug: bool = False,
        *,
        patience: float = 300.0,
        key: ClassicKey | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not base_url.startswith(("http://", "https://")) or not urlsplit(base_url).hostname:
            raise ValueError(f"The base URL begins with http:// or https://; {base_url!r} does not.")
        self.base_url = base_url.rstrip("/")
        self.debug = debug
        self.patience = patience
        self.last_error: TokenPlaceError | None = None
        self._key = key or ClassicKey.generate()
        self._server: ClassicPublicKey | None = None
        self._relay = ClassicRelay(self.base_url, sleep=sleep)
        self._asked: Asked | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give connections back."""
        self._relay.close()

    # -- keys ------------------------------------------------------------------------------------------------------

    @property
    def client_public_key(self) -> str:
        """Our public key as PEM text."""
        return self._key.public_pem

    @property
    def client_public_key_b64(self) -> str:
        """… and as it travels: base64 of that."""
        return self._key.public.wire

    @property
    def server_public_key(self) -> str | None:
        """The server's public key as PEM text, once it was fetched."""
        return self._server.pem if self._server is not None else None

    def fetch_server_public_key(self, endpoint: str = NEXT_SERVER, timeout: float = 10) -> bool:
        """Ask for a server's key and keep it; `timeout` in seconds. False where there is none: nothing is raised."""
        try:
            told = self._relay.get(endpoint, timeout)
            if not isinstance(told, dict) or "error" in told:
                raise refusal(HTTPStatus.OK, told)
            key = told.get("server_public_key") or told.get("public_key")
            if not isinstance(key, str):
                raise WireError("What was answered holds no public key.")
            self._server = ClassicPublicKey.parse(key)
        except TokenPlaceError as error:
            self._failed(error)
            return False
        return True

    def has_server_public_key(self) -> bool:
        """Whether a server's key is there to seal to."""
        return self._server is not None

    # -- envelopes -------------------------------------------------------------------------------------------------

    def encrypt_message(self, message: Mapping[str, Any] | Sequence[Any] | str | bytes) -> dict[str, str]:
        """Seal a message to the server: `{ciphertext, cipherkey, iv}`, base64.

        Objects and lists become JSON, padded with spaces that hide its length. Raises ValueError without a server's
        key or for None, TypeError for anything else that is no message.
        """
        if self._server is None:
            raise ValueError("No server's key is here; call fetch_server_public_key first.")
        return seal_classic(_plain(message), self._server).fields()

    def decrypt_message(self, encrypted: Mapping[str, Any]) -> Any:
        """Open what was sealed to us: what its JSON says, or the text. None where it does not open.

        Raises UnicodeDecodeError for bytes that are no text.
        """
        try:
            words = open_classic(Envelope.parse(encrypted), self._key)
        except (SealError, WireError) as error:
            return self._failed(error)
        text = words.decode()
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text

    def send_encrypted_message(
        self, endpoint: str, payload: Mapping[str, Any], timeout: float = 10
    ) -> dict[str, Any] | None:
        """POST a payload as it is; `timeout` in seconds. None unless the answer is 200 and a JSON object."""
        try:
            status, told = self._relay.post(endpoint, payload, timeout)
            if status != HTTPStatus.OK or not isinstance(told, dict):
                raise refusal(status, told)
        except TokenPlaceError as error:
            self._failed(error)
            return None
        return told

    # -- through the relay -----------------------------------------------------------------------------------------

    def send_chat_message(self, message: str | Messages, max_retries: int = 5) -> list[dict[str, Any]] | None:
        """Ask a server and wait for the conversation with its answer at the end. None where none came.

        A server that is gone, or that has replaced its key, is exchanged for another. `max_retries` is how often a
        relay of the original is asked for the answer; at one of ours `patience` counts.
        """
        for _ in range(_SERVERS):
            try:
                self._asked = self._ask(_conversation(message), stream=False, tries=max_retries)
                self._relay.first_look(self._asked)
                return self._answer(self._asked, max_retries, 2.0)
            except TokenPlaceError as error:
                self._failed(error)
                if not _elsewhere(error):
                    return None
                self._server = None
        return None

    def retrieve_chat_response(self, max_retries: int = 5, retry_delay: float = 2) -> list[dict[str, Any]] | None:
        """The answer to the last question, if it was not read yet."""
        asked = self._asked or Asked(self.client_public_key_b64)
        try:
            return self._answer(asked, max_retries, retry_delay)
        except TokenPlaceError as error:
            self._failed(error)
            return None

    def stream_chat_message(self, message: str | Messages, *, max_retries: int = 5) -> Iterator[Event]:
        """As `send_chat_message`, in pieces: `delta` events with OpenAI's chunks, or a `response` with it all.

        An answer that breaks off ends in an `error` event. Leaving the loop lets the node stop.
        """
        for attempt in range(_SERVERS):
            asked: Asked | None = None
            seen = False
            try:
                asked = self._ask(_conversation(message), stream=True, tries=max_retries)
                pieces = self._relay.pieces(asked, tries=max_retries, delay=2.0, patience=self.patience)
                for event in relay_events(pieces, self._key):
                    seen = True
                    yield event
                asked = None
                return
            except TokenPlaceError as error:
                self._failed(error)
                if isinstance(error, Refused):
                    asked = None  # the relay has told the end of it
                if seen or not _elsewhere(error) or attempt == _SERVERS - 1:
                    yield {"event": "error", "data": {"reason": error.code, "message": error.message}}
                    return
                self._server = None
            finally:
                if asked is not None:
                    with suppress(RelayUnreachable):
                        self._relay.cancel(asked)

    def _ask(self, messages: Messages, *, stream: bool, tries: int) -> Asked:
        """Hand a question to a server, in a while when the relay says that there is no room now."""
        for left in range(tries, -1, -1):
            if self._server is None and not self.fetch_server_public_key():
                raise self.last_error or Refused("No server is there now.")
            server = self._server
            if server is None:
                raise AssertionError("a key that was just fetched")
            sealed = self.encrypt_message(list(messages))
            fields = {
                "server_public_key": server.wire,
                "client_public_key": self.client_public_key_b64,
                "chat_history": sealed["ciphertext"],
                "cipherkey": sealed["cipherkey"],
                "iv": sealed["iv"],
            }
            try:
                return self._relay.ask(fields, stream=stream)
            except Refused as error:
                if error.status not in _NOT_NOW or not left:
                    raise
                self._relay.pause(2.0)
        raise AssertionError("the last try returns or raises")

    def _answer(self, asked: Asked, tries: int, delay: float) -> list[dict[str, Any]] | None:
        told = self._relay.retrieve(asked, tries=tries, delay=delay, patience=self.patience)
        if told is None:
            raise Refused("No answer came in time.", code="no_progress")
        if asked is self._asked:
            self._asked = None
        conversation = self.decrypt_message(told)
        return conversation if isinstance(conversation, list) else None

    # -- through the API -------------------------------------------------------------------------------------------

    def send_api_request(self, messages: Messages, model: str = DEFAULT_MODEL) -> Any:
        """An encrypted chat completion: OpenAI's response object, opened. None where none came."""
        for _ in range(_SERVERS):
            fields = self._api_request(messages, model)
            if fields is None:
                return None
            try:
                status, told = self._relay.post(CHAT, fields, self.patience)
                if status == HTTPStatus.OK and isinstance(told, dict):
                    return self._opened(told)
                problem = refusal(status, told)
            except RelayUnreachable as error:
                return self._failed(error)
            self._failed(problem)
            if problem.code != "key_expired":
                return None
            self._take_fresh_key(told)
        return None

    def stream_chat_completion(
        self,
        messages: Messages,
        *,
        model: str = DEFAULT_MODEL,
        endpoint: str = STREAMED_CHAT,
        timeout: float = 30,
        max_retries: int = 1,
        retry_delay: float = 0.5,
        encrypted: bool = True,
    ) -> Iterator[Event]:
        """A chat completion as events `{"event", "data"}` as they come.

        `delta` is one of OpenAI's chunks, opened; without `encrypted` it is a `chunk`, and whoever runs the gateway
        can read it. See the how-to for the others. `timeout` is the longest silence, in seconds.
        """
        options = StreamOptions(endpoint, timeout, max_retries, retry_delay, encrypted)
        body = {"model": model, "messages": [dict(message) for message in messages]}

        def sealed() -> dict[str, Any] | None:
            return self._api_request(messages, model) if encrypted else dict(body)

        def whole() -> Any:
            if encrypted:
                return self.send_api_request(messages, model)
            return self.send_encrypted_message(CHAT, body, self.patience)

        yield from ApiStream(self._relay, self._key, options, sealed, whole, self._take_fresh_key).events()

    def _api_request(self, messages: Messages, model: str) -> dict[str, Any] | None:
        if self._server is None and not (self.fetch_server_public_key(PUBLIC_KEY) or self.fetch_server_public_key()):
            return None
        server = self._server
        if server is None:
            raise AssertionError("a key that was just fetched")
        return {
            "model": model,
            "encrypted": True,
            "client_public_key": self.client_public_key_b64,
            "key_id": server.key_id.hex(),
            "messages": self.encrypt_message(list(messages)),
        }

    def _opened(self, told: Mapping[str, Any]) -> Any:
        sealed = told.get("data", told.get("encrypted_content"))
        if not isinstance(sealed, dict):
            return self._failed(WireError("The answer is not sealed to us."))
        return self.decrypt_message(sealed)

    def _take_fresh_key(self, told: object) -> None:
        """The key to seal to instead, where an error brings it; else another is fetched."""
        error = told.get("error") if isinstance(told, dict) else None
        key = error.get("public_key") if isinstance(error, dict) else None
        self._server = None
        if isinstance(key, str):
            with suppress(WireError):
                self._server = ClassicPublicKey.parse(key)

    def _failed(self, error: TokenPlaceError) -> None:
        self.last_error = error
        if self.debug:
            _log.warning("%s: %s", error.code, error.message)


def _elsewhere(error: TokenPlaceError) -> bool:
    """Whether another server may answer. The original says 404 without a reason when its server is not known."""
    return error.code in _OTHER_SERVER or (isinstance(error, Refused) and error.status == HTTPStatus.NOT_FOUND)


def _conversation(message: str | Messages) -> list[dict[str, Any]]:
    if isinstance(message, str):
        return [{"role": "user", "content": message}]
    return [dict(each) for each in message]


def _plain(message: object) -> bytes:
    match message:
        case None:
            raise ValueError("There is no message.")
        case bytes():
            return message
        case str():
            return message.encode()
        case dict() | list():
            words = json.dumps(message).encode()
            return words.ljust(request_size(len(words)))
    raise TypeError(f"A message is a dict, a list, a str or bytes, not {type(message).__name__}.")
