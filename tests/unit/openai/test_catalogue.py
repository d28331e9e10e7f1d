"""The catalogue as it ships, and what a catalogue may not say."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from tokenplace.errors import ApiError
from tokenplace.openai.catalogue import AdapterEntry, ApiVersion, Catalogue, HubSource, ModelEntry, WheelSource
from tokenplace.wire.ids import ModelId

CATALOGUE = Catalogue.load()
ORIGINAL_V1 = {"llama-3-8b-instruct", "llama-3-8b-instruct:alignment"}
ORIGINAL_V2 = ORIGINAL_V1 | {
    "gpt-oss-20b",
    "mistral-7b-instruct",
    "mixtral-8x7b-instruct",
    "phi-3-mini-4k-instruct",
    "mistral-nemo-instruct",
    "qwen2.5-7b-instruct",
    "qwen2.5-coder-7b-instruct",
    "gemma-2-9b-it",
    "codegemma-7b",
    "smollm2-1.7b-instruct",
}
EMBEDDED = "smollm2-135m-instruct"


def test_v1_and_v2_list_what_the_original_listed_and_the_embedded_model() -> None:
    listed = {version: {str(entry.id) for entry in entries} for version, entries in CATALOGUE.versions.items()}
    assert listed == {ApiVersion.V1: ORIGINAL_V1 | {EMBEDDED}, ApiVersion.V2: ORIGINAL_V2 | {EMBEDDED}}


@pytest.mark.parametrize("alias", ["gpt-3.5-turbo", "gpt-5-chat-latest"])
def test_aliases_lead_to_the_llama(alias: str) -> None:
    assert CATALOGUE.resolve(alias).id == "llama-3-8b-instruct"


def test_an_alias_is_no_entry_of_its_own() -> None:
    with pytest.raises(ApiError):
        CATALOGUE.entry("gpt-3.5-turbo")


def test_an_unknown_name_is_a_404_about_the_model_field() -> None:
    with pytest.raises(ApiError) as caught:
        CATALOGUE.resolve("gpt-17")
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")


def test_a_name_nobody_knows_is_its_own_canonical_form() -> None:
    assert CATALOGUE.canonical("gpt-17") == "gpt-17"


def test_an_adapter_rides_on_its_bases_weights() -> None:
    adapter = CATALOGUE.resolve("llama-3-8b-instruct:alignment")
    assert isinstance(adapter, AdapterEntry)
    assert adapter.base == "llama-3-8b-instruct"
    assert CATALOGUE.weights_of(adapter.id) is CATALOGUE.entry("llama-3-8b-instruct")


def test_the_charter_asks_for_use_honesty_and_care() -> None:
    [adapter] = CATALOGUE.adapters
    assert adapter.charter is not None
    assert "\n" not in adapter.charter
    for word in ("use", "unsure", "hurt"):
        assert word in adapter.charter


def test_the_embedded_model_comes_by_wheel_and_says_that_it_is_a_toy() -> None:
    entry = CATALOGUE.resolve(EMBEDDED)
    assert isinstance(entry, ModelEntry)
    assert entry.toy
    assert "often wrong" in entry.description
    assert isinstance(entry.source, WheelSource)
    assert entry.file.bytes == 98_362_432
    assert (entry.recommended.temperature, entry.recommended.top_p) == (0.2, 0.9)


@pytest.mark.parametrize("entry", CATALOGUE.models, ids=lambda entry: str(entry.id))
def test_every_model_is_fully_described(entry: ModelEntry) -> None:
    assert all((entry.name, entry.description, entry.family, entry.template, entry.parameters, entry.licence))
    assert entry.context >= 4096
    assert entry.capabilities
    assert entry.file.name.endswith(".gguf")
    assert "/" not in entry.file.name
    for digest in (entry.file.sha256, getattr(entry.source, "sha256", None)):
        assert digest is None or (len(digest) == 64 and not set(digest) - set("0123456789abcdef"))
    assert (entry.file.sha256 is None) == (entry.file.bytes is None)
    if isinstance(entry.source, HubSource):
        assert entry.source.repo.endswith("-GGUF")


def test_the_file_is_plain_toml_that_other_languages_can_read() -> None:
    raw = tomllib.loads(files("tokenplace.openai").joinpath("catalogue.toml").read_text(encoding="utf-8"))
    assert raw["format"] == 1
    assert {model["id"] for model in raw["model"]} == {entry.id for entry in CATALOGUE.models}
    assert raw["aliases"]["gpt-3.5-turbo"] == "llama-3-8b-instruct"


MODEL = """
[[model]]
id = "m"
name = "M"
description = "d"
family = "f"
template = "t"
parameters = "1B"
quantisation = "Q4"
context = 4096
licence = "MIT"
capabilities = ["chat"]
versions = ["v2"]
recommended = { temperature = 1.0, top_p = 1.0 }
file = { name = "m.gguf" }
source = { kind = "url", url = "https://example.org/m.gguf" }
"""
ADAPTER = """
[[adapter]]
id = "m:kind"
base = "m"
name = "K"
description = "d"
versions = ["v2"]
charter = "Be kind."
"""


def read(tmp_path: Path, text: str) -> Catalogue:
    path = tmp_path / "catalogue.toml"
    path.write_text(text)
    return Catalogue.load(path)


def test_somebody_elses_catalogue_is_read_alike(tmp_path: Path) -> None:
    catalogue = read(tmp_path, "format = 1\n[aliases]\nbest = 'm:kind'\n" + MODEL + ADAPTER)
    assert catalogue.weights_of("best").id == "m"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("format = 2\n" + MODEL, "format 2"),
        ("format = 1\n" + MODEL + MODEL, "twice"),
        ("format = 1\n[aliases]\nm = 'm'\n" + MODEL, "twice"),
        ("format = 1\n[aliases]\nx = 'y'\n" + MODEL, "does not describe"),
        ("format = 1\n" + MODEL.replace('"url"', '"carrier pigeon"'), "carrier pigeon"),
        ("format = 1\n" + MODEL.replace("v2", "v3"), "v3"),
        ("format = 1\n" + MODEL.replace('licence = "MIT"', ""), "licence"),
        ("format = 1\n" + MODEL + ADAPTER.replace('base = "m"', 'base = "n"'), "does not describe"),
        ("format = 1\n" + MODEL + ADAPTER.replace('charter = "Be kind."', ""), "neither a charter nor weights"),
        (
            "format = 1\n" + MODEL + ADAPTER + ADAPTER.replace("m:kind", "o").replace('"m"', '"m:kind"'),
            "another adapter",
        ),
        ("format = ", "Invalid"),
    ],
)
def test_a_catalogue_that_contradicts_itself_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read(tmp_path, text)


def test_an_adapter_without_weights_is_asked_of_whoever_serves_its_base() -> None:
    catalogue = Catalogue.load()
    assert catalogue.served_as(ModelId("llama-3-8b-instruct:alignment")) == "llama-3-8b-instruct"
    assert catalogue.served_as(ModelId("llama-3-8b-instruct")) == "llama-3-8b-instruct"
    assert catalogue.served_as(ModelId("somebodys-own")) == "somebodys-own"
