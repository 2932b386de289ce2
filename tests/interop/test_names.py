"""The table of names: a bijection for every shape, and the one that diffusers reads."""

from typing import Any

import pytest
import torch

from darkroom.config.denoisers import UNetSpec
from darkroom.config.networks import AutoencoderSpec, TextSpec
from darkroom.interop.configs import unet_config, vae_config
from darkroom.interop.model import shapes_of
from darkroom.interop.names import modern
from darkroom.interop.single_file import IGNORED, parts_of
from tests.support.networks import CROSS_DOWN, CROSS_UP, DOWN, UP, kl, text, unet

Specs = tuple[UNetSpec, AutoencoderSpec, TextSpec]
SD: dict[str, Any] = {"groups": 32, "heads": 8, "words": 64}
TEXT = text(60, 64, 96, 2, 1, 9)
STABLE: Specs = (  # Stable Diffusion 1.x itself
    unet((*[CROSS_DOWN] * 3, DOWN), (UP, *[CROSS_UP] * 3), (320, 640, 1280, 1280), 2, 8, groups=32, side=64, words=768),
    kl((128, 256, 512, 512), layers=2, groups=32),
    text(49408, 768, 3072, 12, 12, 77),
)
SHAPES = {
    "sd 1.x": STABLE[:2],
    "one level": (unet((CROSS_DOWN,), (CROSS_UP,), (32,), 3, **SD), kl((32,), layers=3, groups=32)),
    "attention below": (
        unet((DOWN, CROSS_DOWN), (CROSS_UP, UP), (32, 64), **SD),
        kl((32, 64), groups=32, channels=1),
    ),
    "attention in the middle": (
        unet((DOWN, CROSS_DOWN, DOWN), (UP, CROSS_UP, UP), (32, 32, 64), 2, **SD),
        kl((32, 64, 64), groups=32),
    ),
    "attention on the way up only": (
        unet((DOWN, DOWN), (CROSS_UP, UP), (32, 64), 2, **SD),
        kl((32, 32), layers=2, groups=32),
    ),
    "five levels": (
        unet((*[CROSS_DOWN] * 4, DOWN), (UP, *[CROSS_UP] * 4), (32, 32, 32, 64, 64), side=16, **SD),
        kl((32,) * 5, groups=32),
    ),
}


@pytest.mark.parametrize(("unet", "vae"), SHAPES.values(), ids=SHAPES)
def test_every_weight_has_one_name_and_no_two_the_same(unet: UNetSpec, vae: AutoencoderSpec) -> None:
    theirs = [name for part in parts_of(unet, vae, TEXT) for name in part.names.values()]
    assert len(theirs) == len(set(theirs))
    assert len(theirs) == sum(len(shapes_of(config)) for config in (unet, vae, TEXT))
    assert not [name for name in theirs if IGNORED.fullmatch(name)]


def test_stable_diffusion_has_as_many_weights_as_it_has() -> None:
    unet, vae, text = (p.names for p in parts_of(*STABLE))
    assert (len(unet), len(vae), len(text)) == (686, 248, 196)
    assert unet["up_blocks.3.resnets.2.conv_shortcut.weight"] == (
        "model.diffusion_model.output_blocks.11.0.skip_connection.weight"
    )
    assert unet["up_blocks.0.upsamplers.0.conv.bias"] == "model.diffusion_model.output_blocks.2.1.conv.bias"
    assert unet["up_blocks.2.upsamplers.0.conv.bias"] == "model.diffusion_model.output_blocks.8.2.conv.bias"
    assert vae["decoder.up_blocks.0.resnets.2.conv1.bias"] == "first_stage_model.decoder.up.3.block.2.conv1.bias"
    assert vae["encoder.mid_block.attentions.0.to_out.0.bias"] == "first_stage_model.encoder.mid.attn_1.proj_out.bias"


@pytest.mark.parametrize(("unet", "vae"), list(SHAPES.values())[1:], ids=list(SHAPES)[1:])
def test_diffusers_reads_our_names_as_the_same_weights(diffusers: Any, unet: UNetSpec, vae: AutoencoderSpec) -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    unet_names, vae_names, _ = (part.names for part in parts_of(unet, vae, TEXT))
    marks = {name: torch.full((1,), float(i)) for i, name in enumerate([*unet_names.values(), *vae_names.values()])}
    for found, convert, config in (
        (unet_names, convert_ldm_unet_checkpoint, unet_config(unet)),
        (vae_names, convert_ldm_vae_checkpoint, vae_config(vae, 64, 1.0)),
    ):
        read = convert({name: marks[name] for name in found.values()}, config)
        assert {key: float(value) for key, value in read.items()} == {k: float(marks[n]) for k, n in found.items()}


def test_old_names_in_diffusers_folders_are_the_new_ones() -> None:
    old = "decoder.mid_block.attentions.0."
    assert modern(f"{old}query.weight") == f"{old}to_q.weight"
    assert modern(f"{old}proj_attn.bias") == f"{old}to_out.0.bias"
    assert modern("text_model.encoder.layers.0.mlp.fc1.bias") == "encoder.layers.0.mlp.fc1.bias"
    for config in STABLE:
        assert all(modern(key) == key for key in shapes_of(config))
