"""train_evaluator: two judges, each taught by half of the real pictures alone. data/prepared -> artifacts/evaluator."""

import darkroom.runner.startup  # noqa: F401

# isort: split
from collections.abc import Mapping
from dataclasses import asdict

from darkroom.config.params import Params
from darkroom.config.paths import EVALUATOR, PREPARED, report_of
from darkroom.core.artifact import CONFIG, PROVENANCE, atomic_path, provenance, save_tensors, write_json
from darkroom.core.rng import seeded
from darkroom.core.weights import WEIGHTS
from darkroom.data.prepared import Prepared
from darkroom.runner.stage import Work, run_stage
from darkroom.training.engine.fit import fit
from darkroom.training.judge import make_judges
from darkroom.training.judges_task import JudgesTask

REPORT = report_of("train_evaluator")


def body(params: Params, work: Work) -> Mapping[str, float | str]:
    """Train two judges that suit the data, each on one half of it, and measure each on what it has not seen."""
    p, data = params.train_evaluator, Prepared.open(PREPARED)
    info, context = data.info, work.context(p)
    with seeded(p.seed, "evaluator"):
        splits = {name: data.split(name) for name in info.splits}
        judges = make_judges(info, splits, p.image, p.text, context)
    task = JudgesTask(judges, (info.channels, info.image_size, info.image_size), p.text.max_length, context)
    fitted = fit(task, p, work, REPORT)
    write_json(REPORT / "metrics.json", {"accuracy": task.accuracy, **fitted.against_chance})
    first = next(iter(judges.each.values()))
    with atomic_path(EVALUATOR) as folder:
        folder.mkdir()
        save_tensors(folder / WEIGHTS, fitted.network.state_dict())
        if first.tokenizer is not None:
            first.tokenizer.write(folder / "tokenizer")
        heads = [asdict(head) for head in info.heads]
        write_json(folder / CONFIG, {**first.described(), "heads": heads, "accuracy": task.accuracy})
        write_json(folder / PROVENANCE, provenance(PREPARED))
    accuracy_of_all = {
        f"judge {of}: accuracy on {name} pictures that it has not seen": sum(found.values()) / len(found)
        for name, each in task.accuracy.items()
        for of, found in each.items()
    }
    return accuracy_of_all | {name: value for name, value in fitted.against_chance.items() if isinstance(value, str)}


if __name__ == "__main__":
    run_stage("train_evaluator", body, trains=True)
