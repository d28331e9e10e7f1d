"""Every bound of the protocol, each with its reason. Sizes are bytes, times are seconds."""

from __future__ import annotations

from dataclasses import dataclass

KiB = 1024
MiB = 1024 * KiB

MAX_REQUEST = 8 * MiB + 64 * KiB
"""A sealed request: 8 MiB of words and images, and the padding around it."""

MAX_FRAME_PAYLOAD = 256 * KiB
"""One link frame. Larger requests travel as several, so that other streams get between."""

JOB_CHUNK = 64 * KiB
"""How a sealed request is cut on the link."""

MAX_MESSAGE = 1 * MiB
"""One WebSocket message (several frames)."""

MAX_FRAMES = 1024
"""Frames in one message: what is read in one go must not keep other streams waiting."""

MAX_UNSENT_FRAMES = 10_000
"""Frames that wait for a peer who does not read; a request of 8 MiB is 130."""

MAX_CONTROL = 64 * KiB
"""A control payload (JSON): a card with its models is about 3 KiB."""

MAX_CARD_MODELS = 64
"""Models on one card: the directory names every one of them to every client that asks who is there."""

MAX_CARD_ENTRIES = 16
"""Sealing keys on a card, and capabilities of a model: there are two and a handful."""

MAX_CARD_NUMBER = 2**53 - 1
"""Times, contexts and sequences on a card: what a page reads exactly."""

MAX_LISTED_MODELS = 1000
"""Models that the directory counts, those that have been here longest: more is a crowd that fills the list."""

MAX_RECORD = 16 * KiB
"""One sealed record of an answer: a quarter of the window below, so that credit always lets a whole one pass."""

CREDIT_WINDOW = 64 * KiB
"""What a node may send on one stream beyond what the client has taken: more than any round trip needs."""

CREDIT_STEP = CREDIT_WINDOW // 4
"""Credit is returned in steps, not per piece."""

CLIENT_SOCKET_SEND_BUFFER = 128 * KiB
"""SO_SNDBUF of client sockets: without it the kernel takes megabytes for each reader who does not read."""

RUN_BUFFER = 4 * MiB
"""What a node keeps of one answer for a client that comes back; a million tokens are fewer."""

MAX_STREAMS_PER_NODE = 64
"""Answers one node may give at once: more than any one machine decodes well together."""

MAX_QUEUE_PER_NODE = 64
"""Requests that may wait for one node; who comes after hears when to come back."""

MAX_QUEUED_BYTES = 32 * MiB
"""Waiting requests of all nodes together: what a Raspberry Pi can spare."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The clock's part of the protocol. Tests hand in shorter ones; both ends start from these."""

    hello: float = 5.0
    """A link that does not introduce itself is closed."""

    heartbeat: float = 5.0
    """How often an end asks the other for a sign of life."""

    silence: float = 15.0
    """A link without any frame for so long is dead: a dead node must be noticed in 15 s."""

    queue_wait: float = 60.0
    """A job that waited so long for a slot ends as `queue_timeout`."""

    first_piece: float = 120.0
    """From offer to the first piece; renewed by every PROGRESS."""

    progress_every: float = 5.0
    """How often a working node says so while it has nothing to send."""

    silent_job: float = 30.0
    """A started job without piece or PROGRESS for so long ends as `no_progress`."""

    reader_stall: float = 180.0
    """A client that takes nothing for so long while pieces wait ends its job as `client_stalled`."""

    sign_of_life: float = 4.0
    """The relay tells a waiting client that it is alive: first within 5 s …"""

    sign_of_life_again: float = 9.0
    """… then at least every 10 s (proxies and clients give up at about ten seconds of silence)."""

    return_grace_unseen: float = 2.0
    """How long a lost node may take to come back to a job of which nothing arrived."""

    return_grace_seen: float = 5.0
    """… and to a job of which the client has seen something."""

    max_linger: float = 60.0
    """The longest a client may ask a job to outlive its connection."""

    orphan: float = 30.0
    """A node keeps decoding for a job that no relay holds for so long, then cancels it."""

    keep_finished: float = 30.0
    """A node keeps a finished answer for clients that come back."""

    clock_skew: float = 300.0
    """How far a request's time may be from the node's clock."""

    replay_memory: float = 600.0
    """How long request ids are remembered: twice the skew, so that no replay can slip through."""

    drain: float = 30.0
    """How long a relay that was told to stop lets open streams end."""


TIMING = Timing()
