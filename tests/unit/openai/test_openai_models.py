from __future__ import annotations

import pytest
from openai.types import Model

from tokenplace.errors import ApiError
from tokenplace.openai.models import ListedModel, listing, one

LLAMA = ListedModel("llama-3-8b-instruct", 1_700_000_000, 8192, ("chat", "tools"), nodes=2, loaded=True)
ALIGNED = ListedModel("llama-3-8b-instruct:alignment", 1_700_000_000, 8192, base="llama-3-8b-instruct")


def test_a_model_is_listed_with_the_older_fields_and_with_what_people_ask_for() -> None:
    assert LLAMA.entry() == {
        "id": "llama-3-8b-instruct",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "token.place",
        "permission": [
            {
                "id": "modelperm-llama-3-8b-instruct",
                "object": "model_permission",
                "created": 1_700_000_000,
                "allow_create_engine": False,
                "allow_sampling": True,
                "allow_logprobs": True,
                "allow_search_indices": False,
                "allow_view": True,
                "allow_fine_tuning": False,
                "organization": "*",
                "group": None,
                "is_blocking": False,
            }
        ],
        "root": "llama-3-8b-instruct",
        "parent": None,
        "context_length": 8192,
        "capabilities": ["chat", "tools"],
        "nodes": 2,
        "loaded": True,
    }


def test_an_adapter_names_its_base() -> None:
    entry = ALIGNED.entry()
    assert entry["root"] == entry["parent"] == "llama-3-8b-instruct"
    assert entry["metadata"] == {"adapter": {"id": "llama-3-8b-instruct:alignment", "share_base": True}}


def test_the_list_keeps_its_order() -> None:
    assert [entry["id"] for entry in listing([LLAMA, ALIGNED])["data"]] == [LLAMA.id, ALIGNED.id]
    assert listing([]) == {"object": "list", "data": []}


def test_the_sdk_reads_a_model() -> None:
    assert Model.model_validate(LLAMA.entry()).created == 1_700_000_000


def test_one_model_is_found_by_its_id() -> None:
    assert one({LLAMA.id: LLAMA}, LLAMA.id) == LLAMA.entry()


def test_a_model_there_is_none_of_is_answered_with_those_there_are() -> None:
    with pytest.raises(ApiError) as caught:
        one({LLAMA.id: LLAMA}, "gpt-9")
    assert caught.value.status == 404
    assert caught.value.as_json()["error"] == {
        "message": "The model 'gpt-9' does not exist or is not served here. These are: 'llama-3-8b-instruct'.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


def test_a_long_list_of_models_is_not_told_whole() -> None:
    many = {f"m{number:03}": ListedModel(f"m{number:03}", 0) for number in range(100)}
    with pytest.raises(ApiError, match="and 68 more"):
        one(many, "gpt-9")


def test_no_models_are_said_to_be_none() -> None:
    with pytest.raises(ApiError, match="None is served right now"):
        one({}, "gpt-9")
