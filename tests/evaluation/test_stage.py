"""The stage evaluate on tiny artifacts: what it writes, that it writes it again, what it refuses."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from darkroom.config import params as parameters
from darkroom.core.artifact import PROVENANCE, content_hash, provenance, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.output_shards import Shards
from darkroom.core.rng import seeded
from darkroom.core.tasks import Kept
from darkroom.core.weights import WEIGHTS, write_network
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Prepared
from darkroom.data.sources.scenes import Scenes
from darkroom.evaluation.card import read_card
from darkroom.evaluation.judge import read_judges
from darkroom.evaluation.judging import Judges, Validity
from darkroom.nn.judge.classifier import JUDGES
from darkroom.runner.stage import Work
from darkroom.tracking import Run
from darkroom.tracking.note import Account
from tests.support import networks, pipelines
from tests.support.settings import preparation

RECIPE = Path(__file__).parents[2] / "recipes" / "scenes.yaml"
SIZE, N_TEST, N_NOVEL = 16, 24, 6
PICTURES = {"samples.png", "novel.png", "reconstructions.png", "guidance_sweep.png", "denoising.gif", "denoising.png"}
MADE_FROM = {
    "artifacts/vae": ["data/prepared"],
    "artifacts/text_encoder": ["data/prepared"],
    "data/latents": ["data/prepared", "artifacts/vae"],
    "data/conditioning": ["data/prepared", "artifacts/text_encoder"],
    "artifacts/unet": ["data/latents", "data/conditioning"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project up to evaluate."""
    project = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        how = preparation(image_size=SIZE)
        prepare(Scenes(40, 8, N_TEST, N_NOVEL, 0, SIZE), Path("data/prepared"), how)
        write_latents_and_parts("text")
        heads = Prepared.open("data/prepared").info.heads
        spec = networks.classifier([len(head.classes) for head in heads])
        with seeded(0, "judge"):
            judge = torch.nn.ModuleDict({name: networks.built(spec) for name in JUDGES})
        said = {"heads": [asdict(h) for h in heads], "accuracy": {}}
        config = {"kind": "classifier", **spec.model_dump(), **said}
        write_network(Path("artifacts/evaluator"), WEIGHTS, judge, config, {"inputs": {}})
        write_json(Path("artifacts/evaluator") / PROVENANCE, provenance("data/prepared"))
    return project


def write_latents_and_parts(kind: str) -> None:
    """Networks with a condition of this kind, in the place of any that are there."""
    for artifact in MADE_FROM:
        shutil.rmtree(artifact, ignore_errors=True)
    write_json("data/conditioning/config.json", {})
    write_json("data/latents/config.json", asdict(pipelines.write_parts(Path("artifacts"), kind=kind, size=SIZE)))
    for artifact, sources in MADE_FROM.items():
        write_json(Path(artifact) / PROVENANCE, provenance(*sources))


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in."""
    shutil.copytree(made, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def run(evaluate: ModuleType, **changes: Any) -> Mapping[str, Any]:
    """The stage's body with few and small samples."""
    params = parameters.load(RECIPE)
    sampling = params.evaluate.sampling.model_copy(update={"num_inference_steps": 2})
    few = {"n_test": 1000, "n_novel": N_NOVEL, "n_grid": 5, "n_sweep": 2, "guidance_sweep": [1.0, 3.0]}
    small = {"precision": "fp32", "batch_size": 10, "bootstrap": 100, "sampling": sampling}
    section = params.evaluate.model_copy(update={**few, **small, **changes})
    untracked = Run(Account("evaluate", {}, {}, {}, {}, "", False), tracked=False)
    work = Work(torch.device("cpu"), untracked)
    figures: Mapping[str, Any] = evaluate.body(params.model_copy(update={"evaluate": section}), work)
    return figures


