"""Refusals in OpenAI's words: one function per reason, each naming the parameter and carrying OpenAI's code.

`from_validation` turns what pydantic found into the first of them. `param` is written as OpenAI writes it:
`messages[2].content[0].type`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tokenplace.errors import ApiError
from tokenplace.openai.jsontext import kind_of

MAX_LISTED = 32
"""So many models are named to who asked for another."""

SHOWN = 64
"""So many characters of a bad value are shown back."""


def path_of(location: Sequence[str | int]) -> str:
    """`("messages", 2, "content")` → `messages[2].content`. Union tags (`<…>`) are ours and not shown."""
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif not step.startswith("<"):
            path += f".{step}" if path else step
    return path


def listing(names: Iterable[str], last: str = "and") -> str:
    """`'a', 'b' and 'c'`."""
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} {last} {quoted[-1]}" if quoted else "none"


def missing(param: str) -> ApiError:
    """A field that must be there is not."""
    return ApiError(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def unknown(param: str) -> ApiError:
    """A field nobody knows: answering as if it were not there would be a lie."""
    if "." in param or "[" in param:
        message = f"Unknown parameter: '{param}'."
    else:
        message = f"Unrecognized request argument supplied: {param}"
    return ApiError(message, param=param, code="unknown_parameter")


def unsupported(param: str, why: str) -> ApiError:
    """A field OpenAI knows and this node cannot honour. `why` is a whole sentence."""
    return ApiError(f"Unsupported parameter: '{param}'. {why}", param=param, code="unsupported_parameter")


def unsupported_value(param: str, why: str) -> ApiError:
    """A value OpenAI knows and this node cannot honour. `why` is a whole sentence."""
    return ApiError(f"Unsupported value for '{param}'. {why}", param=param, code="unsupported_value")


def invalid(param: str, why: str, code: str = "invalid_value") -> ApiError:
    """A value that makes no sense. `why` is a whole sentence."""
    return ApiError(f"Invalid value for '{param}'. {why}", param=param, code=code)


def wrong_type(param: str, expected: str, given: object) -> ApiError:
    """A value of another JSON type."""
    return ApiError(
        f"Invalid type for '{param}': expected {expected}, but got {kind_of(given)} instead.",
        param=param,
        code="invalid_type",
    )


def unlisted(param: str, given: str, supported: Sequence[str]) -> ApiError:
    """A word that is none of those possible here."""
    return ApiError(
        f"Invalid value: {given[:SHOWN]!r}. Supported values are: {listing(supported)}.",
        param=param,
        code="invalid_value",
    )


def above(param: str, most: int, given: int, why: str = "") -> ApiError:
    """A number over its bound."""
    return ApiError(
        f"Invalid '{param}': integer above maximum value. Expected a value <= {most}, but got {given} instead."
        + (f" {why}" if why else ""),
        param=param,
        code="integer_above_max_value",
    )


def from_validation(error: ValidationError) -> ApiError:
    """The first thing pydantic found, in OpenAI's words."""
    details = error.errors(include_url=False)
    for detail in details:
        reason = detail.get("ctx", {}).get("error")
        if isinstance(reason, Refusal):
            return reason.at(path_of(detail["loc"]))
    # An unknown name is told before what it may have displaced: `max_token` explains a missing `max_tokens`.
    first = min(details, key=lambda detail: detail["type"] != "extra_forbidden")
    return _READ.get(first["type"], _other)(path_of(first["loc"]), first)


class Refusal(ValueError):
    """What a validator raises inside a model: a refusal that lacks its place.

    `make` is one of this module's functions, called with the place and `arguments`; `below` is added to the place.
    """

    def __init__(self, make: Callable[..., ApiError], *arguments: object, below: str = "") -> None:
        super().__init__("refused")
        self._make = make
        self._arguments = arguments
        self._below = below

    def at(self, param: str) -> ApiError:
        """The refusal, with its place."""
        return self._make(param + self._below, *self._arguments)


def _wrong_type(expected: str) -> Callable[[str, ErrorDetails], ApiError]:
    def read(param: str, detail: ErrorDetails) -> ApiError:
        return wrong_type(param, expected, detail["input"])

    return read


