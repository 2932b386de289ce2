"""Pictures as the internet has them: good ones of every odd kind, and bad ones of every kind, made by code."""

import gzip
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, PngImagePlugin

SIDE = 24


def photo(seed: int, width: int = SIDE, height: int = SIDE) -> Image.Image:
    """A smooth picture, as photographs are: it survives compression."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format=kind, **options)
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, color: int, *chunks: bytes) -> bytes:
    """A PNG file put together by hand; without chunks it has no pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def tiff(*tags: tuple[int, int, int, int], next_directory: int = 0) -> bytes:
    """A little-endian TIFF file of one directory: (tag, type, count, value)."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + struct.pack("<I", next_directory) + bytes(64)


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there `count` times more."""
    whole = saved(photo(1), "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * count + b"\xff\xd9"


def good() -> Iterator[tuple[str, bytes]]:
    """Files that every decoder of pictures shows."""
    smooth, grey = photo(2), photo(3).convert("L")
    frames = [photo(seed) for seed in (4, 5, 6)]
    deep = Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 100)
    rows = b"".join(b"\0" + bytes(range(6 * 8)) for _ in range(8))
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "\u2028 odd \0 text")
    yield "rgb.png", saved(smooth, "PNG")
    yield "grey.png", saved(grey, "PNG")
    yield "one_bit.png", saved(grey.convert("1"), "PNG")
    yield "palette.png", saved(smooth.quantize(7), "PNG")
    yield "palette_transparent.png", saved(smooth.quantize(7), "PNG", transparency=bytes([0, 128, 255]))
    yield "rgba.png", saved(photo(7).convert("RGBA"), "PNG")
    yield "grey_alpha.png", saved(photo(8).convert("LA"), "PNG")
    yield "sixteen_bit_grey.png", saved(deep, "PNG")
    yield "sixteen_bit_rgb.png", png(8, 8, 16, 2, chunk(b"IDAT", zlib.compress(rows)))
    yield "key_colour.png", saved(photo(9), "PNG", transparency=(1, 2, 3))
    yield "comment.png", saved(photo(10), "PNG", pnginfo=text)
    yield "trailing_garbage.png", saved(photo(11), "PNG") + b"<?php garbage ?>" * 50
    yield "really_a_jpeg.png", saved(photo(12), "JPEG")
    yield "UPPER.PNG", saved(photo(13), "PNG")
    yield "one_by_one.png", saved(photo(14, 1, 1), "PNG")
    yield "wide.png", saved(photo(15, 30_000, 1), "PNG")
    yield "tall.jpg", saved(photo(16, 1, 30_000), "JPEG")
    yield "cmyk.jpg", saved(photo(17).convert("CMYK"), "JPEG")
    yield "grey.jpg", saved(photo(18).convert("L"), "JPEG")
    yield "progressive.jpg", saved(photo(19), "JPEG", progressive=True)
    yield "rotated.jpg", saved(photo(20), "JPEG", exif=exif(6))
    yield "orientation_99.jpg", saved(photo(21), "JPEG", exif=exif(99))
    yield "icc_garbage.jpg", saved(photo(22), "JPEG", icc_profile=b"no profile" * 9)
    yield "camera.jfif", saved(photo(23), "JPEG")
    yield "animated.gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    yield "transparent.gif", saved(photo(24).quantize(5), "GIF", transparency=0)
    yield "animated.webp", saved(photo(25), "WEBP", save_all=True, append_images=frames)
    yield "lossless.webp", saved(photo(26), "WEBP", lossless=True)
    yield "bitmap.bmp", saved(photo(27), "BMP")
    yield "plain.ppm", saved(photo(28), "PPM")
    yield "sixteen_bit.pgm", b"P5 8 8 65535\n" + bytes(range(128))
    yield "cmyk.tif", saved(photo(29).convert("CMYK"), "TIFF")
    yield "packed.tiff", saved(photo(30), "TIFF", compression="tiff_lzw")
    yield "pages.tiff", saved(photo(31), "TIFF", save_all=True, append_images=frames)


