"""Pipelines to be registered, with figures of evaluation.json that pass the gate, or others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow

from darkroom.core.artifact import write_json
from darkroom.data.prepared import Info
from darkroom.evaluation.card import write_card

PIPELINE = Path("artifacts/pipeline")
PROMPT = "a small red circle"
DATA = Info("scenes", 16, 3, {"test": 5, "train": 40}, (), (), {"words": 9}, (), captions=True)
FIGURES = {  # of evaluation.json: alignment is well above chance, and so on
    "alignment": {
        "test": {
            "attribute_accuracy": {"value": 0.9, "low": 0.88, "high": 0.92, "n": 200},
            "exact_match": {"value": 0.7, "low": 0.64, "high": 0.76, "n": 200},
            "chance": {"attribute_accuracy": 0.3, "exact_match": 0.01},
        }
    },
    "evaluator": {"valid": True, "reason": "", "real": {}, "chance": {}},
    "fidelity": {
        "features": "a judge",
        "fid": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 200},
        "blur": "a Gaussian of 4 pixels",
        "scale": {"fid": {"real": 0.4, "noise": 50.0, "mean_colour": 9.0, "blurred": 4.0}},
    },
    "withheld": {},
    "judged_with": {"data/prepared": "d.dir", "artifacts/evaluator": "e.dir"},
    "vae": {"psnr": {"value": 30.0, "low": 29.9, "high": 30.1, "n": 200}},
    "sampling": {},
}
ClientOf = Callable[[Path], mlflow.MlflowClient]
PARAMS = Path(__file__).parents[2] / "params.yaml"


def describe(folder: Path, example: str = PROMPT) -> None:
    trained = {"train_unet": {"steps": 10, "batch_size": 2}}
    write_card(folder, DATA, FIGURES, trained, example)
    write_json(folder / "evaluation.json", FIGURES)


def figures(**changes: Any) -> dict[str, Any]:
    """FIGURES with others, by their dotted names with "__" for dots; None takes a figure away."""
    changed: dict[str, Any] = json.loads(json.dumps(FIGURES))
    for name, value in changes.items():
        *path, last = name.split("__")
        place = changed
        for part in path:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return changed


def around(value: float, half: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half, "n": 200}
