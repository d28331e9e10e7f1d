"""`make bench`: prints what was measured, against what we aim for. Takes about three minutes on two cores."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import tempfile
from pathlib import Path

from bench.relay_cost import per_piece, per_request
from bench.sealed_path import compare, directly, first_tokens, sealed, stand
from stage import Stage, staged


async def sealed_path(stage: Stage, rounds: int) -> None:
    engine, client = await stand(stage)
    try:
        direct, through = directly(engine), sealed(client)
        for ask in (direct, through):
            await ask(0, 16)
        print("\nThe sealed path beside the bare engine (embedded model, in turns)")
        for streams, tokens in ((1, 160), (8, 96)):
            found = await compare(direct, through, streams, tokens, rounds)
            print(
                f"  {streams} stream{'s' * (streams > 1):1}  bare {found.direct:6.1f} tok/s"
                f"   sealed {found.sealed:6.1f} tok/s"
                f"   ratio {found.ratio:.3f} ({found.low:.3f} to {found.high:.3f})   aim: at least 0.970"
            )
        bare, later = await first_tokens(direct, through, 8 * rounds)
        print(f"  first token: bare {bare * 1000:.1f} ms, sealed {later * 1000:+.1f} ms   aim: at most +5 ms")
    finally:
        await client.aclose()
        await engine.stop()


async def relay_cost(stage: Stage) -> None:
    print("\nWhat the relay spends (echo engine)")
    for streams, rate in ((128, 20.0), (500, 20.0)):
        cost, speed = await per_piece(stage, streams=streams, rate=rate, seconds=6)
        print(
            f"  {streams} streams at {rate:.0f}/s: {cost:5.1f} µs of CPU per piece"
            f" ({speed:,.0f} pieces/s)   aim: under 25"
        )
    for together in (1, 16):
        cost, speed, each = await per_request(stage, requests=1600, together=together)
        print(
            f"  {together} at a time: {cost:5.0f} µs of CPU per request, its {each:.1f} pieces included"
            f" ({speed:,.0f}/s)   aim: under 250"
        )


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("only", nargs="?", choices=["sealed", "relay"], help="measure only this")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f},"
        f" Python {platform.python_version()}"
    )
    with tempfile.TemporaryDirectory() as folder, staged(Path(folder)) as stage:
        if options.only != "relay":
            await sealed_path(stage, options.rounds)
        if options.only != "sealed":
            await relay_cost(stage)


asyncio.run(main())
