"""Every bound of the classic routes, each with its reason. Sizes are bytes, times are seconds."""

from __future__ import annotations

from dataclasses import dataclass

from tokenplace.wire.limits import MAX_REQUEST, KiB, MiB

MAX_HELD = 32 * MiB
"""Everything the classic routes keep, and bodies on their way in: what a Raspberry Pi can spare once more."""

QUESTION_COST = 2 * KiB
"""What a question weighs beside its words, so that empty ones are bounded too."""

MAX_BODY = MAX_REQUEST
"""A question or an answer."""

SMALL_BODY = 64 * KiB
"""A request that only has keys and names in it."""

MAX_CHUNK = 256 * KiB
"""The body of one piece of a stream."""

STREAM_WINDOW = 256 * KiB
"""Unread pieces of one stream; a node that is further ahead has to wait."""

MAX_KEY = 16 * KiB
"""A public key as text: 8192 bits take 2 KiB."""

MIN_TOKEN = 16
"""Characters of a sink token that a node brings along: with fewer it would be guessed."""

MAX_PER_MAILBOX = 16
"""Questions and unread answers of one client key from one address."""

MAX_POLLING_NODES = 1000
"""Nodes that poll: each costs about a request in ten seconds."""

MAX_POLLING_PER_ADDRESS = 8
"""Nodes that poll from one address: a household has fewer, a flood has more."""

MAX_BATCH = 64
"""Jobs that a polling node may have in hand, whatever max_batch_size says."""

MAX_WAITING = 3000
"""Requests that wait (long poll) at once; one more is answered at once instead."""

MAX_WAITING_PER_ADDRESS = 256
"""… and those from one address."""

MAX_MARKS = 256
"""Brackets and commas of a body: the shapes have a dozen, and a body of nothing else would unfold hundredfold."""


@dataclass(frozen=True, slots=True)
class ClassicTiming:
    """The clock's part. Tests hand in shorter ones."""

    ping_least: float = 1.0
    """How often a node is asked to poll while there are few nodes …"""

    ping_most: float = 10.0
    """… and while there are many: the original's number."""

    silence: float = 30.0
    """A polling node that was silent for so long is gone (or for three pings, if that is more)."""

    queue_wait: float = 120.0
    """A question that no poll has fetched for so long ends as `queue_timeout`."""

    lease: float = 300.0
    """A polling node that took a question and shows nothing for so long has lost it: it cannot say that it works."""

    unasked: float = 120.0
    """A question whose answer nobody asks for is given up; the original's clients ask every two seconds."""

    kept: float = 300.0
    """How long an answer waits to be read."""

    former: float = 3600.0
    """How long the holder of a key is remembered after it fell silent, so that nobody steps into its place."""

    wait: float = 30.0
    """The longest a caller may ask to wait: below what proxies and clients give up at."""

    scan: float = 0.25
    """How often cards are looked through for a key that is not known."""


CLASSIC_TIMING = ClassicTiming()
