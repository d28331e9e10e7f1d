"""How a request is put to an engine: what it can do itself, what is done for it, and what it cannot be asked.

A model whose template knows no tools is shown them in the system message, and its call is forced (`forced`). Of its
own it would go on calling for ever, so with `tool_choice: auto` it gets one round: once the conversation ends with a
call's result it is asked for words, and nothing is forced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tokenplace.openai import errors, forced, refusals
from tokenplace.openai.chat import ChatOrder
from tokenplace.openai.completions import CompletionOrder
from tokenplace.openai.forced import Forcing
from tokenplace.openai.messages import (
    AssistantMessage,
    FunctionMessage,
    ImagePart,
    InputImagePart,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
    text_of,
)
from tokenplace.openai.pictures import placeholder
from tokenplace.openai.requests import Asked, ChatRequest, CompletionRequest, JsonFormat, JsonSchemaFormat
from tokenplace.openai.tools import AllowedTools, Function, NamedTool

EngineBody = dict[str, Any]
"""The JSON an engine gets. It always says `stream: true`."""

_SAMPLING = ("frequency_penalty", "logit_bias", "presence_penalty", "temperature", "top_p")
_SAMPLERS = ("top_k", "min_p", "repeat_penalty")


@dataclass(frozen=True, slots=True)
class Traits:
    """What one model in its engine can do. Said by whoever starts the engine, never guessed."""

    native_tools: bool = True
    """Its template knows tools. Otherwise calls are forced through a JSON schema."""
    required_tools: bool = True
    """It keeps to `tool_choice: required` itself. Otherwise such calls are forced through a JSON schema.
    llama.cpp b11549 does not: it lets the model talk for as long as it likes first."""
    named_tools: bool = True
    """It keeps to a `tool_choice` that names a function. Otherwise it is shown that function alone."""
    max_choices: int | None = None
    """The most answers of one request; None: as many as the engine has slots."""
    context: int | None = None
    """Tokens of the context; None: what the model's card says."""
    vision: bool | None = None
    """It looks at pictures; None: whether the model's card says so."""
    embeddings: bool | None = None
    """It turns texts into vectors; None: whether the model's card says so."""
    reasoning: bool = False
    """It takes `reasoning_effort` and its own earlier thoughts."""
    samplers: frozenset[str] = frozenset()
    """Parameters beyond OpenAI's that it has: `top_k`, `min_p`, `repeat_penalty`."""
    lacks: frozenset[str] = frozenset()
    """Parameters of OpenAI's that it cannot honour (`logprobs`, `response_format`, …): refused by name."""
    vocabulary: int | None = None
    """How many tokens there are, where known: other ids are refused."""
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Sent to the engine with every request that does not say otherwise: what suits the model, private switches."""


def ask_chat(
    request: ChatRequest, traits: Traits, *, model: str, created: int, name: str | None = None
) -> tuple[EngineBody, ChatOrder]:
    """The body for the engine, and what the answer must look like. Raises ApiError for what it cannot honour.

    `model` is what the engine calls the model, `name` what the answer does where that is something else.
    """
    _check_common(request, traits)
    if request.reasoning_effort not in (None, "none") and not traits.reasoning:
        raise refusals.unsupported("reasoning_effort", "This model does not think before it answers.")
    forcing, native = _tools(request, traits)
    messages = _Conversation(request, traits)
    if forcing is not None:
        _check_forced(request, traits)
        messages.tell(forced.instructions(forcing))
    body: EngineBody = {**traits.defaults, "model": model, "messages": messages.told, **_common(request)}
    if request.max_completion_tokens is not None:
        body["max_completion_tokens"] = request.max_completion_tokens
    elif request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.top_alternatives is not None and forcing is None:
        body["logprobs"] = True
        body["top_logprobs"] = max(1, request.top_alternatives)  # llama.cpp takes 0 for "none at all"
    if request.reasoning_effort is not None and traits.reasoning:
        body["reasoning_effort"] = request.reasoning_effort
    if forcing is not None:
        body["response_format"] = forced.response_format(forcing)
    elif isinstance(request.response_format, JsonFormat | JsonSchemaFormat):
        body["response_format"] = request.response_format.model_dump(by_alias=True, exclude_none=True)
    body.update(native)
    order = ChatOrder(
        model=name or model,
        created=created,
        choices=request.choices,
        top_alternatives=request.top_alternatives,
        usage_in_stream=request.usage_in_stream,
        forcing=forcing,
        legacy=request.legacy,
        metadata=request.metadata,
    )
    return body, order


def under_charter(request: ChatRequest, charter: str) -> ChatRequest:
    """The same conversation with a charter said first, once: a program that sends it back has it there already."""
    for message in request.messages:
        if isinstance(message, SystemMessage) and text_of(message.content) == charter:
            return request
    return request.model_copy(update={"messages": [SystemMessage(role="system", content=charter), *request.messages]})


def pictures_at_the_end(request: ChatRequest) -> list[str]:
    """The pictures of the last turn, when it is the person's, as data: URIs.

    Only where nothing but words was asked for: a description is no JSON, no call and has no log probabilities.
    """
    last = request.messages[-1]
    if not isinstance(last, UserMessage) or isinstance(last.content, str):
        return []
    wants_more = (
        isinstance(request.response_format, JsonFormat | JsonSchemaFormat)
        or request.logprobs
        or _choice(request)[1] == "required"
    )
    if wants_more:
        return []
    return [part.url for part in last.content if isinstance(part, ImagePart | InputImagePart)]


def without_pictures(request: ChatRequest) -> ChatRequest:
    """The same request with words in the place of the last turn's pictures."""
    *before, last = request.messages
    if not isinstance(last, UserMessage) or isinstance(last.content, str):
        return request
    content = [
        TextPart(type="text", text=placeholder(part.url)) if isinstance(part, ImagePart | InputImagePart) else part
        for part in last.content
    ]
    return request.model_copy(update={"messages": [*before, last.model_copy(update={"content": content})]})


