"""The model card: what it says is what the artifacts say."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from darkroom.core.artifact import load_tensors, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.weights import DIFFUSERS_WEIGHTS
from darkroom.data.prepared import Info
from darkroom.evaluation.card import CARD, read_card, write_card
from darkroom.interop.diffusers import UNET, VAE
from tests.support import pipelines

SCENES = Info("scenes", 16, 3, {"test": 50, "train": 4321}, (), (), {"words": 98}, (), captions=True)
TRAINED = {
    "train_vae": {"kind": "pretrained", "path": "artifacts/imported/set/vae"},
    "train_unet": {
        "steps": 1400,
        "batch_size": 96,
        "optimizer": {"learning_rate": 0.002},
        "precision": "bf16",
        "seed": 3,
    },
}
METRICS: dict[str, Any] = {
    "alignment": {
        "test": {
            "exact_match": {"value": 0.25, "low": 0.125, "high": 0.5, "n": 50},
            "chance": {"exact_match": 0.01},
            "by_attribute": {
                "size": {"value": 0.9, "low": 0.8, "high": 0.95, "n": 50},
                "shape": {"value": 0.4, "low": 0.3, "high": 0.5, "n": 50},
            },
        }
    },
    "evaluator": {
        "valid": True,
        "reason": "",
        "real": {"test": {"exact_match": {"value": 0.99, "low": 0.98, "high": 1.0, "n": 50}}},
        "chance": {"exact_match": 0.02},
    },
    "fidelity": {
        "features": "judge (64 features)",
        "blur": "a Gaussian of 4 pixels",
        "kid": {"value": 2.5e-5, "low": 0.0, "high": 1.0, "n": 50},
        "scale": {"kid": {"real": 1e-6, "noise": 3.0, "mean_colour": 2.0, "blurred": 1.5}},
    },
    "withheld": {"fidelity.fid": "a covariance needs 2 pictures, and 1 came; give more test pictures"},
}


def card(folder: Path, data: Info = SCENES, example: str = "a red circle") -> str:
    write_card(folder, data, METRICS, TRAINED, example)
    return (folder / CARD).read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """artifacts/pipeline of the current project, with a past."""
    monkeypatch.chdir(tmp_path)
    pipelines.assembled(Path("artifacts"))
    write_json("artifacts/pipeline/provenance.json", {"inputs": {"artifacts/unet": "1.dir", "artifacts/vae": "2.dir"}})
    write_json("artifacts/unet/provenance.json", {"inputs": {"data/latents": "3.dir"}})
    write_json("data/latents/provenance.json", {"inputs": {"artifacts/vae": "2.dir", "data/prepared": "4.dir"}})
    return Path("artifacts/pipeline")


def test_it_says_what_the_artifacts_say(folder: Path) -> None:
    said = card(folder)
    assert "| train | 4321 |" in said
    assert "98 distinct words" in said
    for name in (UNET, VAE):
        weights = load_tensors(folder / name / DIFFUSERS_WEIGHTS)
        assert f"| {name} | {sum(p.numel() for p in weights.values()):,} |" in said
    assert "| `alignment.test.exact_match` | 0.25 | [0.125, 0.5] | 50 | chance 0.01; real pictures 0.99 |" in said
    assert "| real pictures 1e-06; noise 3; mean colours 2; blurred pictures 1.5 |" in said
    assert "Withheld: `fidelity.fid`. Why: a covariance needs 2 pictures" in said
    assert "`shape` is drawn right least often: 0.4 [0.3, 0.5]" in said
    assert "| train_unet | – | 1400 | 96 | – | 0.002 | bf16 | 3 |" in said
    assert "| train_vae | pretrained | – | – | – | – | – | – |" in said, "settings that trained nothing"
    hashes = re.findall(r"\| `([\w/]+)` \| `(\d\.dir)` \|", said)
    assert hashes == [
        ("artifacts/unet", "1.dir"),
        ("artifacts/vae", "2.dir"),
        ("data/latents", "3.dir"),
        ("data/prepared", "4.dir"),
    ]


def test_it_says_neither_when_nor_where_it_was_written(folder: Path, tmp_path: Path) -> None:
    said = card(folder)
    assert not re.search(r"\b(19|20)\d\d\b|\b\d\d?:\d\d\b", said), "a year, a time of day"
    assert not re.search(r"(^|[^\w.)\]])(/|~/|[A-Za-z]:\\|file:)\w", said, re.MULTILINE), "an absolute path"
    assert card(tmp_path / folder) == said
    assert str(tmp_path) not in said


def test_the_hub_and_darkroom_read_its_front_matter(folder: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="the Hub's own reader comes with the test extras")
    facts = hub.ModelCard(card(folder, example='a "red": circle —\n- green')).data
    assert (facts.license, facts.pipeline_tag, facts.library_name) == ("apache-2.0", "text-to-image", "diffusers")
    measured = {result.metric_type: result.metric_value for result in facts.eval_results}
    assert measured == {
        "alignment.test.exact_match": 0.25,
        "fidelity.kid": 2.5e-5,
    }
    read = read_card(folder)
    assert read.metrics == measured
    assert read.example == 'a "red": circle —\n- green'
    assert read.text.startswith("# Darkroom: scenes at 16 × 16\n")


def test_of_data_from_outside_it_does_not_make_up_a_licence(folder: Path) -> None:
    said = card(folder, replace(SCENES, source="captioned_folder"))
    assert "license: unknown" in said
    assert "Settle it before publishing" in said
    assert "apache" not in said


def test_what_diffusers_cannot_load_is_not_offered_to_it(tmp_path: Path) -> None:
    said = card(pipelines.assembled(tmp_path / "class", kind="class"), example="two")
    assert "library_name: darkroom" in said
    assert "classes and no other: zero, one, two" in said
    assert "answers prompts" in " ".join(said.split())
    said = card(pipelines.assembled(tmp_path / "none", kind="none", autoencoder="identity"), example="")
    assert "pipeline_tag: unconditional-image-generation" in said
    assert "StableDiffusionPipeline" not in said
    assert "answers prompts" not in " ".join(said.split())
    assert read_card(tmp_path / "none" / "pipeline").example == ""


def test_a_card_of_somebody_else_is_named(folder: Path) -> None:
    with pytest.raises(DarkroomError, match=r"artifacts/pipeline/README.md: no such model card; run dvc repro"):
        read_card(folder)
    for text in ("", "# Mine", "---\nlicense: mit\n---\n# Mine\n", "---\n[\n---\n"):
        (folder / CARD).write_text(text)
        with pytest.raises(DarkroomError, match=r"README.md: not the model card that evaluate wrote"):
            read_card(folder)
