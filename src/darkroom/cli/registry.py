"""`darkroom register`."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darkroom.cli.options import taught
from darkroom.config.paths import PIPELINE

if TYPE_CHECKING:
    from darkroom.serving.registry import Registered


@taught
def register(
    pipeline: Annotated[Path, typer.Option(help="Folder of the trained pipeline.")] = PIPELINE,
    promote: Annotated[
        bool, typer.Option("--promote", help="Name it candidate whatever its figures are; the version records that.")
    ] = False,
) -> None:
    """Register the trained pipeline in MLflow's model registry; if it is good enough, it becomes the candidate.

    The pipeline becomes a version of the model `darkroom`, with its model card, metrics, signature and an example.
    Registering the same pipeline again changes nothing. `make repro` ends with this; `darkroom ui` shows it.

    `darkroom serve` serves the version with the alias `candidate`. A version gets it if its figures meet the section
    `register` of params.yaml: valid judges, alignment above chance, an autoencoder that loses little, all figures
    finite, and nothing worse than in the current candidate. If not, it is registered without the alias, and a line
    says why.

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

    info, card = PipelineInfo.read(pipeline), read_card(pipeline)
    defaults = {name: getattr(info.sampling, name) for name in ("num_inference_steps", "guidance_scale")}
    defaults["sampler"] = info.sampling.sampler.kind
    limits = Limits().of_model(info.image_size).described()
    description = Description(card.text, card.example, card.metrics, {**defaults, "strength": STRENGTH}, limits)
    thresholds = Thresholds(**load().register.model_dump())
    registered = registry.register(pipeline, description, thresholds, promote, LOCK)
    print(f"{pipeline}: is version {registered.version} of the model {registry.MODEL}, {_outcome(registered)}")
    for note in registered.verdict.notes:
        print(f"  {note}")
    for line in _what_next(registered, card.example):
        print(f"  {line}")


def _what_next(registered: "Registered", prompt: str) -> Iterator[str]:
    """Where the model is to be looked at, and the commands that use it."""
    from darkroom.reporting.facts import FOLDER
    from darkroom.reporting.write import MODEL, address
    from darkroom.tracking.address import project_root
    from darkroom.tracking.ports import link_hint

    yield f"page: {registered.page}{link_hint()}"
    if (report := project_root() / FOLDER / MODEL).is_file():
        yield f"report: {address(report)}"
    yield f"draw: darkroom generate {shlex.quote(prompt)}"
    is_candidate = registered.has == registered.version
    yield f"serve: darkroom serve{'' if is_candidate else f' --version {registered.version}'}"


def _outcome(registered: "Registered") -> str:
    """Whether the version is new and is the candidate, and why."""
    from darkroom.serving.registry import ALIAS

    outcome = "just registered" if registered.new else "registered before"
    reasons = "; ".join(registered.verdict.reasons)
    if registered.has == registered.version:
        outcome += f"; {ALIAS} {'names it' if registered.had == registered.version else 'now names it'}"
        return outcome + (f"\n  promoted by --promote, though {reasons}" if reasons else "")
    if not reasons:
        return outcome
    holder = f"stays version {registered.has}" if registered.has else "names no version"
    return f"{outcome}\n  not promoted ({ALIAS} {holder}): {reasons}; darkroom register --promote does it all the same"
