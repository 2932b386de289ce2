"""What `mlflow models serve` runs for a registered pipeline: MLflow copies this file into the model (models from code).

It holds no more than the way from a request to `darkroom.Pipeline` and back. Darkroom itself is what is installed where
the model is served.
"""

import math
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from PIL import Image

from darkroom.core.errors import DarkroomError
from darkroom.data.images import UnusablePictureError
from darkroom.inference.packing import packed, unpacked


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
        return pd.DataFrame({"image": [packed(picture) for picture in pictures]})

    def _pictures(
        self, rows: list[dict[str, Any]], seed: int = 0, strength: float | None = None, **how: Any
    ) -> list[Image.Image]:
        if seed < 0:
            raise DarkroomError(f"seed = {seed}: give 0 or more")
        for place, row in enumerate(rows):
            if not isinstance(row["prompt"], str):
                raise DarkroomError(f"prompt of row {place} = {row['prompt']!r}: give a text")
        starts = {place: _start(row.get("image"), place) for place, row in enumerate(rows)}
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


def _start(text: Any, place: int) -> Image.Image | None:
    """A row's picture to start from; None where it has none.

    Raises:
        DarkroomError: it cannot be used.
    """
    if text is None or text == "" or (isinstance(text, float) and math.isnan(text)):
        return None
    try:
        return unpacked(text)
    except UnusablePictureError as error:
        raise DarkroomError(f"image of row {place}: {error}; send a picture file in base64, such as a PNG") from None


set_model(ServedPipeline())