def ask_completion(
    request: CompletionRequest, traits: Traits, *, model: str, created: int, name: str | None = None
) -> tuple[EngineBody, CompletionOrder]:
    """The body for the engine, and what the answer must look like. Raises ApiError for what it cannot honour."""
    prompts = request.prompts
    choices = request.choices * len(prompts)
    _check_common(request, traits)
    if traits.max_choices is not None and choices > traits.max_choices:
        raise refusals.invalid(
            "prompt",
            f"{len(prompts)} prompts with n = {request.choices} are {choices} answers; "
            f"this node gives {traits.max_choices} at once.",
        )
    for prompt in prompts:
        if not isinstance(prompt, str):
            check_tokens(prompt, traits, "prompt")
    body: EngineBody = {
        **traits.defaults,
        "model": model,
        "prompt": prompts[0] if len(prompts) == 1 else prompts,
        "max_tokens": request.answer_tokens,
        **_common(request),
    }
    if request.logprobs is not None:
        body["logprobs"] = max(1, request.logprobs)
    order = CompletionOrder(
        model=name or model,
        created=created,
        choices=choices,
        echoes=tuple(str(prompt) for prompt in prompts for _ in range(request.choices)) if request.echo else (),
        top_alternatives=request.logprobs,
        usage_in_stream=request.usage_in_stream,
    )
    return body, order


# ── What both have in common ─────────────────────────────────────────────────────────────────────────────────────


def _check_common(request: Asked, traits: Traits) -> None:
    for param in sorted(traits.lacks):
        value = getattr(request, param, None)
        if value is not None and value is not False:  # 0 is a value
            raise refusals.unsupported(param, "The model runtime of this node does not have it.")
    for param in _SAMPLERS:
        if param not in traits.samplers and getattr(request, param) is not None:
            raise refusals.unknown(param)
    if traits.max_choices is not None and request.choices > traits.max_choices:
        raise refusals.above("n", traits.max_choices, request.choices, "This node gives no more answers at once.")
    if traits.vocabulary is not None:
        for token in request.logit_bias or ():
            if int(token) >= traits.vocabulary:
                raise refusals.invalid(
                    f"logit_bias.{token}", f"There is no such token: this model has {traits.vocabulary}."
                )


