"""What a request may say. Every parameter is honoured or refused by its name; none is ignored in silence.

These models know OpenAI's rules. What one engine can and cannot do is decided by `asking`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationError

from tokenplace.openai import jsontext, refusals
from tokenplace.openai.messages import (
    MAX_MESSAGES,
    FunctionName,
    Message,
    Shape,
    check_turns,
    string_or_array,
)
from tokenplace.openai.refusals import Refusal
from tokenplace.openai.schemas import JsonSchema
from tokenplace.openai.tools import (
    MAX_TOOLS,
    AllowedTools,
    Function,
    FunctionChoice,
    Named,
    NamedTool,
    Tool,
    ToolChoice,
    check_names,
)

MAX_PROMPTS = 64
MAX_PROMPT_TOKENS = 1_048_576
MAX_STOPS = 4
MAX_BIASES = 300
INT64 = 2**63 - 1

# ── Values that several requests share ───────────────────────────────────────────────────────────────────────────

ModelName = Annotated[str, Field(min_length=1, max_length=256)]
Temperature = Annotated[float, Field(ge=0.0, le=2.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=-INT64 - 1, le=INT64)]
Short = Annotated[str, Field(max_length=512)]

_StopString = Annotated[str, Field(min_length=1, max_length=1024)]


Stop = Annotated[
    Annotated[_StopString, Tag("<string>")]
    | Annotated[list[_StopString], Field(min_length=1, max_length=MAX_STOPS), Tag("<list>")],
    Discriminator(lambda value: "<string>" if isinstance(value, str) else "<list>"),
    BeforeValidator(string_or_array),
]


def _biases(value: Any) -> Any:
    """Checked here rather than by types, since the refusal names the token."""
    if not isinstance(value, dict):
        return value
    if len(value) > MAX_BIASES:
        raise Refusal(refusals.invalid, f"At most {MAX_BIASES} tokens may have a bias; got {len(value)}.")
    for token, bias in value.items():
        if not (token.isascii() and token.isdigit() and len(token) <= 9):
            shown = repr(token[: refusals.SHOWN])
            raise Refusal(refusals.invalid, f"Keys are token ids (whole numbers as strings); got {shown}.")
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
            why = "Expected a number between -100 and 100, both included."
            raise Refusal(refusals.invalid, why, below=f".{token}")
    return value


LogitBias = Annotated[dict[str, float], BeforeValidator(_biases)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class StreamOptions(Shape):
    """What a stream tells besides words."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    """Random padding against guesses from sizes: the seal pads already, and `true` is refused."""


class SchemaFormat(Shape):
    """A JSON schema the answer must follow."""

    name: FunctionName
    description: str | None = None
    schema_: JsonSchema = Field(alias="schema")
    strict: bool | None = None


class TextFormat(Shape):
    """Words, as they come."""

    type: Literal["text"]


class JsonFormat(Shape):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(Shape):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: SchemaFormat


class OtherFormat(Shape):
    """Any other format: refused by its type."""

    type: Literal["text", "json_object", "json_schema"]


_FORMATS = {"text": "<text>", "json_object": "<json>", "json_schema": "<schema>"}


def _format_tag(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    return _FORMATS.get(kind, "<other>") if isinstance(kind, str) else "<other>"


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[JsonFormat, Tag("<json>")]
    | Annotated[JsonSchemaFormat, Tag("<schema>")]
    | Annotated[OtherFormat, Tag("<other>")],
    Discriminator(_format_tag),
]

# ── What OpenAI knows and nobody honours here ────────────────────────────────────────────────────────────────────

NOT_HONOURED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "store": ((False,), "Nothing is stored: no server between you and the model keeps a word."),
    "modalities": ((["text"],), "Only text is answered here."),
    "audio": ((), "Only text is answered here."),
    "prediction": ((), "Predicted outputs are not served here."),
    "web_search_options": ((), "This node searches nothing on the web."),
    "service_tier": (("auto", "default"), "There is one tier for everybody: 'auto' and 'default' mean it."),
    "verbosity": (("medium",), "Ask for brevity in a message instead."),
    "moderation": ((), "The node's own rules apply."),
}
"""Parameters refused by name → (values that change nothing and pass, the reason)."""


class Readable(Protocol):
    """A request's shape that can also check what concerns several fields."""

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """pydantic's."""

    def check(self) -> None:
        """What concerns several fields at once. Raises ApiError."""


