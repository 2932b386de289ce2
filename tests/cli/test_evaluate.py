"""darkroom evaluate, on toy pictures, judges trained on them, and random pipelines: what it measures and says."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from darkroom.core.artifact import PROVENANCE, provenance, write_json
from darkroom.core.output_shards import Shards
from darkroom.core.rng import seeded
from darkroom.core.weights import WEIGHTS, write_network
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Prepared
from darkroom.data.sources.captioned_folder import CaptionedFolder
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.evaluation.drawing import draw, kept_pipeline
from darkroom.evaluation.judge import read_judges
from darkroom.evaluation.judging import Judges, normalised
from darkroom.evaluation.report import as_json
from darkroom.inference.pipeline import Pipeline
from darkroom.nn.judge.classifier import JUDGES
from darkroom.training.engine.context import TrainingContext
from darkroom.training.judge import make_judges
from tests.support import networks, pipelines
from tests.support.settings import preparation

Run = Callable[..., int]
Said = pytest.CaptureFixture[str]
CPU, SIZE, N_TEST = torch.device("cpu"), 16, 240
COLORS, SIDES = ("red", "green", "blue"), ("left", "right")
SPLITS = {"train": 400, "validation": 20, "test": N_TEST}
TRAINED, UNTRAINED = Path("artifacts/evaluator"), Path("untrained")


def picture(color: int, side: int, g: torch.Generator) -> Tensor:
    """A square of one of three colours left or right of the middle, on grey, with a little noise: (SIZE, SIZE, 3)."""
    pixels = torch.randint(100, 140, (SIZE, SIZE, 3), generator=g, dtype=torch.uint8)
    x = 2 + 7 * side
    pixels[5:11, x : x + 5] = 10
    pixels[5:11, x : x + 5, color] = 240
    return pixels


def write_pictures(folder: Path) -> None:
    """Captioned and labelled pictures of all splits."""
    g, records = torch.Generator().manual_seed(0), []
    folder.mkdir()
    for split, n in SPLITS.items():
        for i in range(n):
            color, side = (int(torch.randint(0, k, (1,), generator=g)) for k in (3, 2))
            name = f"{split[:2]}{i:03d}.png"
            Image.fromarray(picture(color, side, g).numpy()).save(folder / name)
            text = f"a {COLORS[color]} square on the {SIDES[side]}"
            record = {"file_name": name, "text": text, "split": split, "color": COLORS[color], "side": SIDES[side]}
            records.append(json.dumps(record))
    (folder / "metadata.jsonl").write_text("\n".join(records))


def write_judges(folder: Path, data: Prepared, steps: int) -> None:
    """As train_evaluator writes them, after so many steps."""
    splits = {name: data.split(name) for name in data.info.splits}
    with seeded(0, "evaluator"):
        context = TrainingContext(32, 0, "fp32", CPU)
        made = make_judges(data.info, splits, networks.tower(), networks.captions(), context)
    for judge in made.each.values():
        optimizer = torch.optim.Adam(judge.network.parameters(), lr=3e-3)
        for step in range(steps):
            optimizer.zero_grad()
            judge.loss(step, slice(0, 32))["loss"].backward()
            optimizer.step()
    spec = networks.classifier([len(head.classes) for head in data.info.heads])
    heads = [{"name": head.name, "classes": list(head.classes)} for head in data.info.heads]
    config = {"kind": "classifier", **spec.model_dump(), "heads": heads, "accuracy": {}}
    config["sizes"] = cast(Any, made.each["a"].network).sizes.model_dump()
    modules = torch.nn.ModuleDict({name: made.each[name].network for name in JUDGES})
    write_network(folder, WEIGHTS, modules, config, {"inputs": {}})
    write_json(folder / PROVENANCE, provenance("data/prepared"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/prepared, artifacts/evaluator (trained), untrained (not), and random pipelines text, class and none."""
    root = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_pictures(root / "raw")
        source = CaptionedFolder(str(root / "raw"), None, ("color", "side"))
        prepare(source, "data/prepared", preparation(image_size=SIZE))
        data = Prepared.open("data/prepared")
        write_judges(TRAINED, data, 60)
        write_judges(UNTRAINED, data, 0)
        for kind in ("text", "class", "none"):
            shutil.copytree(pipelines.assembled(tmp_path_factory.mktemp(kind), kind=kind), root / kind)
    return root


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, linked into an empty folder, the current one."""
    for entry in made.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_THREADS", str(torch.get_num_threads()))
    monkeypatch.setenv("DARKROOM_DETERMINISTIC", "0")
    yield tmp_path
    assert not list(tmp_path.rglob(".*.partial"))


def figures(folder: str) -> Any:
    return json.loads((Path(folder) / "evaluation.json").read_text())


def said(folder: str, about: str) -> str:
    """All caveats on one thing."""
    return " | ".join(one["said"] for one in figures(folder)["caveats"] if one["about"] == about)


def real_pictures(split: str, n: int) -> tuple[list[Image.Image], list[str]]:
    data = Prepared.open("data/prepared").split(split)
    images = data.images(list(range(n)))
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images], data.captions[:n]


def write_folder(folder: str, pictures: list[Image.Image], captions: list[str] | None = None) -> None:
    Path(folder).mkdir()
    for i, one in enumerate(pictures):
        one.save(Path(folder, f"{i:03d}.png"))
        if captions:
            Path(folder, f"{i:03d}.txt").write_text(captions[i])


def test_a_pipeline_gets_the_figures_that_the_stage_gives_it(place: Path, run: Run, capsys: Said) -> None:
    """Of a whole split; catches another seed, order or reference than evaluate has. Twice the same, to the byte."""
    assert run("evaluate", "text", "--out", "out", "-n", "1000") == 0
    printed = capsys.readouterr().out
    data, judges = Prepared.open("data/prepared"), Judges(read_judges(TRAINED, CPU), 0, 1000)
    drawn = draw(kept_pipeline(Path("text")), data.split("test"), 1000, 0, 128, Shards())
    validity = judges.validity({name: data.split(name) for name in data.info.splits})
    assert validity.valid, validity.reason
    captions = {*map(normalised, data.split("train").captions)}
    alignment = judges.alignment(drawn, "test", captions, validity)
    fidelity = judges.fidelity(drawn, data.split("train"), validity)
    found = figures("out")
    assert found["alignment"]["test"] == as_json(alignment.figures)
    assert found["fidelity"] == as_json(fidelity.figures)
    assert {**fidelity.withheld, **alignment.withheld}.items() <= found["withheld"].items()
    assert found["sampling"]["num_inference_steps"] == 4
    assert found["judged_with"] == provenance("data/prepared", TRAINED)["inputs"]
    assert f"text: {N_TEST} pictures drawn, against data/prepared, split test" in printed
    rows = {line.split()[0]: line.split() for line in printed.splitlines() if line.startswith("  ")}
    exact, chance = alignment.figures["exact_match"], alignment.figures["chance"]["exact_match"]
    real = validity.real["test"]["exact_match"].value
    assert rows["test.exact_match"][1] == f"{exact.value:.3g}"
    assert rows["test.exact_match"][-2:] == [f"{chance:.3g}", f"{real:.3g}"]
    for sheet in ("samples.png", "neighbours.png"):
        with Image.open(Path("out", sheet)) as opened:
            assert min(opened.size) > 100
    again = (place / "out" / "evaluation.json").read_bytes()
    assert run("evaluate", "text", "--out", "again", "-n", "1000") == 0
    assert (place / "again" / "evaluation.json").read_bytes() == again


def test_sampling_is_as_asked_for(place: Path, run: Run) -> None:
    assert run("evaluate", "text", "-n", "8", "--steps", "2", "--sampler", "ddpm", "--guidance-scale", "1.5") == 0
    sampling = figures("evaluations/text")["sampling"]
    assert (sampling["num_inference_steps"], sampling["guidance_scale"]) == (2, 1.5)
    assert sampling["sampler"]["kind"] == "ddpm"


def test_a_folder_of_diffusers_is_judged_at_the_size_of_the_data(
    place: Path, run: Run, capsys: Said, diffusers: Any, transformers: Any
) -> None:
    """Made by diffusers and transformers alone, at 32 pixels where the data have 16."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.train(["a red square on the left", "a blue square on the right"], 530, 12)
    tokenizer.write(place / "tokens")
    theirs = transformers.CLIPTokenizer.from_pretrained(place / "tokens", local_files_only=True)
    text = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer.vocab),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=theirs.bos_token_id,
        eos_token_id=theirs.eos_token_id,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        sample_size=32,
    )
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=theirs,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(place / "made-elsewhere")
    assert run("evaluate", "made-elsewhere", "-n", "40", "--steps", "2", "--out", "out") == 0
    printed = capsys.readouterr().out
    assert "40 of 40 pictures are not 16 x 16 as the data (32 x 32: 40)" in said("out", "size")
    assert "- size: 40 of 40 pictures" in printed
    found = figures("out")
    assert found["alignment"]["test"]["exact_match"]["n"] == 40
    assert "more pictures than features" in said("out", "fidelity.fid") or "fidelity.fid" in found["withheld"]