def bad() -> Iterator[tuple[str, bytes, str]]:
    """(name, content, the beginning of the reason it is left out for)."""
    no_picture = "not a picture"
    smooth = photo(40, 64, 64)
    whole = {kind: saved(smooth, kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM")}
    flipped = bytearray(whole["PNG"])
    flipped[len(flipped) // 2] ^= 0xFF
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as inside:
        inside.writestr("a.png", whole["PNG"])
    yield "empty.png", b"", "empty file"
    yield "one_byte.png", b"\x89", no_picture
    yield "zeros.png", bytes(1000), no_picture
    yield "text.png", b"no picture, but a text", no_picture
    yield "not_found.jpg", b"<!DOCTYPE html><title>404 Not Found</title>", no_picture
    yield "lfs_pointer.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", no_picture
    yield "signature.png", whole["PNG"][:8], no_picture
    yield "postscript.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", no_picture
    yield "document.jpg", b"%PDF-1.4\n1 0 obj<<>>endobj\n", no_picture
    yield "drawing.png", b'<svg xmlns="http://www.w3.org/2000/svg"/>', no_picture
    yield "archive.png", archive.getvalue(), no_picture
    yield "packed.png", gzip.compress(whole["PNG"]), no_picture
    yield "program.jpg", b"MZ\x90\0\3\0\0\0\4", no_picture
    yield "film.jpg", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", no_picture
    yield "icon.png", saved(photo(41), "ICO"), no_picture
    yield "no_pixels.png", png(8, 8, 8, 2), ""  # what is said of these depends on the decoder
    yield "no_width.png", png(0, 8, 8, 2, chunk(b"IDAT", zlib.compress(bytes(99)))), ""
    yield "few_pixels.png", png(64, 64, 8, 2, chunk(b"IDAT", zlib.compress(bytes(99)))), ""
    yield "no_deflate.png", png(8, 8, 8, 2, chunk(b"IDAT", b"not compressed")), ""
    yield "odd_depth.png", png(8, 8, 3, 2, chunk(b"IDAT", zlib.compress(bytes(999)))), ""
    yield "bomb.png", png(50_000, 50_000, 8, 0, chunk(b"IDAT", zlib.compress(bytes(99)))), "more than 100000000 pixels"
    yield "small_bomb.png", png(12_000, 12_000, 8, 0, chunk(b"IDAT", zlib.compress(bytes(99)))), "12000 x 12000 pixels"
    yield (
        "thin_bomb.png",
        png(2**31 - 1, 1, 8, 0, chunk(b"IDAT", zlib.compress(bytes(99)))),
        "more than 100000000 pixels",
    )
    yield "text_bomb.png", png(8, 8, 8, 2, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(8 << 20)))), ""
    yield "flipped.png", bytes(flipped), ""
    yield "half.png", whole["PNG"][: len(whole["PNG"]) // 2], "truncated"
    yield "half.jpg", whole["JPEG"][: len(whole["JPEG"]) // 2], "truncated"
    yield "head.jpg", whole["JPEG"][:20], ""
    yield "no_end.jpg", whole["JPEG"][:-40], "truncated"
    yield "scans.jpg", scans(200), "a JPEG of more than 100 scans"
    yield "half.gif", whole["GIF"][: len(whole["GIF"]) // 2], ""
    yield "head.gif", whole["GIF"][:13], ""
    yield "half.webp", whole["WEBP"][: len(whole["WEBP"]) // 2], ""
    yield "riff.webp", b"RIFF\xff\xff\xff\xffWEBPVP8 " + bytes(range(200)), ""
    yield "half.tiff", whole["TIFF"][: len(whole["TIFF"]) // 2], ""
    yield "real_numbers.tiff", saved(Image.new("F", (8, 8), -1.5), "TIFF"), "floating-point pixels"
    yield "long_numbers.tiff", saved(Image.new("I", (8, 8), 70_000), "TIFF"), "integer pixels beyond 16 bits"
    yield "no_tags.tiff", tiff(), ""
    yield "circle.tiff", tiff((256, 3, 1, 8), (257, 3, 1, 8), next_directory=8), ""
    yield "many_values.tiff", tiff((256, 4, 2**31, 8), (257, 4, 2**31, 8), (273, 4, 2**31, 8)), ""
    yield "half.bmp", whole["BMP"][: len(whole["BMP"]) // 2], "truncated"
    yield "wide.bmp", whole["BMP"][:18] + struct.pack("<ii", 2**30, 2**30) + whole["BMP"][26:], ""
    yield "half.ppm", whole["PPM"][: len(whole["PPM"]) // 2], ""
    yield "words.ppm", b"P6 eight eight 255\n" + bytes(192), ""
    yield "real_numbers.ppm", b"Pf\n8 8\n-1.0\n" + struct.pack("<64f", *[0.5] * 64), "floating-point pixels"
    yield "phone.heic", b"\0\0\0\x18ftypheic", "a picture of a format that is not read"
    yield "vector.svg", b"<svg/>", "a picture of a format that is not read"
    yield "modern.AVIF", b"\0\0\0\x18ftypavif", "a picture of a format that is not read"
    yield "headless.jpg", whole["JPEG"][200:], no_picture


def odd_names() -> Iterator[str]:
    """Names that a folder may hold; each is to be used for a good picture."""
    yield "with space.png"
    yield "绘画.png"
    yield "🎨\u200d🖌.png"
    yield "e\u0301 decomposed.png"
    yield "\u00e9 composed.png"
    yield "line\nbreak.png"
    yield "\x1b[31mred\x07.png"
    yield "right\u202egnp.png"
    yield "quote'\"back\\slash.png"
    yield "-rf.png"
    yield "%s{label}%00.png"
    yield "dots..in...name.png"
    yield "x" * 240 + ".png"
    yield "CON.png"


def mutated(content: bytes, dice: random.Random) -> bytes:
    """`content` with a few bytes changed, cut, doubled, moved or put in: seldom what it was."""
    data = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        at = dice.randrange(len(data) + 1)
        until = min(len(data), at + dice.choice((1, 2, 4, 64, 1000)))
        match dice.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << dice.randrange(8)
            case 1:
                del data[at:]
            case 2:
                del data[at:until]
            case 3:
                data[at:at] = data[at:until]
            case 4:
                data[at:until] = dice.choice((b"\xff", b"\0", b"\x7f")) * (until - at)
            case _:
                data[at:at] = dice.randbytes(dice.choice((1, 4, 100)))
    return bytes(data)
