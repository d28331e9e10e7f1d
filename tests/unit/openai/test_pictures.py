from __future__ import annotations

import base64
import io
import struct

import pytest
from PIL import Image

from tokenplace.openai.pictures import MAX_PIXELS, Claim, NotAPicture, describe, placeholder, read_claim


def drawn(form: str, width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (9, 99, 200)).save(out, form)
    return out.getvalue()


def uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def png_claiming(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x02\0\0\0"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (640, 480), (3, 500)])
def test_every_format_tells_its_size_as_pillow_reads_it(form: str, width: int, height: int) -> None:
    assert read_claim(drawn(form, width, height)) == Claim(form, width, height)


def test_webp_in_its_three_kinds() -> None:
    out = io.BytesIO()
    Image.new("RGB", (40, 30)).save(out, "WEBP", lossless=True)
    assert read_claim(out.getvalue()) == Claim("WEBP", 40, 30)
    out = io.BytesIO()
    Image.new("RGBA", (41, 31), (1, 2, 3, 4)).save(out, "WEBP", exif=b"Exif\0\0")
    assert read_claim(out.getvalue()) == Claim("WEBP", 41, 31)


def test_a_jpeg_whose_size_comes_late_is_read_all_the_same() -> None:
    out = io.BytesIO()
    Image.new("RGB", (20, 10)).save(out, "JPEG", progressive=True, exif=b"Exif\0\0" + b"x" * 3000)
    assert read_claim(out.getvalue()) == Claim("JPEG", 20, 10)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_a_head_cut_anywhere_is_refused_or_read_and_never_crashes(form: str) -> None:
    whole = drawn(form, 33, 44)
    for length in range(min(len(whole), 700)):
        try:
            assert read_claim(whole[:length]) == Claim(form, 33, 44)
        except NotAPicture:
            continue


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg/>", b"\0\0\0\x1cftypavif", b"II*\0", b"BM", png_claiming(0, 5)])
def test_what_is_no_known_picture_is_refused(data: bytes) -> None:
    with pytest.raises(NotAPicture):
        read_claim(data)


def test_the_claim_is_bounded_in_pixels_and_sides() -> None:
    assert read_claim(png_claiming(5000, MAX_PIXELS // 5000)).bounded
    assert not read_claim(png_claiming(50_000, 50_000)).bounded
    assert not read_claim(png_claiming(1, 40_000)).bounded


def test_one_picture_is_described_in_one_line_and_it_is_said_to_be_only_that() -> None:
    data = png_claiming(4, 6)
    told = describe([uri(data)])
    assert told.startswith(f"Vision analysis: PNG image, 4x6 px, {len(data)} bytes, portrait orientation.\n")
    assert "cannot look at this picture" in told


def test_several_pictures_are_numbered_lines_without_dots() -> None:
    wide, square = png_claiming(6, 4), png_claiming(5, 5)
    lines = describe([uri(wide), uri(square)]).splitlines()
    assert lines[:3] == [
        "Vision analysis:",
        f"1. PNG image, 6x4 px, {len(wide)} bytes, landscape orientation",
        f"2. PNG image, 5x5 px, {len(square)} bytes, square orientation",
    ]


def test_a_picture_of_an_earlier_turn_leaves_a_note() -> None:
    assert placeholder(uri(png_claiming(6, 4))) == "[a picture that you cannot see: PNG, 6x4 px]"
