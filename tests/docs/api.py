"""The gateway's HTTP API as tables, out of the OpenAPI document that it serves."""

from __future__ import annotations

from typing import Any

from docs.tables import table

_SHAPE = "#/components/schemas/"


def document() -> dict[str, Any]:
    """What `/openapi.json` says."""
    from tokenplace.gateway.described import describe
    from tokenplace.gateway.flavours import FLAVOURS

    return describe(FLAVOURS)


def shapes_in(schema: Any) -> list[str]:
    """The names of the shapes that a schema refers to, in order."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return [schema["$ref"].removeprefix(_SHAPE)]
        schema = list(schema.values())
    if isinstance(schema, list):
        return [name for part in schema for name in shapes_in(part)]
    return []


def routes_of_the_gateway() -> str:
    """Every route; a path under `/api` that stands without it too is told once."""
    paths = document()["paths"]
    rows = []
    for path, methods in paths.items():
        if path.removeprefix("/api") != path and path.removeprefix("/api") in paths:
            continue
        for method, operation in methods.items():
            answers = operation["responses"]
            [good] = [status for status in answers if status.startswith("2")]
            sent = shapes_in(operation.get("requestBody", {}))
            given = shapes_in(answers[good])
            if "text/event-stream" in answers[good]["content"]:
                given.append("events")
            rows.append(
                (
                    f"`{method.upper()} {path}`",
                    operation["summary"],
                    " or ".join(f"`{name}`" for name in sent),
                    f"{good}: " + " or ".join("events" if name == "events" else f"`{name}`" for name in given),
                    ", ".join(status for status in answers if status != good),
                )
            )
    return table(("request", "what it does", "it sends", "it gets", "or"), rows)


def shapes_of_the_gateway() -> str:
    """The fields of every shape that stands in a route; a star marks those that must be there."""
    made = document()
    shapes = made["components"]["schemas"]
    used = {name for methods in made["paths"].values() for name in shapes_in(list(methods.values()))}
    rows = []
    for name in sorted(used):
        shape = shapes[name]
        required = shape.get("required", ())
        fields = [f"`{field}`{'*' if field in required else ''}" for field in shape.get("properties", {})]
        rows.append((f"`{name}`", ", ".join(fields)))
    return table(("shape", "fields"), rows)
