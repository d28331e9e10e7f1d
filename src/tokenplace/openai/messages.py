"""A conversation: the messages of a chat request, each role with exactly the fields it may have."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from tokenplace.openai import pictures, refusals
from tokenplace.openai.refusals import Refusal

MAX_MESSAGES = 2048
"""llama.cpp's templates take seconds over tens of thousands of messages; nobody has a context for them."""

MAX_PARTS = 256
"""Parts of one message's content."""

MAX_TOOL_CALLS = 128
"""Tool calls of one message: as many as there may be tools."""

NAME = r"^[a-zA-Z0-9_-]+$"
"""What a function may be called."""


class Shape(BaseModel):
    """A JSON object of a request: no conversions, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _refuse(why: str, code: str = "invalid_value") -> NoReturn:
    raise Refusal(refusals.invalid, why, code)


# ── Pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
}


def _media_type(text: str) -> str:
    """What kind of picture this base64 begins like."""
    try:
        head = base64.b64decode(text[:24], validate=True)
    except (ValueError, binascii.Error):
        return "application/octet-stream"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "application/octet-stream")


def _data_uri(url: str) -> str:
    """Only pictures that are here: fetching one would tell a stranger's server about the volunteer and the person."""
    head, comma, data = url.partition(",")
    if not head.lower().startswith("data:"):
        _refuse("Send the picture itself as a data: URI; this node fetches nothing from the network.")
    if not comma or not head.lower().startswith("data:image/") or not head.lower().endswith(";base64"):
        _refuse("Expected 'data:image/…;base64,' and the picture's base64.")
    if not data:
        _refuse("The picture is empty.")
    try:
        claim = pictures.read_claim(pictures.decoded(url))
    except pictures.NotAPicture as error:
        _refuse(f"This is no picture that can be used. {error}")
    if not claim.bounded:
        _refuse(
            f"The picture claims {claim.width} x {claim.height} pixels; it may have {pictures.MAX_PIXELS} in all and "
            f"{pictures.MAX_SIDE} on a side. Send a smaller one."
        )
    return url


_INLINE = ("b64_json", "base64", "data")


def _inline(value: Any) -> Any:
    """The original's clients send an object with the base64 under one of three names."""
    if not isinstance(value, dict):
        return value
    if len(value) != 1 or next(iter(value)) not in _INLINE or not isinstance(text := next(iter(value.values())), str):
        _refuse(f"Expected an object with the picture's base64 as one of {refusals.listing(_INLINE)}.")
    return f"data:{_media_type(text)};base64,{text}"


DataUri = Annotated[str, Field(min_length=1), AfterValidator(_data_uri)]


# ── Content ──────────────────────────────────────────────────────────────────────────────────────────────────────


class TextPart(Shape):
    """Words."""

    type: Literal["text", "input_text"]
    text: str


class RefusalPart(Shape):
    """What the assistant said when it refused."""

    type: Literal["refusal"]
    refusal: str


class Picture(Shape):
    """A picture, as a data: URI."""

    url: DataUri
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Shape):
    """A picture to look at, as OpenAI's chat writes it; a plain string is taken for the object."""

    type: Literal["image_url"]
    image_url: Annotated[Picture, BeforeValidator(lambda value: {"url": value} if isinstance(value, str) else value)]

    @property
    def url(self) -> str:
        """The picture's data: URI."""
        return self.image_url.url


class InputImagePart(Shape):
    """A picture as the Responses API (a string) or the original's clients (an object) write it."""

    type: Literal["input_image"]
    image_url: Annotated[DataUri, BeforeValidator(_inline)] | None = None
    image: Annotated[DataUri, BeforeValidator(_inline)] | None = None
    detail: Literal["auto", "low", "high"] | None = None

    @model_validator(mode="after")
    def _one_picture(self) -> InputImagePart:
        if (self.image is None) == (self.image_url is None):
            _refuse("Give the picture in one of 'image_url' and 'image'.")
        return self

    @property
    def url(self) -> str:
        """The picture's data: URI."""
        return self.image or self.image_url or ""


_UNSERVED = ("input_audio", "audio", "file", "input_file", "video_url", "input_video")


def unserved_part(kind: Any) -> Any:
    """Parts that OpenAI knows and nobody answers here are refused by that name."""
    if kind in _UNSERVED:
        raise Refusal(refusals.unsupported_value, f"Content of type '{kind}' is not served here.")
    return kind


class OtherPart(Shape):
    """A part of any other type: refused by it, whatever else it holds."""

    model_config = ConfigDict(extra="ignore")
    type: Annotated[
        Literal["text", "input_text", "image_url", "input_image", "refusal"], BeforeValidator(unserved_part)
    ]


_PARTS = {
    "text": "<text>",
    "input_text": "<text>",
    "refusal": "<refusal>",
    "image_url": "<image>",
    "input_image": "<input image>",
}


def _part_tag(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    return _PARTS.get(kind, "<other>") if isinstance(kind, str) else "<other>"


Part = Annotated[
    Annotated[TextPart, Tag("<text>")]
    | Annotated[RefusalPart, Tag("<refusal>")]
    | Annotated[ImagePart, Tag("<image>")]
    | Annotated[InputImagePart, Tag("<input image>")]
    | Annotated[OtherPart, Tag("<other>")],
    Discriminator(_part_tag),
]


def string_or(array: str) -> Callable[[Any], Any]:
    """Lets a string or an array pass. Told here, since pydantic would name the union's members one by one."""

    def check(value: Any) -> Any:
        if isinstance(value, str | list):
            return value
        raise Refusal(refusals.wrong_type, f"one of a string or {array}", value)

    return check


string_or_array = string_or("array")
string_or_parts = string_or("array of objects")


def _only(*types: str) -> AfterValidator:
    """Which parts this role may have."""

    def check(content: str | Sequence[Any]) -> str | Sequence[Any]:
        if not isinstance(content, str):
            for index, part in enumerate(content):
                if part.type not in types:
                    raise Refusal(refusals.unlisted, part.type, types, below=f"[{index}].type")
        return content

    return AfterValidator(check)


_Content = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[Part], Field(min_length=1, max_length=MAX_PARTS), Tag("<parts>")],
    Discriminator(lambda value: "<string>" if isinstance(value, str) else "<parts>"),
]