def test_captioned_pictures_are_judged_by_their_captions(place: Path, run: Run) -> None:
    """Real ones are right, and those of others' captions are not; catches captions that slip from their pictures."""
    pictures, captions = real_pictures("test", 60)
    write_folder("right", pictures, captions)
    write_folder("wrong", pictures, [*captions[30:], *captions[:30]])
    assert run("evaluate", "right", "--out", "out") == 0
    assert figures("out")["alignment"]["test"]["exact_match"]["value"] > 0.95
    assert "captions" not in [one["about"] for one in figures("out")["caveats"]]
    assert run("evaluate", "wrong", "--out", "out2") == 0
    alike = [one == other for one, other in zip(captions, [*captions[30:], *captions[:30]], strict=True)]
    assert figures("out2")["alignment"]["test"]["exact_match"]["value"] == pytest.approx(np.mean(alike), abs=0.05)


def test_captions_that_the_data_do_not_have_are_not_counted_as_drawn(place: Path, run: Run, capsys: Said) -> None:
    """No label says what they ask for; catches a ✓ for a caption that nobody can check."""
    pictures, captions = real_pictures("test", 40)
    write_folder("drawn", pictures, [*captions[:20], *(f"a photo of cat {i}" for i in range(20))])
    Path("drawn/005.txt").unlink()
    Path("drawn/astray.txt").write_text("a caption of nothing")
    assert run("evaluate", "drawn", "--out", "out") == 0
    found = figures("out")
    assert found["alignment"]["test"]["exact_match"]["n"] == 19
    assert found["subject"] == {"kind": "pictures", "pictures": 40, "asked": 19}
    assert "20 of 39 captions stand nowhere in the data" in said("out", "alignment")
    assert "1 picture without one, judged by distances alone: 005.png: no caption" in said("out", "captions")
    assert "astray.txt" in said("out", "captions")


