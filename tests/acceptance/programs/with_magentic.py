"""A program that uses magentic, told a base URL and nothing else."""

from __future__ import annotations

import json
import os
from typing import Any

from magentic import StreamedStr, UserMessage
from magentic.chat_model.openai_chat_model import OpenaiChatModel
from pydantic import BaseModel, Field


class City(BaseModel):
    name: str = Field(max_length=20)


model = OpenaiChatModel(
    os.environ["MODEL"], base_url=os.environ["BASE_URL"], api_key="not needed", max_tokens=60, temperature=0
)
hello = [UserMessage("Say hello.")]
streamed: Any = model.complete(hello, output_types=[StreamedStr]).content
city: Any = model.complete([UserMessage("Name the capital of France.")], output_types=[City]).content
print(json.dumps({"whole": model.complete(hello).content, "pieces": len(list(streamed)), "city": city.model_dump()}))
