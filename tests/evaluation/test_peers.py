"""Each figure of evaluation against an independent implementation, on the same features or pictures.

FID, KID, precision and recall: torch-fidelity. PSNR and SSIM: torchmetrics. Closeness to training: SciPy.

torch-fidelity's precision and recall were exchanged before 0.4 (its issue 58): the sets here are far from symmetric, so
that neither library could exchange them unnoticed. Its functions take (generated, real), ours (real, generated).
"""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

from darkroom.data.sources.torchvision_import import torchvision
from darkroom.evaluation.distances import KID_SUBSETS, closeness_to_training, fid, kid, mmd, precision, recall
from darkroom.evaluation.reconstruction import WINDOW, psnr, ssim

WITHIN = 1e-4
WIDTH = 12


@pytest.fixture(scope="module")
def peer() -> Any:
    """The package, or a skip. It imports torchvision, which must come through its one door first."""
    torchvision("datasets")
    pytest.importorskip("torch_fidelity", minversion="0.4.0", reason="figures of evaluation need the test extras")
    from torch_fidelity import metric_fid, metric_kid, metric_prc

    return metric_fid, metric_kid, metric_prc


def features(n: int, seed: int, spread: float = 1.0, shift: float = 0.0, dead: int = 0) -> Tensor:
    """Activations as a judge gives them: float32, correlated, most of them near zero, `dead` of them always 0."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(99))
    x = torch.nn.functional.silu(spread * torch.randn(n, WIDTH, generator=g) @ mix / WIDTH**0.5 + shift)
    x[:, WIDTH - dead :] = 0
    return x


PAIRS = {
    "alike": (features(300, 0), features(300, 1)),
    "shifted": (features(300, 0), features(300, 2, shift=0.7)),
    "a narrow model": (features(300, 0), features(300, 3, spread=0.15)),
    "a wild model": (features(300, 0), features(300, 4, spread=2.5)),
    "features that never fire": (features(200, 5, dead=4), features(200, 6, spread=0.8, dead=4)),
    "fewer generated than features": (features(300, 0), features(10, 7)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_fid_is_torch_fidelitys(pair: str, peer: Any) -> None:
    """Catches a covariance divided by N, a missing cross term, or a root of another matrix."""
    real, generated = PAIRS[pair]
    theirs, _, _ = peer
    of_generated, of_real = (theirs.fid_features_to_statistics(x.double()) for x in (generated, real))
    expected = theirs.fid_statistics_to_metric(of_generated, of_real, verbose=False)[theirs.KEY_METRIC_FID]
    assert fid(real, generated) == pytest.approx(expected, rel=WITHIN, abs=WITHIN)


@pytest.mark.parametrize("pair", [name for name, (_, generated) in PAIRS.items() if len(generated) > 100])
def test_kid_is_torch_fidelitys(pair: str, peer: Any) -> None:
    """The unbiased estimate, and the mean over subsets; catches a diagonal left in, or a kernel without its scale."""
    real, generated = (x.double() for x in PAIRS[pair])
    _, theirs, _ = peer

    def expected(of_generated: Tensor, of_real: Tensor) -> float:
        found = theirs.kid_features_to_metric(
            of_generated, of_real, kid_subsets=1, kid_subset_size=len(of_real), rng_seed=0, verbose=False
        )
        return float(found[theirs.KEY_METRIC_KID_MEAN])

    assert mmd(real, generated) == pytest.approx(expected(generated, real), abs=WITHIN)
    rng = np.random.default_rng(5)
    r, g = (torch.from_numpy(rng.permutation(len(x))) for x in (real, generated))
    subsets = [expected(generated[g[i::KID_SUBSETS]], real[r[i::KID_SUBSETS]]) for i in range(KID_SUBSETS)]
    assert kid(real, generated, np.random.default_rng(5)).value == pytest.approx(np.mean(subsets), abs=WITHIN)


@pytest.mark.parametrize("pair", PAIRS)
def test_precision_and_recall_are_torch_fidelitys(pair: str, peer: Any) -> None:
    """Catches the two exchanged, a neighbour too many or too few, and a point that is its own neighbour."""
    real, generated = (x.double() for x in PAIRS[pair])
    _, _, theirs = peer
    for batch_size, save_cpu_ram in ((10_000, False), (64, True)):
        found = theirs.prc_features_to_metric(
            generated,
            real,
            prc_neighborhood=3,
            prc_batch_size=batch_size,
            save_cpu_ram=save_cpu_ram,
            verbose=False,
        )
        assert precision(real, generated) == pytest.approx(found[theirs.KEY_METRIC_PRECISION], abs=WITHIN)
        assert recall(real, generated) == pytest.approx(found[theirs.KEY_METRIC_RECALL], abs=WITHIN)


def test_a_narrow_model_is_precise_and_a_wild_one_covers() -> None:
    """So that a swap in both libraries would not pass: the meaning of the two, by sets whose answer is known."""
    real, narrow = PAIRS["a narrow model"]
    assert precision(real, narrow) > 0.9
    assert recall(real, narrow) < 0.3
    real, wild = PAIRS["a wild model"]
    assert precision(real, wild) < recall(real, wild)


def test_closeness_to_training_is_the_mann_whitney_statistic_of_scipy() -> None:
    """Catches ties that count whole, and the two samples exchanged."""
    g = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, 40, (150,), generator=g).double()  # integers, so that many are equal
    held_out = torch.randint(5, 50, (90,), generator=g).double()
    expected = mannwhitneyu(held_out.numpy(), drawn.numpy()).statistic / (150 * 90)
    assert closeness_to_training(drawn, held_out).value == pytest.approx(expected, abs=WITHIN)


@pytest.mark.parametrize(("side", "channels"), [(32, 3), (28, 1), (40, 3)])
def test_psnr_and_ssim_are_torchmetrics(side: int, channels: int) -> None:
    """Catches another window, range or border, and channels that are mixed before they are compared."""
    theirs = pytest.importorskip("torchmetrics.functional.image", reason="figures of evaluation need the test extras")
    g = torch.Generator().manual_seed(side)
    pictures = torch.randint(0, 256, (5, channels, side, side), generator=g, dtype=torch.uint8)
    noise = torch.randint(-40, 41, pictures.shape, generator=g)
    others = (pictures.long() + noise).clamp(0, 255).to(torch.uint8)
    usual: dict[str, Any] = {"data_range": 255.0, "reduction": "none"}
    expected = theirs.peak_signal_noise_ratio(others.double(), pictures.double(), dim=(1, 2, 3), **usual)
    assert torch.allclose(psnr(pictures, others), expected.double(), rtol=0, atol=WITHIN)
    _, everywhere = theirs.structural_similarity_index_measure(
        others.double(), pictures.double(), return_full_image=True, **usual
    )
    reach = WINDOW // 2  # theirs reflects what lies beyond the border; ours leaves out windows that reach there
    expected = everywhere[:, :, reach:-reach, reach:-reach].mean(dim=(1, 2, 3))
    assert torch.allclose(ssim(pictures, others), expected, rtol=0, atol=WITHIN)
