"""LayerNormUNet and BatchNormUNet: the published sizes, their corrections, and what they refuse."""

from typing import Any

import pytest
import torch

from darkroom.core.errors import DarkroomError
from darkroom.nn.denoiser.base import build
from darkroom.nn.denoiser.layer_norm_unet import TIMES
from tests.support.measures import Difference
from tests.support.networks import batch_norm, built, layer_norm
from tests.support.noting import gradient

SMALL = batch_norm((8, 16, 32), channels=3)


@pytest.fixture(params=["layer norm", "batch norm"])
def network(request: pytest.FixtureRequest) -> Any:
    return awake(layer_norm()) if request.param == "layer norm" else built(SMALL)


def awake(config: Any) -> Any:
    """A network whose last layer no longer starts at zero."""
    network = built(config)
    network.conv_out.reset_parameters()
    return network


def inputs(network: Any, n: int = 3) -> Any:
    side = network.fixed_side or 16
    return torch.randn(n, network.sizes.in_channels, side, side), torch.tensor([0.0, 421.5, 999.0])[:n]


def test_the_layer_norm_unet_has_as_many_parameters_as_published_of_which_a_table_is_frozen() -> None:
    network = built(layer_norm())
    assert sum(p.numel() for p in network.parameters()) == 606_852
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 506_852
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == ["times"]


def test_the_batch_norm_unet_has_as_many_parameters_as_published() -> None:
    with torch.device("meta"):
        network = built(batch_norm((64, 128, 256, 512, 1024), channels=3))
    assert sum(p.numel() for p in network.parameters()) == 62_438_883


def test_the_layer_norm_unet_shrinks_and_grows_as_published() -> None:
    network, sides = built(layer_norm()), []
    for stage in (*network.down, network.mid, *network.up):
        stage.register_forward_hook(lambda module, given, out: sides.append(tuple(out.shape[1:3])))
    network(*inputs(network))
    assert sides == [(10, 28), (20, 14), (40, 7), (40, 3), (20, 7), (10, 14), (10, 28)]


def test_the_batch_norm_unet_halves_and_doubles() -> None:
    network, sides = built(SMALL), []
    for block in (*network.down, *network.up):
        block.register_forward_hook(lambda module, given, out: sides.append((*given[0].shape[1:3], out.shape[1])))
    sample, t = inputs(network)
    assert network(sample, t).shape == sample.shape
    assert sides == [(8, 16, 16), (16, 8, 32), (64, 4, 16), (32, 8, 8)]


def test_no_up_block_is_given_the_same_features_twice() -> None:
    network, given = built(SMALL).eval(), []
    for block in network.up:
        block.register_forward_hook(lambda module, inputs, out: given.append(inputs[0].chunk(2, dim=1)))
    network(*inputs(network))
    for below, skip in given:
        assert (below - skip).abs().max() > 1e-2


def test_output_has_the_shape_of_the_input_and_every_weight_learns(network: Any) -> None:
    sample, t = inputs(network)
    out = network(sample, t)
    assert out.shape == sample.shape
    out.square().mean().backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == [name for name, p in network.named_parameters() if not p.requires_grad]


def test_the_time_matters(network: Any) -> None:
    network.eval()
    sample, _ = inputs(network, 1)
    outputs = [network(sample, torch.tensor([t])) for t in (0.0, 0.5, 1.0, 500.0, 999.0)]
    for i, one in enumerate(outputs):
        assert all((one - other).abs().max() > 1e-5 for other in outputs[i + 1 :])


def test_the_layer_norm_unet_starts_at_the_noisy_picture() -> None:
    network = built(layer_norm())
    sample, t = inputs(network)
    assert torch.equal(network(sample, t), sample)
    network(sample, t).sum().backward()
    assert gradient(network.conv_out.weight).abs().max() > 0


def test_the_mean_of_a_picture_is_seen(network: Any) -> None:
    """Or its noise stays in it, and grows with each step of drawing: pictures end all black or all white."""
    network.eval()
    sample, t = inputs(network, 1)
    assert (network(sample + 0.3, t) - network(sample, t)).abs().max() > 1e-3


def test_the_table_of_times_has_all_its_frequencies() -> None:
    """10000^(-2 i / d), as sines and cosines; with the exponent doubled half of the columns would hardly move."""
    table = built(layer_norm()).times.double()
    angle = torch.arange(TIMES).double()[:, None] * 10000 ** (-2 * torch.arange(50).double() / 100)
    assert torch.allclose(table, torch.cat([angle.sin(), angle.cos()], dim=1), atol=1e-4)
    assert (table.amax(0) - table.amin(0)).min() > 5e-3


def test_times_between_two_rows_are_interpolated_and_others_held_at_the_ends() -> None:
    network = built(layer_norm())
    rows = network.times
    found = network._time(torch.tensor([3.0, 3.25, 999.0, 1000.0, -1.0]))
    expected = [rows[3], 0.75 * rows[3] + 0.25 * rows[4], rows[999], rows[999], rows[0]]
    assert torch.allclose(found, torch.stack(expected), atol=1e-6)
    assert torch.equal(found[[0, 2]], rows[[3, 999]])


def test_in_eval_mode_a_sample_does_not_depend_on_its_batch(network: Any, relative_difference: Difference) -> None:
    sample, t = inputs(network)
    for _ in range(3):
        network(sample, t)  # running statistics of a batch norm
    network.eval()
    alone = torch.cat([network(sample[i : i + 1], t[i : i + 1]) for i in range(3)])
    assert relative_difference(network(sample, t), alone) <= 1e-5
    assert torch.equal(network(sample, t), network(sample, t))


def test_bfloat16_agrees_to_its_precision(network: Any, relative_difference: Difference) -> None:
    sample, t = inputs(network)
    network.eval()
    with torch.no_grad():
        expected = network(sample, t)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(sample, t)
    assert relative_difference(found.float(), expected) <= 0.03


def test_channels_last_changes_nothing_but_the_order_in_memory(network: Any, relative_difference: Difference) -> None:
    sample, t = inputs(network)
    network.eval()
    expected = network(sample, t)
    network.to(memory_format=torch.channels_last)
    assert relative_difference(network(sample.to(memory_format=torch.channels_last), t), expected) <= 1e-5


@pytest.mark.parametrize("side", [12, 20, 36])
def test_other_sides_of_a_layer_norm_unet_come_out_as_they_went_in(side: int) -> None:
    network = awake(layer_norm(side))
    sample, t = inputs(network)
    assert network(sample, t).shape == sample.shape == (3, 1, side, side)


@pytest.mark.parametrize("side", [27, 30, 32, 4])
def test_a_side_that_would_come_out_otherwise_is_refused(side: int) -> None:
    spec = layer_norm()
    with pytest.raises(ValueError, match=rf"'layer_norm_unet' takes sides of 8 n \+ 4 from 12 on, not {side}"):
        build(spec.network, spec.sizes.model_copy(update={"sample_size": side}))


def test_what_does_not_fit_is_refused(network: Any) -> None:
    sample, t = inputs(network, 1)
    with pytest.raises(DarkroomError, match="takes no class labels, but they are given"):
        network(sample, t, None, torch.zeros(1, dtype=torch.int64))
    with pytest.raises(DarkroomError, match="takes no text embeddings"):
        network.prepare_context(torch.randn(1, 6, 10))
    wrong = r"takes 28 x 28 alone, not 27 x 28" if network.fixed_side else r"takes sides divisible by 4, not 15 x 16"
    with pytest.raises(DarkroomError, match=wrong):
        network(sample[..., :-1], t)
