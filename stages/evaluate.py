"""evaluate: the pipeline assembled, measured and shown. All artifacts -> artifacts/pipeline, reports/evaluation."""

import darkroom.runner.startup  # noqa: F401

# isort: split
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial

from darkroom.config.params import Params
from darkroom.config.paths import (
    CONDITIONING,
    EVALUATOR,
    LATENTS,
    PIPELINE,
    PREPARED,
    TEXT_ENCODER,
    UNET,
    VAE,
)
from darkroom.config.paths import EVALUATION as REPORT
from darkroom.core.artifact import atomic_path, check_made_from, provenance, write_json
from darkroom.data.latents import read_info
from darkroom.data.prepared import Prepared, PreparedSplit
from darkroom.evaluation.card import write_card
from darkroom.evaluation.drawing import Drawn, draw, kept_pipeline
from darkroom.evaluation.judge import read_judges
from darkroom.evaluation.judging import Judges, Validity, normalised
from darkroom.evaluation.looking import confusions, nearest_training_pictures
from darkroom.evaluation.pictures import show
from darkroom.evaluation.reconstruction import reconstruction
from darkroom.evaluation.report import EVALUATION, as_json, summary
from darkroom.inference.folder import Trained, assemble
from darkroom.inference.words import Words
from darkroom.runner.stage import Work, run_stage

MADE_FROM = (
    (VAE, PREPARED),
    (LATENTS, PREPARED),
    (LATENTS, VAE),
    (TEXT_ENCODER, PREPARED),
    (CONDITIONING, TEXT_ENCODER),
    (UNET, LATENTS),
    (UNET, CONDITIONING),
    (EVALUATOR, PREPARED),
)

TRAINED = ("train_vae", "setup_text_encoder", "train_unet")  # whose parameters the model card names


def body(params: Params, work: Work) -> Mapping[str, float | str]:
    """Assemble the pipeline, draw held-out captions, measure, show, describe. Refuses artifacts that do not match."""
    p, data = params.evaluate, Prepared.open(PREPARED)
    for artifact, source in MADE_FROM:
        check_made_from(artifact, source)
    assemble_pipeline(params, data)
    kept = kept_pipeline(PIPELINE)
    pipeline = kept()
    judges = Judges(read_judges(EVALUATOR, work.device), p.seed, p.bootstrap)
    splits = {name: data.split(name) for name in data.info.splits}
    validity = judges.validity(splits)
    novel = p.n_novel if pipeline.info.condition.takes_prompts else 0  # without prompts they would be those of test
    drawn = {
        name: draw(kept, splits[name], n, p.seed, p.batch_size, work.shards)
        for name, n in {"test": p.n_test, "novel": novel}.items()
        if n and name in splits
    }
    of_text = pipeline.info.condition.of_text
    captions = set(map(normalised, splits["train"].captions)) if of_text else set()
    alignment = {name: judges.alignment(pictures, name, captions, validity) for name, pictures in drawn.items()}
    fidelity = judges.fidelity(drawn["test"], splits["train"], validity)
    withheld = [*(found.withheld for found in alignment.values()), fidelity.withheld]
    metrics = as_json(
        {
            "alignment": {name: found.figures for name, found in alignment.items()},
            "evaluator": asdict(validity),
            "fidelity": fidelity.figures,
            "vae": reconstruction(pipeline, splits["test"], p.seed, p.bootstrap),
            "sampling": {
                **pipeline.info.sampling.model_dump(),
                "precision": p.precision,
                "network_evaluations": drawn["test"].evaluations,
            },
            "withheld": {name: reason for found in withheld for name, reason in found.items()},
            "judged_with": provenance(PREPARED, EVALUATOR)["inputs"],
        }
    )
    with atomic_path(REPORT / "pictures") as folder:
        show(folder, pipeline, drawn, partial(judges.verdicts, validity=validity), p)
    for file in (REPORT / "metrics.json", PIPELINE / EVALUATION):
        write_json(file, metrics)
    trained = {stage: getattr(params, stage).model_dump() for stage in TRAINED}
    write_card(PIPELINE, data.info, metrics, trained, example=drawn["test"].prompts[0])
    look_closer(work, judges, drawn, splits["train"], validity)
    return summary(metrics)


def look_closer(
    work: Work, judges: Judges, drawn: Mapping[str, Drawn], train: PreparedSplit, validity: Validity
) -> None:
    """Give the run, and by that its report, what is confused with what, and the nearest training pictures."""
    figures, picture = nearest_training_pictures(judges, drawn["test"], train, PREPARED / train.name, validity)
    work.run.text(json.dumps(confusions(judges.judges, drawn, validity)), "report/confusions.json")
    work.run.text(json.dumps(figures), "report/nearest.json")
    if picture is not None:
        work.run.picture(picture, "report/neighbours")


def assemble_pipeline(params: Params, data: Prepared) -> None:
    """artifacts/pipeline, written from the trained networks."""
    p = params.evaluate
    knows_its_words = params.setup_text_encoder.kind == "clip"
    trained = Trained(
        unet=UNET,
        vae=VAE,
        text_encoder=TEXT_ENCODER,
        latents=read_info(LATENTS),
        channels=data.info.channels,
        image_size=data.info.image_size,
        words=Words.of(data.split("train").captions) if knows_its_words else None,
        sizes=tuple(of.size for of in data.info.buckets),
    )
    origin = provenance(UNET, VAE, TEXT_ENCODER, LATENTS)
    assemble(PIPELINE, trained, p.sampling, p.precision, origin)


if __name__ == "__main__":
    run_stage("evaluate", body, divides=True)
