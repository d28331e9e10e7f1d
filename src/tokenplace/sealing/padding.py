"""How lengths are hidden: a true length, the data, then zeros up to a size that many others share.

    ┌───────────────┬───────────────┬──────────────────────────┐
    │ length u32 BE │ data (length) │ zeros                    │
    └───────────────┴───────────────┴──────────────────────────┘

A request's whole is a multiple of 256 bytes up to 1 KiB; beyond that its size keeps only the leading bits that PADMÉ
keeps (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", PETS 2019,
section 4): at most 6.25 % more bytes, and only O(log log L) bits of the length L are shown. A record's whole is a
multiple of 64 bytes, so that the sizes of a streamed answer stop spelling the lengths of its tokens
(arXiv 2403.09751).

Reading is strict: there is exactly one padding for each length, so padding carries nothing else. Sizes are bytes.
"""

from __future__ import annotations

from tokenplace.errors import WireError

LENGTH_BYTES = 4
REQUEST_STEP = 256
REQUEST_STEPS_END = 1024
RECORD_STEP = 64


def _loose_bits(size: int) -> int:
    """How many trailing bits PADMÉ clears in sizes like this one."""
    exponent = size.bit_length() - 1
    return exponent - exponent.bit_length()


def request_size(data: int) -> int:
    """The padded size of a request body with `data` bytes."""
    total = LENGTH_BYTES + data
    if total <= REQUEST_STEPS_END:
        return -(-total // REQUEST_STEP) * REQUEST_STEP
    mask = (1 << _loose_bits(total)) - 1
    return (total + mask) & ~mask


def request_room(size: int) -> int:
    """The most data whose padded size stays within `size` bytes (at least 1 KiB): the reverse of `request_size`."""
    return (size >> _loose_bits(size) << _loose_bits(size)) - LENGTH_BYTES


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
