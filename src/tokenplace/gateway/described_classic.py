"""Encrypted requests of the original's API and the keys they are sealed to, described for machines."""

from __future__ import annotations

import copy
from typing import Any

from tokenplace.openai.classic import PATHS

Json = dict[str, Any]
_REF = "#/components/schemas/"
_TEXT: Json = {"type": "string"}
_BASE64: Json = {"type": "string", "contentEncoding": "base64"}


def _object(required: Json, **optional: Any) -> Json:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


_CLIENT_KEY: Json = {
    "type": "string",
    "description": "RSA, 2048 to 8192 bits: PEM text, or base64 of the PEM text or of DER",
}
_KEY_ID: Json = {
    "type": "string",
    "pattern": "^[0-9a-f]{16}$",
    "description": "The `key_id` of the key that this is sealed to; else the key that this program was last given",
}
_KEY: Json = {
    "public_key": {**_BASE64, "description": "Base64 of the PEM text of an RSA key"},
    "key_id": _TEXT,
    "fingerprint": {"type": "string", "description": "Hex of the SHA-256 of the key's DER; `key_id` is its beginning"},
    "node": {"type": "string", "description": "Whose key it is"},
}

EXPIRED: Json = {
    "public_key": {**_BASE64, "description": "With the code `key_expired`: the key to seal to instead"},
    "key_id": {"type": "string", "description": "… and its id"},
}
"""What the error `key_expired` has besides."""

SHAPES: Json = {
    "EncryptedWords": {
        **_object(
            {"ciphertext": _BASE64, "cipherkey": _BASE64, "iv": _BASE64},
            tag=_BASE64,
            mode={"enum": ["CBC", "GCM"]},
            associated_data=_BASE64,
        ),
        "description": "The list of messages as JSON under AES-256; `cipherkey` is its key under RSA-OAEP",
    },
    "EncryptedChat": _object(
        {
            "model": _TEXT,
            "encrypted": {"const": True},
            "client_public_key": _CLIENT_KEY,
            "messages": {"$ref": _REF + "EncryptedWords"},
        },
        key_id=_KEY_ID,
    ),
    "EncryptedCompletion": {
        **_object({"model": _TEXT, "encrypted": {"const": True}, "client_public_key": _CLIENT_KEY, "prompt": {}}),
        "description": "Only the answer is sealed to `client_public_key`; the prompt is not",
    },
    "EncryptedAnswer": _object(
        {
            "encrypted": {"const": True},
            "data": {
                **_object(
                    {"encrypted": {"const": True}, "ciphertext": _BASE64, "cipherkey": _BASE64, "iv": _BASE64},
                    tag=_BASE64,
                    mode={"const": "GCM"},
                    associated_data=_BASE64,
                ),
                "description": "The whole answer as JSON, which may end in spaces",
            },
        }
    ),
    "PublicKey": _object(_KEY),
    "RotatedKey": _object(
        {**_KEY, "rotated": {"type": "integer", "description": "How many nodes obeyed"}},
    ),
}

ROTATION: Json = {
    "parameters": [
        {
            "name": "X-Token-Place-Operator",
            "in": "header",
            "schema": _TEXT,
            "description": "The operator's token; `Authorization: Bearer TOKEN` will do as well",
        }
    ],
    "security": [],
}
FOR_MODEL: Json = {
    "parameters": [
        {
            "name": "model",
            "in": "query",
            "schema": _TEXT,
            "description": "A model that the key's node should serve",
        }
    ]
}


def with_encryption(node_path: str, asked: Json, body: Json) -> Json:
    """An operation with its body, in which encrypted requests stand beside plain ones where they are taken."""
    asked = copy.deepcopy(asked)
    if node_path in PATHS:
        chat = node_path == PATHS[0]
        body = {"anyOf": [body, {"$ref": _REF + ("EncryptedChat" if chat else "EncryptedCompletion")}]}
        answer = asked["responses"]["200"]["content"]["application/json"]
        answer["schema"] = {"anyOf": [answer["schema"], {"$ref": _REF + "EncryptedAnswer"}]}
    return {**asked, "requestBody": {"required": True, "content": {"application/json": {"schema": body}}}}
