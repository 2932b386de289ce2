"""train_evaluator: the judge, taught by real pictures alone. data/prepared -> artifacts/evaluator."""

import darkroom.startup  # noqa: F401

# isort: split
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from darkroom.core.artifact import CONFIG, PROVENANCE, provenance, save_tensors, whole, write_json
from darkroom.core.rng import seeded
from darkroom.core.weights import WEIGHTS
from darkroom.data.prepared import Prepared
from darkroom.nn.image import ConvTowerConfig
from darkroom.params import Params
from darkroom.stage import Work, run_stage
from darkroom.training.curves import Curves
from darkroom.training.ema import EMA
from darkroom.training.judge import JudgeShape, make_judge
from darkroom.training.loop import Hook, Phase, train
from darkroom.training.setting import Setting

PREPARED, ARTIFACT, REPORT = Path("data/prepared"), Path("artifacts/evaluator"), Path("reports/train_evaluator")


def body(params: Params, work: Work) -> Mapping[str, float | str]:
    """Train the judge that suits the data and measure it on real test pictures."""
    p, data = params.train_evaluator, Prepared.open(PREPARED)
    pictures, held_out = data.split("train"), data.split("validation")
    image = ConvTowerConfig(data.info.channels, p.image.width, p.image.depth)
    text = p.text.model_dump(exclude={"vocab_size", "max_length"})
    shape = JudgeShape(image, text, p.text.vocab_size, p.text.max_length)
    setting = Setting(p.batch_size, p.seed, p.precision, work.device, work.processes)
    with seeded(p.seed, "evaluator"):
        judge = make_judge(data.info, pictures, shape, setting)
    ema, curves = EMA(judge.network, p.ema_half_life), Curves.over(p.steps, work.run.metrics)
    ending = work.ending(p.steps, p.stop_at)

    def accuracy(step: int, values: Mapping[str, float]) -> None:
        if step % p.validate_every == 0 or step == ending.step:
            measured = judge.accuracy(ema.network, held_out)
            curves.record(step, {f"held_out/{name}": value for name, value in measured.items()})

    phase = Phase("", judge.network, p, judge.loss)
    hooks: list[Hook] = [curves, accuracy]
    train(
        [phase],
        ema,
        steps=p.steps,
        batch_size=p.batch_size,
        accumulation=1,
        hooks=hooks,
        description="evaluator",
        checkpoints=work.checkpoints,
        remembered={"curves": curves},
        processes=work.processes,
        ending=ending,
    )
    curves.write(REPORT)
    measured = dict(judge.accuracy(ema.network, data.split("test")))
    write_json(REPORT / "metrics.json", {"test_accuracy": measured})
    with whole(ARTIFACT) as folder:
        folder.mkdir()
        save_tensors(folder / WEIGHTS, ema.network.state_dict())
        if judge.tokenizer is not None:
            judge.tokenizer.write(folder / "tokenizer")
        heads = [asdict(head) for head in data.info.heads]
        write_json(folder / CONFIG, {**judge.config, "heads": heads, "accuracy": measured})
        write_json(folder / PROVENANCE, provenance(PREPARED))
    return {f"test accuracy: {name}": value for name, value in measured.items()}


if __name__ == "__main__":
    run_stage("train_evaluator", body, trains=True)
