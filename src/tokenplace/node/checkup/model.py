"""The model: is its file whole, and does the engine give one real answer?"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tokenplace.errors import TokenPlaceError
from tokenplace.node.build import make_engine
from tokenplace.node.checkup.finding import Finding, bad, hint, ok
from tokenplace.node.named import model_named
from tokenplace.node.settings import EMBEDDED, NodeSettings
from tokenplace.node.weights import Weights
from tokenplace.openai import jsontext
from tokenplace.openai.catalogue import Catalogue, ModelEntry

CHAT = "/v1/chat/completions"


def wanted(settings: NodeSettings) -> tuple[ModelEntry, ...]:
    """The models whose files this node would load; none where another program has the models.

    Raises ApiError, WeightsError for a name that means nothing.
    """
    if settings.mock or "llama" not in settings.named_engines:
        return ()
    return tuple(model_named(Catalogue.load(), name) for name in settings.named_models or (EMBEDDED,))


def size_of(entry: ModelEntry, weights: Weights) -> int | None:
    """Bytes of the model's file, where anybody knows."""
    try:
        return weights.locate(entry).stat().st_size
    except TokenPlaceError:
        return entry.file.bytes


def integrity(entry: ModelEntry, weights: Weights) -> Finding:
    """Hash the file and compare. Reads all of it."""
    state = weights.state(entry).value
    if state in ("absent", "partial"):
        begun = " (a part of it is)" if state == "partial" else ""
        return hint(
            "model", f"{entry.id} is not on this machine{begun}", f"Run `tokenplace models pull {_name(entry)}`."
        )
    try:
        verified = weights.verify(weights.locate(entry), entry, fresh=True)
    except TokenPlaceError as error:
        return bad("model", f"the file of {entry.id} is not what it should be", error.message)
    return ok("model", f"{Path(verified.path).name}, SHA-256 {verified.digest[:12]}… ({verified.against.value})")


def _name(entry: ModelEntry) -> str:
    return entry.name if entry.name.startswith(("hf:", "http")) else entry.id


async def one_answer(settings: NodeSettings) -> Finding:
    """Start the engine as a node would, let it say one word, and stop it. What goes wrong is the finding."""
    began = time.monotonic()
    try:
        engine, api = await asyncio.to_thread(make_engine, settings)
        try:
            await engine.start()
            warm = time.monotonic() - began
            model = next((card for card in engine.models if "chat" in card.capabilities), engine.models[0])
            body = {"model": model.id, "messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 1}
            async with api.answer(CHAT, jsontext.write(body)) as answer:
                text = b"".join([chunk async for chunk in answer.body()])
                if answer.refusal is not None:
                    raise answer.refusal
        finally:
            await engine.stop()
    except TokenPlaceError as error:
        return bad("answer", "the engine gives no answer", error.message)
    took = time.monotonic() - began - warm
    if not text:
        return bad("answer", f"{model.id} gives an empty answer", "Try another model or another engine.")
    return ok("answer", f"{model.id} is warm after {warm:.1f} s and answers after {took:.1f} s more")
