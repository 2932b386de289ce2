"""What serves a registered pipeline over MLflow: MLflow copies this file into the model (models from code).

It holds no more than the way from MLflow to `darkroom.serving` and back. Darkroom itself is what is installed where the
model is served.
"""

import logging
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import ErrorCode
from mlflow.pyfunc import PythonModel

from darkroom.core.errors import DarkroomError
from darkroom.inference.packing import packed
from darkroom.serving.limits import Limits, RefusedError

log = logging.getLogger("darkroom")


class ServedPipeline(PythonModel):  # type: ignore[misc]
    """Rows with a prompt, and if wished a picture to start from, in; PNG files in base64 out."""

    def load_context(self, context: Any) -> None:
        """Load the pipeline, on the device and threads that DARKROOM_DEVICE and DARKROOM_THREADS ask for, to be asked
        within the limits that DARKROOM_SERVE_… set."""
        from darkroom import Pipeline
        from darkroom.core import device
        from darkroom.serving.queueing import end_with_the_server
        from darkroom.serving.service import Service

        (folder,) = context.artifacts.values()
        limits = Limits.from_environment()
        self.service = Service(Pipeline.from_pretrained(folder, device=device.start()), limits)
        end_with_the_server()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A picture for each row; that of row i is drawn from `seed` + i. See `Service.draw`."""
        try:
            pictures = self.service.draw(model_input.to_dict("records"), params or {})
        except RefusedError as error:
            raise MlflowException(str(error), error_code=ErrorCode.Value(error.code)) from None
        except DarkroomError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        except Exception as error:
            log.exception("a request failed")
            raise MlflowException(f"{type(error).__name__}: the request failed; the server's log says where") from None
        return pd.DataFrame({"image": [packed(picture) for picture in pictures]})


set_model(ServedPipeline())
