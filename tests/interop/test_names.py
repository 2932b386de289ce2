"""The table of names: a bijection for every shape, and the one that diffusers reads."""

from typing import Any

import pytest
import torch

from darkroom.interop.model import shapes_of
from darkroom.interop.names import modern
from darkroom.interop.single_file import IGNORED, parts_of
from darkroom.nn.autoencoder.vae import AutoencoderKLConfig
from darkroom.nn.denoiser.unet import UNetConfig
from darkroom.nn.text.clip import CLIPTextConfig

DOWN, CROSS_DOWN, UP, CROSS_UP = "DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"
TEXT = CLIPTextConfig(60, 64, 96, 2, 1, 9, bos_token_id=58, eos_token_id=59, pad_token_id=59)
SHAPES = {  # (U-Net, autoencoder); the first is Stable Diffusion 1.x itself
    "sd 1.x": (UNetConfig(), AutoencoderKLConfig()),
    "one level": (
        UNetConfig(8, 4, 4, (CROSS_DOWN,), (CROSS_UP,), (32,), 3, 64),
        AutoencoderKLConfig(block_out_channels=(32,), layers_per_block=3),
    ),
    "attention below": (
        UNetConfig(8, 4, 4, (DOWN, CROSS_DOWN), (CROSS_UP, UP), (32, 64), 1, 64),
        AutoencoderKLConfig(1, 1, 4, (32, 64), 1),
    ),
    "attention in the middle": (
        UNetConfig(8, 4, 4, (DOWN, CROSS_DOWN, DOWN), (UP, CROSS_UP, UP), (32, 32, 64), 2, 64),
        AutoencoderKLConfig(block_out_channels=(32, 64, 64), layers_per_block=1),
    ),
    "attention on the way up only": (
        UNetConfig(8, 4, 4, (DOWN, DOWN), (CROSS_UP, UP), (32, 64), 2, 64),
        AutoencoderKLConfig(block_out_channels=(32, 32), layers_per_block=2),
    ),
    "five levels": (
        UNetConfig(16, 4, 4, (CROSS_DOWN,) * 4 + (DOWN,), (UP,) + (CROSS_UP,) * 4, (32, 32, 32, 64, 64), 1, 64),
        AutoencoderKLConfig(block_out_channels=(32,) * 5, layers_per_block=1),
    ),
}


@pytest.mark.parametrize(("unet", "vae"), SHAPES.values(), ids=SHAPES)
def test_every_weight_has_one_name_and_no_two_the_same(unet: UNetConfig, vae: AutoencoderKLConfig) -> None:
    theirs = [name for part in parts_of(unet, vae, TEXT) for name in part.names.values()]
    assert len(theirs) == len(set(theirs))
    assert len(theirs) == sum(len(shapes_of(config)) for config in (unet, vae, TEXT))
    assert not [name for name in theirs if IGNORED.fullmatch(name)]


def test_stable_diffusion_has_as_many_weights_as_it_has() -> None:
    unet, vae, text = (p.names for p in parts_of(UNetConfig(), AutoencoderKLConfig(), CLIPTextConfig()))
    assert (len(unet), len(vae), len(text)) == (686, 248, 196)
    assert unet["up_blocks.3.resnets.2.conv_shortcut.weight"] == (
        "model.diffusion_model.output_blocks.11.0.skip_connection.weight"
    )
    assert unet["up_blocks.0.upsamplers.0.conv.bias"] == "model.diffusion_model.output_blocks.2.1.conv.bias"
    assert unet["up_blocks.2.upsamplers.0.conv.bias"] == "model.diffusion_model.output_blocks.8.2.conv.bias"
    assert vae["decoder.up_blocks.0.resnets.2.conv1.bias"] == "first_stage_model.decoder.up.3.block.2.conv1.bias"
    assert vae["encoder.mid_block.attentions.0.to_out.0.bias"] == "first_stage_model.encoder.mid.attn_1.proj_out.bias"


@pytest.mark.parametrize(("unet", "vae"), list(SHAPES.values())[1:], ids=list(SHAPES)[1:])
def test_diffusers_reads_our_names_as_the_same_weights(
    diffusers: Any, unet: UNetConfig, vae: AutoencoderKLConfig
) -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    unet_names, vae_names, _ = (part.names for part in parts_of(unet, vae, TEXT))
    marks = {name: torch.full((1,), float(i)) for i, name in enumerate([*unet_names.values(), *vae_names.values()])}
    for found, convert, config in (
        (unet_names, convert_ldm_unet_checkpoint, unet.to_diffusers()),
        (vae_names, convert_ldm_vae_checkpoint, vae.to_diffusers()),
    ):
        read = convert({name: marks[name] for name in found.values()}, config)
        assert {key: float(value) for key, value in read.items()} == {k: float(marks[n]) for k, n in found.items()}


def test_old_names_in_diffusers_folders_are_the_new_ones() -> None:
    old = "decoder.mid_block.attentions.0."
    assert modern(f"{old}query.weight") == f"{old}to_q.weight"
    assert modern(f"{old}proj_attn.bias") == f"{old}to_out.0.bias"
    assert modern("text_model.encoder.layers.0.mlp.fc1.bias") == "encoder.layers.0.mlp.fc1.bias"
    for config in (UNetConfig(), AutoencoderKLConfig(), CLIPTextConfig()):
        assert all(modern(key) == key for key in shapes_of(config))
