"""How lengths are hidden: a true length, the data, then zeros up to a size that many others share.

    ┌───────────────┬───────────────┬──────────────────────────┐
    │ length u32 BE │ data (length) │ zeros                    │
    └───────────────┴───────────────┴──────────────────────────┘

A request's whole is rounded up to PADMÉ's step for its size (Nikitin et al., "Reducing Metadata Leakage from
Encrypted Files and Communication with PURBs", PETS 2019, section 4), and never to a finer one than 256 bytes. From
8 KiB on PADMÉ's own steps are wider than that: at most 6.25 % more bytes, and only O(log log L) bits of the length L
are shown. A record's whole is a multiple of 64 bytes, so that the sizes of a streamed answer stop spelling the
lengths of its tokens (arXiv 2403.09751).

Reading is strict: there is exactly one padding for each length, so padding carries nothing else. Sizes are bytes.
"""

from __future__ import annotations

from tokenplace.errors import WireError

LENGTH_BYTES = 4
REQUEST_STEP = 256
RECORD_STEP = 64


def request_step(size: int) -> int:
    """Padded requests of about `size` bytes (at least 1) are multiples of this: PADMÉ's step, but 256 or more."""
    exponent = size.bit_length() - 1
    return max(REQUEST_STEP, 1 << exponent - exponent.bit_length())


def request_size(data: int) -> int:
    """The padded size of a request body with `data` bytes."""
    total = LENGTH_BYTES + data
    step = request_step(total)
    return -(-total // step) * step


def request_room(size: int) -> int:
    """The most data whose padded size stays within `size` bytes (at least 256): the reverse of `request_size`."""
    step = request_step(size)
    return size // step * step - LENGTH_BYTES


def record_size(data: int) -> int:
    """The padded size of a record with `data` bytes."""
    return -(-(LENGTH_BYTES + data) // RECORD_STEP) * RECORD_STEP


def record_room(size: int) -> int:
    """The most data whose padded size stays within `size` bytes: the reverse of `record_size`."""
    return size // RECORD_STEP * RECORD_STEP - LENGTH_BYTES


def pad_request(data: bytes) -> bytes:
    """A request body, padded."""
    return _pad(data, request_size(len(data)))


def unpad_request(padded: bytes) -> bytes:
    """The reverse of `pad_request`. Raises WireError unless it is byte for byte what `pad_request` gives."""
    data = _unpad(padded)
    if len(padded) != request_size(len(data)):
        raise WireError("The request is not padded to the size that its length asks for.")
    return data


def pad_record(data: bytes) -> bytes:
    """A record's data, padded."""
    return _pad(data, record_size(len(data)))


def unpad_record(padded: bytes) -> bytes:
    """The reverse of `pad_record`. Raises WireError unless it is byte for byte what `pad_record` gives."""
    data = _unpad(padded)
    if len(padded) != record_size(len(data)):
        raise WireError("The record is not padded to the size that its length asks for.")
    return data


def _pad(data: bytes, size: int) -> bytes:
    length = len(data)
    return length.to_bytes(LENGTH_BYTES, "big") + data + bytes(size - LENGTH_BYTES - length)


def _unpad(padded: bytes) -> bytes:
    end = LENGTH_BYTES + int.from_bytes(padded[:LENGTH_BYTES], "big")
    zeros = len(padded) - end
    if zeros < 0:
        raise WireError("The padded message is shorter than the length it states.")
    if padded[end:] != bytes(zeros):
        raise WireError("The padding is not zeros.")
    return padded[LENGTH_BYTES:end]
