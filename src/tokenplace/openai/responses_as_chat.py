"""A request of `/v1/responses` put as a chat request: the engines answer one kind of request only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenplace.openai import refusals
from tokenplace.openai.messages import (
    AssistantMessage,
    CalledFunction,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
    text_of,
)
from tokenplace.openai.requests import ChatRequest, JsonSchemaFormat, SchemaFormat
from tokenplace.openai.responses import (
    CallItem,
    FlatAllowed,
    FlatNamed,
    FlatSchema,
    MessageItem,
    OutputText,
    ReasoningItem,
    ResponseRequest,
    ResultItem,
)
from tokenplace.openai.tools import Allowance, AllowedTools, Function, Named, NamedTool, Tool

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
