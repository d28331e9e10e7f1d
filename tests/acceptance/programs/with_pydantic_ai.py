"""A program that uses pydantic-ai, told a base URL and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from pydantic import BaseModel, Field
from pydantic_ai import Agent, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


class City(BaseModel):
    name: str = Field(max_length=20)


async def tried(model: Any) -> dict[str, Any]:
    agent = Agent(model, model_settings={"max_tokens": 24, "temperature": 0})
    whole = (await agent.run("Say hello.")).output
    async with agent.run_stream("Say hello.") as answer:
        pieces = [piece async for piece in answer.stream_text(delta=True, debounce_by=None)]
    shaped = Agent(model, output_type=ToolOutput(City), retries=3, model_settings={"max_tokens": 80, "temperature": 0})
    city = (await shaped.run("Name the capital of France.")).output
    return {
        "whole": whole,
        "pieces": len(pieces),
        "tokens": answer.usage.output_tokens,
        "city": city.model_dump(),
    }


async def main() -> None:
    provider = OpenAIProvider(base_url=os.environ["BASE_URL"], api_key="not needed")
    name = os.environ["MODEL"]
    models = {
        "chat": OpenAIChatModel(name, provider=provider),
        "responses": OpenAIResponsesModel(name, provider=provider),
    }
    print(json.dumps({kind: await tried(model) for kind, model in models.items()}))


asyncio.run(main())
