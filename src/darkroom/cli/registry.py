"""`darkroom register`."""

from pathlib import Path
from typing import Annotated

import typer

from darkroom.cli.options import taught
from darkroom.config.paths import PIPELINE


@taught
def register(
    pipeline: Annotated[Path, typer.Option(help="Folder of the trained pipeline.")] = PIPELINE,
    promote: Annotated[
        bool, typer.Option("--promote", help="Name it candidate whatever its figures are; that is recorded with it.")
    ] = False,
) -> None:
    """Register the trained pipeline in MLflow's model registry, and name it candidate, to be served, if it is good.

    The model is called darkroom. A pipeline becomes a version of it, with its model card, metrics, signature and an
    example; the same pipeline again changes nothing. `make repro` does this at its end; `darkroom ui` shows it.

    It is named candidate where its figures reach what the section `register` of params.yaml demands: a judge that can
    judge, alignment above chance, an autoencoder that loses little, all figures finite, and nothing worse than in the
    version that is the candidate now. Otherwise it is registered all the same, and a line says why it was not promoted.

    \b
    darkroom register
    darkroom register --promote
    darkroom serve
    curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' \\
      -d '{"dataframe_records": [{"prompt": "EXAMPLE"}], "params": {"seed": 7}}'

    MLflow's own server takes it too, with fewer checks (docs/serving.md):

    \b
    MLFLOW_TRACKING_URI=sqlite:///.mlflow/mlflow.db \\
      mlflow models serve -m "models:/darkroom@candidate" --env-manager local --port 5001
    """
    from darkroom.tracking.address import is_on

    if not is_on():
        print("DARKROOM_TRACKING=off: nothing is registered")
        return
    from darkroom.config.params import load
    from darkroom.config.stage_spec import LOCK
    from darkroom.evaluation.card import read_card
    from darkroom.inference.defaults import STRENGTH
    from darkroom.inference.folder import PipelineInfo
    from darkroom.serving import registry
    from darkroom.serving.gate import Thresholds
    from darkroom.serving.limits import Limits
    from darkroom.serving.model_folder import Description
    from darkroom.tracking.ports import link_hint

    thresholds = Thresholds(**load().register.model_dump())
    info, card = PipelineInfo.read(pipeline), read_card(pipeline)
    done = registry.register(
        pipeline,
        Description(
            card.text,
            card.example,
            card.metrics,
            {
                **{name: getattr(info.sampling, name) for name in ("num_inference_steps", "guidance_scale", "sampler")},
                "strength": STRENGTH,
            },
            Limits().of_model(info.image_size).described(),
        ),
        thresholds,
        promote,
        LOCK,
    )
    version = f"{pipeline}: is version {done.version} of the model {registry.MODEL}"
    named = done.has == done.version
    said = "just registered" if done.new else "registered before"
    if named:
        said += f"; {registry.ALIAS} {'names it' if done.had == done.version else 'now names it'}"
    print(f"{version}, {said}")
    against = "; ".join(done.verdict.reasons)
    if against and named:
        print(f"  promoted by --promote, though {against}")
    elif against:
        holder = f"stays version {done.has}" if done.has else "names no version"
        print(
            f"  not promoted ({registry.ALIAS} {holder}): {against}; darkroom register --promote does it all the same"
        )
    for note in done.verdict.notes:
        print(f"  {note}")
    print(f"  page: {done.page}{link_hint()}")
    print(f"  serve: darkroom serve{'' if named else f' --version {done.version}'}")
