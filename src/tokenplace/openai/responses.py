"""`POST /v1/responses`, stateless: what its request looks like.

What needs a server that remembers (`previous_response_id`, `conversation`, `store`, `background`) is refused by name:
nobody between the person and the model keeps a word. `responses_as_chat` puts it to the chat route, `response_events`
makes the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag

from tokenplace.openai import refusals
from tokenplace.openai.messages import (
    MAX_MESSAGES,
    MAX_PARTS,
    FunctionName,
    InputImagePart,
    RefusalPart,
    Shape,
    TextPart,
    string_or_parts,
    unserved_part,
)
from tokenplace.openai.refusals import Refusal
from tokenplace.openai.requests import (
    Count,
    JsonFormat,
    Metadata,
    ModelName,
    Share,
    Short,
    Temperature,
    TextFormat,
    read,
)
from tokenplace.openai.schemas import JsonSchema
from tokenplace.openai.tools import (
    MAX_TOOLS,
    Function,
    check_names,
)

SCORES = "message.output_text.logprobs"

_MEMORY = "Nothing is kept here between requests; send the whole conversation as 'input'."

NOT_KEPT: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "previous_response_id": ((), _MEMORY),
    "conversation": ((), _MEMORY),
    "store": ((False,), _MEMORY),
    "background": ((False,), _MEMORY),
    "prompt": ((), _MEMORY),
    "context_management": ((), _MEMORY),
    "truncation": (("disabled",), "Nobody's words are cut in silence; what is too long is refused."),
    "max_tool_calls": ((), "No tools run on the node; your program runs its own."),
    "service_tier": (("auto", "default"), "There is one tier for everybody: 'auto' and 'default' mean it."),
    "moderation": ((), "The node's own rules apply."),
}
"""Parameters refused by name → (values that change nothing and pass, the reason)."""

# ── Input items ──────────────────────────────────────────────────────────────────────────────────────────────────


class OutputText(Shape):
    """What the model said before, as our own answers write it."""

    model_config = ConfigDict(extra="ignore")
    type: Literal["output_text"]
    text: str


class OtherPart(Shape):
    """A part of any other type: refused by it."""

    model_config = ConfigDict(extra="ignore")
    type: Annotated[Literal["input_text", "input_image", "output_text", "refusal"], BeforeValidator(unserved_part)]


_PARTS = {
    "input_text": "<text>",
    "text": "<text>",
    "output_text": "<output>",
    "refusal": "<refusal>",
    "input_image": "<image>",
}


def _part_tag(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    return _PARTS.get(kind, "<other>") if isinstance(kind, str) else "<other>"


_Part = Annotated[
    Annotated[TextPart, Tag("<text>")]
    | Annotated[OutputText, Tag("<output>")]
    | Annotated[RefusalPart, Tag("<refusal>")]
    | Annotated[InputImagePart, Tag("<image>")]
    | Annotated[OtherPart, Tag("<other>")],
    Discriminator(_part_tag),
]

_Content = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[_Part], Field(max_length=MAX_PARTS), Tag("<parts>")],
    Discriminator(lambda value: "<string>" if isinstance(value, str) else "<parts>"),
    BeforeValidator(string_or_parts),
]

Status = Literal["in_progress", "completed", "incomplete"] | None
Id = Annotated[str, Field(max_length=256)] | None


class MessageItem(Shape):
    """One turn, a person's or the model's."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: _Content
    id: Id = None
    status: Status = None
    phase: Short | None = None


class CallItem(Shape):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: Annotated[str, Field(min_length=1, max_length=256)]
    name: FunctionName
    arguments: str
    id: Id = None
    status: Status = None


class ResultItem(Shape):
    """What the called function answered."""

    type: Literal["function_call_output"]
    call_id: Annotated[str, Field(min_length=1, max_length=256)]
    output: _Content
    id: Id = None
    status: Status = None


class ReasoningItem(Shape):
    """What the model thought, as our own answers write it."""

    model_config = ConfigDict(extra="ignore")
    type: Literal["reasoning"]
    content: list[Any] | None = None


def _stored_only(kind: Any) -> Any:
    if kind == "item_reference":
        raise Refusal(refusals.unsupported_value, _MEMORY)
    if isinstance(kind, str):
        raise Refusal(refusals.unsupported_value, f"Items of type '{kind[: refusals.SHOWN]}' are not served here.")
    return kind


class OtherItem(Shape):
    """An item of any other type: refused by it."""

    model_config = ConfigDict(extra="ignore")
    type: Annotated[
        Literal["message", "function_call", "function_call_output", "reasoning"], BeforeValidator(_stored_only)
    ]


_ITEMS = {
    "message": "<message>",
    "function_call": "<call>",
    "function_call_output": "<result>",
    "reasoning": "<reasoning>",
}


def _item_tag(item: Any) -> str:
    if not isinstance(item, dict):
        return "<other>"
    kind = item.get("type", "message" if "role" in item else None)
    return _ITEMS.get(kind, "<other>") if isinstance(kind, str) else "<other>"


_Item = Annotated[
    Annotated[MessageItem, Tag("<message>")]
    | Annotated[CallItem, Tag("<call>")]
    | Annotated[ResultItem, Tag("<result>")]
    | Annotated[ReasoningItem, Tag("<reasoning>")]
    | Annotated[OtherItem, Tag("<other>")],
    Discriminator(_item_tag),
]


