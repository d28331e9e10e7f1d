"""The Python client's time to the first word: `python python_first_word.py RELAY COUNT`, milliseconds, one a line."""

from __future__ import annotations

import asyncio
import sys
import time

from tokenplace.client.client import Client


async def main(relay: str, count: int) -> None:
    async with Client([relay]) as client:
        for _ in range(count):
            began = time.perf_counter()
            async for chunk in client.stream([{"role": "user", "content": "hello there"}], model="echo"):
                if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                    sys.stdout.write(f"{(time.perf_counter() - began) * 1000:.2f}\n")
                    break
            await asyncio.sleep(0.1)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
