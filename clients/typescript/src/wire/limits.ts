/** The bounds of the protocol that a client meets; `src/tokenplace/wire/limits.py` has the reasons. Sizes are bytes. */
const KiB = 1024
const MiB = 1024 * KiB

export const MAX_REQUEST = 8 * MiB + 64 * KiB
export const MAX_RECORD = 16 * KiB
export const MAX_CONTROL = 64 * KiB
export const MAX_DIRECTORY = 4 * MiB

/** How far a request's time may be from the node's clock (ms). */
export const CLOCK_SKEW_MS = 300_000
