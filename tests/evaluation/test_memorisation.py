"""What is said of copies: by its definition, and by SciPy."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

from darkroom.data.halves import half_of
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Info, Prepared
from darkroom.data.sources.base import Sample
from darkroom.evaluation.alignment import Asked
from darkroom.evaluation.drawing import Drawn
from darkroom.evaluation.estimates import TooFewError
from darkroom.evaluation.looking import nearest_training_pictures
from darkroom.evaluation.memorisation import authentic, copying, duplicates, memorisation, standardised
from tests.data.conftest import ListedSource
from tests.support.settings import preparation
from tests.support.splits import Split


def points(n: int, seed: int, shift: float = 0.0) -> Tensor:
    return shift + torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_nearest(x: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    return x, torch.cdist(x, training).amin(dim=1)


def test_the_statistic_of_a_cell_is_scipys() -> None:
    """Catches a wrong variance, and a sign the other way round."""
    g = torch.Generator().manual_seed(0)
    ours, others = (torch.rand(n, generator=g, dtype=torch.float64) + shift for n, shift in ((40, 0.2), (70, 0.0)))
    found = mannwhitneyu(ours.numpy(), others.numpy(), method="asymptotic", use_continuity=False, alternative="greater")
    theirs = float(torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - found.pvalue, dtype=torch.float64)))
    assert standardised(ours, others) == pytest.approx(theirs, abs=1e-4)


def test_copies_lie_below_and_new_pictures_about_zero() -> None:
    training, real = points(400, 0), with_nearest(points(300, 1), points(400, 0))
    value, variance, cells = copying(with_nearest(points(300, 2), training), real, training, 0)
    assert abs(value) < 4 * variance**0.5
    assert cells > 5
    near = training[:300] + 0.01
    assert copying(with_nearest(near, training), real, training, 0)[0] < -4
    assert copying(with_nearest(points(300, 3, shift=0.5) * 2, training), real, training, 0)[0] > 2


def test_it_is_the_mean_over_kinds_of_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two clusters, one of them copied: catches distances that are compared across kinds, and a wrong weight."""
    monkeypatch.setattr("darkroom.evaluation.memorisation.CELLS", 2)
    training = torch.cat([points(200, 0), points(200, 1, shift=40.0)])
    real = with_nearest(torch.cat([points(100, 2), points(50, 3, shift=40.0)]), training)
    drawn = with_nearest(torch.cat([training[:80] + 0.001, 1.6 * points(90, 4) + 40.0]), training)
    kinds = [standardised(drawn[1][:80], real[1][:100]), standardised(drawn[1][80:], real[1][100:])]
    assert kinds[0] < -5
    assert kinds[1] > 1
    value, variance, cells = copying(drawn, real, training, 0)
    assert (value, variance) == pytest.approx(((2 * kinds[0] + kinds[1]) / 3, 5 / 9))
    assert cells == 2


def test_too_few_pictures_give_no_figure() -> None:
    training = points(50, 0)
    with pytest.raises(TooFewError, match="C_T needs 5 drawn"):
        copying(with_nearest(points(3, 1), training), with_nearest(points(3, 2), training), training, 0)


def test_a_picture_nearer_than_training_pictures_are_to_each_other_is_not_authentic() -> None:
    apart, distances = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([0.5, 1.5, 0.0, 0.1])
    assert authentic(distances, apart).tolist() == [False, True, False, True]


@pytest.mark.parametrize("channels", [1, 3])
def test_equal_pictures_are_counted(channels: int) -> None:
    g = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (6, channels, 8, 8), generator=g, dtype=torch.uint8)
    info = Info("toy", 8, channels, {}, (), (), {}, (), False)
    nothing: Any = torch.empty(4, 0)
    train: Any = Split("train", pictures[:4], [""] * 4, nothing, nothing, info)
    ours = torch.cat([pictures[3:5], pictures[4:6], pictures[4:5]])  # 3, 4, 4, 5, 4
    assert duplicates(ours, train) == {"equal_to_training": 1, "equal_to_another": 2}


@pytest.mark.parametrize("crops", [1, 3])
def test_a_copying_model_is_found_where_each_picture_has_several_captions(tmp_path: Path, crops: int) -> None:
    """Catches neighbours sought among rows: a picture's next one was itself, with another caption, so that whatever is
    not equal to the bit lay farther away, and a model that copies had 1."""
    dice = np.random.default_rng(0)
    noise = [dice.integers(0, 255, (24, 24, 3), dtype=np.uint8) for _ in range(160)]
    items: list[Any] = [Sample(x, f"{i}.png", f"{i}", others=("more", "words")) for i, x in enumerate(noise)]
    prepare(ListedSource(items), tmp_path / "out", preparation(test_fraction=0.25, crops=crops))
    train, test = (Prepared.open(tmp_path / "out").split(name) for name in ("train", "test"))
    rows = train.uncropped()
    assert 3 * crops * len(rows) == len(train)
    pictures = train.images(rows)
    assert len(pictures.unique(dim=0)) == len(rows)
    assert not (rows % crops).any()

    copied = pictures.repeat(2, 1, 1, 1)[: len(test)]
    copied[:, 0, 0, 0] += 1
    words = [train.captions[rows[i % len(rows)]] for i in range(len(test))]  # of what each is a copy of
    drawn = Drawn(True, Asked(words, test.labels, test.mentioned), words, [0] * len(test), test.images(), copied, 1.0,
                  of=test.pictures)  # fmt: skip
    judges: Any = [
        SimpleNamespace(name=name, half=half, features=lambda x: x.flatten(1).float()) for half, name in enumerate("ab")
    ]
    assert {*half_of(pictures).tolist()} == {0, 1}
    figures, _ = memorisation(judges, drawn, train, 0, 50)
    assert figures["authentic"].value == 0
    assert figures["real"]["authentic"] > 0.3
    assert figures["c_t"].value < -4
    assert len(drawn.distinct()) == len(test) // 3 == len(drawn.distinct().real.unique(dim=0))

    read_by: Any = SimpleNamespace(judges=judges, seed=0, resamples=50)
    validity: Any = SimpleNamespace(valid=True)
    told, picture = nearest_training_pictures(read_by, drawn, train, tmp_path / "out" / "train", validity)
    assert picture is not None
    for one in told["pictures"]:
        assert one["nearest"][0] == {"name": f"{one['asked']}.png", "caption": one["asked"]}, "not what was copied"
