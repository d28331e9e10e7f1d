"""The API described for people: one page without scripts, so that no other host learns who reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
:root { color-scheme: light dark }
code { font: 14px ui-monospace, monospace }
summary { cursor: pointer; padding: .3rem 0 }
table { border-collapse: collapse; margin: .5rem 0 1rem }
td, th { text-align: left; padding: .15rem 1rem .15rem 0; vertical-align: top }
.method { display: inline-block; width: 4rem; font-weight: 600 }
.faint { opacity: .7 }
"""


def page(described: Mapping[str, Any]) -> str:
    """The page for an OpenAPI document."""
    return "".join(_page(described))


def _page(described: Mapping[str, Any]) -> Iterator[str]:
    info, shapes = described["info"], described["components"]["schemas"]
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])} API</title>"
    yield "<meta name=viewport content='width=device-width'>"
    yield f"<style>{_STYLE}</style><h1>{escape(info['title'])} API</h1>"
    yield f"<p>{escape(info['summary'])}</p><p>{escape(info['description'])}</p>"
    yield "<p>For machines: <a href='openapi.json'><code>openapi.json</code></a></p>"
    tag = ""
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if operation["tags"][0] != tag:
                tag = operation["tags"][0]
                yield f"<h2>{escape(tag)}</h2>"
            yield f"<details><summary><span class=method>{method.upper()}</span> <code>{escape(path)}</code> "
            yield f"<span class=faint>{escape(operation['summary'])}</span></summary>"
            yield from _operation(operation, shapes)
            yield "</details>"
    yield "</html>"


def _operation(operation: Mapping[str, Any], shapes: Mapping[str, Any]) -> Iterator[str]:
    if body := operation.get("requestBody"):
        for number, name in enumerate(_names(body["content"]["application/json"]["schema"])):
            shape = shapes[name]
            required = shape.get("required", ())
            yield f"<p>Or {escape(name)}:</p>" if number else ""
            yield "<table><tr><th>field<th>what it takes"
            for field, told in shape["properties"].items():
                mark = " <b>required</b>" if field in required else ""
                yield f"<tr><td><code>{escape(field)}</code>{mark}<td>{escape(_kind(told))}"
            yield "</table>"
    yield "<table><tr><th>status<th>what it means"
    for status, told in operation["responses"].items():
        yield f"<tr><td>{escape(status)}<td>{escape(told['description'])}"
    yield "</table>"


def _kind(schema: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return _name(schema["$ref"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_kind(each) for each in schema[several] if each.get("type") != "null"))
    if "enum" in schema:
        return ", ".join(map(repr, schema["enum"]))
    if "const" in schema:
        return repr(schema["const"])
    if schema.get("type") == "array":
        return f"list of ({_kind(schema.get('items', {}))})"
    bounds = [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return " ".join([str(schema.get("type", "anything")), *bounds])


def _names(schema: Mapping[str, Any]) -> Iterator[str]:
    """The shapes that a body may have."""
    if "$ref" in schema:
        yield _name(schema["$ref"])
    for several in ("anyOf", "allOf"):
        for each in schema.get(several, ()):
            yield from _names(each)


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]
