"""Pictures as text: PNG files in base64."""

import base64
import io

from PIL import Image

from darkroom.data.images import MAX_PIXELS, UnusablePictureError, decode


def packed(picture: Image.Image) -> str:
    """The pixels of a picture, without what else it carries, as a PNG file in base64."""
    data = io.BytesIO()
    bare = picture.copy()
    bare.info = {}
    bare.save(data, format="PNG")
    return base64.b64encode(data.getvalue()).decode()


def unpacked(text: str, most: int = MAX_PIXELS) -> Image.Image:
    """The picture in base64, of any format that `decode` knows, upright.

    Args:
        most: see `decode`.

    Raises:
        UnusablePictureError: not base64, or a picture that cannot be used.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        raise UnusablePictureError("not base64") from None
    return decode(data, most)
