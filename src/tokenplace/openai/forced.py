"""Tool calls from a model whose template knows no tools: its answer is forced into a JSON schema made of the tools.

    the model writes                                   the person's program gets
    {"name":"weather","arguments":{"city":"Bonn"}}  →  tool_calls: weather, {"city":"Bonn"}
    {"response":"Hello \\u263a"}                     →  content: Hello ☺            (only where a call is optional)

The schema goes to the engine as `response_format`, so its grammar keeps the shape whatever the model would like.
`ForcedText` reads the model's text as it comes and passes words and arguments on at once.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from tokenplace.errors import EngineError
from tokenplace.openai import jsontext
from tokenplace.openai.schemas import DATA
from tokenplace.openai.tools import Function

_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}

MAX_HEAD = 1024
"""Characters before the arguments begin: `{"name":"…","arguments":` with any white space."""


@dataclass(frozen=True, slots=True)
class Forcing:
    """Which functions may be called, and whether one must."""

    functions: tuple[Function, ...]
    required: bool


def response_format(forcing: Forcing) -> dict[str, Any]:
    """What makes an engine write calls of these functions and nothing else (but words, where no call is required)."""
    definitions: dict[str, Any] = {}
    shapes: list[dict[str, Any]] = []
    for index, function in enumerate(forcing.functions):
        place = f"function{index}"
        parameters = function.parameters if function.parameters is not None else _NO_ARGUMENTS
        definitions[place] = {"type": "object", **_moved(parameters, f"#/$defs/{place}")}
        shapes.append(_object({"name": {"const": function.name}, "arguments": {"$ref": f"#/$defs/{place}"}}))
    if not forcing.required:
        shapes.append(_object({"response": {"type": "string"}}))
    schema = shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": {**schema, "$defs": definitions}},
    }


def instructions(forcing: Forcing) -> str:
    """What the model is told about the functions, for its system message."""
    lines = ["You can call these functions:"]
    for function in forcing.functions:
        told: dict[str, Any] = {"name": function.name}
        if function.description:
            told["description"] = function.description
        told["arguments"] = function.parameters if function.parameters is not None else _NO_ARGUMENTS
        lines.append(jsontext.write_text(told))
    lines.append('Answer with one JSON object. To call a function: {"name": its name, "arguments": {…}}.')
    if not forcing.required:
        lines.append('To say something instead, when no function helps: {"response": "your words"}.')
    return "\n".join(lines)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _moved(schema: Any, to: str) -> Any:
    """The schema with its own references following it to where it is put."""
    if isinstance(schema, list):
        return [_moved(item, to) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: to + value[1:]
        if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else value
        if key in DATA
        else _moved(value, to)
        for key, value in schema.items()
    }


class Part(Enum):
    """What a piece of forced text turned out to be."""

    NAME = auto()
    """The function's name, whole."""
    ARGUMENTS = auto()
    """The next characters of the arguments' JSON."""
    WORDS = auto()
    """The next characters of what the model says."""


class _At(Enum):
    HEAD = auto()
    ARGUMENTS = auto()
    WORDS = auto()
    END = auto()


_CALL = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"arguments"\s*:\s*(?=\{)')
_SAYS = re.compile(r'\s*\{\s*"response"\s*:\s*"')
_STRING_PIECE = re.compile(
    r'[^"\\]+|\\["\\/bfnrt]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}'
)
_HALF_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}(\\(u[0-9a-fA-F]{0,3})?)?$")


class ForcedText:
    """Reads the forced JSON of one choice, in any cut."""

    def __init__(self, *, required: bool) -> None:
        self._required = required
        self._at = _At.HEAD
        self._held = ""
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.called = False
        """Whether this is a call."""

    @property
    def whole(self) -> bool:
        """Whether the call or the words are complete."""
        return self._at is _At.END

    def feed(self, text: str) -> list[tuple[Part, str]]:
        """Take more text, give what it means. Raises EngineError when the engine does not keep to the schema."""
        out: list[tuple[Part, str]] = []
        if self._at is _At.HEAD:
            self._held += text
            text = self._head(out)
        if self._at is _At.ARGUMENTS and text:
            piece = self._arguments(text)
            if piece:
                out.append((Part.ARGUMENTS, piece))
        elif self._at is _At.WORDS and text:
            piece = self._words(text)
            if piece:
                out.append((Part.WORDS, piece))
        return out

    def _head(self, out: list[tuple[Part, str]]) -> str:
        """Find out which it is; returns the text behind the head."""
        if match := _CALL.match(self._held):
            out.append((Part.NAME, match[1]))
            self._at, self.called = _At.ARGUMENTS, True
        elif not self._required and (match := _SAYS.match(self._held)):
            self._at = _At.WORDS
        else:
            if len(self._held) > MAX_HEAD or self._held.lstrip()[:1] not in ("", "{"):
                raise EngineError("The model runtime did not keep to the JSON schema that tool calls are made of.")
            return ""
        rest, self._held = self._held[match.end() :], ""
        return rest

    def _arguments(self, text: str) -> str:
        """The arguments without the white space between their parts, up to the brace that closes them."""
        out: list[str] = []
        for character in text:
            if self._in_string:
                out.append(character)
                if self._escaped:
                    self._escaped = False
                elif character == "\\":
                    self._escaped = True
                elif character == '"':
                    self._in_string = False
                continue
            if character in " \t\r\n":
                continue
            out.append(character)
            if character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if not self._depth:
                    self._at = _At.END
                    break
        return "".join(out)

    def _words(self, text: str) -> str:
        """The string's characters, as far as their escapes are whole."""
        text, self._held = self._held + text, ""
        out: list[str] = []
        position = 0
        while position < len(text):
            if text[position] == '"':
                self._at = _At.END
                break
            if _HALF_PAIR.match(text, position):
                self._held = text[position:]
                break
            piece = _STRING_PIECE.match(text, position)
            if piece is None:
                self._held = text[position:]
                if len(self._held) > 12:
                    raise EngineError("The model runtime wrote a JSON string that is none.")
                break
            part = piece[0]
            out.append(_unescaped(part) if part[0] == "\\" else part)
            position = piece.end()
        return "".join(out)


def _unescaped(escape: str) -> str:
    """One escape's character; half of a surrogate pair is none, and becomes the sign for that."""
    character = str(json.loads(f'"{escape}"'))
    return "\ufffd" if "\ud800" <= character <= "\udfff" else character
