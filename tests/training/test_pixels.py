"""Pixel-space recipes: latents are the pictures, in the range that the recipe gives them."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from darkroom.config.params import load as params_of
from darkroom.core.artifact import read_json
from darkroom.core.tensors import to_float, to_uint8
from darkroom.data.latents import Latents, read_preview
from darkroom.data.prepared import Prepared
from darkroom.data.prepared_writer import PreparedWriter, Row
from darkroom.runner.stage import Work
from darkroom.tracking import Run
from darkroom.tracking.note import Account

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("recipe", "black"), [("mnist-score-concat", 0.0), ("photos-ddpm-small", -1.0)])
def test_the_cache_holds_the_pictures_in_their_range_and_previews_show_them_as_they_are(
    recipe: str, black: float, load: Callable[[Path], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = params_of(ROOT / "recipes" / f"{recipe}.yaml")
    side, channels = params.prepare_data.image_size, params.prepare_data.channels
    noise = np.random.default_rng(0).integers(0, 256, (40, side, side, 3), dtype=np.uint8)
    writer = PreparedWriter(Path("data/prepared"), "noise", (), False, side, channels)
    for i, picture in enumerate(noise):
        shown = picture if channels == 3 else picture[..., 0]
        writer.add(("train", "train", "validation", "test")[i % 4], Row(shown, f"{i}.png", "", (), ()))
    writer.finish()
    for stage in ("train_vae", "cache_latents"):
        untracked = Run(Account(stage, {}, {}, {}, {}, "", False), tracked=False)
        load(ROOT / "stages" / f"{stage}.py").body(params, Work(torch.device("cpu"), untracked))

    assert read_json("artifacts/vae/config.json")["network"]["range"] == [black, 1.0]
    real = Prepared.open("data/prepared").split("train").images()
    latents = Latents.read("data/latents", "train")
    drawn = latents.sample(torch.arange(len(latents)), torch.empty(0))
    assert torch.allclose(drawn, real / 255 if black == 0 else to_float(real), atol=1e-3)
    assert torch.equal(to_uint8(read_preview("data/latents")(drawn)), real)
