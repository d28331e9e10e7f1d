"""Functions a model may call: how a request offers them and how it says which to call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from tokenplace.openai import refusals
from tokenplace.openai.messages import FunctionName, Shape
from tokenplace.openai.refusals import Refusal
from tokenplace.openai.schemas import JsonSchema, check

MAX_TOOLS = 128
_ALL_TOGETHER = 8
"""How many times what one schema may have, all functions may: only one of them is being followed at a time."""


class Function(Shape):
    """What can be called. `parameters` is a JSON schema; none means no arguments."""

    name: FunctionName
    description: str | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None
    """OpenAI's promise that arguments follow the schema; calls that are forced through a grammar always do."""


def _function_only(kind: Any) -> Any:
    if kind == "custom":
        raise Refusal(refusals.unsupported_value, "Only tools of type 'function' are served here.")
    return kind


class Tool(Shape):
    """A function, wrapped as OpenAI wraps it."""

    type: Annotated[Literal["function"], BeforeValidator(_function_only)]
    function: Function


class Named(Shape):
    """A function's name and nothing else."""

    name: FunctionName


class NamedTool(Shape):
    """Which function: as a choice, or as one of those allowed."""

    type: Annotated[Literal["function"], BeforeValidator(_function_only)]
    function: Named


class Allowance(Shape):
    """Some of the tools, and whether one of them must be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=MAX_TOOLS)]


class AllowedTools(Shape):
    """A choice among some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: Allowance


def _choice_tag(value: Any) -> str:
    if isinstance(value, dict):
        return "<allowed>" if value.get("type") == "allowed_tools" else "<named>"
    return "<mode>"


def _string_or_object(value: Any) -> Any:
    if isinstance(value, str | dict):
        return value
    raise Refusal(refusals.wrong_type, "one of a string or object", value)


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
    | Annotated[NamedTool, Tag("<named>")]
    | Annotated[AllowedTools, Tag("<allowed>")],
    Discriminator(_choice_tag),
    BeforeValidator(_string_or_object),
]

FunctionChoice = Annotated[
    Annotated[Literal["none", "auto"], Tag("<mode>")] | Annotated[Named, Tag("<named>")],
    Discriminator(_choice_tag),
    BeforeValidator(_string_or_object),
]


def check_names(functions: Sequence[Function], where: str) -> None:
    """Two functions of one name could not be told apart; too many words hold others up.

    `where` has `{}` for the place. Raises ApiError.
    """
    if (why := check((function.parameters for function in functions), times=_ALL_TOGETHER)) is not None:
        raise refusals.invalid(where.partition("[")[0], f"The JSON schemas of these functions are too large. {why}")
    seen: set[str] = set()
    for index, function in enumerate(functions):
        if function.name in seen:
            raise refusals.invalid(where.format(index), f"There are two functions called '{function.name}'.")
        seen.add(function.name)
