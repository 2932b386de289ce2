"""prepare_data.buckets: what is wrong with it is said in one line that names the key, the value and the remedy."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from darkroom.config.params import problems, read
from tests.support.recipe import merged

ROOT = Path(__file__).parents[2]
FAULTS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a number": (
        5,
        {},
        "buckets = 5: give a list of 1 to 64, each a list of 2, each a whole number >= 8 and <= 4096, or",
    ),
    "one side": ([[64]], {}, "prepare_data.buckets.0"),
    "a side of no pixels": ([[64, 0]], {}, "prepare_data.buckets.0.1 = 0"),
    "twice": ([[64, 64], [64, 64]], {}, "buckets lists [64, 64] twice; list it once"),
    "a misspelt key": (
        {"area": 4096, "steps": 8, "max_aspect": 2},
        {},
        "buckets.steps = 8 is an unknown key; did you mean",
    ),
    "no room": (
        {"area": 100, "step": 16, "max_aspect": 2.0},
        {},
        "area = 100 has no room for 16 x 16 pixels; lower step",
    ),
    "too many": ({"area": 10**6, "step": 8, "max_aspect": 4.0}, {}, "buckets, above 64; raise it, or lower max_aspect"),
    "sides that do not divide": ([[64, 64], [62, 66]], {}, "prepare_data.buckets: side = 62 is not divisible by"),
    "latents that do not divide": (
        [[64, 64], [56, 72]],
        {},
        "divisible by 4, not 14, the latents' side; give other prepare_data.buckets",
    ),
    "drawn squares": (
        [[64, 64]],
        {"prepare_data": {"source": {"kind": "scenes", "n_train": 9, "n_validation": 9, "n_test": 9, "n_novel": 1}}},
        "buckets are not for scenes, which are drawn as squares of image_size; give null",
    ),
    "a network of one side": (
        [[64, 64]],
        {"train_unet": {"unet": {"kind": "layer_norm_unet"}}},
        "train_unet.unet.kind = 'layer_norm_unet' takes squares of one side alone; give null, or another network",
    ),
}


def said_of(buckets: Any, changes: dict[str, Any], tmp_path: Path) -> list[str]:
    values = merged(read(ROOT / "recipes" / "captioned.yaml"), {})
    for section, keys in changes.items():
        values[section] = {**values[section], **keys}
    values["prepare_data"]["buckets"] = buckets
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return problems(file)


@pytest.mark.parametrize(("buckets", "changes", "words"), FAULTS.values(), ids=list(FAULTS))
def test_what_is_wrong_with_buckets_is_said(buckets: Any, changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    """Catches a fault that another member of the union is blamed for, and sides that a later stage would refuse."""
    said = said_of(buckets, changes, tmp_path)
    assert said
    assert words in said[0]
    assert all("\n" not in line for line in said)


@pytest.mark.parametrize("buckets", [None, [[64, 64], [48, 80]], {"area": 4096, "step": 16, "max_aspect": 2}])
def test_sound_buckets_are_taken(buckets: Any, tmp_path: Path) -> None:
    assert said_of(buckets, {}, tmp_path) == []
