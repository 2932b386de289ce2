"""train_evaluator: two judges, each taught by half of the real pictures alone. data/prepared -> artifacts/evaluator."""

import darkroom.runner.startup  # noqa: F401

# isort: split
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from torch import nn

from darkroom.config.params import Params
from darkroom.core.artifact import CONFIG, PROVENANCE, atomic_path, provenance, save_tensors, write_json
from darkroom.core.rng import seeded
from darkroom.core.weights import WEIGHTS
from darkroom.data.prepared import Prepared
from darkroom.nn.judge.classifier import ROTATIONS, SelfSupervised
from darkroom.nn.judge.towers import Towers
from darkroom.runner.stage import Work, run_stage
from darkroom.training.engine.blank import judged, matched
from darkroom.training.engine.chance import Reached, against_chance
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.curves import Curves
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Phase, train
from darkroom.training.engine.throughput import TRAINING, Throughput, flops
from darkroom.training.judge import make_judges

PREPARED, ARTIFACT, REPORT = Path("data/prepared"), Path("artifacts/evaluator"), Path("reports/train_evaluator")


def body(params: Params, work: Work) -> Mapping[str, float | str]:
    """Train two judges that suit the data, each on one half of it, and measure each on what it has not seen."""
    p, data = params.train_evaluator, Prepared.open(PREPARED)
    splits = {name: data.split(name) for name in data.info.splits}
    setting = TrainingContext(p.batch_size, p.seed, p.precision, work.device, work.processes)
    with seeded(p.seed, "evaluator"):
        judges = make_judges(data.info, splits, p.image, p.text, setting)
    ema, curves = EMA(judges.networks, p.ema_half_life), Curves(p.log_every, work.run.metrics)
    ending = work.ending(p.steps, p.stop_at)

    def accuracy(step: int, values: Mapping[str, float]) -> None:
        if step % p.validate_every == 0 or step == ending.step:
            measured = judges.accuracy(ema.network, "validation")
            curves.record(
                step, {f"judge {of}/{name}": x for of, found in measured.items() for name, x in found.items()}
            )

    first, *others = judges.each.items()
    phases = [Phase("", first[1].network, p, first[1].loss)]
    phases += [Phase(f"judge_{name}", judge.network, p, judge.loss) for name, judge in others]
    size = (data.info.channels, data.info.image_size, data.info.image_size)
    cost = TRAINING * sum(_flops(judge.network, size, p.text.max_length) for judge in judges.each.values())
    speed = Throughput(cost, curves.every, setting, work.run.metrics)
    train(
        phases,
        ema,
        steps=p.steps,
        batch_size=p.batch_size,
        accumulation=1,
        hooks=speed.around([curves, accuracy]),
        description="evaluator",
        read_every=(curves.every, p.validate_every),
        checkpoints=work.checkpoints,
        remembered={"curves": curves},
        processes=work.processes,
        ending=ending,
    )
    curves.write(REPORT)
    measured = {name: judges.accuracy(ema.network, name) for name in splits if name != "train"}
    chance = judges.chance("test")
    reached = [
        Reached(f"judge {of}: {what} on test pictures", value, chance[of][what], "answers given blindly", True)
        for of, found in measured["test"].items()
        for what, value in found.items()
    ]
    known = against_chance("train_evaluator", p.on_worse_than_chance, reached)
    write_json(REPORT / "metrics.json", {"accuracy": measured, **known})
    with atomic_path(ARTIFACT) as folder:
        folder.mkdir()
        save_tensors(folder / WEIGHTS, ema.network.state_dict())
        if first[1].tokenizer is not None:
            first[1].tokenizer.write(folder / "tokenizer")
        heads = [asdict(head) for head in data.info.heads]
        write_json(folder / CONFIG, {**first[1].described(), "heads": heads, "accuracy": measured})
        write_json(folder / PROVENANCE, provenance(PREPARED))
    accuracy_of_all = {
        f"judge {of}: accuracy on {name} pictures that it has not seen": sum(found.values()) / len(found)
        for name, each in measured.items()
        for of, found in each.items()
    }
    return accuracy_of_all | {name: value for name, value in known.items() if isinstance(value, str)}


def _flops(judge: nn.Module, size: tuple[int, int, int], tokens: int) -> int:
    """Floating-point operations of one of a step's pictures through a judge."""
    if isinstance(judge, Towers):
        return flops(judge, lambda: matched(judge, 1, size, tokens))
    turned = ROTATIONS if isinstance(judge, SelfSupervised) else 1
    return turned * flops(judge, lambda: judged(judge, 1, size))


if __name__ == "__main__":
    run_stage("train_evaluator", body, trains=True)
