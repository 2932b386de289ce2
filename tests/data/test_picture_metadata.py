"""Metadata that nobody needs costs no picture; the orientation is honoured wherever it can be read.

Catches sound photographs called damaged for an odd tag, and others shown on their side."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from darkroom.data.images import UnusablePictureError, decode

WIDE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 24, 3), dtype=np.uint8))
TURNED = struct.pack("<H", 6)


def exif(*tags: tuple[int, int, int, bytes]) -> bytes:
    """Little-endian EXIF of (tag, type, count, value)."""
    out, extra, after = struct.pack("<H", len(tags)), b"", 8 + 2 + 12 * len(tags) + 4
    for tag, kind, count, value in tags:
        there = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", after + len(extra))
        extra += value if len(value) > 4 else b""
        out += struct.pack("<HHI", tag, kind, count) + there
    return b"II*\0\x08\0\0\0" + out + bytes(4) + extra


def saved(kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    WIDE.save(out, kind, **options)
    return out.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tiff(*tags: tuple[int, int, int, bytes]) -> bytes:
    """WIDE as TIFF with further tags."""
    data = saved("TIFF")
    at = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, at)[0]
    entries = [data[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(count)]
    entries += [struct.pack("<HHI", tag, kind, n) + value.ljust(4, b"\0")[:4] for tag, kind, n, value in tags]
    entries.sort(key=lambda entry: struct.unpack("<H", entry[:2]))
    return (
        b"II*\0"
        + struct.pack("<I", len(data))
        + data[8:]
        + struct.pack("<H", len(entries))
        + b"".join(entries)
        + bytes(4)
    )


def jpeg(body: bytes) -> bytes:
    whole = saved("JPEG")
    return whole[:2] + segment(0xE1, b"Exif\0\0" + body) + whole[2:]


def png(body: bytes) -> bytes:
    whole = saved("PNG")
    return whole[:33] + chunk(b"eXIf", body) + whole[33:]


KINDS = {"JPEG": jpeg, "PNG": png, "WEBP": lambda body: saved("WEBP", exif=body, lossless=True)}
TURN = (0x112, 3, 1, TURNED)
ODD = {  # EXIF -> is it turned?
    "resolution as text": (exif(TURN, (0x11A, 2, 3, b"72\0")), True),
    "width as text": (exif((0x100, 2, 4, b"abc\0"), TURN), True),
    "resolution as text, upright": (exif((0x11A, 2, 3, b"72\0")), False),
    "width as text, upright": (exif((0x100, 2, 4, b"abc\0")), False),
    "unknown type": (exif((0x10E, 99, 1, b"abcd"), TURN), True),
    "directory as text": (exif(TURN, (0x8769, 2, 4, b"abc\0"), (0x131, 5, 1, b"x" * 8)), True),
    "directory beyond the end": (exif(TURN, (0x8769, 4, 1, b"\xff\xff\xff\x0f")), True),
    "orientation 0": (exif((0x112, 3, 1, b"\0\0")), False),
    "orientation 9": (exif((0x112, 3, 1, b"\x09\0")), False),
    "orientation as text": (exif((0x112, 2, 2, b"6\0")), False),
    "orientation as a fraction of nothing": (exif((0x112, 5, 1, struct.pack("<II", 6, 0))), False),
    "cut in a value": (exif(TURN, (0x10F, 2, 20, b"x" * 20))[:40], True),
    "cut in the first tag": (exif(TURN)[:14], False),
    "garbage": (b"garbage" * 4, False),
    "nothing": (b"", False),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("kind", KINDS)
def test_odd_exif(kind: str, odd: str) -> None:
    body, turned = ODD[odd]
    plain = np.asarray(decode(saved(kind, **({"lossless": True} if kind == "WEBP" else {}))))
    found = np.asarray(decode(KINDS[kind](body)))
    assert np.array_equal(found, np.rot90(plain, -1) if turned else plain)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_is_as_pillow_has_it(orientation: int) -> None:
    data = png(exif((0x112, 3, 1, struct.pack("<H", orientation))))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(np.asarray(decode(data)), np.asarray(expected))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        *((b"iCCP", body) for body in (b"", b"x\0\0no zlib")),
        *((b"zTXt", b"a\0\0" + body) for body in (b"no zlib", zlib.compress(bytes(8 << 20)))),
        *((kind, b"x") for kind in (b"iTXt", b"tEXt", b"pHYs", b"gAMA", b"cHRM", b"tIME", b"acTL", b"fcTL", b"bKGD")),
        (b"sRGB", b""),
    ],
)
def test_broken_chunks_of_a_png(kind: bytes, body: bytes) -> None:
    """With the orientation in a chunk beside them."""
    whole = png(exif(TURN))
    for data in (whole[:33] + chunk(kind, body) + whole[33:], whole[:-12] + chunk(kind, body) + whole[-12:]):
        assert np.array_equal(np.asarray(decode(data)), np.rot90(np.asarray(WIDE), -1))
    wrong_sum = bytearray(chunk(b"tEXt", b"a\0b"))
    wrong_sum[-1] ^= 0xFF
    assert decode(whole[:33] + bytes(wrong_sum) + whole[33:]).size == (8, 24)


@pytest.mark.parametrize(
    ("marker", "body"),
    [
        *((0xE2, body) for body in (b"ICC_PROFILE\0", b"ICC_PROFILE\0\1\2xx", b"MPF\0garbage")),
        *((0xED, b"Photoshop 3.0\x008BIM" + body) for body in (b"", b"\x03\xed\0\0\0\0\0\x02ab")),
        *((0xE0, body) for body in (b"JFIF", b"JFIF\0")),
        *((0xE1, body) for body in (b"", b"http://ns.adobe.com/xap/1.0/\0<x")),
        *((0xEE, b"Adobe"), (0xFE, b""), (0xE5, b"x" * 9)),
    ],
)
def test_broken_segments_of_a_jpeg(marker: int, body: bytes) -> None:
    whole, plain = jpeg(exif(TURN)), np.asarray(decode(saved("JPEG")))
    assert np.array_equal(np.asarray(decode(whole[:2] + segment(marker, body) + whole[2:])), np.rot90(plain, -1))


@pytest.mark.parametrize(
    "tag",
    [
        *((0x11A, 2, 3, b"72"), (0x11A, 5, 1, b"\xff\xff\xff\x0f"), (0x131, 2, 4, b"abc"), (0x10E, 99, 1, b"abcd")),
        *(
            (0x8769, 4, 1, b"\xff\xff\xff\x0f"),
            (0x8769, 2, 4, b"abc"),
            (0x8773, 7, 9999, b"\x08"),
            (700, 1, 9999, b"\x08"),
        ),
    ],
)
def test_odd_tags_of_a_tiff(tag: tuple[int, int, int, bytes]) -> None:
    assert np.array_equal(np.asarray(decode(tiff(tag))), np.asarray(WIDE))
    assert np.array_equal(np.asarray(decode(tiff(TURN, tag))), np.rot90(np.asarray(WIDE), -1))


def test_damaged_pixels_stay_damaged() -> None:
    """What is read without its metadata is no picture for that."""
    for kind in ("PNG", "JPEG", "WEBP"):
        whole = saved(kind)
        with pytest.raises(UnusablePictureError):
            decode(whole[: len(whole) // 2])