def _common(request: Asked) -> EngineBody:
    body: EngineBody = {"stream": True, "stream_options": {"include_usage": True}}
    for param in (*_SAMPLING, *_SAMPLERS):
        value = getattr(request, param)
        if value is not None:
            body[param] = value
    if request.choices > 1:
        body["n"] = request.choices
    if request.stops:
        body["stop"] = request.stops
    if request.seed is not None:
        body["seed"] = folded_seed(request.seed)
    return body


def folded_seed(seed: int) -> int:
    """Equal seeds stay equal. Engines keep 32 bits and take the highest number for "random"."""
    top = 2**32 - 1
    if 0 <= seed < top:
        return seed
    return int.from_bytes(hashlib.sha256(seed.to_bytes(8, "big", signed=True)).digest()[:8], "big") % top


def check_tokens(tokens: Sequence[int], traits: Traits, param: str) -> None:
    """A prompt of token ids: there must be such tokens, and room for them. Raises ApiError."""
    if traits.vocabulary is not None and max(tokens) >= traits.vocabulary:
        raise refusals.invalid(param, f"There is no token {max(tokens)}: this model has {traits.vocabulary}.")
    if traits.context is not None and len(tokens) > traits.context:
        raise errors.too_long(len(tokens), traits.context, param)


# ── Tools ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _tools(request: ChatRequest, traits: Traits) -> tuple[Forcing | None, EngineBody]:
    """How calls are made possible: by force, or by what the engine itself has."""
    functions, mode, name = _choice(request)
    if not functions or mode == "none":
        return None, _native_none(request, traits)
    native = traits.native_tools and (mode == "auto" or traits.required_tools)
    if not native:
        if mode == "auto" and isinstance(request.messages[-1], ToolMessage | FunctionMessage):
            return None, {}
        shown = [function for function in functions if name in (None, function.name)]
        return Forcing(tuple(shown), required=mode == "required"), {}
    choice: Any = mode
    if name is not None:
        if traits.named_tools:
            choice = {"type": "function", "function": {"name": name}}
        else:
            functions = [function for function in functions if function.name == name]
    parallel = False if request.legacy else request.parallel_tool_calls is not False
    return None, {"tools": _wrapped(functions), "tool_choice": choice, "parallel_tool_calls": parallel}


def _native_none(request: ChatRequest, traits: Traits) -> EngineBody:
    """Tools that may not be called are shown all the same, where the template shows them."""
    if not request.offered or not traits.native_tools:
        return {}
    return {"tools": _wrapped(request.offered), "tool_choice": "none"}


def _choice(request: ChatRequest) -> tuple[list[Function], str, str | None]:
    """(the functions that may be called, none | auto | required, the one that must be)."""
    functions = request.offered
    choice: object = request.function_call if request.legacy else request.tool_choice
    if isinstance(choice, NamedTool):
        return functions, "required", choice.function.name
    if isinstance(choice, AllowedTools):
        allowed = {tool.function.name for tool in choice.allowed_tools.tools}
        return [function for function in functions if function.name in allowed], choice.allowed_tools.mode, None
    if choice is None or isinstance(choice, str):
        return functions, choice or "auto", None
    return functions, "required", request.function_call.name  # type: ignore[union-attr]  # Named is what is left


def _wrapped(functions: Sequence[Function]) -> list[dict[str, Any]]:
    return [{"type": "function", "function": function.model_dump(exclude_none=True)} for function in functions]


def _check_forced(request: ChatRequest, traits: Traits) -> None:
    """What cannot be had together with calls that are forced through a schema."""
    if "response_format" in traits.lacks:
        raise refusals.unsupported(
            "functions" if request.legacy else "tools", "The model runtime of this node cannot call tools."
        )
    why = "On this node's model it cannot be combined with tools, whose calls are made through a JSON schema."
    if request.logprobs:
        raise refusals.unsupported("logprobs", why)
    if request.stops:
        raise refusals.unsupported("stop", why)
    if isinstance(request.response_format, JsonFormat | JsonSchemaFormat):
        raise refusals.unsupported("response_format", why)


