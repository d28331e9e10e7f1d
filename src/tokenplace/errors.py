"""Every way token.place can fail, as one tree.

    TokenPlaceError
    ├── WireError                bytes that break the format
    │   └── TooLarge             … or a bound in wire/limits.py
    ├── LinkError                a peer on the node link broke the rules of the link
    ├── SealError                the seal does not hold
    │   ├── Unopenable           this key cannot open that request
    │   ├── KeyUnknown           sealed to a key this node never had or has destroyed
    │   ├── Replayed             this request was opened before
    │   ├── ClockSkew            the request's time is too far from the node's
    │   ├── BadRecord            a record of the answer was altered, moved or repeated
    │   ├── Truncated            the answer stopped before its authenticated end
    │   └── UntrustedCard        a node's card is not what the client trusts
    ├── Refused                  the relay will not take this (an HTTP status and a code)
    │   ├── NodeUnknown          the node is not connected here
    │   ├── JobUnknown           no such job at this node
    │   ├── QueueFull            too much waits already; carries retry_after
    │   ├── Draining             the relay is going away; carries retry_after
    │   └── StoreUnavailable     the relay's replicas cannot reach each other now; carries retry_after
    ├── RelayUnreachable         no relay answered
    ├── NoNode                   no node serves that model now
    ├── JobFailed                a job ended without an answer; `outcome` names how
    ├── EngineError              the model runtime failed
    │   ├── EngineCrashed        … and its process is gone
    │   └── EngineFull           … or is whole, and others have all of it
    ├── WeightsError             a model file is missing, incomplete or not what the catalogue says
    ├── ConfigError              a configuration file or dotenv file cannot be used
    ├── SignatureError           a signature or its key cannot be read, so nothing was checked
    │   └── WrongSignature       … or it was checked, and the file is not what was signed
    └── ApiError                 an answer in OpenAI's error shape (HTTP status, type, param, code)

`code` is stable and safe to match on; the message is for people and says what to do next.
"""

from __future__ import annotations

from http import HTTPStatus


class TokenPlaceError(Exception):
    """Whatever goes wrong in token.place. `code` never changes between releases."""

    code = "token_place_error"

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])

    @property
    def message(self) -> str:
        """What happened and what to do next, for a person."""
        return str(self.args[0])


class WireError(TokenPlaceError):
    """These bytes are not of the token.place format; client and relay may be of different versions."""

    code = "bad_format"


class TooLarge(WireError):
    """The message is larger than the protocol allows; send less at once."""

    code = "too_large"


class LinkError(TokenPlaceError):
    """The other end of the node link broke the protocol, so the link is closed."""

    code = "link_violation"

    def __init__(self, message: str = "", code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class SealError(TokenPlaceError):
    """The seal does not hold."""

    code = "seal_broken"


class Unopenable(SealError):
    """The node could not open this request: it was altered on the way or sealed to another key."""

    code = "unopenable"


class KeyUnknown(SealError):
    """The request is sealed to a key that the node no longer holds; fetch the node's fresh card and seal again."""

    code = "key_unknown"


class Replayed(SealError):
    """The node has opened this very request before; seal a new one instead of sending it again."""

    code = "replayed"


class ClockSkew(SealError):
    """The request's time is more than five minutes from the node's clock; set this machine's clock."""

    code = "clock_skew"


class BadRecord(SealError):
    """A piece of the answer was altered, moved or repeated on the way; nothing after it can be trusted."""

    code = "bad_record"


class Truncated(SealError):
    """The answer stopped before its authenticated end; what arrived is not the whole answer."""

    code = "truncated"


class UntrustedCard(SealError):
    """The relay shows a card for this node that is not signed by the key you trust; nothing was sent."""

    code = "untrusted_card"


class Refused(TokenPlaceError):
    """The relay refused the request."""

    code = "refused"
    status: int = HTTPStatus.BAD_REQUEST

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status
        self.retry_after = retry_after


class NodeUnknown(Refused):
    """That node is not connected to this relay now; ask for the list of nodes again."""

    code = "node_unknown"
    status = HTTPStatus.NOT_FOUND


class JobUnknown(Refused):
    """No such job: it ended more than half a minute ago, or its node restarted. Send the request again."""

    code = "job_unknown"
    status = HTTPStatus.NOT_FOUND


class QueueFull(Refused):
    """Too many requests wait for this node already; try again after the time in Retry-After."""

    code = "queue_full"
    status = HTTPStatus.TOO_MANY_REQUESTS


class Draining(Refused):
    """This relay is shutting down and takes no new work; use another relay or try again shortly."""

    code = "draining"
    status = HTTPStatus.SERVICE_UNAVAILABLE


class StoreUnavailable(Refused):
    """This relay cannot reach its other replicas now, and the node is at one of them; try again shortly."""

    code = "store_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE


_REFUSALS = {kind.code: kind for kind in (Draining, JobUnknown, NodeUnknown, QueueFull, StoreUnavailable)}


def refusal_kind(code: str) -> type[Refused]:
    """Which refusal of a relay a code that travelled stands for; plain `Refused` for any other."""
    return _REFUSALS.get(code, Refused)


class RelayUnreachable(TokenPlaceError):
    """No relay could be reached; check the address and the network."""

    code = "relay_unreachable"


class NoNode(TokenPlaceError):
    """No node that serves this model is connected right now."""

    code = "no_node"


class JobFailed(TokenPlaceError):
    """The job ended without a whole answer. `outcome` is the named reason."""

    code = "job_failed"

    def __init__(self, outcome: str, message: str = "") -> None:
        super().__init__(message or f"The request ended without a whole answer: {outcome}.")
        self.outcome = outcome
        self.code = outcome


class EngineError(TokenPlaceError):
    """The model runtime on the node failed; try again, or ask another node."""

    code = "engine_error"


class EngineCrashed(EngineError):
    """The model runtime's process ended in the middle of this answer; it is being started again. Try again."""

    code = "engine_crashed"


class EngineFull(EngineError):
    """Other answers take all that this node's model runtime has; try again soon, or ask another node."""

    code = "engine_full"


class WeightsError(TokenPlaceError):
    """A model file is missing, incomplete or not the one the catalogue names."""

    code = "weights_error"


class ConfigError(TokenPlaceError):
    """A configuration file or dotenv file cannot be used."""

    code = "bad_config"


class SignatureError(TokenPlaceError):
    """The signature could not be checked."""

    code = "signature_unreadable"


class WrongSignature(SignatureError):
    """The file is not what was signed, or another key signed it; do not use it."""

    code = "wrong_signature"


class ApiError(TokenPlaceError):
    """A refusal in OpenAI's error shape.

    `status` is the HTTP status, `type` OpenAI's error class (`invalid_request_error`, `server_error`, …),
    `param` the request field at fault (dotted, or None) and `code` the stable code.
    """

    code = "invalid_request_error"

    def __init__(
        self,
        message: str,
        *,
        status: int = HTTPStatus.BAD_REQUEST,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = int(status)
        self.type = type
        self.param = param
        self.code = code or type
        self.retry_after = retry_after

    def as_json(self) -> dict[str, dict[str, str | None]]:
        """The body OpenAI clients expect: `{"error": {message, type, param, code}}`."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def whole_seconds(retry_after: float) -> str:
    """The value of a Retry-After header: whole seconds, at least one (RFC 9110 section 10.2.3)."""
    return str(max(1, round(retry_after)))
