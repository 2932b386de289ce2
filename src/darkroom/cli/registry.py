"""`darkroom register`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from darkroom.cli.options import PIPELINE, taught


@taught
def register(
    pipeline: Annotated[Path, typer.Option(help="Folder of the trained pipeline.")] = PIPELINE,
) -> None:
    """Register the trained pipeline in MLflow's model registry, as the candidate to be served.

    The model is called darkroom. A pipeline becomes a version of it, with its model card, metrics, signature and an
    example; the same pipeline again changes nothing. `make repro` does this at its end; `darkroom ui` shows it.

    \b
    darkroom register
    MLFLOW_TRACKING_URI=sqlite:///.mlflow/mlflow.db \\
      mlflow models serve -m "models:/darkroom@candidate" --env-manager local --port 5001
    curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' \\
      -d '{"dataframe_records": [{"prompt": "EXAMPLE"}], "params": {"seed": 7}}'

    The answer is {"predictions": [{"image": PNG file in base64}]}. A row with an `image` (a PNG file in base64) is
    drawn from that picture, changed by as much as the parameter `strength` says. The other parameters:
    num_inference_steps, guidance_scale, sampler, seed (of the first row; the next ones have seed + 1, + 2, …) and
    negative_prompt.
    """
    from darkroom.tracking.address import is_on

    if not is_on():
        print("DARKROOM_TRACKING=off: nothing is registered")
        return
    from darkroom.evaluation.card import read_card
    from darkroom.inference.defaults import STRENGTH
    from darkroom.inference.folder import PipelineInfo
    from darkroom.tracking import registry

    sampling, card = PipelineInfo.read(pipeline).sampling, read_card(pipeline)
    done = registry.register(
        pipeline,
        registry.Description(
            card.text,
            card.example,
            card.metrics,
            {
                **{name: getattr(sampling, name) for name in ("num_inference_steps", "guidance_scale", "sampler")},
                "strength": STRENGTH,
            },
        ),
    )
    version = f"{pipeline}: is version {done.version} of the model {registry.MODEL}"
    said = "just registered" if done.new else "registered before"
    print(f"{version}, {said}; {registry.ALIAS} {'now names it' if done.named else 'names it'}")
    print(f"  page: {done.page}")
    served = f"mlflow models serve -m models:/{registry.MODEL}@{registry.ALIAS} --env-manager local"
    print(f"  serve: MLFLOW_TRACKING_URI={shlex.quote(done.store)} {served}")