# ── Messages ─────────────────────────────────────────────────────────────────────────────────────────────────────


class _Conversation:
    """The messages in words that this engine's template understands."""

    def __init__(self, request: ChatRequest, traits: Traits) -> None:
        self._traits = traits
        self._last = len(request.messages) - 1
        self._calls: dict[str, str] = {}
        """Call id → the call as words, for models without tools."""
        self._last_call = ""
        self.told: list[dict[str, Any]] = []
        for index, message in enumerate(request.messages):
            self._add(index, message)

    def tell(self, words: str) -> None:
        """Add something to what the system says."""
        first = self.told[0] if self.told else None
        if first is not None and first["role"] == "system":
            self.told[0] = {**first, "content": f"{first['content']}\n\n{words}"}
        else:
            self.told.insert(0, {"role": "system", "content": words})

    def _add(self, index: int, message: object) -> None:
        if isinstance(message, SystemMessage):
            self._say("system", text_of(message.content), message.name)
        elif isinstance(message, UserMessage):
            self._say("user", self._user_content(index, message), message.name)
        elif isinstance(message, AssistantMessage):
            self._add_assistant(index, message)
        elif isinstance(message, ToolMessage):
            self._add_result(message.tool_call_id, text_of(message.content))
        elif isinstance(message, FunctionMessage):
            self._add_result(self._last_call, message.content or "")

    def _say(self, role: str, content: Any, name: str | None) -> None:
        message = {"role": role, "content": content}
        if name is not None:
            message["name"] = name
        self.told.append(message)

    def _user_content(self, index: int, message: UserMessage) -> Any:
        content = message.content
        if isinstance(content, str) or all(isinstance(part, TextPart) for part in content):
            return text_of(content)
        parts: list[dict[str, Any]] = []
        for place, part in enumerate(content):
            if isinstance(part, TextPart):
                parts.append({"type": "text", "text": part.text})
            elif isinstance(part, ImagePart | InputImagePart):
                if not self._traits.vision:
                    if index == self._last:
                        raise refusals.unsupported_value(
                            f"messages[{index}].content[{place}].type", "This model does not look at pictures."
                        )
                    parts.append({"type": "text", "text": placeholder(part.url)})
                    continue
                detail = part.image_url.detail if isinstance(part, ImagePart) else part.detail
                picture = {"url": part.url} if detail is None else {"url": part.url, "detail": detail}
                parts.append({"type": "image_url", "image_url": picture})
        if not self._traits.vision:
            return "\n".join(part["text"] for part in parts)
        return parts

    def _add_assistant(self, index: int, message: AssistantMessage) -> None:
        calls = [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()]
        if message.function_call is not None:
            calls.append((f"call_{index}", message.function_call.name, message.function_call.arguments))
        self._calls.update((id, f"{name}({arguments})") for id, name, arguments in calls)
        if calls:
            self._last_call = calls[-1][0]
        content = text_of(message.content) or message.refusal or ""
        if calls and not content and not self._traits.native_tools:
            return  # the results will tell of the calls
        told: dict[str, Any] = {"role": "assistant", "content": content}
        if message.name is not None:
            told["name"] = message.name
        if message.reasoning_content and self._traits.reasoning:
            told["reasoning_content"] = message.reasoning_content
        if calls and self._traits.native_tools:
            told["content"] = content or None
            told["tool_calls"] = [
                {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
                for id, name, arguments in calls
            ]
        self.told.append(told)

    def _add_result(self, call: str, text: str) -> None:
        if self._traits.native_tools:
            self.told.append({"role": "tool", "tool_call_id": call, "content": text})
            return
        # A template without tools drops calls in silence. Written as JSON they are copied by small models for ever
        # after; as words behind the question they are understood.
        said = f"{self._calls.get(call, 'The function')} returned: {text}"
        last = self.told[-1] if self.told else None
        if last is None or last["role"] != "user":
            self.told.append({"role": "user", "content": said})
        elif isinstance(last["content"], str):
            last["content"] += f"\n\n{said}"
        else:
            last["content"].append({"type": "text", "text": said})
