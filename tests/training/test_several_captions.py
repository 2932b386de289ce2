"""Pictures with several captions: encoded once, shown with the caption that is asked for, with or without some tags."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from darkroom.config.sections import CaptionChoice
from darkroom.config.text_encoder import CaptionDropout
from darkroom.data.caption_variants import longest_of, variants_of, with_variants
from darkroom.data.conditioning import Captions, Conditioning
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Prepared
from darkroom.data.sources.captioned_folder import CaptionedFolder
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.distributed import CPU
from darkroom.training.latent_batches import LatentBatches
from darkroom.training.latent_shards import Pictures
from tests.support.settings import preparation
from tests.support.shapes import write_shapes
from tests.support.worlds import World

CAPTIONS = 3
BATCH = 8
DROPS = {"unit": "tags", "probability": 0.5, "keep_first": 1, "seed": 0, "variants": 6}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """70 pictures with three captions each, of which every second one stands twice in the folder."""
    folder = tmp_path_factory.mktemp("captioned")
    write_shapes(folder / "raw", 70, CAPTIONS)
    for i in range(0, 70, 2):
        (folder / "raw" / f"{i:04d}.png.copy.png").write_bytes((folder / "raw" / f"{i:04d}.png").read_bytes())
        (folder / "raw" / f"{i:04d}.png.copy.txt").write_text(f"copy {i}")
    how = preparation(repeats="merge_captions", test_fraction=0.2, validation_fraction=0.2, max_bad_fraction=0.5)
    prepare(CaptionedFolder(str(folder / "raw")), folder / "prepared", how)
    return Prepared.open(folder / "prepared")


def test_rows_of_one_picture_are_known_wherever_they_stand(data: Prepared) -> None:
    """Catches captions of a repeat, which come last, that are counted as another picture's."""
    for name, rows in data.info.splits.items():
        split = data.split(name)
        pictures = split.pictures
        assert pictures is not None
        assert len(pictures) == rows
        images = split.images().flatten(1)
        for row, picture in enumerate(pictures.tolist()):
            first = int((pictures == picture).nonzero()[0])
            assert torch.equal(images[row], images[first])
        firsts = split.first_rows
        assert len(firsts) == len(images.unique(dim=0)) == int(pictures.max()) + 1
        assert firsts.tolist() == sorted(firsts.tolist())
    assert data.info.pictures.repeats_within_splits == 35


def test_a_picture_is_encoded_once_whatever_the_number_of_its_captions(data: Prepared) -> None:
    pictures = Pictures.of(data.root, "train", mirrored=True)
    split = data.split("train")
    assert pictures.n < len(split) // CAPTIONS + 1
    assert len(pictures) == 2 * pictures.n
    rows = torch.arange(pictures.n)
    assert torch.equal(pictures(rows), split.images(split.first_rows))
    assert torch.equal(pictures(rows + pictures.n), pictures(rows).flip(3))


def test_one_caption_a_picture_leaves_no_trace(tmp_path: Path) -> None:
    """Catches a file that would change the bytes of data without several captions."""
    write_shapes(tmp_path / "raw", 30, 1)
    prepare(CaptionedFolder(str(tmp_path / "raw")), tmp_path / "out", preparation(validation_fraction=0.3))
    assert not (tmp_path / "out" / "pictures.npz").exists()
    assert Prepared.open(tmp_path / "out").split("train").pictures is None


class Several(World):
    """24 latents of which latent i has 1 + i % 3 captions, all of them different."""

    counts = torch.tensor([1 + i % 3 for i in range(24)])

    def conditioning(self) -> Conditioning:
        base = super().conditioning()
        pictures = torch.arange(24).repeat_interleave(self.counts)
        n = len(pictures)
        index: dict[str, Tensor] = {}
        for split in ("train", "validation"):
            index |= {split: torch.arange(n), f"{split}/pictures": pictures}
            index |= {f"{split}/longest": self.counts.cumsum(0) - 1}
        assert base.null is not None
        return Conditioning(base.info, index, torch.arange(n).float().view(-1, 1, 1).expand(n, 4, 16).half(), base.null)


def batches_of(choice: CaptionChoice, world: type[World] = Several) -> LatentBatches:
    data = world("text", TrainingContext(BATCH, 0, "fp32", CPU)).task(condition_dropout=0.0).data
    return replace(data, captions=choice)


def drawn(data: LatentBatches, step: int, rows: slice = slice(0, BATCH)) -> tuple[list[int], list[int]]:
    """(latents, captions) of a step."""
    batch = data.training_batch(step, rows, lambda n, g: torch.rand(n, generator=g))
    return batch["mean"].tolist(), batch["condition"].tolist()


@pytest.mark.parametrize("choice", get_args(CaptionChoice))
def test_a_latent_is_shown_with_captions_of_its_own(choice: CaptionChoice) -> None:
    """Catches the caption of another picture, one that never comes, and pictures that count otherwise than asked."""
    data, firsts = batches_of(choice), (Several.counts.cumsum(0) - Several.counts).tolist()
    seen: dict[int, set[int]] = {}
    times = torch.zeros(24)
    for step in range(48):
        for latent, caption in zip(*drawn(data, step), strict=True):
            seen.setdefault(latent, set()).add(caption - firsts[latent])
            times[latent] += 1
    for latent, captions in seen.items():
        count = int(Several.counts[latent])
        wanted = {"first": {0}, "longest": {count - 1}}.get(choice, set(range(count)))
        assert captions == wanted, latent
    expected = Several.counts if choice == "each" else torch.ones(24)
    assert torch.allclose(times / times.sum(), expected / expected.sum(), atol=0.01)