def _without_nulls(value: Any) -> Any:
    """SDKs send an answer's items back with every null there is, also of fields that are not ours."""
    string_or_parts(value)
    if isinstance(value, str):
        return value
    return [
        {key: each for key, each in item.items() if each is not None} if isinstance(item, dict) else item
        for item in value
    ]


Input = Annotated[
    Annotated[str, Field(min_length=1), Tag("<string>")]
    | Annotated[list[_Item], Field(min_length=1, max_length=MAX_MESSAGES), Tag("<items>")],
    Discriminator(lambda value: "<string>" if isinstance(value, str) else "<items>"),
    BeforeValidator(_without_nulls),
]

# ── The other parameters ─────────────────────────────────────────────────────────────────────────────────────────


class FlatSchema(Shape):
    """A JSON schema the answer must follow, without chat's inner object."""

    type: Literal["json_schema"]
    name: FunctionName
    schema_: JsonSchema = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class OtherFormat(Shape):
    """Any other format: refused by its type."""

    type: Literal["text", "json_object", "json_schema"]


_FORMATS = {"text": "<text>", "json_object": "<json>", "json_schema": "<schema>"}


def _format_tag(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    return _FORMATS.get(kind, "<other>") if isinstance(kind, str) else "<other>"


Format = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[JsonFormat, Tag("<json>")]
    | Annotated[FlatSchema, Tag("<schema>")]
    | Annotated[OtherFormat, Tag("<other>")],
    Discriminator(_format_tag),
]


class TextOptions(Shape):
    """What the answer's words must be like."""

    format: Format | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Shape):
    """How much the model thinks first."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


def _function_only(kind: Any) -> Any:
    if isinstance(kind, str) and kind != "function":
        raise Refusal(refusals.unsupported_value, "Only tools of type 'function' are served here.")
    return kind


class FlatTool(Function):
    """A function, without chat's inner object."""

    type: Annotated[Literal["function"], BeforeValidator(_function_only)]


class FlatNamed(Shape):
    """Which function: as a choice, or as one of those allowed."""

    type: Annotated[Literal["function"], BeforeValidator(_function_only)]
    name: FunctionName


class FlatAllowed(Shape):
    """A choice among some of the tools."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[FlatNamed], Field(min_length=1, max_length=MAX_TOOLS)]


def _choice_tag(value: Any) -> str:
    if isinstance(value, dict):
        return "<allowed>" if value.get("type") == "allowed_tools" else "<named>"
    return "<mode>"


Choice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
    | Annotated[FlatNamed, Tag("<named>")]
    | Annotated[FlatAllowed, Tag("<allowed>")],
    Discriminator(_choice_tag),
]


class ResponseStreamOptions(Shape):
    """What a stream tells besides words."""

    include_obfuscation: bool | None = None


class ResponseRequest(Shape):
    """`POST /v1/responses`."""

    model: ModelName
    input: Input
    instructions: str | None = None
    include: Annotated[list[str], Field(max_length=16)] | None = None
    max_output_tokens: Count | None = None
    metadata: Metadata | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: Short | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    reasoning: Reasoning | None = None
    safety_identifier: Short | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    temperature: Temperature | None = None
    text: TextOptions | None = None
    tool_choice: Choice | None = None
    tools: Annotated[list[FlatTool], Field(max_length=MAX_TOOLS)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    top_p: Share | None = None
    user: Short | None = None

    @property
    def scores(self) -> bool:
        """Whether log probabilities are to be told."""
        return SCORES in (self.include or ())

    def check(self) -> None:
        """What concerns several fields at once. Raises ApiError."""
        for index, wanted in enumerate(self.include or ()):
            # Thoughts are told in the open here, so that there is nothing to tell of them in cipher.
            if wanted not in (SCORES, "reasoning.encrypted_content"):
                raise refusals.unsupported_value(f"include[{index}]", "There is nothing of that kind here.")
        if self.top_logprobs and not self.scores:
            raise refusals.invalid("top_logprobs", f"It is only allowed when 'include' has '{SCORES}'.")
        if self.stream_options is not None:
            if not self.stream:
                raise refusals.invalid("stream_options", "It is only allowed when 'stream' is true.")
            if self.stream_options.include_obfuscation:
                raise refusals.unsupported(
                    "stream_options.include_obfuscation", "Sealed answers are padded already; leave it out."
                )
        if self.text is not None and self.text.verbosity not in (None, "medium"):
            raise refusals.unsupported("text.verbosity", "Ask for brevity in a message instead.")
        if self.reasoning is not None and (self.reasoning.summary or self.reasoning.generate_summary):
            raise refusals.unsupported("reasoning.summary", "Thoughts are told whole here, where a model has any.")
        names = [tool.name for tool in self.tools or ()]
        check_names(list(self.tools or ()), "tools[{}].name")
        for param, name in self._chosen():
            if name not in names:
                raise refusals.invalid(param, f"There is no function '{name}' among those offered.")

    def _chosen(self) -> list[tuple[str, str]]:
        choice = self.tool_choice
        if isinstance(choice, FlatNamed):
            return [("tool_choice.name", choice.name)]
        if isinstance(choice, FlatAllowed):
            return [(f"tool_choice.tools[{index}].name", tool.name) for index, tool in enumerate(choice.tools)]
        if choice == "required" and not self.tools:
            raise refusals.invalid("tool_choice", "It is only allowed when 'tools' are given.")
        return []


def read_response(body: bytes) -> ResponseRequest:
    """Read the body of a request. Raises ApiError (400), naming the parameter at fault."""
    return read(ResponseRequest, body, NOT_KEPT)
