"""`POST /v1/responses`, stateless: its request put as a chat request, so that all that is sealed stays as it is.

What needs a server that remembers (`previous_response_id`, `conversation`, `store`, `background`) is refused by name:
nobody between the person and the model keeps a word. `response_events` makes the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag

from tokenplace.openai import refusals
from tokenplace.openai.messages import (
    MAX_MESSAGES,
    MAX_PARTS,
    AssistantMessage,
    CalledFunction,
    FunctionName,
    InputImagePart,
    RefusalPart,
    Shape,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
    string_or_parts,
    text_of,
    unserved_part,
)
from tokenplace.openai.refusals import Refusal
from tokenplace.openai.requests import (
    ChatRequest,
    Count,
    JsonFormat,
    JsonSchemaFormat,
    Metadata,
    ModelName,
    SchemaFormat,
    Share,
    Short,
    Temperature,
    TextFormat,
    read,
)
from tokenplace.openai.tools import (
    MAX_TOOLS,
    Allowance,
    AllowedTools,
    Function,
    Named,
    NamedTool,
    Tool,
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
    schema_: dict[str, Any] = Field(alias="schema")
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


# ── As a chat request ────────────────────────────────────────────────────────────────────────────────────────────

_RENAMED = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "include",
}
"""Parameters of chat → what they are called here."""


@dataclass(frozen=True, slots=True)
class AsChat:
    """The same request to chat, and how to name its parameters to who never sent a chat request."""

    request: ChatRequest
    origins: tuple[int, ...]
    """For each message the item it came from; -1 for the instructions."""

    def param(self, param: str | None) -> str | None:
        """The name of a chat parameter in the request that came."""
        if param is None:
            return None
        if param.startswith("messages["):
            index, _, rest = param.removeprefix("messages[").partition("]")
            origin = self.origins[int(index)] if index.isdigit() and int(index) < len(self.origins) else -1
            return "instructions" if origin < 0 else f"input[{origin}]{rest}"
        if param.startswith("tools["):
            return param.replace(".function", "", 1)
        return _RENAMED.get(param, param)


def as_chat(request: ResponseRequest) -> AsChat:
    """The same request to chat. Raises ApiError where calls and results do not match."""
    talk = _Talk()
    if request.instructions:
        talk.say(SystemMessage(role="system", content=request.instructions), -1)
    if isinstance(request.input, str):
        talk.say(UserMessage(role="user", content=request.input), 0)
    else:
        for index, item in enumerate(request.input):
            talk.add(index, item)
    talk.end()
    tools = [
        Tool(type="function", function=Function(**tool.model_dump(exclude={"type"}))) for tool in request.tools or ()
    ]
    form = request.text.format if request.text is not None else None
    chat = ChatRequest.model_construct(  # its parts are checked, and unions are told apart by JSON only
        model=request.model,
        messages=talk.messages,
        max_completion_tokens=request.max_output_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        stream=request.stream,
        logprobs=True if request.scores else None,
        top_logprobs=(request.top_logprobs or 0) if request.scores else None,
        response_format=_chat_format(form),
        tools=tools or None,
        tool_choice=_chat_choice(request.tool_choice) if tools else None,
        parallel_tool_calls=request.parallel_tool_calls if tools else None,
        reasoning_effort=request.reasoning.effort if request.reasoning is not None else None,
    )
    return AsChat(chat, tuple(talk.origins))


def _chat_format(form: Any) -> Any:
    if isinstance(form, FlatSchema):
        schema = SchemaFormat(name=form.name, description=form.description, schema=form.schema_, strict=form.strict)
        return JsonSchemaFormat(type="json_schema", json_schema=schema)
    return form


def _chat_choice(choice: Any) -> Any:
    if isinstance(choice, FlatNamed):
        return NamedTool(type="function", function=Named(name=choice.name))
    if isinstance(choice, FlatAllowed):
        named = [NamedTool(type="function", function=Named(name=tool.name)) for tool in choice.tools]
        return AllowedTools(type="allowed_tools", allowed_tools=Allowance(mode=choice.mode, tools=named))
    return choice


class _Talk:
    """Items become messages: calls join the assistant's turn before them, results answer them."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.origins: list[int] = []
        self._thought = ""
        self._open: dict[str, int] = {}
        """Calls without an answer yet → their item."""

    def say(self, message: Any, origin: int) -> None:
        self.messages.append(message)
        self.origins.append(origin)

    def add(self, index: int, item: Any) -> None:
        match item:
            case MessageItem():
                self._all_answered()
                self._message(index, item)
            case CallItem():
                self._call(index, item)
            case ResultItem():
                if self._open.pop(item.call_id, None) is None:
                    raise refusals.invalid(
                        f"input[{index}].call_id",
                        f"No call with the id '{item.call_id[: refusals.SHOWN]}' stands before this result.",
                    )
                content = _texts_only(item.output, f"input[{index}].output")
                self.say(ToolMessage(role="tool", content=content, tool_call_id=item.call_id), index)
            case ReasoningItem():
                parts = [part.get("text") for part in item.content or () if isinstance(part, dict)]
                self._thought = "\n".join(text for text in parts if isinstance(text, str))

    def end(self) -> None:
        self._all_answered()
        if not self.messages:
            raise refusals.invalid("input", "There is no message in it.")

    def _message(self, index: int, item: MessageItem) -> None:
        where = f"input[{index}].content"
        if item.role == "assistant":
            self.say(
                AssistantMessage(
                    role="assistant",
                    content=_texts_only(item.content, where),
                    reasoning_content=self._thought or None,
                ),
                index,
            )
            self._thought = ""
        elif item.role == "user":
            content: Any = item.content
            if not isinstance(content, str):
                _check_parts(content, ("input_text", "input_image"), where)
            self.say(UserMessage.model_construct(role="user", content=content or ""), index)
        else:
            self.say(SystemMessage(role=item.role, content=_texts_only(item.content, where)), index)

    def _call(self, index: int, item: CallItem) -> None:
        if item.call_id in self._open:
            raise refusals.invalid(f"input[{index}].call_id", "Two calls have the same id.")
        call = ToolCall(id=item.call_id, function=CalledFunction(name=item.name, arguments=item.arguments))
        last = self.messages[-1] if self.messages else None
        if isinstance(last, AssistantMessage):
            calls = [*(last.tool_calls or ()), call]
            self.messages[-1] = last.model_copy(update={"tool_calls": calls})
        else:
            self._all_answered()
            thought = self._thought or None
            self.say(AssistantMessage(role="assistant", tool_calls=[call], reasoning_content=thought), index)
            self._thought = ""
        self._open[item.call_id] = index

    def _all_answered(self) -> None:
        for call_id, index in self._open.items():
            raise refusals.invalid(
                f"input[{index}].call_id", f"No output of the call '{call_id[: refusals.SHOWN]}' follows it."
            )


def _texts_only(content: str | Sequence[Any], where: str) -> str:
    if isinstance(content, str):
        return content
    _check_parts(content, ("input_text", "output_text", "text", "refusal"), where)
    return "\n".join(part.text if isinstance(part, OutputText) else text_of([part]) for part in content)


def _check_parts(content: Sequence[Any], types: Sequence[str], where: str) -> None:
    for place, part in enumerate(content):
        if part.type not in types and not (part.type == "text" and "input_text" in types):
            raise refusals.unlisted(f"{where}[{place}].type", part.type, types)
