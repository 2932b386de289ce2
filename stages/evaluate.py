"""evaluate: the pipeline assembled, measured and shown. All artifacts -> artifacts/pipeline, reports/evaluation."""

import darkroom.startup  # noqa: F401

# isort: split
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from darkroom.core.artifact import check_made_from, provenance, whole, write_json
from darkroom.data.latents import read_info
from darkroom.data.prepared import Prepared
from darkroom.diffusion.generate import Sampling
from darkroom.evaluation import pictures
from darkroom.evaluation.card import write_card
from darkroom.evaluation.drawing import draw
from darkroom.evaluation.features import Judge
from darkroom.evaluation.report import Examiner, as_json, key_figures
from darkroom.inference.folder import assemble
from darkroom.inference.pipeline import Pipeline
from darkroom.inference.words import Words
from darkroom.params import Params
from darkroom.stage import Work, run_stage

PREPARED, LATENTS, CONDITIONING = Path("data/prepared"), Path("data/latents"), Path("data/conditioning")
VAE, TEXT_ENCODER = Path("artifacts/vae"), Path("artifacts/text_encoder")
UNET, EVALUATOR = Path("artifacts/unet"), Path("artifacts/evaluator")
PIPELINE, REPORT = Path("artifacts/pipeline"), Path("reports/evaluation")
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
        words=Words.of(data.split("train").captions) if params.setup_text_encoder.mode == "clip" else None,
        origin=provenance(UNET, VAE, TEXT_ENCODER, LATENTS),
    )
    pipeline = Pipeline.from_pretrained(PIPELINE, device=work.device)
    examiner = Examiner(Judge.read(EVALUATOR, work.device), p.seed, p.bootstrap)
    novel = p.n_novel if pipeline.info.condition.kind != "none" else 0  # not asked, it draws what it drew for test
    test, counts = data.split("test"), {"test": p.n_test, "novel": novel}
    drawn = {
        name: draw(pipeline, data.split(name), n, p.seed, p.batch_size)
        for name, n in counts.items()
        if n and name in data.info.splits
    }
    metrics = as_json(
        {
            "alignment": {name: examiner.of_drawn(of, name) for name, of in drawn.items()},
            "evaluator": examiner.itself(test),
            "fidelity": examiner.fidelity(drawn["test"], data.split("train")),
            "vae": examiner.autoencoder(pipeline, test),
            "sampling": {
                **asdict(pipeline.info.sampling),
                "precision": p.precision,
                "network_evaluations": drawn["test"].evaluations,
            },
        }
    )
    with whole(REPORT / "pictures") as folder:
        sweep = {"guidance_sweep": p.guidance_sweep, "n_sweep": p.n_sweep}
        pictures.show(folder, pipeline, drawn, examiner.verdicts, n_grid=p.n_grid, **sweep)
    write_json(REPORT / "metrics.json", metrics)
    trained = {stage: getattr(params, stage).model_dump() for stage in TRAINED}
    write_card(PIPELINE, data.info, metrics, trained, example=drawn["test"].prompts[0])
    return key_figures(metrics)


if __name__ == "__main__":
    run_stage("evaluate", body)
