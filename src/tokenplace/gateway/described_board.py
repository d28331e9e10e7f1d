"""The notice board described for machines; it stands beside the API, under /api only, and a gateway hands it on."""

from __future__ import annotations

from typing import Any

from tokenplace.community import routes
from tokenplace.community.contributions import CONTACTS
from tokenplace.community.feedback import LONGEST_COMMENT

Json = dict[str, Any]
_REF = "#/components/schemas/"
_TAG = "community"

_REFUSALS = {
    "400": "The request cannot be honoured; `param` names the part at fault",
    "404": "There is no such model",
    "408": "The body did not arrive in time",
    "409": "This client has rated this model today",
    "413": "The request is too large",
    "415": "The body is not JSON, or does not say so",
    "429": "Too much was asked or sent from this address; Retry-After says when more is taken",
    "503": "The operator's file cannot be read or written, or no relay can be reached",
}
_TEXT, _WHOLE, _ANY = {"type": "string"}, {"type": "integer"}, {"type": "object"}
_MAYBE_TEXT = {"type": ["string", "null"]}
_TEXTS = {"type": "array", "items": _TEXT}
_WORDS = {"type": "string", "minLength": 1}
_NAME = {"type": ["string", "number"]}
"""The registry is YAML, where 7 is a number."""


def _object(required: Json, **optional: Any) -> Json:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def _list(of: str, metadata: Json) -> Json:
    return _object(
        {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": _REF + of}},
            "metadata": metadata,
        },
        next_offset=_WHOLE,
    )


_LIVE = {
    "live": _object({"connected": _WHOLE, "slots": _WHOLE, "free": _WHOLE, "models": _TEXTS, "since": _MAYBE_TEXT}),
    "nodes": _TEXTS,
}

SHAPES: Json = {
    "Provider": _object(
        {
            "id": _TEXT,
            "name": _TEXT,
            "region": _TEXT,
            "latency_ms": {"type": ["number", "null"]},
            "status": _TEXT,
            "contact": _ANY,
            "capabilities": _TEXTS,
            "notes": _MAYBE_TEXT,
            "endpoints": {"type": "array", "items": _object({"type": _TEXT, "url": _TEXT})},
        },
        **_LIVE,
    ),
    "Providers": _list("Provider", _object({"updated_at": _MAYBE_TEXT})),
    "ServerProvider": _object(
        {
            "id": _NAME,
            "name": _NAME,
            "region": _NAME,
            "status": _NAME,
            "endpoints": {"type": "array", "items": _object({"type": {}, "url": {}})},
        },
        **_LIVE,
    ),
    "ServerProviders": _list("ServerProvider", _ANY),
    "Leaderboard": _object(
        {
            "entries": {
                "type": "array",
                "items": _object(
                    {
                        "model_id": _TEXT,
                        "average_rating": {"type": "number"},
                        "ratings_count": _WHOLE,
                        "last_feedback_at": _MAYBE_TEXT,
                    },
                    comments={"type": "array", "items": _ANY},
                ),
            },
            "updated": _MAYBE_TEXT,
        },
        next_offset=_WHOLE,
    ),
    "Rating": _object(
        {"model_id": _WORDS, "rating": {"type": "integer", "minimum": 1, "maximum": 5}},
        comment={"type": "string", "maxLength": LONGEST_COMMENT},
    ),
    "Rated": _object(
        {"status": {"const": "counted"}, "feedback_id": _TEXT, "model_id": _TEXT, "rating": {"type": "number"}},
        comment={"enum": ["awaiting_review", "not_kept"]},
    ),
    "Contribution": _object(
        {
            "operator_name": _WORDS,
            "region": _WORDS,
            "availability": _WORDS,
            "contact": {
                "type": "object",
                "properties": dict.fromkeys(CONTACTS, _WORDS),
                "additionalProperties": False,
                "minProperties": 1,
            },
            "capabilities": {"type": "array", "items": _WORDS, "minItems": 1, "maxItems": 20},
        },
        hardware=_TEXT,
        notes=_TEXT,
    ),
    "Queued": _object({"status": {"const": "queued"}, "submission_id": _TEXT}, duplicate={"const": True}),
    "ContributionSummary": _object(
        {
            "object": {"const": "community.contribution_summary"},
            "total_submissions": _WHOLE,
            "regions": _TEXTS,
            "capability_counts": _ANY,
            "last_submission_at": _MAYBE_TEXT,
        }
    ),
}


def paths() -> Json:
    """Every route of the notice board."""
    found: Json = {}
    for path in routes.PROVIDERS:
        found[path] = {"get": _listed("Who lends machines, as the operator wrote it, with live status", "Providers")}
    for path in routes.SERVER_PROVIDERS:
        found[path] = {"get": _listed("The registry of server providers, with live status", "ServerProviders")}
    found[routes.LEADERBOARD] = {"get": _listed("How people rate the models", "Leaderboard")}
    found[routes.FEEDBACK] = {
        "post": _sent("Rate a model: one vote for each client, model and day", "201", "Rating", "Rated", {"404", "409"})
    }
    found[routes.CONTRIBUTIONS] = {"post": _sent("Offer a machine", "202", "Contribution", "Queued", set())}
    found[routes.SUMMARY] = {
        "get": _operation("How much is offered, never by whom", "200", "ContributionSummary", {"429", "503"})
    }
    return found


def _listed(summary: str, answer: str) -> Json:
    whole = {"type": "integer", "maximum": 999_999_999}
    return {
        **_operation(summary, "200", answer, {"400", "429", "503"}),
        "parameters": [
            {"name": "limit", "in": "query", "schema": {**whole, "minimum": 1}},
            {"name": "offset", "in": "query", "schema": {**whole, "minimum": 0}},
        ],
    }


def _sent(summary: str, status: str, body: str, answer: str, refusals: set[str]) -> Json:
    return {
        **_operation(summary, status, answer, refusals | {"400", "408", "413", "415", "429", "503"}),
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": _REF + body}}}},
    }


def _operation(summary: str, status: str, answer: str, refusals: set[str]) -> Json:
    def content(name: str) -> Json:
        return {"application/json": {"schema": {"$ref": _REF + name}}}

    responses = {status: {"description": "The answer", "content": content(answer)}}
    for refused in sorted(refusals):
        responses[refused] = {"description": _REFUSALS[refused], "content": content("Error")}
    return {"summary": summary, "tags": [_TAG], "security": [{}], "responses": responses}
