"""ScoreUNet: the published sizes, and what each variant has and sees that the others do not."""

from typing import Any

import pytest
import torch

from darkroom.config.denoisers import DenoiserSpec
from darkroom.core.errors import DarkroomError
from darkroom.nn.denoiser.score_unet import CLASS_DIM, _SpatialTransformer
from tests.support.measures import Difference
from tests.support.networks import built, score
from tests.support.noting import gradient

CONCAT, RESIDUAL = score("concat"), score("residual")
TRANSFORMER = score("transformer", classes=10)
CONFIGS = [CONCAT, RESIDUAL, TRANSFORMER]
IDS = ["concat", "residual", "transformer"]
NULL = 10


def inputs(config: DenoiserSpec, n: int = 3) -> Any:
    side = config.sizes.sample_size
    return {
        "sample": torch.randn(n, config.sizes.in_channels, side, side),
        "timestep": torch.tensor([0.01, 421.5, 999.99])[:n],
        "class_labels": torch.tensor([0, 3, NULL])[:n] if config.sizes.num_classes else None,
    }


def shapes(network: Any) -> Any:
    return {name: tuple(p.shape) for name, p in network.state_dict().items()}


@pytest.mark.parametrize(
    ("config", "parameters"),
    [(CONCAT, 1_115_425), (RESIDUAL, 1_022_977), (TRANSFORMER, 2_045_185)],
    ids=IDS,
)
def test_has_as_many_parameters_as_published_of_which_the_frequencies_are_frozen(
    config: DenoiserSpec, parameters: int
) -> None:
    network = built(config)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert [(name, p.numel()) for name, p in network.named_parameters() if not p.requires_grad] == [
        ("frequencies", 128)
    ]


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_sides_shrink_and_grow_as_published_and_come_out_as_they_went_in(config: DenoiserSpec) -> None:
    network, sides = built(config), []
    for stage in (*network.down, *network.up):
        stage.register_forward_hook(lambda module, given, out: sides.append(out.shape[-1]))
    assert network(**inputs(config)).shape == (3, 1, 28, 28)
    assert sides == [26, 12, 5, 2, 5, 12, 26]


def test_variants_differ_in_their_skips_and_their_transformers_alone() -> None:
    concat, residual, transformer = (shapes(built(config)) for config in CONFIGS)
    assert concat.keys() == residual.keys()
    assert {name for name in concat if concat[name] != residual[name]} == {
        "up.1.conv.weight",
        "up.2.conv.weight",
        "conv_out.weight",
    }
    more = {name: shape for name, shape in transformer.items() if not name.startswith(("transformers", "class_"))}
    assert more == residual