Words = Annotated[_Content, BeforeValidator(string_or_parts), _only("text", "input_text")]
"""A string, or parts that are text."""

WordsAndPictures = Annotated[
    _Content, BeforeValidator(string_or_parts), _only("text", "input_text", "image_url", "input_image")
]
WordsAndRefusals = Annotated[_Content, BeforeValidator(string_or_parts), _only("text", "input_text", "refusal")]


# ── Messages ─────────────────────────────────────────────────────────────────────────────────────────────────────

Name = Annotated[str, Field(min_length=1, max_length=64)]
FunctionName = Annotated[str, Field(min_length=1, max_length=64, pattern=NAME)]


class SystemMessage(Shape):
    """What the program tells the model; `developer` is the newer word for the same."""

    role: Literal["system", "developer"]
    content: Words
    name: Name | None = None


class UserMessage(Shape):
    """What the person says."""

    role: Literal["user"]
    content: WordsAndPictures
    name: Name | None = None


class CalledFunction(Shape):
    """A function and its arguments, which are JSON as text: the model wrote it, and may have erred."""

    name: FunctionName
    arguments: str


class ToolCall(Shape):
    """One call the assistant made."""

    id: str = Field(min_length=1, max_length=256)
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None
    """Programs that gather a stream leave it in."""


class AssistantMessage(Shape):
    """What the model said before. Content may be missing where there are calls or a refusal."""

    role: Literal["assistant"]
    content: WordsAndRefusals | None = None
    refusal: str | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOL_CALLS)] | None = None
    function_call: CalledFunction | None = None
    reasoning_content: str | None = None
    """Thoughts, as models that think aloud tell them; not OpenAI's, but in the answers of this node's engine."""
    annotations: list[Any] | None = None
    """Part of our own answers, hence of what programs send back; says nothing to a model."""
    audio: None = None

    @model_validator(mode="after")
    def _says_something(self) -> AssistantMessage:
        if self.content is None and not self.tool_calls and self.function_call is None and self.refusal is None:
            raise Refusal(
                refusals.invalid,
                "An assistant message without 'tool_calls' needs content; got null.",
                below=".content",
            )
        return self


class ToolMessage(Shape):
    """What a tool answered."""

    role: Literal["tool"]
    content: Words
    tool_call_id: str = Field(min_length=1, max_length=256)
    name: Name | None = None


class FunctionMessage(Shape):
    """What a function answered (the older form)."""

    role: Literal["function"]
    content: str | None
    name: FunctionName


class OtherMessage(Shape):
    """A message of any other role: refused by it, whatever else it holds."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]


_ROLES = {
    "system": "<system>",
    "developer": "<system>",
    "user": "<user>",
    "assistant": "<assistant>",
    "tool": "<tool>",
    "function": "<function>",
}


def _message_tag(message: Any) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    return _ROLES.get(role, "<other>") if isinstance(role, str) else "<other>"


Message = Annotated[
    Annotated[SystemMessage, Tag("<system>")]
    | Annotated[UserMessage, Tag("<user>")]
    | Annotated[AssistantMessage, Tag("<assistant>")]
    | Annotated[ToolMessage, Tag("<tool>")]
    | Annotated[FunctionMessage, Tag("<function>")]
    | Annotated[OtherMessage, Tag("<other>")],
    Discriminator(_message_tag),
]


def text_of(content: str | Sequence[Any] | None) -> str:
    """The words of a message, its parts on lines of their own."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(
        part.text if isinstance(part, TextPart) else part.refusal
        for part in content
        if isinstance(part, TextPart | RefusalPart)
    )


def check_turns(messages: Sequence[Any]) -> None:
    """Tool answers must answer calls, and calls must be answered. Raises ApiError."""
    open_calls: set[str] = set()
    asked_at = 0
    called: CalledFunction | None = None
    for index, message in enumerate(messages):
        if isinstance(message, FunctionMessage) and (called is None or called.name != message.name):
            raise refusals.invalid(
                f"messages[{index}].name",
                "Messages with role 'function' must answer the 'function_call' of the message before them.",
            )
        called = message.function_call if isinstance(message, AssistantMessage) else None
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in open_calls:
                raise refusals.invalid(
                    f"messages[{index}].tool_call_id",
                    "Messages with role 'tool' must answer a call of a preceding message with 'tool_calls', "
                    f"each once; '{message.tool_call_id[: refusals.SHOWN]}' is none of them.",
                )
            open_calls.discard(message.tool_call_id)
            continue
        _all_answered(open_calls, asked_at)
        if isinstance(message, AssistantMessage) and message.tool_calls:
            open_calls = {call.id for call in message.tool_calls}
            asked_at = index
            if len(open_calls) != len(message.tool_calls):
                raise refusals.invalid(f"messages[{index}].tool_calls", "Two calls have the same id.")
    _all_answered(open_calls, asked_at)


def _all_answered(open_calls: set[str], asked_at: int) -> None:
    if open_calls:
        raise refusals.invalid(
            f"messages[{asked_at}].tool_calls",
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. These have no answer: {refusals.listing(sorted(open_calls)[:8])}.",
        )
