"""What a picture's file says of itself: its format and how large it claims to be. Nothing is ever decoded here.

A few bytes can claim to be a picture of a billion pixels, and a model runtime believes them; so the claim is read
and bounded before anybody decodes. The same numbers are all that a node without eyes can tell of a picture.

PNG: https://www.w3.org/TR/png-3/#11IHDR; GIF: https://www.w3.org/Graphics/GIF/spec-gif89a.txt (18);
WebP: RFC 9649 (2.5-2.7); JPEG: ITU T.81 (B.2.2); BMP: the BITMAPCOREHEADER and BITMAPINFOHEADER of Windows.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

MAX_PIXELS = 40_000_000
"""Width × height: beyond any camera that people send from, 120 MB once a runtime has decoded it."""

MAX_SIDE = 16_384
"""Width or height; a strip of one pixel by forty million is no picture."""

_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""JPEG markers that begin a frame, all but those for tables."""

_LONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""JPEG markers that nothing follows."""


class NotAPicture(ValueError):
    """These bytes are no picture that is known here, or one that is not whole up to its size."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What the file says: the format's name, and pixels."""

    format: str
    width: int
    height: int

    @property
    def bounded(self) -> bool:
        """Whether it is safe to have it decoded."""
        return self.width * self.height <= MAX_PIXELS and max(self.width, self.height) <= MAX_SIDE

    @property
    def orientation(self) -> str:
        """Square, landscape or portrait."""
        if self.width == self.height:
            return "square"
        return "landscape" if self.width > self.height else "portrait"


def read_claim(data: bytes) -> Claim:
    """Read a file's head. Raises NotAPicture."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
        claim = Claim("PNG", _big(data[16:20], 4), _big(data[20:24], 4))
    elif data.startswith((b"GIF87a", b"GIF89a")):
        claim = Claim("GIF", _little(data[6:8], 2), _little(data[8:10], 2))
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        claim = Claim("WEBP", *_webp(data))
    elif data.startswith(b"\xff\xd8\xff"):
        claim = Claim("JPEG", *_jpeg(data))
    elif data.startswith(b"BM"):
        claim = Claim("BMP", *_bmp(data))
    else:
        raise NotAPicture("It is none of PNG, JPEG, GIF, WebP and BMP.")
    if not claim.width or not claim.height:
        raise NotAPicture(f"The {claim.format} says that it has no pixels.")
    return claim


def decoded(uri: str) -> bytes:
    """The bytes in a data: URI. Raises NotAPicture when they are not base64."""
    try:
        return base64.b64decode(uri.partition(",")[2], validate=True)
    except (ValueError, binascii.Error):
        raise NotAPicture("It is not base64.") from None


def describe(uris: Sequence[str]) -> str:
    """What a node without eyes says of pictures, in the original's words, and that this is no looking."""
    told = []
    for uri in uris:
        data = decoded(uri)
        claim = read_claim(data)
        size = f"{claim.width}x{claim.height} px"
        told.append(f"{claim.format} image, {size}, {len(data)} bytes, {claim.orientation} orientation")
    if len(told) == 1:
        text = f"Vision analysis: {told[0]}."
    else:
        text = "\n".join(["Vision analysis:", *(f"{number}. {line}" for number, line in enumerate(told, 1))])
    seen = "this picture" if len(told) == 1 else "these pictures"
    return (
        f"{text}\n\nThat is only what the file{'s say of themselves' if len(told) > 1 else ' says of itself'}: "
        f"the model on this node cannot look at {seen}. A model with the capability 'vision' could."
    )


def placeholder(uri: str) -> str:
    """What stands in an earlier turn for a picture that the model cannot look at."""
    claim = read_claim(decoded(uri))
    return f"[a picture that you cannot see: {claim.format}, {claim.width}x{claim.height} px]"


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return _little(data[24:27], 3) + 1, _little(data[27:30], 3) + 1
    if kind == b"VP8L" and data[20:21] == b"\x2f":
        packed = _little(data[21:25], 4)
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return _little(data[26:28], 2) & 0x3FFF, _little(data[28:30], 2) & 0x3FFF
    raise NotAPicture("The WebP does not say how large it is.")


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _LONE:
            at += 2
        elif marker in _FRAMES:
            return _big(data[at + 7 : at + 9], 2), _big(data[at + 5 : at + 7], 2)
        elif marker in (0xD9, 0xDA):  # the end, or pixels before any frame
            break
        else:
            at += 2 + max(2, _big(data[at + 2 : at + 4], 2))
    raise NotAPicture("The JPEG does not say how large it is.")


def _bmp(data: bytes) -> tuple[int, int]:
    header = _little(data[14:18], 4)
    if header == 12:
        return _little(data[18:20], 2), _little(data[20:22], 2)
    if header < 40:
        raise NotAPicture("The BMP does not say how large it is.")
    return _little(data[18:22], 4), abs(int.from_bytes(_whole(data[22:26], 4), "little", signed=True))


def _big(data: bytes, size: int) -> int:
    return int.from_bytes(_whole(data, size), "big")


def _little(data: bytes, size: int) -> int:
    return int.from_bytes(_whole(data, size), "little")


def _whole(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise NotAPicture("It ends before it has said how large it is.")
    return data
