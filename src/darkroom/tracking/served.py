"""What `mlflow models serve` runs for a registered pipeline: MLflow copies this file into the model (models from code).

It holds no more than the way from a request to `darkroom.Pipeline` and back. Darkroom itself is what is installed where
the model is served.
"""

import base64
import binascii
import io
import math
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from PIL import Image

from darkroom.core.errors import DarkroomError


class ServedPipeline(PythonModel):  # type: ignore[misc]
    """Rows with a prompt, and if wished a picture to start from, in; PNG files in base64 out."""

    def load_context(self, context: Any) -> None:
        """Load the pipeline, on the device and threads that DARKROOM_DEVICE and DARKROOM_THREADS ask for."""
        from darkroom import Pipeline
        from darkroom.core import device

        (folder,) = context.artifacts.values()
        self.pipeline = Pipeline.from_pretrained(folder, device=device.start())

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A picture for each row; that of row i is drawn from `seed` + i."""
        try:
            given = {name: value for name, value in (params or {}).items() if value not in (None, "")}
            pictures = self._pictures(model_input.to_dict("records"), **given)
        except DarkroomError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        return pd.DataFrame({"image": [_encoded(picture) for picture in pictures]})

    def _pictures(
        self, rows: list[dict[str, Any]], seed: int = 0, strength: float | None = None, **how: Any
    ) -> list[Image.Image]:
        if seed < 0:
            raise DarkroomError(f"seed = {seed}: give 0 or more")
        for place, row in enumerate(rows):
            if not isinstance(row["prompt"], str):
                raise DarkroomError(f"prompt of row {place} = {row['prompt']!r}: give a text")
        starts = {place: _decoded(row.get("image"), place) for place, row in enumerate(rows)}
        plain = [place for place, start in starts.items() if start is None]
        given = [place for place, start in starts.items() if start is not None]
        drawn: dict[int, Image.Image] = {}
        for places, method in ((plain, "text_to_image"), (given, "image_to_image")):
            if not places:
                continue
            more: dict[str, Any] = {"seeds": [seed + place for place in places], **how}
            if places is given:
                more["image"] = [starts[place] for place in places]
                if strength is not None:
                    more["strength"] = strength
            pictures = getattr(self.pipeline, method)([rows[place]["prompt"] for place in places], **more)
            drawn |= dict(zip(places, pictures, strict=True))
        return [drawn[place] for place in starts]


def _decoded(text: Any, place: int) -> Image.Image | None:
    """A picture in base64; None where a row has none.

    Raises:
        DarkroomError: it is not base64, or not of a picture.
    """
    if text is None or text == "" or (isinstance(text, float) and math.isnan(text)):
        return None
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as picture:
            return picture.copy()
    except (binascii.Error, TypeError, ValueError):
        raise DarkroomError(f"image of row {place}: not base64; send the bytes of a PNG file in base64") from None
    except (OSError, SyntaxError, Image.DecompressionBombError):
        raise DarkroomError(f"image of row {place}: not a readable picture; send a PNG file in base64") from None


def _encoded(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


set_model(ServedPipeline())
