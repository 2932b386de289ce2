"""What a registered version consists of, as MLflow loads and serves it."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.serving.gate import EVALUATION
from darkroom.tracking.store import Store

CODE = Path(__file__).with_name("served.py")


@dataclass(frozen=True)
class Description:
    """What is registered with a pipeline.

    card: Markdown. example: a prompt. defaults: of num_inference_steps, guidance_scale, sampler, strength.
    limits: of a request, by the variables that set them.
    """

    card: str
    example: str
    metrics: Mapping[str, float]
    defaults: Mapping[str, Any]
    limits: Mapping[str, float]


def write_model(store: Store, target: Path, folder: Path, run: str, model: Any, description: Description) -> None:
    """Write the folder of a model that is to be registered: the code that serves, the pipeline, signature and example.

    Args:
        target: of the new folder. folder: of the pipeline. run: that makes the model. model: as the store keeps it.
    """
    import pandas as pd  # type: ignore[import-untyped]

    types, models, defaults = store.mlflow.types, store.mlflow.models, description.defaults
    text, number, integer = types.DataType.string, types.DataType.double, types.DataType.long
    signature = models.ModelSignature(
        inputs=types.Schema([types.ColSpec(text, "prompt"), types.ColSpec(text, "image", required=False)]),
        outputs=types.Schema([types.ColSpec(text, "image")]),
        params=types.ParamSchema(
            [
                types.ParamSpec("num_inference_steps", integer, defaults["num_inference_steps"]),
                types.ParamSpec("guidance_scale", number, defaults["guidance_scale"]),
                types.ParamSpec("sampler", text, defaults["sampler"]),
                types.ParamSpec("seed", integer, 0),
                types.ParamSpec("strength", number, defaults["strength"]),
                types.ParamSpec("negative_prompt", text, ""),
            ]
        ),
    )
    model_file = models.Model(
        artifact_path=model.artifact_location, run_id=run, model_uuid=model.model_id, model_id=model.model_id
    )
    store.mlflow.pyfunc.save_model(
        target,
        python_model=str(CODE),
        artifacts={"pipeline": str(folder)},
        signature=signature,
        input_example=(pd.DataFrame({"prompt": [description.example]}), {"seed": 0}),
        pip_requirements=[],  # no package index has this Darkroom: it is served where it is installed
        metadata={"limits": dict(description.limits)},
        mlflow_model=model_file,
    )
    if (folder / EVALUATION).is_file():  # where it is found whatever the pipeline's folder is called
        shutil.copyfile(folder / EVALUATION, target / EVALUATION)