def test_everything_is_measured_and_shown_and_twice_the_same(project: Path, evaluate: ModuleType) -> None:
    figures = run(evaluate)
    metrics = json.loads(Path("reports/evaluation/metrics.json").read_text())
    assert metrics["alignment"] == {"test": {}, "novel": {}}, "of judges that were never trained"
    assert metrics["fidelity"] == {}
    assert not metrics["evaluator"]["valid"]
    assert "judge a does not clear chance on real test pictures" in metrics["evaluator"]["reason"]
    assert {f"alignment.{of}.exact_match" for of in ("test", "novel")} | {"fidelity.fid"} <= set(metrics["withheld"])
    assert set(metrics["evaluator"]["real"]) == {"train", "validation", "test", "novel"}
    assert metrics["evaluator"]["real"]["test"]["exact_match"]["n"] == N_TEST
    assert metrics["judged_with"]["artifacts/evaluator"] == content_hash("artifacts/evaluator")
    assert json.loads(Path("artifacts/pipeline/evaluation.json").read_text()) == metrics
    assert metrics["vae"]["psnr"]["n"] == N_TEST
    assert metrics["sampling"]["network_evaluations"] == 2
    assert figures["vae.ssim"] == metrics["vae"]["ssim"]["value"]
    assert any(name.startswith("withheld: alignment.test.") for name in figures)
    assert {file.name for file in Path("reports/evaluation/pictures").iterdir()} == PICTURES
    with Image.open("reports/evaluation/pictures/denoising.gif") as gif:
        assert getattr(gif, "n_frames", 1) == 1 + 2
    recorded = json.loads(Path("artifacts/pipeline/provenance.json").read_text())["inputs"]
    assert recorded["artifacts/unet"] == content_hash("artifacts/unet")
    card = read_card(Path("artifacts/pipeline"))
    assert {name: figures[name] for name in card.metrics} == card.metrics
    assert "How good its pictures are is not known" in " ".join(card.text.split())
    assert "Withheld: `alignment.test." in " ".join(card.text.split())
    assert card.example == Prepared.open("data/prepared").split("test").captions[0]
    assert content_hash("data/prepared") in card.text
    assert "train_unet" in card.text
    assert str(project) not in card.text

    before = [content_hash(path) for path in ("artifacts/pipeline", "reports/evaluation")]
    run(evaluate)
    assert [content_hash(path) for path in ("artifacts/pipeline", "reports/evaluation")] == before


def test_what_is_not_asked_for_is_left_out(project: Path, evaluate: ModuleType) -> None:
    run(evaluate, n_novel=0, guidance_sweep=[])
    metrics = json.loads(Path("reports/evaluation/metrics.json").read_text())
    assert set(metrics["alignment"]) == {"test"}
    pictures = {file.name for file in Path("reports/evaluation/pictures").iterdir()}
    assert pictures == PICTURES - {"novel.png", "guidance_sweep.png"}


def test_what_could_not_be_asked_for_is_not_judged(project: Path, evaluate: ModuleType) -> None:
    write_latents_and_parts("none")
    run(evaluate)
    metrics = json.loads(Path("reports/evaluation/metrics.json").read_text())
    assert metrics["alignment"] == {"test": {}}
    pictures = {file.name for file in Path("reports/evaluation/pictures").iterdir()}
    assert pictures == PICTURES - {"novel.png", "guidance_sweep.png"}
    assert read_card(Path("artifacts/pipeline")).example == ""


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ("artifacts/vae", "data/latents: was made from artifacts/vae {}, but artifacts/vae is now {}"),
        ("data/conditioning", "artifacts/unet: was made from data/conditioning {}, but data/conditioning is now {}"),
        ("artifacts/text_encoder", "data/conditioning: was made from artifacts/text_encoder {}, but"),
        ("data/latents", "artifacts/unet: was made from data/latents {}, but data/latents is now {}"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(
    changed: str, refused: str, project: Path, evaluate: ModuleType
) -> None:
    before = content_hash(changed)
    (Path(changed) / "more.txt").write_text("another version")
    with pytest.raises(DarkroomError) as caught:
        run(evaluate)
    assert str(caught.value).startswith(refused.format(before, content_hash(changed)))
    assert not Path("artifacts/pipeline").exists()
    assert not Path("reports/evaluation").exists()


def test_a_class_conditional_model_is_asked_for_classes(project: Path, tmp_path: Path) -> None:
    from darkroom.evaluation.drawing import draw
    from darkroom.inference.pipeline import Pipeline

    split = Prepared.open("data/prepared").split("test")
    split.labels = torch.arange(N_TEST)[:, None] % 3
    pipeline = Pipeline.from_pretrained(pipelines.assembled(tmp_path / "class", kind="class"), device="cpu")
    drawn = draw(Kept(lambda: pipeline), split, 5, 7, 2, Shards())
    assert drawn.prompts == ["zero", "one", "two", "zero", "one"]
    assert drawn.seeds == [7, 8, 9, 10, 11]
    assert torch.equal(drawn.pictures[3:4], pipeline.text_to_image("zero", seeds=[10]).tensor)
    none = Pipeline.from_pretrained(pipelines.assembled(tmp_path / "none", kind="none"), device="cpu")
    drawn = draw(Kept(lambda: none), split, 2, 0, 2, Shards())
    assert (drawn.takes_prompts, drawn.prompts, drawn.asked.captions) == (False, ["", ""], ["", ""])
    judges = read_judges(Path("artifacts/evaluator"), torch.device("cpu"))
    assert Judges(judges, 0, 10).verdicts(drawn, Validity(True, "")) == [None, None]
