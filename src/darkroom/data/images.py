"""Any picture file into uint8 pixels of the wanted size and number of channels."""

import io
import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from darkroom.config.buckets import Size
from darkroom.data.buckets import largest_part
from darkroom.data.metadata import bare, upright

Pixels = npt.NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # decoders that start no other program
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# Pictures that are not read, but are no less a loss.
UNREAD = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".ico", ".tga", ".dng", ".cr2", ".nef", ".arw")
MAX_PIXELS = 100_000_000
MAX_SCANS = 100  # of a progressive JPEG, which has about ten; each one goes through all pixels
START_OF_SCAN = b"\xff\xda"  # cannot stand within a scan
MAX_BYTES = 256 << 20
PAD_COLOR = 0


class UnusablePictureError(Exception):
    """A picture that cannot be used; the message is the reason, the same on every machine."""


def decode(data: bytes, most_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture file completely, turned upright by its EXIF orientation. Of animations, the first frame.

    Args:
        most_pixels: that the file may say it has; looked at before they are decoded.

    Raises:
        UnusablePictureError: empty, not a picture, truncated, damaged, too large or made to be slow.
    """
    if not data:
        raise UnusablePictureError("empty file")
    if len(data) > MAX_BYTES:
        raise UnusablePictureError(f"larger than {MAX_BYTES >> 20} MiB")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own limit and remarks on odd metadata; ours follows
            try:
                return upright(_load(data, most_pixels))
            except UnusablePictureError:
                raise
            except Exception:
                without = bare(data)
                if without is None:
                    raise
                return upright(_load(without[0], most_pixels), without[1])
    except UnusablePictureError:
        raise
    except UnidentifiedImageError:
        raise UnusablePictureError(f"not a picture of a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise UnusablePictureError(f"more than {most_pixels} pixels") from None
    except Exception as error:  # decoders raise anything on damaged files; the file is reported, never ignored
        reason = "truncated" if "truncated" in str(error).lower() else f"damaged ({type(error).__name__})"
        raise UnusablePictureError(f"{reason} picture") from None


def _load(data: bytes, most_pixels: int) -> Image.Image:
    """All pixels of the first frame, as they lie in the file. Raises whatever the decoder raises."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > most_pixels:
        raise UnusablePictureError(f"{image.width} x {image.height} pixels are more than {most_pixels}")
    if image.format in ("JPEG", "MPO") and data.count(START_OF_SCAN) > MAX_SCANS:
        raise UnusablePictureError(f"a JPEG of more than {MAX_SCANS} scans")
    image.load()
    return image


def conform(image: Image.Image | Pixels, size: int | Size, channels: int, resize: str) -> Pixels:
    """Make a picture of a size with `channels` 1 (luma) or 3 (RGB): uint8 (H, W) or (H, W, 3).

    Transparency is laid on white, 16-bit grey is scaled to 8.

    Args:
        size: (height, width), or the side of a square.
        resize: how it gets that shape, one of RESIZES.

    Raises:
        UnusablePictureError: pixels without a defined range (32-bit integers beyond 16 bits, floating point), or
            without colours.
    """
    height, width = (size, size) if isinstance(size, int) else size
    picture = with_channels(Image.fromarray(image) if isinstance(image, np.ndarray) else image, channels)
    if picture.size != (width, height):
        picture = RESIZES[resize](picture, (height, width))
    return np.asarray(picture)


def with_channels(picture: Image.Image, channels: int) -> Image.Image:
    """A picture in mode L (channels 1) or RGB (3), see `conform`.

    Raises:
        UnusablePictureError: pixels without a defined range, or a palette or transparency that makes no sense.
    """
    picture = _to_eight_bits(picture)
    try:
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return picture.convert("L" if channels == 1 else "RGB")
    except Exception as error:  # what a damaged file says of its pixels comes to light only here
        raise UnusablePictureError(f"pixels of kind {picture.mode} without colours ({type(error).__name__})") from None


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of more than 8 bits scaled so that its white stays white."""
    if picture.mode == "F":
        raise UnusablePictureError("floating-point pixels have no defined range; save it with 8 or 16 bits")
    if not picture.mode.startswith("I"):
        return picture
    values = np.asarray(picture)
    if values.min() < 0 or values.max() > 65535:
        raise UnusablePictureError("integer pixels beyond 16 bits have no defined range; save it with 8 or 16 bits")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def resized(picture: Image.Image, size: Size, box: tuple[int, int, int, int]) -> Image.Image:
    """A part (left, top, right, bottom) of a picture, resampled to `size`, (height, width)."""
    return picture.resize(size[::-1], Image.Resampling.LANCZOS, box=box)


def _crop(picture: Image.Image, size: Size) -> Image.Image:
    """The largest centred part of that shape, resampled."""
    height, width = largest_part(picture.height, picture.width, size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return resized(picture, size, (left, top, left + width, top + height))


def _pad(picture: Image.Image, size: Size) -> Image.Image:
    """Centred on black; shrunk if it is larger, never enlarged."""
    height, width = size
    if picture.width > width or picture.height > height:
        if picture.width * height > picture.height * width:
            fitting = width, max(1, round(picture.height * width / picture.width))
        else:
            fitting = max(1, round(picture.width * height / picture.height)), height
        picture = picture.resize(fitting, Image.Resampling.LANCZOS)
    out = Image.new(picture.mode, (width, height), PAD_COLOR)
    out.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
    return out


def _squash(picture: Image.Image, size: Size) -> Image.Image:
    """The whole picture, its proportions given up."""
    return picture.resize(size[::-1], Image.Resampling.LANCZOS)


RESIZES: dict[str, Callable[[Image.Image, Size], Image.Image]] = {"crop": _crop, "pad": _pad, "squash": _squash}