def awake(config: DenoiserSpec) -> Any:
    """A network whose output no longer starts at zero."""
    network = built(config)
    network.conv_out.reset_parameters()
    return network


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_it_predicts_nothing_at_first(config: DenoiserSpec) -> None:
    network = built(config)
    assert torch.equal(network(**inputs(config)), torch.zeros_like(inputs(config)["sample"]))
    network(**inputs(config)).sum().backward()
    assert gradient(network.conv_out.weight).abs().max() > 0


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_every_weight_learns_but_the_frequencies_and_what_chooses_among_a_single_token(config: DenoiserSpec) -> None:
    network = awake(config)
    network(**inputs(config)).square().mean().backward()
    silent = {n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
    choosing = ("norm2.weight", "norm2.bias", "attn2.to_q.weight", "attn2.to_k.weight")
    assert silent == {"frequencies"} | {n for n, _ in network.named_parameters() if n.endswith(choosing)}


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_the_time_matters_over_its_whole_range(config: DenoiserSpec) -> None:
    network, x = awake(config), inputs(config, 1)
    outputs = [network(**{**x, "timestep": torch.tensor([t])}) for t in (0.0, 0.1, 500.0, 999.0, 1000.0)]
    for i, one in enumerate(outputs):
        assert all((one - other).abs().max() > 1e-3 for other in outputs[i + 1 :])


def test_times_are_told_as_sines_and_cosines_of_the_frequencies() -> None:
    network = built(CONCAT)
    angle = 2 * torch.pi * network.frequencies.double() * 0.25
    found = network._features(torch.tensor([250.0]))
    assert torch.allclose(found[0].double(), torch.cat([angle.sin(), angle.cos()]), atol=1e-4)
    assert 25 < network.frequencies.std() < 35


def test_a_class_changes_the_prediction_and_the_null_class_is_seen_by_nothing(
    relative_difference: Difference,
) -> None:
    network, x = awake(TRANSFORMER), inputs(TRANSFORMER, 1)

    def drawn(label: int | None) -> Any:
        with torch.no_grad():
            return network(**{**x, "class_labels": torch.tensor([label])})

    assert relative_difference(drawn(3), drawn(7)) > 1e-3
    before, null = drawn(3), drawn(NULL)
    with torch.no_grad():
        for transformer in network.transformers:
            for layer in (transformer.attn2.to_k, transformer.attn2.to_v):
                layer.weight.mul_(-3)
        network.class_embedding.weight.add_(1)
    assert torch.equal(drawn(NULL), null)
    assert relative_difference(drawn(3), before) > 1e-3


def test_a_spatial_transformer_without_its_branches_gives_its_input_twice_over() -> None:
    transformer: Any = _SpatialTransformer(32)
    x, token = torch.randn(2, 32, 5, 5), torch.randn(2, 1, CLASS_DIM)
    assert not torch.allclose(transformer(x, token), 2 * x, atol=1e-3)
    for layer in (transformer.attn1.to_v, transformer.attn2.to_v, transformer.ff[2]):
        torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(transformer.ff[2].bias)
    assert torch.allclose(transformer(x, token), 2 * x)


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_a_sample_does_not_depend_on_its_batch(relative_difference: Difference, config: DenoiserSpec) -> None:
    network, x = awake(config), inputs(config)
    alone = [network(**{k: v if v is None else v[i : i + 1] for k, v in x.items()}) for i in range(3)]
    assert relative_difference(network(**x), torch.cat(alone)) <= 1e-5


@pytest.mark.parametrize("config", [CONCAT, TRANSFORMER], ids=["concat", "transformer"])
def test_bfloat16_agrees_to_its_precision_and_leaves_the_time_exact(
    relative_difference: Difference, config: DenoiserSpec
) -> None:
    network, x = awake(config), inputs(config)
    with torch.no_grad():
        expected = network(**x)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(**x)
    assert relative_difference(found.float(), expected) <= 0.03


@pytest.mark.parametrize("side", [20, 28, 36])
def test_other_sides_come_out_as_they_went_in(side: int) -> None:
    config = score("concat", side)
    assert built(config)(**inputs(config)).shape[2:] == (side, side)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"variant": "dense"}}, "variant = 'dense': give concat or residual or transformer"),
        ({"sizes": {"sample_size": 32}}, r"'score_unet' takes sides of 8 n \+ 4 from 20 on, not 32"),
        ({"sizes": {"sample_size": 12}}, "not 12"),
        ({"sizes": {"num_classes": 10}}, "takes the condition 'none', not 'class'"),
        ({"network": {"variant": "transformer"}}, "takes the condition 'class', not 'none'"),
    ],
)
def test_bad_configs_are_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DarkroomError, match=message) as caught:
        DenoiserSpec.read({k: v | change.get(k, {}) for k, v in CONCAT.model_dump().items()}, "file", "fix it")
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_refused() -> None:
    plain, asked = built(CONCAT), built(TRANSFORMER)
    sample, t, labels = torch.randn(1, 1, 28, 28), torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(DarkroomError, match="ScoreUNet takes no class labels, but they are given"):
        plain(sample, t, None, labels)
    with pytest.raises(DarkroomError, match="ScoreUNet needs class labels, but none are given"):
        asked(sample, t)
    with pytest.raises(DarkroomError, match="takes no text embeddings, but they are given"):
        plain(sample, t, [])
    with pytest.raises(DarkroomError, match=r"takes no text embeddings; use setup_text_encoder\.kind none"):
        plain.prepare_context(torch.randn(1, 6, 10))
    with pytest.raises(DarkroomError, match="takes 28 x 28 alone, not 28 x 36"):
        plain(torch.randn(1, 1, 36, 28), t)
