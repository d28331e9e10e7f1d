"""Models by the names that people give: an id of the catalogue, a file on the hub, an address.

hf:OWNER/REPO/FILE[@REVISION]        a GGUF file on the Hugging Face hub
https://HOST/…/FILE                  a GGUF file anywhere
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from tokenplace.errors import WeightsError
from tokenplace.node.targets import is_here
from tokenplace.openai.catalogue import (
    ApiVersion,
    Catalogue,
    HubSource,
    ModelEntry,
    ModelFile,
    Recommended,
    Source,
    UrlSource,
)
from tokenplace.wire.ids import ModelId

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_CONTEXT = 131_072


def is_address(name: str) -> bool:
    """Whether a name says itself where its file is."""
    return name.startswith(("hf:", "https://", "http://"))


def model_named(catalogue: Catalogue, name: str) -> ModelEntry:
    """The model that a name means. Raises ApiError for an id that the catalogue does not have, WeightsError for an
    address that is none."""
    if name.startswith("hf:"):
        return _on_the_hub(name)
    if is_address(name):
        return _at(name)
    return catalogue.weights_of(name)


def _on_the_hub(name: str) -> ModelEntry:
    path, _, revision = name.removeprefix("hf:").partition("@")
    owner, _, rest = path.partition("/")
    repo, _, file = rest.partition("/")
    if not (owner and repo and _is_file(file)):
        raise WeightsError(f"A file on the hub is named hf:OWNER/REPO/FILE.gguf, not {name!r}.")
    source = HubSource(owner, repo, revision or "main", file)
    # Two repositories may have files of one name, and one repository two versions: here each gets a name of its own.
    told = "--".join([owner, repo, *([revision] if revision else []), file])
    return _entry(name, file, told, source)


def _at(name: str) -> ModelEntry:
    try:
        parts = urlsplit(name)
    except ValueError:
        raise WeightsError(f"{name!r} is no address.") from None
    file = unquote(PurePosixPath(parts.path).name)
    if parts.scheme == "http" and not is_here(parts.hostname or ""):
        raise WeightsError(f"Models are fetched over https only, unlike {name!r}.")
    if not (parts.hostname and _is_file(file)):
        raise WeightsError(f"A model's address ends in the name of a GGUF file, unlike {name!r}.")
    return _entry(name, file, f"{parts.netloc.rpartition('@')[2]}--{parts.path.strip('/')}", UrlSource(name))


def _is_file(file: str) -> bool:
    return file.lower().endswith(".gguf") and ".." not in file.split("/")


def _entry(name: str, file: str, told: str, source: Source) -> ModelEntry:
    """What is known of a file by its name alone; its header knows the rest."""
    stem = PurePosixPath(file).stem
    return ModelEntry(
        id=ModelId(_UNSAFE.sub("-", stem).lower()),
        name=name,
        description="A file named by its address.",
        family="",
        template="",
        parameters="",
        quantisation="",
        context=_LONGEST_CONTEXT,
        licence="",
        capabilities=("chat", "completions"),
        versions=frozenset(ApiVersion),
        recommended=Recommended(temperature=0.7, top_p=0.9),
        file=ModelFile(_UNSAFE.sub("--", told)[-200:]),
        source=source,
    )
