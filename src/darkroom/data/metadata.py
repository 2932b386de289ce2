"""What picture files carry beside their pixels: EXIF, colour profiles, resolutions, comments. None of it is needed but
the orientation, so none of it may cost a picture."""

import struct
from collections.abc import Iterator

from PIL import Image

ORIENTATION = 0x0112  # the EXIF tag
# What turns a picture upright, by its orientation; 1 is upright, other values mean nothing.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
START_OF_SCAN = 0xDA
APP1, ADOBE = 0xE1, 0xEE
ADOBE_BYTES = 12  # of a whole Adobe segment: it says how the colours are coded
SEGMENTS_LEFT_OUT = {*range(0xE0, 0xF0), 0xFE} - {ADOBE}  # application segments and comments
WEBP_NEEDED = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF")


def upright(image: Image.Image, exif: bytes | None = None) -> Image.Image:
    """The picture as it is to be seen, by its own EXIF orientation or that in `exif`; no other tag is read."""
    try:
        if exif is None:
            found = image.getexif()
        else:
            found = Image.Exif()
            found.load(exif)
        turn = UPRIGHT.get(found.get(ORIENTATION))  # type: ignore[arg-type]
    except Exception:  # damaged EXIF raises anything; the picture is shown as it lies
        turn = None
    return image if turn is None else image.transpose(turn)


def bare(data: bytes) -> tuple[bytes, bytes] | None:
    """A PNG, JPEG or WebP file without its metadata, and the EXIF that it had; None for what is none of these."""
    try:
        if data.startswith(PNG_SIGNATURE):
            return _bare_png(data)
        if data.startswith(b"\xff\xd8"):
            return _bare_jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _bare_webp(data)
    except (IndexError, struct.error):
        pass
    return None


def _bare_png(data: bytes) -> tuple[bytes, bytes]:
    kept, exif, at = [PNG_SIGNATURE], b"", len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind in PNG_NEEDED:
            kept.append(data[at : at + 12 + length])
        elif kind == b"eXIf":
            exif = data[at + 8 : at + 8 + length]
        at += 12 + length
        if kind == b"IEND":
            break
    return b"".join(kept), exif


def _bare_jpeg(data: bytes) -> tuple[bytes, bytes]:
    kept, exif = [data[:2]], b""
    for marker, start, end in _segments(data):
        if marker == START_OF_SCAN:
            kept.append(data[start:])
            break
        body = data[start + 4 : end]
        if marker == APP1 and body.startswith(b"Exif\0\0") and not exif:
            exif = body
        if marker not in SEGMENTS_LEFT_OUT and (marker != ADOBE or len(body) >= ADOBE_BYTES):
            kept.append(data[start:end])
    return b"".join(kept), exif


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment up to the first scan."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF or data[at + 1] == 0xFF:  # fill bytes
            at += 1
            continue
        marker, length = struct.unpack_from(">xBH", data, at)
        yield marker, at, at + 2 + length
        at += 2 + length


def _bare_webp(data: bytes) -> tuple[bytes, bytes]:
    kept, exif, at = [b"WEBP"], b"", 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        chunk = data[at : at + 8 + length + length % 2]
        if kind == b"VP8X":  # its first byte says which kinds of metadata follow
            chunk = chunk[:8] + bytes([chunk[8] & ~0b101100]) + chunk[9:]
        if kind in WEBP_NEEDED:
            kept.append(chunk)
        elif kind == b"EXIF":
            exif = data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    body = b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body, exif