def test_pictures_of_other_sizes_and_kinds_are_read_or_counted(place: Path, run: Run, capsys: Said) -> None:
    """None is lost silently: small, large, oblong, grey, transparent, torn and of a format that is not read."""
    pictures, _ = real_pictures("test", 30)
    changed = [
        *(one.resize((40, 24)) for one in pictures[:8]),
        *(one.resize((8, 8)) for one in pictures[8:12]),
        *(one.convert("L") for one in pictures[12:18]),
        *(one.convert("RGBA") for one in pictures[18:]),
    ]
    write_folder("drawn", changed)
    Path("drawn/torn.png").write_bytes(Path("drawn/000.png").read_bytes()[:90])
    Path("drawn/empty.jpg").touch()
    Path("drawn/photo.heic").write_bytes(b"x")
    assert run("evaluate", "drawn", "--out", "out") == 0
    printed = capsys.readouterr().out
    assert "12 of 30 pictures are not 16 x 16 as the data (8 x 8: 4; 40 x 24: 8)" in said("out", "size")
    assert "4 were smaller" in said("out", "size")
    assert "6 of 30 pictures have no colours" in said("out", "colours")
    assert "3 pictures that cannot be read, left out" in said("out", "files")
    for name in ("torn.png", "empty.jpg: empty file", "photo.heic"):
        assert name in said("out", "files")
    assert "have no captions beside them" in said("out", "alignment")
    assert figures("out")["alignment"]["test"] == {}
    assert "  test.exact_match" not in printed
    for one in figures("out")["caveats"]:
        assert f"- {one['about']}: {one['said']}" in printed


