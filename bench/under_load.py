"""What `python -m bench load` and `… endurance` print: the relay with many hands on it, with the aims beside."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bench.bare import per_piece
from bench.crowd import QUIET, crowd
from bench.endurance import endure
from bench.failing import failing_path
from bench.shares import light_beside_a_flood
from bench.standing import Request, by_nodes, by_queue, idle_links, never_reading
from stage import Stage


async def load(stage: Stage) -> None:
    """Every measure that takes seconds."""
    print("\nThe relay under load (puppets on real sockets, one relay process)")
    for streams in (500, 1500):
        relay = stage.relay("--blind", name=f"relay-crowd-{streams}", env=QUIET)
        found = crowd(relay, relay, streams=streams, rate=20.0, seconds=10.0)
        relay.end()
        bare = per_piece(streams=streams, rate=20.0, seconds=5.0)
        print(
            f"  {streams:,} streams at 20/s: {found.per_piece:.1f} µs of CPU per piece   aim: under 25"
            f"   (a bare copier takes {bare:.1f}: ratio {found.per_piece / bare:.2f})"
            f"\n    on the way {found.median * 1000:.2f} ms at the median, 99 % {found.p99 * 1000:.1f} ms"
            f"   aim: under 50   (kept from a core by others {found.waited:.2f} of the time, load {_load()})",
            flush=True,
        )
    idle = idle_links(stage, 5000)
    print(
        f"  {idle.links:,} idle node links: {idle.resident / 1024:.1f} KiB of memory each   aim: under 25"
        f"   {idle.core:.1%} of a core",
        flush=True,
    )
    _tell(by_nodes(stage))
    _tell(by_queue(stage))
    unread = never_reading(stage)
    print(
        f"  {unread.readers} clients that never read: {unread.resident / 1024:.0f} KiB of the relay's memory and"
        f" {unread.kernel / 1024:.0f} KiB of the kernel's each, then no more"
        f"\n    a fast stream beside them: 99 % {unread.beside * 1000:.1f} ms, alone {unread.alone * 1000:.1f} ms"
        f"   aim: under 20   (load {_load()})",
        flush=True,
    )
    shared = light_beside_a_flood(stage)
    print(
        f"  a light client's wait for a slot, 95 %: {shared.quiet * 1000:.2f} ms quiet, {shared.flooded * 1000:.2f} ms"
        f" beside a flood of 100 times as much ({shared.refused:.0%} of it refused), ratio"
        f" {shared.flooded / shared.quiet:.2f}   aim: at most 1.5   (an answer takes {shared.answer * 1000:.0f} ms)"
        f"\n    of its {shared.asked} requests {shared.held_up[0]:.1%} stood in the queue when quiet,"
        f" {shared.held_up[1]:.1%} beside the flood   (load {_load()})",
        flush=True,
    )
    failing = await failing_path(stage)
    print(
        f"  a request that one node turned away: {failing.failing * 1000:.1f} ms, {failing.failing_cpu:.0f} µs of CPU;"
        f" one that was answered at once: {failing.working * 1000:.1f} ms, {failing.working_cpu:.0f} µs"
        f"\n    ratio {failing.failing / failing.working:.2f} and {failing.failing_cpu / failing.working_cpu:.2f}"
        "   aim: at most 2",
        flush=True,
    )


def endurance(stage: Stage, requests: int, seconds: float) -> None:
    """As many requests as fit."""
    print(f"\nEndurance (at most {requests:,} requests and {seconds:.0f} s)")
    found = endure(stage, requests, seconds)
    print(
        f"  {found.requests:,} requests in {found.took:.0f} s, {found.cost:.0f} µs of CPU each: {_mib(found.warm)} MiB"
        f" warm, then {_mib(found.least)} to {_mib(found.most)}, {found.growth:+.1%}   aim: within 10 %"
    )


def _tell(lines: Sequence[Request]) -> None:
    for found in lines:
        print(
            f"  a request beside {found.what}: {found.cost:.0f} µs of CPU, ratio {found.ratio:.2f}"
            f" ({found.low:.2f} to {found.high:.2f})   aim: at most 1.3   nobody asking: {found.idle:.1%} of a core",
            flush=True,
        )


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f}"
