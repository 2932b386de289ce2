"""evaluate: the pipeline assembled, measured and shown. All artifacts -> artifacts/pipeline, reports/evaluation."""

import darkroom.runner.startup  # noqa: F401

# isort: split
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
from darkroom.data.prepared import Prepared
from darkroom.diffusion.generate import Sampling
from darkroom.evaluation import pictures
from darkroom.evaluation.card import write_card
from darkroom.evaluation.drawing import draw
from darkroom.evaluation.examiner import Examiner, words
from darkroom.evaluation.features import read_judges
from darkroom.evaluation.report import EVALUATION, as_json, summary
from darkroom.inference.folder import assemble
from darkroom.inference.pipeline import Pipeline
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
    """Refuse parts that do not belong together, put them together, draw held-out captions, measure, show, describe."""
    p, data = params.evaluate, Prepared.open(PREPARED)
    for artifact, source in MADE_FROM:
        check_made_from(artifact, source)
    assemble(
        PIPELINE,
        unet=UNET,
        vae=VAE,
        text_encoder=TEXT_ENCODER,
        latents=read_info(LATENTS),
        image_channels=data.info.channels,
        image_size=data.info.image_size,
        sampling=Sampling(**p.sampling.model_dump()),
        precision=p.precision,
        words=Words.of(data.split("train").captions) if params.setup_text_encoder.kind == "clip" else None,
        origin=provenance(UNET, VAE, TEXT_ENCODER, LATENTS),
    )
    pipeline = Pipeline.from_pretrained(PIPELINE, device=work.device)
    examiner = Examiner(read_judges(EVALUATOR, work.device), p.seed, p.bootstrap)
    splits = {name: data.split(name) for name in data.info.splits}
    bench = examiner.bench(splits)
    novel = p.n_novel if pipeline.info.condition.kind != "none" else 0  # not asked, it draws what it drew for test
    drawn = {
        name: draw(pipeline, splits[name], n, p.seed, p.batch_size)
        for name, n in {"test": p.n_test, "novel": novel}.items()
        if n and name in splits
    }
    of_text = pipeline.info.condition.kind == "text"
    captions = set(map(words, splits["train"].captions)) if of_text else set()
    alignment = {name: examiner.of_drawn(of, name, captions, bench) for name, of in drawn.items()}
    fidelity = examiner.fidelity(drawn["test"], splits["train"], bench)
    withheld = [*(found.withheld for found in alignment.values()), fidelity.withheld]
    metrics = as_json(
        {
            "alignment": {name: found.figures for name, found in alignment.items()},
            "evaluator": asdict(bench),
            "fidelity": fidelity.figures,
            "vae": examiner.autoencoder(pipeline, splits["test"]),
            "sampling": {
                **asdict(pipeline.info.sampling),
                "precision": p.precision,
                "network_evaluations": drawn["test"].evaluations,
            },
            "withheld": {name: reason for found in withheld for name, reason in found.items()},
            "judged_with": provenance(PREPARED, EVALUATOR)["inputs"],
        }
    )
    with atomic_path(REPORT / "pictures") as folder:
        pictures.show(
            folder,
            pipeline,
            drawn,
            partial(examiner.verdicts, bench=bench),
            seed=p.seed,
            n_grid=p.n_grid,
            guidance_sweep=p.guidance_sweep,
            n_sweep=p.n_sweep,
        )
    for file in (REPORT / "metrics.json", PIPELINE / EVALUATION):
        write_json(file, metrics)
    trained = {stage: getattr(params, stage).model_dump() for stage in TRAINED}
    write_card(PIPELINE, data.info, metrics, trained, example=drawn["test"].prompts[0])
    return summary(metrics)


if __name__ == "__main__":
    run_stage("evaluate", body)
