"""Every kind of picture file becomes the pixels a person would expect, or a reason why not."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from darkroom.data.images import UnusablePictureError, conform, decode

Png = Callable[[np.ndarray | Image.Image], bytes]


def through(data: bytes, channels: int = 3, size: int = 8, resize: str = "crop") -> np.ndarray:
    return conform(decode(data), size, channels, resize)


def test_rgb_pixels_pass_unchanged(pixels: Callable[..., np.ndarray], png: Png) -> None:
    image = pixels(0, 8)
    assert np.array_equal(through(png(image)), image)


def test_transparency_is_laid_on_white(png: Png) -> None:
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[:4, :, 3], rgba[4:, :, 3] = 255, 0
    rgba[0, 0, 3] = 128
    out = through(png(rgba))
    assert (out[1:4] == (200, 0, 0)).all()
    assert (out[4:] == 255).all()
    assert np.abs(out[0, 0].astype(int) - (227, 127, 127)).max() <= 1
    assert (through(png(rgba), channels=1)[4:] == 255).all()


@pytest.mark.parametrize("transparent", [False, True])
def test_palettes_become_colours(png: Png, transparent: bool) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(0, (0, 0, 8, 4))
    out = io.BytesIO()
    image.save(out, format="PNG", **({"transparency": 0} if transparent else {}))
    found = through(out.getvalue())
    assert (found[4:] == (200, 100, 50)).all()
    assert (found[:4] == ((255, 255, 255) if transparent else (10, 20, 30))).all()


def test_grey_with_alpha_is_laid_on_white(png: Png) -> None:
    image = np.zeros((8, 8, 2), np.uint8)
    image[:4, :, 1] = 255
    found = through(png(Image.fromarray(image, "LA")))
    assert (found[:4] == 0).all()
    assert (found[4:] == 255).all()


def test_sixteen_bit_grey_is_scaled(png: Png) -> None:
    deep = np.zeros((8, 8), np.uint16)
    deep[0], deep[1], deep[2] = 65535, 32896, 200
    found = through(png(Image.fromarray(deep)), channels=1)
    assert found.shape == (8, 8)
    assert (found[0] == 255).all()
    assert (found[1] == 128).all()
    assert (found[2] == 1).all()
    assert (found[3:] == 0).all()


def test_grey_and_colour_become_each_other(pixels: Callable[..., np.ndarray], png: Png) -> None:
    grey = pixels(1, 8)[..., 0]
    assert np.array_equal(through(png(grey)), np.repeat(grey[..., None], 3, -1))
    rgb = np.zeros((8, 8, 3), np.uint8)
    rgb[..., 1] = 255
    assert (through(png(rgb), channels=1) == 150).all()  # luma of pure green, ITU-R 601


@pytest.mark.parametrize(("mode", "fill", "expected"), [("1", 1, 255), ("CMYK", (0, 255, 255, 0), (255, 0, 0))])
def test_other_modes(mode: str, fill: Any, expected: object) -> None:
    out = io.BytesIO()
    Image.new(mode, (8, 8), fill).save(out, format="TIFF")
    assert (through(out.getvalue()) == expected).all()


def test_exif_orientation_is_applied(pixels: Callable[..., np.ndarray]) -> None:
    image = Image.fromarray(pixels(2, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    out = io.BytesIO()
    image.save(out, format="PNG", exif=exif)
    assert np.array_equal(through(out.getvalue()), np.rot90(np.asarray(image), -1))


def test_crop_takes_the_centre(png: Png) -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    assert (through(png(wide)) == 255).all()
    assert (through(png(wide.swapaxes(0, 1).copy())) == 255).all()


def test_pad_keeps_small_pictures_pixel_for_pixel(pixels: Callable[..., np.ndarray], png: Png) -> None:
    image = pixels(3, 28)
    out = through(png(image), size=32, resize="pad").copy()
    assert np.array_equal(out[2:30, 2:30], image)
    out[2:30, 2:30] = 0
    assert not out.any()


def test_pad_shows_large_pictures_whole(png: Png) -> None:
    out = through(png(np.full((20, 80, 3), 255, np.uint8)), size=16, resize="pad")
    assert (out[6:10] == 255).all()
    assert not out[:6].any()
    assert not out[10:].any()
    assert through(png(np.full((1, 900, 3), 255, np.uint8)), size=16, resize="pad").any()


def test_squash_keeps_everything(png: Png) -> None:
    halves = np.zeros((8, 32, 3), np.uint8)
    halves[:, 16:] = 255
    out = through(png(halves), resize="squash")
    assert (out[:, :3] < 20).all()
    assert (out[:, 5:] > 235).all()


def _bomb() -> bytes:
    """A tiny PNG file that says it has 50000 x 50000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50000, 50000, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def _jpeg(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, format="JPEG", quality=95)
    return out.getvalue()


def test_bad_files_give_a_reason(pixels: Callable[..., np.ndarray], png: Png) -> None:
    whole_png, whole_jpeg = png(pixels(4, 64)), _jpeg(pixels(4, 64))
    flipped = bytearray(whole_png)
    flipped[len(flipped) // 2] ^= 0xFF
    cases = {
        b"": "empty file",
        b"this is a text file named .png": "not a picture of a known format",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n": "not a picture of a known format",
        whole_png[: len(whole_png) // 2]: "truncated picture",
        whole_jpeg[: len(whole_jpeg) // 2]: "truncated picture",
        bytes(flipped): "picture",
        _bomb(): "more than 100000000 pixels",
    }
    for data, reason in cases.items():
        with pytest.raises(UnusablePictureError, match=reason) as error:
            decode(data)
        assert "0x" not in str(error.value)


@pytest.mark.parametrize("pixel", [-1.5, 70000])
def test_pixels_without_a_range_are_refused(pixel: float) -> None:
    mode = "F" if isinstance(pixel, float) else "I"
    with pytest.raises(UnusablePictureError, match="no defined range"):
        conform(Image.new(mode, (8, 8), pixel), 8, 3, "crop")