RequestT = TypeVar("RequestT", bound=Readable)


class Asked(Shape):
    """What chat and text completions have in common."""

    model: ModelName
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    max_tokens: Count | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    presence_penalty: Penalty | None = None
    seed: Seed | None = None
    stop: Stop | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None

    # Sent along by programs and of no effect on any answer.
    user: Short | None = None
    metadata: Metadata | None = None
    safety_identifier: Short | None = None
    prompt_cache_key: Short | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None

    # Sampling beyond OpenAI's, for engines that have it (`Traits.samplers`).
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    min_p: Share | None = None
    repeat_penalty: Annotated[float, Field(ge=0.0, le=10.0)] | None = None

    @property
    def choices(self) -> int:
        """How many answers are asked for each prompt."""
        return self.n or 1

    @property
    def stops(self) -> list[str]:
        """Where to stop."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def usage_in_stream(self) -> bool:
        """Whether the stream ends with a usage chunk."""
        return bool(self.stream and self.stream_options and self.stream_options.include_usage)

    def check(self) -> None:
        """What concerns several fields at once. Raises ApiError."""
        options = self.stream_options
        if options is None:
            return
        if not self.stream:
            raise refusals.invalid("stream_options", "It is only allowed when 'stream' is true.")
        if options.include_obfuscation:
            raise refusals.unsupported(
                "stream_options.include_obfuscation", "Sealed answers are padded already; leave it out."
            )


class ChatRequest(Asked):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(min_length=1, max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[Function], Field(min_length=1, max_length=MAX_TOOLS)] | None = None
    function_call: FunctionChoice | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None

    @property
    def answer_tokens(self) -> int | None:
        """How long the answer may become."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def legacy(self) -> bool:
        """Whether functions are offered in the form before tools; the answer then has that form too."""
        return self.functions is not None

    @property
    def offered(self) -> list[Function]:
        """Every function the request brings, in either form."""
        if self.functions is not None:
            return list(self.functions)
        return [tool.function for tool in self.tools or ()]

    @property
    def top_alternatives(self) -> int | None:
        """Alternatives to tell for each token; None means no log probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def check(self) -> None:
        """What concerns several fields at once. Raises ApiError."""
        super().check()
        if None not in (self.max_tokens, self.max_completion_tokens) and (
            self.max_tokens != self.max_completion_tokens
        ):
            raise refusals.invalid(
                "max_tokens", "It contradicts 'max_completion_tokens', which is the newer name for it; give one."
            )
        if self.top_logprobs is not None and not self.logprobs:
            raise refusals.invalid("top_logprobs", "It is only allowed when 'logprobs' is true.")
        self._check_tools()
        check_turns(self.messages)

    def _check_tools(self) -> None:
        if self.functions is not None and self.tools is not None:
            raise refusals.invalid("functions", "It is the older form of 'tools'; give one of them.")
        if self.tools is None:
            if not (self.tool_choice is None or self.tool_choice == "none" or self.tool_choice == "auto"):
                raise refusals.invalid("tool_choice", "It is only allowed when 'tools' are given.")
            if self.parallel_tool_calls is not None:
                raise refusals.invalid("parallel_tool_calls", "It is only allowed when 'tools' are given.")
        if self.functions is None and self.function_call is not None:
            raise refusals.invalid("function_call", "It is only allowed when 'functions' are given.")
        check_names(self.offered, "functions[{}].name" if self.legacy else "tools[{}].function.name")
        names = {function.name for function in self.offered}
        for param, name in self._chosen():
            if name not in names:
                raise refusals.invalid(param, f"There is no function '{name}' among those offered.")

    def _chosen(self) -> list[tuple[str, str]]:
        """The functions that the choice names, with their place."""
        choice = self.tool_choice
        if isinstance(choice, NamedTool):
            return [("tool_choice.function.name", choice.function.name)]
        if isinstance(choice, AllowedTools):
            return [
                (f"tool_choice.allowed_tools.tools[{index}].function.name", tool.function.name)
                for index, tool in enumerate(choice.allowed_tools.tools)
            ]
        if isinstance(self.function_call, Named):
            return [("function_call.name", self.function_call.name)]
        return []


Tokens = Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1, max_length=MAX_PROMPT_TOKENS)]


def prompt_tag(value: Any) -> str:
    """Which of the four shapes a prompt may have this is."""
    if not isinstance(value, list):
        return "<string>"
    first = value[0] if value else ""
    if isinstance(first, list):
        return "<token lists>"
    return "<tokens>" if isinstance(first, int) else "<strings>"


Prompt = Annotated[
    Annotated[str, Field(min_length=1), Tag("<string>")]
    | Annotated[
        list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MAX_PROMPTS), Tag("<strings>")
    ]
    | Annotated[Tokens, Tag("<tokens>")]
    | Annotated[list[Tokens], Field(min_length=1, max_length=MAX_PROMPTS), Tag("<token lists>")],
    Discriminator(prompt_tag),
    BeforeValidator(string_or_array),
]


class CompletionRequest(Asked):
    """`POST /v1/completions`."""

    prompt: Prompt
    best_of: Annotated[int, Field(ge=1, le=20)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    suffix: str | None = None

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """One or more prompts, each words or tokens."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        if isinstance(prompt[0], int):
            return [prompt]
        return prompt

    @property
    def answer_tokens(self) -> int:
        """How long the answer may become: sixteen tokens, as at OpenAI, where nothing is said."""
        return 16 if self.max_tokens is None else self.max_tokens

    def check(self) -> None:
        """What concerns several fields at once. Raises ApiError."""
        super().check()
        if self.suffix:
            raise refusals.unsupported("suffix", "Insertion is not served here.")
        if self.best_of is not None and self.best_of != self.choices:
            raise refusals.unsupported(
                "best_of", "Answers are not ranked here: leave it out, or give the same number as 'n'."
            )
        if self.echo and self.logprobs is not None:
            raise refusals.unsupported("echo", "It cannot be combined with 'logprobs': prompts are not scored here.")
        if self.echo and not all(isinstance(prompt, str) for prompt in self.prompts):
            raise refusals.unsupported("echo", "A prompt of token ids cannot be sent back as text; send text.")


def read_chat(body: bytes) -> ChatRequest:
    """Read the body of a chat request. Raises ApiError (400), naming the parameter at fault."""
    return read(ChatRequest, body)


def read_completion(body: bytes) -> CompletionRequest:
    """Read the body of a text completion request. Raises ApiError (400), naming the parameter at fault."""
    return read(CompletionRequest, body)


def read(
    model: type[RequestT], body: bytes, not_honoured: Mapping[str, tuple[tuple[Any, ...], str]] = NOT_HONOURED
) -> RequestT:
    """Read a body of this shape. Raises ApiError (400), naming the parameter at fault."""
    raw = jsontext.read_object(body)
    for param, (harmless, why) in not_honoured.items():
        if param in raw:
            value = raw.pop(param)
            if value is not None and not any(_same(value, passing) for passing in harmless):
                raise refusals.unsupported(param, why)
    try:
        request = model.model_validate(raw)
    except ValidationError as error:
        raise refusals.from_validation(error) from None
    request.check()
    return request


def _same(value: object, other: object) -> bool:
    return type(value) is type(other) and value == other
