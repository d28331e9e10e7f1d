"""llama.cpp's own server as its library starts it, with nothing of ours: what the embedded engine is measured against.

    python bench/plain_server.py MODEL SLOTS CONTEXT THREADS

prints its address and serves until stdin ends. Defaults everywhere, but for what makes the two comparable.
"""

from __future__ import annotations

import os
import sys

import xllamacpp as x


def main() -> None:
    model, slots, context, threads = sys.argv[1], *map(int, sys.argv[2:5])
    p = x.CommonParams()
    p.model.path = model
    p.n_parallel = slots
    p.n_ctx = slots * context
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = threads
    p.n_threads_http = 2 * slots + 8
    p.hostnames, p.port = ["127.0.0.1"], 0
    p.verbosity = 0
    p.ui = False
    server = x.Server(p)
    print(server.listening_address, flush=True)
    sys.stdin.buffer.read()
    os._exit(0)


main()
