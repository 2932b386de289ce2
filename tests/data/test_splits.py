"""How people name their splits. Catches held-out pictures that become training pictures or classes in silence, and
classes that become splits."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.core.errors import DarkroomError
from darkroom.data.sources.base import Sample
from darkroom.data.sources.captioned_folder import CaptionedFolder
from darkroom.data.sources.image_folder import ImageFolder
from darkroom.data.sources.splits import WORDS, of_pictures, of_shards, read_name
from darkroom.data.sources.webdataset import WebDataset

NAMES = {
    "train": "train",
    "Training": "train",
    "TRAIN": "train",
    "training_set": "train",
    "trainset": "train",
    "TrainingSet": "train",
    "imgs_train": "train",
    "train2017": "train",
    "cc3m-train-0000": "train",
    "val": "validation",
    "val2017": "validation",
    "coco_val2014": "validation",
    "2017_val": "validation",
    "valid": "validation",
    "Validation Images": "validation",
    "dev": "validation",
    "set.dev.03": "validation",
    "Test-Images": "test",
    "testImages": "test",
    "testing (2)": "test",
    "eval": "test",
    "novel_01": "novel",
    "valley": None,
    "devon": None,
    "novelty": None,
    "novels": None,
    "contest": None,
    "trainers": None,
    "latest": None,
    "00000": None,
    "cat": None,
    "": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_name_says(name: str) -> None:
    said = read_name(name)
    assert (said.split, said.several) == (NAMES[name], False)


@pytest.mark.parametrize("name", ["trainval", "train_val", "train-test", "TrainTest2012", "test-dev2017", "valtest"])
def test_two_splits_in_one_name_are_refused(name: str) -> None:
    assert read_name(name).several
    for pictures in ([f"{name}/a.png", f"{name}/b.png"], [f"train/{name}x/a.png", f"{name}/b.png"]):
        with pytest.raises(DarkroomError, match="more than one split in the name of a folder"):
            of_pictures("set", pictures, classes=False)
    with pytest.raises(DarkroomError, match="more than one split in the name of a shard"):
        of_shards("set", [f"{name}-000.tar", "train-000.tar"])


@given(
    st.sampled_from(sorted(WORDS)),
    st.sampled_from([str, str.upper, str.title]),
    st.sampled_from(["{}", "{}-0001", "{}_17", "set {}", "{}.images", "2017{}", "{}2017", "{} (3)", "imgs-{}"]),
)
@settings(max_examples=200, derandomize=True, deadline=None)
def test_every_word_in_every_dress(word: str, case: Callable[[str], str], dress: str) -> None:
    """For shards, folders and files alike."""
    name, split = dress.format(case(word)), WORDS[word]
    other = "test-9" if split == "train" else "train-9"
    assert read_name(name).split == split
    assert of_shards("set", [f"{name}.tar", f"{other}.tar"])[f"{name}.tar"] == split
    for pictures in ([f"{name}/a.png", f"{other}/a.png"], [f"cat/{name}/a.png", f"dog/{other}/a.png"]):
        assert of_pictures("set", pictures, classes=True)[0][pictures[0]] == split
    assert of_pictures("set", [f"{name}.png", f"{other}.png"], classes=False)[0][f"{name}.png"] == split
    for found in (
        lambda: of_shards("set", [f"{name}.tar", "00000.tar"]),
        lambda: of_pictures("set", [f"{name}/a.png", "beaker/a.png"], classes=True),
        lambda: of_pictures("set", [f"{name}_1.png", "beaker_1.png"], classes=False),
    ):
        with pytest.raises(DarkroomError, match=r"say a split: .*, but others do not: .*"):
            found()


@pytest.mark.parametrize(
    "folders",
    [
        ("test tube", "beaker"),
        ("training_shoes", "boots"),
        ("training_shoes",),
        ("test tube", "training shoes"),
        ("train", "car", "bus"),
        ("novel", "poetry"),
        ("train", "test tube"),
    ],
)
def test_classes_that_may_be_splits_are_refused_and_the_remedy_works(folders: tuple[str, ...]) -> None:
    pictures = [f"{folder}/{i}.png" for folder in folders for i in range(2)]
    with pytest.raises(DarkroomError, match="move all of it into one folder called train"):
        of_pictures("set", pictures, classes=True)
    splits, depth = of_pictures("set", [f"train/{picture}" for picture in pictures], classes=True)
    assert (set(splits.values()), depth) == ({"train"}, 0)


def test_classes_that_are_none_of_these_are_left_alone() -> None:
    pictures = [f"{name}/a.png" for name in ("valley", "devon", "novelty", "trainers", "contest")]
    assert of_pictures("set", pictures, classes=True) == (dict.fromkeys(pictures), None)
    photos = ["old steam train.jpg", "a test of strength.jpg", "cat.jpg"]
    assert set(of_pictures("set", photos, classes=False)[0].values()) == {None}


@pytest.mark.parametrize(
    "layout",
    ["{split}/cat/{i}.png", "images/{split}2017/cat/{i}.png", "cat/{split}/{i}.png", "coco_{split}/cat/{i}.png"],
)
def test_splits_at_any_depth(layout: str, folder: Path) -> None:
    """Catches `images/` taken for a class, with its test pictures in training."""
    for i, split in enumerate(("train", "val", "test")):
        path = folder / layout.format(split=split, i=i)
        path.parent.mkdir(parents=True)
        path.touch()
    source = ImageFolder("set", "{label}")
    assert source.classes == ("cat",)
    assert [item.split for item in source if isinstance(item, Sample)] == ["test", "validation", "train"]
    for path in folder.rglob("*.png"):
        path.with_suffix(".txt").write_text("x")
    assert [item.split for item in CaptionedFolder("set") if isinstance(item, Sample)] == [
        "test",
        "validation",
        "train",
    ]


def test_nothing_left_to_train_on_is_said() -> None:
    for found in (
        lambda: of_pictures("set", ["test/a.png"], classes=False),
        lambda: of_pictures("set", ["test_1.png", "val_1.png"], classes=False),
        lambda: of_shards("set", ["test-0.tar", "val-0.tar"]),
    ):
        with pytest.raises(DarkroomError, match="none is left to train on"):
            found()


@pytest.mark.parametrize(
    "shards",
    [
        ("train.tar", "val.tar", "test.tar"),
        ("cc3m-train-0000.tar", "cc3m-val-0000.tar", "cc3m-test-0000.tar"),
        ("train_000.tar", "dev/x.tar", "Testing2.tar"),
        ("a/TRAIN/0.tar", "a/valid/0.tar", "a/eval/0.tar"),
    ],
)
def test_shards(shards: tuple[str, ...]) -> None:
    """Catches test shards that go into training."""
    assert list(of_shards("set", shards).values()) == ["test", "validation", "train"]
    assert set(of_shards("set", shards)) == set(shards)


@pytest.mark.parametrize(
    ("shard", "members"),
    [
        ("00000.tar", ("train/0.png", "val/0.png")),
        ("00000.tar", ("train_0.png", "test_0.png")),
        ("train-0.tar", ("train/0.png", "test/0.png")),
    ],
)
def test_splits_within_a_shard_are_refused(
    shard: str, members: tuple[str, ...], folder: Path, tar_of: Callable[..., None]
) -> None:
    """Catches an archive of a whole data set, all of it taken for training."""
    tar_of(folder / shard, members)
    with pytest.raises(DarkroomError, match=r"its pictures are of several splits \(.*; pack a shard for each"):
        _ = WebDataset("set").description