def test_copies_of_training_pictures_are_told(place: Path, run: Run) -> None:
    pictures, captions = real_pictures("train", 60)
    write_folder("copied", [*pictures, pictures[0]], [*captions, captions[0]])
    assert run("evaluate", "copied", "--out", "out") == 0
    memory = figures("out")["memorisation"]
    assert (memory["equal_to_training"], memory["equal_to_another"]) == (61, 1)
    assert memory["authentic"]["value"] == 0 < memory["real"]["authentic"]
    assert memory["c_t"]["high"] < -3


def test_without_judges_it_says_what_is_not_known(place: Path, run: Run, capsys: Said) -> None:
    (place / "artifacts").unlink()
    assert run("evaluate", "text", "-n", "6", "--out", "out") == 0
    assert "artifacts/evaluator: no judges are there" in said("out", "alignment, fidelity, memorisation")
    assert (place / "out" / "samples.png").is_file()
    assert not (place / "out" / "neighbours.png").exists()
    assert figures("out")["memorisation"] == {"equal_to_training": 0, "equal_to_another": 0}


def test_judges_that_read_nothing_are_not_believed(place: Path, run: Run) -> None:
    assert run("evaluate", "text", "-n", "6", "--judges", "untrained", "--out", "out") == 0
    found = figures("out")
    assert not found["evaluator"]["valid"]
    assert found["alignment"]["test"] == found["fidelity"] == {}
    assert any("does not clear chance on real test pictures" in one["said"] for one in found["caveats"])


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("none", "the pipeline takes no prompts"), ("class", "the data have none of the pipeline's classes")],
)
def test_a_pipeline_that_cannot_be_asked_is_judged_by_distance(place: Path, run: Run, kind: str, reason: str) -> None:
    assert run("evaluate", kind, "-n", "12", "--out", "out") == 0
    assert reason in said("out", "alignment")
    assert figures("out")["alignment"]["test"] == {}
    assert figures("out")["fidelity"]["n_generated"] == 12


REFUSED = {
    "nothing": (["nowhere"], "nowhere: nothing is there; give a pipeline's folder or a folder of pictures"),
    "no model": (["blank"], "blank: holds neither pipeline.json nor model_index.json"),
    "no data": (["text", "--data", "blank"], "blank/dataset.json: "),
    "split": (["text", "--split", "tset"], "--split = tset: data/prepared: has no split 'tset'; it has"),
    "training pictures": (["text", "--split", "train"], "--split = train: figures compare with held-out pictures"),
    "judges": (["text", "--judges", "blank"], "blank/config.json"),
    "no judges": (["text", "--judges", "nowhere"], "--judges = nowhere: no judges are there; train some"),
    "sampler": (["text", "--sampler", "dpmp"], "sampler"),
    "drawn already": (["raw", "--steps", "3"], "raw: is a folder of pictures, for which nothing is drawn; leave out"),
    "out in target": (["raw", "--out", "raw/out"], "--out = raw/out: lies in TARGET, raw; give another folder"),
    "out in data": (["raw", "--out", "data/prepared/x"], "--out = data/prepared/x: lies in --data, data/prepared"),
    "out a file": (["text", "--out", "afile"], "--out = afile/evaluation.json: afile is a file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_before_anything_is_drawn(
    place: Path, run: Run, capsys: Said, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    arguments, expected = REFUSED[case]
    Path("blank").mkdir()
    Path("afile").touch()

    def drawn(*_: Any, **__: Any) -> None:
        raise AssertionError("was drawn")

    monkeypatch.setattr(Pipeline, "drawn", drawn)
    assert run("evaluate", *arguments) == 1
    error = capsys.readouterr().err.strip()
    assert expected in error
    assert len(error.splitlines()) == 1
    assert not Path("evaluations").exists()
