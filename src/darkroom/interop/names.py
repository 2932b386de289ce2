"""The names of Stable Diffusion 1.x files (CompVis' code) for the modules of our networks: a table of rules.

Our names are those of diffusers and transformers. Both trees hold the same layers: a rule renames the part of the tree
that a layer lies in, and a second table the layer within its block.
"""

from torch import Tensor

from darkroom.config.denoisers import UNet2DConditionConfig
from darkroom.config.networks import AutoencoderKLConfig, CLIPTextConfig

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."

UNET_LAYERS = {
    ".norm1.": ".in_layers.0.",
    ".conv1.": ".in_layers.2.",
    ".time_emb_proj.": ".emb_layers.1.",
    ".norm2.": ".out_layers.0.",
    ".conv2.": ".out_layers.3.",
    ".conv_shortcut.": ".skip_connection.",
}
VAE_LAYERS = {".conv_shortcut.": ".nin_shortcut."}
VAE_ATTENTION = {
    ".group_norm.": ".norm.",
    ".to_q.": ".q.",
    ".to_k.": ".k.",
    ".to_v.": ".v.",
    ".to_out.0.": ".proj_out.",
}

Rules = list[tuple[str, str, dict[str, str]]]  # where a layer lies in ours, in theirs, and its names within


def unet_rules(c: UNet2DConditionConfig) -> Rules:
    """Theirs counts all blocks in a row: on the way down a level's residual blocks and its down-sampling, on the way up
    its residual blocks, the last of which also holds the up-sampling."""
    levels, down, up = len(c.block_out_channels), c.layers_per_block + 1, c.layers_per_block + 1
    rules: Rules = [
        ("conv_in.", "input_blocks.0.0.", {}),
        ("time_embedding.linear_1.", "time_embed.0.", {}),
        ("time_embedding.linear_2.", "time_embed.2.", {}),
        ("mid_block.resnets.0.", "middle_block.0.", UNET_LAYERS),
        ("mid_block.attentions.0.", "middle_block.1.", {}),
        ("mid_block.resnets.1.", "middle_block.2.", UNET_LAYERS),
        ("conv_norm_out.", "out.0.", {}),
        ("conv_out.", "out.2.", {}),
    ]
    for i in range(levels):
        for j in range(c.layers_per_block):
            rules.append((f"down_blocks.{i}.resnets.{j}.", f"input_blocks.{1 + i * down + j}.0.", UNET_LAYERS))
            if "CrossAttn" in c.down_block_types[i]:
                rules.append((f"down_blocks.{i}.attentions.{j}.", f"input_blocks.{1 + i * down + j}.1.", {}))
        for j in range(c.layers_per_block + 1):
            rules.append((f"up_blocks.{i}.resnets.{j}.", f"output_blocks.{i * up + j}.0.", UNET_LAYERS))
            if "CrossAttn" in c.up_block_types[i]:
                rules.append((f"up_blocks.{i}.attentions.{j}.", f"output_blocks.{i * up + j}.1.", {}))
        if i < levels - 1:
            after = 2 if "CrossAttn" in c.up_block_types[i] else 1
            rules.append((f"down_blocks.{i}.downsamplers.0.conv.", f"input_blocks.{(i + 1) * down}.0.op.", {}))
            rules.append((f"up_blocks.{i}.upsamplers.0.conv.", f"output_blocks.{(i + 1) * up - 1}.{after}.conv.", {}))
    return rules


def vae_rules(c: AutoencoderKLConfig) -> Rules:
    """Theirs numbers the decoder's levels from the picture upwards, ours in the order in which they run."""
    levels = len(c.block_out_channels)
    rules: Rules = [(f"{name}.", f"{name}.", {}) for name in ("quant_conv", "post_quant_conv")]
    for side, ours, theirs, layers in (
        ("encoder", "down", "down", c.layers_per_block),
        ("decoder", "up", "up", c.layers_per_block + 1),
    ):
        rules += [
            (f"{side}.conv_in.", f"{side}.conv_in.", {}),
            (f"{side}.conv_norm_out.", f"{side}.norm_out.", {}),
            (f"{side}.conv_out.", f"{side}.conv_out.", {}),
            (f"{side}.mid_block.resnets.0.", f"{side}.mid.block_1.", VAE_LAYERS),
            (f"{side}.mid_block.attentions.0.", f"{side}.mid.attn_1.", VAE_ATTENTION),
            (f"{side}.mid_block.resnets.1.", f"{side}.mid.block_2.", VAE_LAYERS),
        ]
        for i in range(levels):
            n = i if side == "encoder" else levels - 1 - i
            for j in range(layers):
                rules.append((f"{side}.{ours}_blocks.{i}.resnets.{j}.", f"{side}.{theirs}.{n}.block.{j}.", VAE_LAYERS))
            sampler = f"{side}.{ours}_blocks.{i}.{ours}samplers.0.conv."
            rules.append((sampler, f"{side}.{theirs}.{n}.{theirs}sample.conv.", {}))
    return rules


def text_rules(c: CLIPTextConfig) -> Rules:
    """transformers' names, which are ours."""
    return [(name, name, {}) for name in ("embeddings.", "encoder.", "final_layer_norm.")]


def renamed(key: str, rules: Rules) -> str:
    """The name in a single file, without the network's prefix, of a weight of ours. Exactly one rule holds for it."""
    found = [(ours, theirs, within) for ours, theirs, within in rules if key.startswith(ours)]
    assert len(found) == 1, f"{key}: {len(found)} rules hold for it"
    ours, theirs, within = found[0]
    rest = "." + key.removeprefix(ours)
    for name, other in within.items():
        if rest.startswith(name):
            rest = other + rest.removeprefix(name)
            break
    return theirs + rest.removeprefix(".")


def is_convolved(key: str) -> bool:
    """Whether a single file holds this weight of our autoencoder as a 1x1 convolution: those of its attention."""
    return ".attentions." in key and key.endswith(".weight") and ".group_norm." not in key


def convolved(key: str, value: Tensor) -> Tensor:
    """Our autoencoder's weight in the shape single files have: (C, C) -> (C, C, 1, 1) in its attention."""
    return value[:, :, None, None] if is_convolved(key) else value


OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def modern(key: str) -> str:
    """The name of a weight in a diffusers folder as it is written today: the published SD 1.x folders are older."""
    for old, new in OLD_ATTENTION.items():
        key = key.replace(old, new)
    return key.removeprefix("text_model.")
