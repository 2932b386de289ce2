"""PatchDiscriminator: patches, independence of the batch, refusals."""

from typing import Any

import pytest
import torch

from darkroom.config.networks import PatchDiscriminatorConfig, read_section
from darkroom.core.errors import DarkroomError
from tests.support.measures import Difference
from tests.support.networks import discriminator


@pytest.mark.parametrize(("layers", "side", "patches"), [(3, 64, 6), (3, 32, 2), (2, 32, 6), (1, 28, 12)])
def test_one_logit_per_patch(layers: int, side: int, patches: int) -> None:
    critic = discriminator(layers=layers, channels=1)
    assert critic(torch.randn(2, 1, side, side)).shape == (2, 1, patches, patches)


def test_a_picture_is_judged_by_itself(relative_difference: Difference) -> None:
    critic, images = discriminator(layers=2), torch.randn(3, 3, 32, 32)
    assert relative_difference(critic(images), torch.cat([critic(image[None]) for image in images])) <= 1e-5


def test_every_weight_learns() -> None:
    critic = discriminator(layers=2)
    critic(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert [n for n, p in critic.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


@pytest.mark.parametrize(
    ("values", "message"), [({"channels": 24}, "channels = 24"), ({"n_layers": 0}, "n_layers = 0")]
)
def test_bad_configs_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DarkroomError, match=message):
        read_section(PatchDiscriminatorConfig, {"channels": 16, "n_layers": 1} | values, "file", "fix it")
