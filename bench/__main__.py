"""`make bench`: prints what was measured, against what we aim for. Takes about three minutes on two cores."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import tempfile
from pathlib import Path

from bench.batching import batching
from bench.classic import ORIGINAL_CPU, ORIGINAL_CYCLES, ORIGINAL_MEDIAN, ORIGINAL_P95, cycles, round_trips
from bench.relay_cost import per_piece, per_request
from bench.replicas import beside, later
from bench.sealed_path import compare, directly, first_tokens, sealed, stand
from bench.under_load import endurance, load
from stage import Stage, staged
from store import stored


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


async def many_at_once(rounds: int) -> None:
    print("\nMany answers at once (embedded model, in turns with llama.cpp's plain server)")
    async for found in batching(rounds):
        print(
            f"  {found.streams:2} stream{'s' * (found.streams > 1):1}  plain {found.plain:6.1f} tok/s"
            f"   ours {found.ours:6.1f} tok/s   ratio {found.ratio:.3f} ({found.low:.3f} to {found.high:.3f}),"
            f" by processor time {found.by_processor:.3f}   aim: at least 0.970",
            flush=True,
        )


def classic(stage: Stage, rounds: int) -> None:
    print("\nThe classic routes (echo engine)")
    for together in (1, 8):
        found = round_trips(stage, rounds=8 * rounds, together=together)
        print(
            f"  round trip, {together} at a time: median {found.median * 1000:.1f} ms, 95 % {found.p95 * 1000:.1f} ms,"
            f" {found.failed} failed   aim: median under 50 ms   the original: {ORIGINAL_MEDIAN:.2f} s,"
            f" 95 % {ORIGINAL_P95:.2f} s"
        )
    speed, cost = cycles(stage, rounds=100 * rounds)
    low, high = ORIGINAL_CYCLES
    print(
        f"  cycles: {speed:.0f}/s, {cost:.2f} ms of the relay's CPU each   aim: under {ORIGINAL_CPU[0]:.1f} ms"
        f"   the original: {low} to {high}/s, {ORIGINAL_CPU[0]} to {ORIGINAL_CPU[1]} ms"
    )


def replicas(stage: Stage, folder: Path, rounds: int) -> None:
    print("\nTwo replicas over Valkey beside one relay (puppets; clients at one, nodes at the other)")
    with stored(folder / "store") as store:
        quiet = later(stage, store, 60 * rounds)
        low, _, high = (1000 * each for each in quiet.pairs)
        print(
            f"  a short answer: {quiet.near * 1000:.2f} ms, over the other replica"
            f" {(quiet.far - quiet.near) * 1000:+.2f} (half of all pairs {low:+.2f} to {high:+.2f})"
            f"   aim: at most +1   (load {os.getloadavg()[0]:.1f})"
        )
        for streams in (128, 500):
            one, two = beside(stage, store, streams=streams, rate=20.0, seconds=6)
            print(
                f"  {streams} streams at 20/s: {one.per_piece:.1f} µs of CPU per piece alone,"
                f" {two.per_piece:.1f} as two ({two.speed:,.0f} pieces/s)   aim: under 45"
                f"\n    on the way {one.median * 1000:.2f} ms at the median alone,"
                f" {(two.median - one.median) * 1000:+.2f} ms as two, 99 % {two.p99 * 1000:.1f} ms"
                f"   (kept from a core by others {one.waited:.2f} and {two.waited:.2f} of the time)"
            )


PARTS = ["sealed", "relay", "replicas", "classic", "batching", "load"]
LONG = ["endurance"]
"""Only when asked for."""


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("only", nargs="?", choices=[*PARTS, *LONG], help="measure only this")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1_000_000, help="for endurance")
    parser.add_argument("--seconds", type=float, default=600.0, help="for endurance, at most")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f},"
        f" Python {platform.python_version()}"
    )
    with tempfile.TemporaryDirectory() as folder, staged(Path(folder)) as stage:
        if options.only in (None, "sealed"):
            await sealed_path(stage, options.rounds)
        if options.only in (None, "relay"):
            await relay_cost(stage)
        if options.only in (None, "load"):
            await load(stage)
        if options.only == "endurance":
            endurance(stage, options.requests, options.seconds)
        if options.only in (None, "replicas"):
            replicas(stage, Path(folder), options.rounds)
        if options.only in (None, "classic"):
            classic(stage, options.rounds)
    if options.only in (None, "batching"):
        await many_at_once(options.rounds)


asyncio.run(main())
