"""The laws of training times: each against its published density. Each test says which fault it would catch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from scipy import stats

from darkroom.config.diffusion import ObjectiveConfig
from darkroom.core.errors import DarkroomError
from darkroom.diffusion.process import Process
from darkroom.diffusion.times import draw_positions
from tests.support.diffusion import make_flow, make_objective, make_ve, make_vp

LOGIT_NORMAL = {"kind": "logit_normal", "location": 0.5, "scale": 0.8}
SHIFTED = {"kind": "shifted", "shift": 3.0}
UNIFORM, STRATIFIED = {"kind": "uniform"}, {"kind": "stratified"}
VP, VE, FLOW = make_vp("cosine"), make_ve(25.0, 1e-3), make_flow(0.001)


def logit_normal(t: Any, location: float = 0.5, scale: float = 0.8) -> Any:
    """The integral of Esser et al. 2024, eq. 19, up to t."""
    t = np.clip(t, 1e-12, 1 - 1e-12)
    return stats.norm.cdf((np.log(t / (1 - t)) - location) / scale)


def shifted(t: Any, shift: float = 3.0) -> Any:
    """Of t' = shift t / (1 + (shift - 1) t) with t uniform (eq. 23): the t that t' came from."""
    return t / (shift - (shift - 1) * t)


LAWS: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "stratified": (STRATIFIED, lambda t: t),
    "uniform": (UNIFORM, lambda t: t),
    "logit_normal": (LOGIT_NORMAL, logit_normal),
    "shifted": (SHIFTED, shifted),
}


def positions(times: dict[str, Any], n: int, seed: int = 0) -> torch.Tensor:
    config = ObjectiveConfig.model_validate(make_objective(FLOW, "sample", times=times).config.model_dump())
    return draw_positions(config.times, n, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("times", "law"), LAWS.values(), ids=LAWS)
def test_times_follow_their_published_law(times: dict[str, Any], law: Callable[[Any], Any]) -> None:
    """Kolmogorov and Smirnov, on one time of each of many batches. Fails if location, scale or shift is misread."""
    firsts = np.array([float(positions(times, 8, seed)[0]) for seed in range(2000)])
    assert stats.kstest(firsts, law).pvalue > 0.01
    wrong = stats.kstest(firsts, lambda t: law(t) ** 1.3)
    assert wrong.pvalue < 1e-6, "the test could not tell another law"


@pytest.mark.parametrize("times", [STRATIFIED, LOGIT_NORMAL, SHIFTED], ids=lambda times: times["kind"])
def test_a_batch_covers_its_law_evenly(times: dict[str, Any]) -> None:
    """One from each n-th of the law. Fails if strata are lost on the way through the inverse distribution."""
    law = LAWS[times["kind"]][1]
    found = np.sort(law(positions(times, 64).double().numpy()))
    assert np.abs(found * 64 - (np.arange(64) + 0.5)).max() <= 0.51


def test_uniform_times_are_independent() -> None:
    """Fails if `uniform` is stratified: the mean of a batch then spreads far less than 1 / sqrt(12 n)."""
    means = torch.stack([positions(UNIFORM, 32, seed).mean() for seed in range(400)])
    assert float(means.std()) == pytest.approx((12 * 32) ** -0.5, rel=0.15)


@pytest.mark.parametrize(
    ("process", "low", "high"), [(VP, 0, 999), (VE, 1.0, 999.0), (FLOW, 1.0, 999.0)], ids=["vp", "ve", "flow"]
)
@pytest.mark.parametrize("times", [times for times, _ in LAWS.values()], ids=LAWS)
def test_times_stay_in_the_trained_range(process: Process, low: float, high: float, times: dict[str, Any]) -> None:
    """Fails if a tail of a law leaves the range, or fills a discrete process with times between its own."""
    if times is SHIFTED and process is not FLOW:
        pytest.skip("refused")
    found = make_objective(process, "sample", times=times).draw_times(4096, torch.Generator().manual_seed(0))
    assert low <= float(found.min()) < float(found.max()) <= high
    assert found.isfinite().all()
    assert found.dtype == (torch.int64 if process is VP else torch.float32)


def test_a_shift_multiplies_the_ratio_of_noise_and_picture() -> None:
    """Esser et al. 2024, section 5.3.2: at equal uncertainty t' / (1 - t') = shift t / (1 - t). Fails if inverted."""
    before, after = (positions(times, 256).double().sort().values for times in (STRATIFIED, SHIFTED))
    ratio = (after / (1 - after)) / (before / (1 - before))
    torch.testing.assert_close(ratio, torch.full_like(ratio, 3.0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("process", [VP, VE], ids=["vp", "ve"])
def test_a_shift_is_refused_where_it_means_nothing(process: Process) -> None:
    """Fails if a flow's formula is applied to the times of another process."""
    with pytest.raises(DarkroomError, match=r"times = 'shifted': is defined on a rectified flow's time"):
        make_objective(process, "sample", times=SHIFTED)


@pytest.mark.parametrize(
    "times",
    [
        {"kind": "logit_normal", "location": 0.0},
        {"kind": "logit_normal", "location": 0.0, "scale": 0.0},
        {"kind": "shifted", "shift": 0.0},
        {"kind": "stratified", "shift": 3.0},
        {"kind": "cosine"},
    ],
)
def test_a_law_that_is_none_is_refused(times: dict[str, Any]) -> None:
    """Fails if a law takes another one's key, or does without its own."""
    with pytest.raises(ValidationError):
        TypeAdapter(ObjectiveConfig.model_fields["times"].rebuild_annotation()).validate_python(times)
