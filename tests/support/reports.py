"""A finished run of a stage that measured a model: what it wrote, and what it told."""

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from darkroom.core.artifact import content_hash, write_json
from darkroom.reporting.facts import Execution, Facts
from darkroom.reporting.gather import of_stage
from darkroom.tracking.note import Account, Observed

EXECUTION = Execution(
    began=1_795_837_172_449, seconds=86.8, memory_mib=1234.0, profile={"device": "cpu"}, commit="c0ffee"
)
SCRIPT = "<script>alert(1)</script>"


def png(colour: str = "red") -> bytes:
    drawn = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(drawn, format="PNG")
    return drawn.getvalue()


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.02, "high": value + 0.02, "n": 100}


def metrics(asked: bool = True) -> dict[str, Any]:
    """What evaluate writes: with attributes, or of a model of which nothing is asked."""
    of_test = {
        "attribute_accuracy": figure(0.9),
        "by_attribute": {SCRIPT: figure(0.7), "colour": figure(0.95)},
        "chance": {"attribute_accuracy": 0.2},
    }
    real = {
        "test": {"attribute_accuracy": figure(0.98), "by_attribute": {SCRIPT: figure(0.97), "colour": figure(0.99)}}
    }
    fid = {"fid": figure(3.0), "scale": {"fid": {"real": 1.0, "noise": 90.0, "blurred": 20.0}}}
    return {
        "alignment": {"test": of_test if asked else {}},
        "evaluator": {"valid": True, "reason": "", "real": real if asked else {}, "chance": {}},
        "fidelity": fid,
        "vae": {},
        "withheld": {},
    }


CONFUSIONS = {"test": {SCRIPT: {"classes": ["ring", "<b>disc</b>"], "counts": [[60, 20, 0], [5, 35, 2]]}}}
NEAR = [{"name": f"train/{name}.png", "caption": SCRIPT} for name in ("<i>7", "<i>8", "9")]
NEAREST = {"pictures": [{"asked": SCRIPT, "distance": 0.5, "apart": 0.4, "nearest": NEAR}], "reason": ""}


def finished(asked: bool = True, execution: Execution = EXECUTION) -> tuple[Facts, dict[str, bytes]]:
    """A run of evaluate in the current folder, with the files that it kept."""
    write_json("reports/evaluation/metrics.json", metrics(asked))
    pictures = Path("reports/evaluation/pictures")
    pictures.mkdir(parents=True, exist_ok=True)
    (pictures / "samples.png").write_bytes(png())
    curves = Path("reports/evaluation/curves.csv")
    curves.write_text(
        "step,held_out/loss,held_out_by_time/00_to_25_percent,train/loss\n1,,,2.0\n2,1.5,0.4,1.0\n3,1.2,0.3,0.5\n"
    )
    outputs = {path: content_hash(path) for path in ("reports/evaluation/metrics.json", str(pictures), str(curves))}
    account = Account("evaluate", {"evaluate.n": 2}, {"data/prepared": "a" * 32}, {}, {}, "c0ffee", False, outputs)
    observed = Observed()
    observed.add(1, {"throughput/samples_per_second": 100.0, "throughput/mfu": 0.3})
    observed.keep("samples/step_000001.png", png("blue"))
    observed.keep("report/neighbours.png", png("green"))
    if asked:
        observed.keep("report/confusions.json", json.dumps(CONFUSIONS).encode())
        observed.keep("report/nearest.json", json.dumps(NEAREST).encode())
    return of_stage(account, observed, execution, "FINISHED", ""), observed.files
