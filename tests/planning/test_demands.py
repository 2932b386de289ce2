"""What later stages ask of the data is said before they work: each test holds one demand that once was met too late.

Faults caught: six stages that ran before the seventh found too few pictures; sizes that were clipped without a word;
captions and words that were cut without a word; conditions that the data do not have.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from darkroom.config.merging import complete_text
from darkroom.config.params import Params
from darkroom.core.errors import DarkroomError
from darkroom.data.head import Head
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Prepared
from darkroom.data.prepared_writer import PreparedWriter, Row
from darkroom.data.sources.captioned_folder import CaptionedFolder
from darkroom.data.sources.scenes import Scenes
from darkroom.planning import demands
from tests.support.settings import preparation
from tests.support.shapes import write_shapes

RECIPES = Path(__file__).parents[2] / "recipes"
DIGITS = ("zero", "one", "two")
SPLITS = {"train": 40, "validation": 8, "test": 24}


def params(recipe: str = "scenes", changes: Mapping[str, Any] | None = None) -> Params:
    """A recipe with {"section.key": value} changed."""
    values = yaml.safe_load(complete_text(RECIPES / f"{recipe}.yaml"))
    for key, value in (changes or {}).items():
        *sections, last = key.split(".")
        inner = values
        for name in sections:
            inner = inner[name]
        assert last in inner
        inner[last] = value
    return Params.model_validate(values)


def write(
    splits: Mapping[str, int],
    captions: Sequence[str] = ("a red ring", "two blue squares"),
    labels: Sequence[int] = (),
    root: Path = Path("data/prepared"),
    channels: int = 3,
) -> Prepared:
    """Data in the folder `root`: picture i has caption and label i, again from the first after the last."""
    heads = (Head("label", DIGITS),) if labels else ()
    writer = PreparedWriter(root, "captioned_folder", heads, any(captions), 32, channels)
    shape = (32, 32, channels) if channels > 1 else (32, 32)
    for split, n in splits.items():
        for i in range(n):
            known = ((labels[i % len(labels)],), (True,)) if labels else ((), ())
            caption = captions[i % len(captions)]
            writer.add(split, Row(np.full(shape, i % 256, np.uint8), f"{split}{i}.png", caption, *known))
    writer.finish()
    return Prepared.open(root)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def remarks(p: Params, data: Prepared) -> dict[str, str]:
    return demands.met(p, data)


def test_sizes_above_what_the_splits_have_are_remarks_that_say_what_is_used() -> None:
    found = remarks(params(changes={"setup_text_encoder.hard_negatives": None}), write(SPLITS))
    assert found["train_unet.held_out"] == "1000 asked; the validation split has 8; all are used"
    assert found["train_unet.samples"] == "16 asked; the validation split has 8; all are used"
    assert found["evaluate.n_test"] == "2000 asked; the test split has 24; all are used"
    assert found["evaluate.n_novel"] == "500 asked; the data have no split novel, so nothing is drawn of it; give 0"
    for section in ("setup_text_encoder", "train_unet", "train_evaluator"):
        assert "the train split has 40, so pictures stand in a batch more than once" in found[f"{section}.batch_size"]
    assert "train_vae.batch_size" not in found, "16 of 40 is no more than there are"


def test_too_few_test_pictures_for_distances_are_a_remark_before_anything_is_trained() -> None:
    base = {"setup_text_encoder.hard_negatives": None}
    few = remarks(params(changes=base), write({**SPLITS, "test": 12}, root=Path("few")))
    assert "has 12; all are used; distances need 20" in few["evaluate.n_test"]
    asked = remarks(params(changes={**base, "evaluate.n_test": 10}), write(SPLITS, root=Path("asked")))
    assert "distances need 20 and are withheld; raise it, the test split has 24" in asked["evaluate.n_test"]


def test_what_fits_is_not_remarked_upon() -> None:
    sizes = {
        "train_unet.held_out": 8,
        "train_unet.samples": 8,
        "train_unet.batch_size": 40,
        "setup_text_encoder.batch_size": 40,
        "setup_text_encoder.hard_negatives": None,
        "train_evaluator.batch_size": 40,
        "evaluate.n_test": 24,
        "evaluate.n_novel": 0,
    }
    assert remarks(params(changes=sizes), write(SPLITS)) == {}


def test_captions_that_are_cut_and_words_in_pieces_are_counted() -> None:
    long = "a word " * 30
    rare = [f"{chr(97 + i % 26)}{chr(97 + i // 26)}xqzw{chr(122 - i % 26)}" for i in range(200)]
    data = write({**SPLITS, "train": 400}, (long.strip(), *rare))
    p = params(
        changes={
            "setup_text_encoder.hard_negatives": None,
            "setup_text_encoder.text.max_length": 8,
            "setup_text_encoder.text.vocab_size": 514,
        }
    )
    found = remarks(p, data)
    assert "longer and are cut, the longest from" in found["setup_text_encoder.text.max_length"]
    assert found["setup_text_encoder.text.vocab_size"].startswith("514 asked; full: ")
    assert found["train_evaluator.text.max_length"].startswith("20 asked; 1 of 201 distinct captions are longer")


FAULTS: dict[str, tuple[str, Mapping[str, Any], dict[str, Any], str]] = {
    "classes without labels": (
        "scenes",
        {},
        {"kind": "class"},
        "kind = 'class': data/prepared has no classes; use clip or none",
    ),
    "a class without a picture": (
        "mnist-score-transformer",
        {"labels": [0, 0, 2]},
        {},
        "kind = 'class': no training picture shows 'one', so it could be asked for and never drawn",
    ),
    "text without captions": (
        "scenes",
        {"captions": [""]},
        {},
        "setup_text_encoder.kind = 'clip': no training picture has a caption; use none",
    ),
    "groups of more captions than there are": (
        "scenes",
        {},
        {},
        "hard_negatives.group_size = 8: there are 2 distinct training captions",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_a_stage_could_not_work_with_is_a_fault(case: str) -> None:
    recipe, data, changes, message = FAULTS[case]
    p = params(recipe)
    if changes:  # past the checks of params alone, as data of a changed folder come
        text_encoder = p.setup_text_encoder.model_copy(update=changes)
        p = p.model_copy(update={"setup_text_encoder": text_encoder})
    with pytest.raises(DarkroomError) as error:
        demands.met(p, write(SPLITS, **data))
    assert message in str(error.value)


def test_every_fault_is_named_at_once() -> None:
    """Preparing large data takes an hour: one fault an attempt would take a day."""
    p = params("sd15-finetune")
    Path("artifacts/imported/sd15/vae").mkdir(parents=True)
    Path("artifacts/imported/sd15/vae/config.json").write_text('{"in_channels": 3}')
    with pytest.raises(
        DarkroomError, match=r"prepare_data\.channels = 1: .* takes 3; .*; also setup_text_encoder\.kind"
    ):
        demands.met(p, write(SPLITS, captions=("",), channels=1))


def test_a_fault_is_told_before_the_data_are_put_in_place(tmp_path: Path) -> None:
    how = preparation(image_size=32, validation_fraction=0.2, test_fraction=0.2, max_bad_fraction=0.0)
    given: list[Prepared] = []

    def refuse(data: Prepared) -> None:
        given.append(data)
        assert len(data.split("train").captions) == 30
        raise DarkroomError("refused")

    with pytest.raises(DarkroomError, match="refused"):
        prepare(Scenes(30, 4, 4, 2, 0, 32), tmp_path / "out", how, check=refuse)
    assert given
    assert list(tmp_path.iterdir()) == []


def test_a_later_stage_asks_for_itself_alone() -> None:
    write(SPLITS)
    changed = params(changes={"setup_text_encoder.hard_negatives": None, "train_unet.held_out": 8})
    data = [Path("data/prepared")]
    assert demands.met_at_start(changed, "train_vae", data) == {}
    assert demands.met_at_start(changed, "train_unet", []) == {}, "it does not read the prepared data"
    assert {key.split(".")[0] for key in demands.met_at_start(changed, "evaluate", data)} == {"evaluate"}
    with pytest.raises(DarkroomError, match="group_size"):
        demands.met_at_start(params(), "setup_text_encoder", data)


def test_params_check_finds_the_same(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    values = yaml.safe_load(complete_text(RECIPES / "scenes.yaml"))
    values["prepare_data"]["source"] = {"kind": "captioned_folder", "root": "birds", "manifest": None, "labels": []}
    values["setup_text_encoder"]["hard_negatives"] = None

    def check() -> tuple[int, str]:
        Path("params.yaml").write_text(yaml.safe_dump(values))
        return run("params", "check"), capsys.readouterr().out

    assert check() == (0, "params.yaml: sound\n"), "nothing is prepared yet"
    write(SPLITS)
    status, said = check()
    assert status == 0
    assert "params.yaml: train_unet.held_out = 1000: the validation split has 8; all are used\n" in said
    assert "params.yaml: sound, " in said
    shutil.rmtree("data")
    write(SPLITS, captions=("",))
    status, said = check()
    assert status == 1
    assert "no training picture has a caption" in said
    values["prepare_data"]["image_size"] = 64
    assert check() == (0, "params.yaml: sound\n"), "data of another size say nothing"


@pytest.mark.parametrize("caption", ["a dog, LEFT of a cat", "left-hand", "ein Hund (rechts)", "it turns clockwise"])
def test_pictures_whose_captions_tell_sides_apart_are_not_mirrored_unless_told(caption: str) -> None:
    """Mirrored, a dog left of a cat is right of it: the caption would teach the opposite."""
    data = write(SPLITS, ("a leftover, bright and upright", caption))
    told = {"setup_text_encoder.hard_negatives": None, "cache_latents.mirror": True}
    with pytest.raises(DarkroomError, match=r"cache_latents\.mirror = True: 20 of 40 training captions tell left from"):
        demands.met(params(changes=told), data)
    assert "cache_latents.mirror" not in demands.met(params(changes={**told, "cache_latents.mirror": "always"}), data)
    harmless = write(SPLITS, ("a leftover, bright and upright",), root=Path("harmless"))
    demands.met(params(changes=told), harmless)


def test_data_of_other_buckets_are_not_what_the_parameters_ask_for(tmp_path: Path) -> None:
    """Catches demands of data that were prepared with buckets by parameters that want other ones."""
    write_shapes(tmp_path / "raw", 60)
    sizes = [[16, 16], [16, 32], [32, 16]]
    how = preparation(buckets=sizes, repeats="merge_captions", validation_fraction=0.2, test_fraction=0.2)
    prepare(CaptionedFolder(str(tmp_path / "raw")), Path("data/prepared"), how)
    here = params("captioned")
    for buckets, same in ((sizes, True), ([*sizes, [8, 32]], True), (sizes[:2], False), ([[24, 24]], False)):
        changed = here.prepare_data.model_copy(update={"image_size": 16, "buckets": buckets})
        assert bool(demands.of_what_is_prepared(here.model_copy(update={"prepare_data": changed}))) is same, buckets
