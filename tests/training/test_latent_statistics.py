"""What is measured of the latents: as it always was where they fit into memory, and the same shard by shard.

It would catch a scale that another number of shards changes, a variance with the wrong divisor, and rows that a batch
takes from both orientations.
"""

from pathlib import Path

import pytest
import torch

from darkroom.core.rng import generator
from darkroom.data.latents import measured_scaling_factor
from darkroom.data.rows import Rows
from darkroom.nn.autoencoder.vae import LOGVAR_RANGE
from darkroom.training import latent_statistics
from darkroom.training.latent_shards import Pictures
from darkroom.training.latent_statistics import measure


@pytest.mark.parametrize("deterministic", [False, True])
def test_few_are_measured_at_once_and_many_by_and_by(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = generator(0, "moments")
    mean = (torch.randn(3000, 4, 2, 2, generator=draw) * 0.7 + 1.3).half()
    logvar = torch.randn(3000, 4, 2, 2, generator=draw).half()
    rows = Rows(list(mean.split(700))), None if deterministic else Rows(list(logvar.split(700)))
    at_once = measure(*rows)
    known = torch.full_like(mean, LOGVAR_RANGE[0]) if deterministic else logvar
    assert at_once.scaling_factor == measured_scaling_factor((mean, known))
    assert at_once.mean == float(mean.float().mean())
    monkeypatch.setattr(latent_statistics, "IN_MEMORY", 0)
    by_and_by = measure(*rows)
    assert by_and_by.scaling_factor == pytest.approx(at_once.scaling_factor, rel=1e-5)
    assert by_and_by.mean == pytest.approx(at_once.mean, rel=1e-5)


def test_batches_begin_anew_with_a_shard_and_with_the_mirrored_pictures() -> None:
    pictures = Pictures(Path("data/prepared"), "train", 10, mirrored=True)
    found = [rows.tolist() for rows in pictures.batches(range(4, 17), 4)]
    assert found == [[4, 5, 6, 7], [8, 9], [10, 11, 12, 13], [14, 15, 16]]
    assert [rows.tolist() for rows in pictures.batches(range(12, 15), 4)] == [[12, 13, 14]]
    assert [rows.tolist() for rows in pictures.batches(range(3), 2)] == [[0, 1], [2]]
