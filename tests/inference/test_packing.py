"""Pictures as text."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base

from darkroom.data.images import UnusablePictureError
from darkroom.inference.packing import packed, unpacked

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n%%EOF\n"


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8))


def test_a_picture_comes_back_as_its_pixels_alone(picture: Image.Image) -> None:
    for given in (picture, picture.convert("L")):
        text = packed(given)
        given.info["dpi"] = (72, 72)
        assert packed(given) == text
        back = unpacked(text)
        assert (back.mode, back.info) == (given.mode, {})
        assert back.tobytes() == given.tobytes()
        assert given.info, "the caller's picture is not changed"


def test_a_photograph_comes_upright(picture: Image.Image) -> None:
    exif, file = Image.Exif(), io.BytesIO()
    exif[Base.Orientation] = 3
    picture.save(file, format="PNG", exif=exif)
    upright = unpacked(base64.b64encode(file.getvalue()).decode())
    assert upright.tobytes() == picture.transpose(Image.Transpose.ROTATE_180).tobytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not base64!", "not base64"),
        ("é", "not base64"),
        ("", "empty file"),
        (base64.b64encode(b"text").decode(), "not a picture of a known format"),
        (base64.b64encode(EPS).decode(), "not a picture of a known format"),
    ],
)
def test_what_is_no_picture_is_said(text: str, message: str) -> None:
    with pytest.raises(UnusablePictureError, match=message):
        unpacked(text)