def test_a_random_caption_is_a_function_of_step_and_place() -> None:
    """Catches captions drawn for the rows a process asks for, or from a generator with a state."""
    data = batches_of("random")
    whole = drawn(data, 5)
    parts = [drawn(batches_of("random"), 5, rows) for rows in (slice(0, 3), slice(3, BATCH))]
    assert tuple(parts[0][i] + parts[1][i] for i in (0, 1)) == whole
    held_out = [batch["condition"].tolist() for batch in data.held_out_batches(lambda n, g: torch.rand(n, generator=g))]
    again = [batch["condition"].tolist() for batch in data.held_out_batches(lambda n, g: torch.rand(n, generator=g))]
    assert held_out == again


def test_with_one_caption_a_picture_every_choice_draws_the_same_numbers() -> None:
    """Catches a default run whose bytes hang on a choice that it has no use for."""
    batches = []
    for choice in get_args(CaptionChoice):
        data = batches_of(choice, World)
        batches.append(data.training_batch(3, slice(0, BATCH), lambda n, g: torch.rand(n, generator=g)))
    for other in batches[1:]:
        assert other.tensors.keys() == batches[0].tensors.keys()
        assert all(torch.equal(other[name], values) for name, values in batches[0].tensors.items())


@pytest.mark.parametrize(
    ("unit", "caption", "joint"),
    [("tags", "a dog, grass, sun , 4k", ", "), ("sentences", "A dog. It runs! Why? Sun", " ")],
)
def test_variants_lack_some_units_and_keep_the_first(unit: Any, caption: str, joint: str) -> None:
    drops = CaptionDropout.model_validate({**DROPS, "unit": unit, "variants": 64})
    found = variants_of(caption, drops)
    assert found == variants_of(caption, drops)
    assert found != variants_of(caption, drops.model_copy(update={"seed": 1}))
    whole = [part.strip() for part in caption.split(",")] if unit == "tags" else ["A dog.", "It runs!", "Why?", "Sun"]
    kept = [[unit for unit in whole if unit in variant] for variant in found]
    assert all(variant in (joint.join(units), caption) for variant, units in zip(found, kept, strict=True))
    assert all(units[0] == whole[0] for units in kept)
    shares = [np.mean([unit in units for units in kept]) for unit in whole[1:]]
    assert all(0.3 < share < 0.7 for share in shares)


def test_something_stays_of_a_caption() -> None:
    """Catches a caption that becomes the empty one, which condition_dropout is there for."""
    drops = CaptionDropout.model_validate({**DROPS, "probability": 0.99, "keep_first": 0, "variants": 64})
    assert all(variants_of("one, two, three", drops))
    assert {*variants_of("one, two, three", drops)} == {"one", "two", "three"}
    assert {*variants_of("alone", drops)} == {"alone"}


def test_variants_are_cached_for_training_captions_alone() -> None:
    """Catches held-out captions that change, and rows that lead to a variant of another caption."""
    texts, index = pa.array(["a, b, c", "d, e", "f"], pa.large_string()), {"train": [2, 0, 0], "validation": [1, 0]}
    drops = CaptionDropout.model_validate(DROPS)
    numbers = {name: torch.tensor(rows) for name, rows in index.items()}
    found, rows = with_variants(texts, numbers, drops)
    words = found.to_pylist()
    assert words == sorted(set(words))
    assert rows["train"].shape == (3, DROPS["variants"])
    for row, caption in enumerate(index["train"]):
        assert [words[i] for i in rows["train"][row].tolist()] == variants_of(texts[caption].as_py(), drops)
    assert [words[i] for i in rows["validation"].tolist()] == ["d, e", "a, b, c"]


def test_every_variant_is_drawn() -> None:
    data = batches_of("each", World)
    index = data.conditioning.index
    index["train"] = torch.arange(24)[:, None] % 2 + torch.tensor([[0, 2]])
    seen: set[tuple[int, int]] = set()
    for step in range(24):
        latents, captions = drawn(data, step)
        seen |= set(zip(latents, captions, strict=True))
    assert seen == {(i, i % 2 + k) for i in range(24) for k in (0, 2)}


def test_the_longest_caption_of_each_picture() -> None:
    captions = pa.chunked_array([["aa", "a", "b"], ["bbb", "ccc", "ddd"]])
    assert longest_of(captions, torch.tensor([0, 0, 1, 1, 2, 2])).tolist() == [0, 3, 4]
    found = Captions.of(torch.tensor([0, 1, 0]), None)
    assert found.row(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])).tolist() == [0, 2, 1]
    assert found.at(torch.tensor([0, 0]), torch.tensor([0.49, 0.999])).tolist() == [0, 2]


def test_the_stages_make_one_latent_a_picture_and_a_caption_for_each_row(
    data: Prepared, load: Callable[[Path], ModuleType]
) -> None:
    """What the stages write is read together: every row of the conditions has a latent."""
    module = load(Path(__file__).parents[2] / "stages" / "setup_text_encoder.py")
    splits = {name: data.split(name) for name in ("train", "validation")}
    index = {**module._pictures(splits), **module._longest(splits)}
    for name, split in splits.items():
        pictures = split.pictures
        assert pictures is not None
        assert index[f"{name}/pictures"].tolist() == pictures.tolist()
        longest = index[f"{name}/longest"].tolist()
        assert len(longest) == Pictures.of(data.root, name, mirrored=False).n
        lengths = [len(caption) for caption in split.captions]
        for picture, row in enumerate(longest):
            rows = (pictures == picture).nonzero().flatten().tolist()
            assert row in rows
            assert lengths[row] == max(lengths[i] for i in rows)