def _number_bound(word: str, sign: str, key: str) -> Callable[[str, ErrorDetails], ApiError]:
    def read(param: str, detail: ErrorDetails) -> ApiError:
        given, bound = detail["input"], detail["ctx"][key]
        kind = "integer" if isinstance(bound, int) else "decimal"
        return ApiError(
            f"Invalid '{param}': {kind} {word} value. Expected a value {sign} {bound}, but got {given} instead.",
            param=param,
            code=f"{kind}_{'below_min' if 'below' in word else 'above_max'}_value",
        )

    return read


def _too_short(param: str, detail: ErrorDetails) -> ApiError:
    least, given = detail["ctx"]["min_length"], detail["input"]
    kind = _container(given)
    if len(given) == 0:
        return ApiError(
            f"Invalid '{param}': empty {kind}. Expected {_article(kind)} with minimum length {least}, "
            f"but got an empty {kind} instead.",
            param=param,
            code=f"empty_{kind}",
        )
    return ApiError(
        f"Invalid '{param}': {kind} too short. Expected {_article(kind)} with minimum length {least}, "
        f"but got one with length {len(given)} instead.",
        param=param,
        code=f"{kind}_below_min_length",
    )


def _too_long(param: str, detail: ErrorDetails) -> ApiError:
    most, given = detail["ctx"]["max_length"], detail["input"]
    kind = _container(given)
    return ApiError(
        f"Invalid '{param}': {kind} too long. Expected {_article(kind)} with maximum length {most}, "
        f"but got one with length {len(given)} instead.",
        param=param,
        code=f"{kind}_above_max_length",
    )


def _pattern(param: str, detail: ErrorDetails) -> ApiError:
    return ApiError(
        f"Invalid '{param}': string does not match pattern. "
        f"Expected a string that matches the pattern '{detail['ctx']['pattern']}'.",
        param=param,
        code="invalid_value",
    )


def _choice(param: str, detail: ErrorDetails) -> ApiError:
    given = detail["input"]
    if not isinstance(given, str):
        return wrong_type(param, "a string", given)
    return ApiError(
        f"Invalid value: {given[:SHOWN]!r}. Supported values are: {detail['ctx']['expected']}.",
        param=param,
        code="invalid_value",
    )


def _other(param: str, detail: ErrorDetails) -> ApiError:
    return ApiError(f"Invalid value for '{param}': {detail['msg']}.", param=param, code="invalid_value")


def _container(value: Any) -> str:
    return "array" if isinstance(value, list) else "object" if isinstance(value, dict) else "string"


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "ao" else f"a {kind}"


_READ: Mapping[str, Callable[[str, ErrorDetails], ApiError]] = {
    "missing": lambda param, _: missing(param),
    "extra_forbidden": lambda param, _: unknown(param),
    "string_type": _wrong_type("a string"),
    "int_type": _wrong_type("an integer"),
    "float_type": _wrong_type("a decimal"),
    "bool_type": _wrong_type("a boolean"),
    "list_type": _wrong_type("an array"),
    "dict_type": _wrong_type("an object"),
    "model_type": _wrong_type("an object"),
    "model_attributes_type": _wrong_type("an object"),
    "less_than_equal": _number_bound("above maximum", "<=", "le"),
    "greater_than_equal": _number_bound("below minimum", ">=", "ge"),
    "too_short": _too_short,
    "too_long": _too_long,
    "string_too_short": _too_short,
    "string_too_long": _too_long,
    "string_pattern_mismatch": _pattern,
    "literal_error": _choice,
}


def model_unknown(model: str, served: Sequence[str]) -> ApiError:
    """No such model here; says what there is."""
    shown = sorted(served)[:MAX_LISTED]
    more = f" and {len(served) - len(shown)} more" if len(served) > len(shown) else ""
    here = f"These are: {listing(shown)}{more}." if served else "None is served right now."
    return ApiError(
        f"The model '{model[:256]}' does not exist or is not served here. {here}",
        status=HTTPStatus.NOT_FOUND,
        param="model",
        code="model_not_found",
    )


def path_unknown(path: str, known: Sequence[str]) -> ApiError:
    """No such route; says which there are."""
    return ApiError(
        f"Unknown request URL: {path[:256]}. This node answers {', '.join(known)}.",
        status=HTTPStatus.NOT_FOUND,
        code="unknown_url",
    )
