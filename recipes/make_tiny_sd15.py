"""A random Stable Diffusion 1.x checkpoint of ten megabytes, and captioned pictures to fine-tune it on.

It has all that a published one has, under the same names: a U-Net, an autoencoder and a text encoder of the same kinds
of layers, only narrower and shallower; EMA copies, the schedule's buffers, position_ids; a tokenizer beside it. The
recipe sd15-finetune-tiny says how to use it.

    python recipes/make_tiny_sd15.py [CHECKPOINT_FOLDER] [PICTURE_FOLDER]
"""

import sys
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from darkroom.config.denoisers import DenoiserSizes, UNet2DConditionConfig
from darkroom.config.networks import AutoencoderKLConfig, CLIPTextConfig, PictureSizes
from darkroom.core.artifact import load_tensors, save_tensors
from darkroom.core.rng import seeded
from darkroom.data.sources.base import Sample
from darkroom.data.sources.scenes import Scenes
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.diffusion.process import process_of
from darkroom.interop.model import Model
from darkroom.interop.single_file import PROCESS, in_memory, write_single_file
from darkroom.interop.tokenizer import CONTEXT
from darkroom.nn.autoencoder.vae import AutoencoderKL
from darkroom.nn.denoiser.unet import UNet2DConditionModel
from darkroom.nn.text.clip import CLIPTextModel

CHECKPOINT, PICTURES = Path("artifacts/tiny-sd15"), Path("data/raw/tiny-sd15")
N_PICTURES, SIZE = 96, 64
VOCABULARY, WIDTH = 700, 64
UNET = UNet2DConditionConfig(
    kind="unet_2d_condition",
    down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
    up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
    block_out_channels=[32, 64],
    layers_per_block=1,
    transformer_layers_per_block=[1, 1],
    num_attention_heads=[8, 8],
    use_linear_projection=False,
    norm_num_groups=32,
)
LATENTS = DenoiserSizes(in_channels=4, sample_size=128, cross_attention_dim=WIDTH, num_classes=None)
VAE = AutoencoderKLConfig(latent_channels=4, block_out_channels=[32, 32, 64], layers_per_block=1, norm_num_groups=32)


def make(pictures: list[Sample]) -> Model:
    """The model, its tokenizer learnt from the captions."""
    tokenizer = CLIPTokenizer.train([p.caption for p in pictures], VOCABULARY, CONTEXT)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer.vocab),
        max_length=CONTEXT,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=1,
        hidden_act="quick_gelu",
        intermediate_size=2 * WIDTH,
    )
    with seeded(0, "tiny sd15"):
        networks = (
            UNet2DConditionModel(UNET, LATENTS),
            AutoencoderKL(VAE, PictureSizes(in_channels=3)),
            CLIPTextModel(text, tokenizer.sizes),
        )
        for network in networks:
            randomise(network)
    return in_memory(*networks, tokenizer)


def randomise(network: nn.Module) -> None:
    """No layer is silent, and activations stay mild."""
    with torch.no_grad():
        for key, p in network.named_parameters():
            if p.ndim > 1:
                p.normal_(std=0.7 / p[0].numel() ** 0.5)
            elif key.endswith("bias"):
                p.normal_(std=0.1)


def published_extras(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What published files hold besides the weights."""
    unet = "model.diffusion_model."
    copies = {
        "model_ema." + key.removeprefix("model.").replace(".", ""): value + 1
        for key, value in tensors.items()
        if key.startswith(unet)
    }
    alphas = process_of(PROCESS).alphas_cumprod.float()
    text = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    return {
        **copies,
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(470000, dtype=torch.int32),
        "alphas_cumprod": alphas,
        "alphas_cumprod_prev": torch.cat([torch.ones(1), alphas[:-1]]),
        "betas": 1 - alphas / torch.cat([torch.ones(1), alphas[:-1]]),
        "sqrt_alphas_cumprod": alphas.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - alphas).sqrt(),
        text: torch.arange(CONTEXT)[None],
    }


def main(checkpoint: Path = CHECKPOINT, pictures: Path = PICTURES) -> None:
    """Write DIR/model.safetensors, DIR/tokenizer/ and the captioned pictures."""
    drawn = [sample for sample in Scenes(N_PICTURES, 0, 0, 0, seed=0, image_size=SIZE) if isinstance(sample, Sample)]
    pictures.mkdir(parents=True, exist_ok=True)
    for i, sample in enumerate(drawn):
        assert not isinstance(sample.image, bytes | Image.Image)
        Image.fromarray(sample.image).save(pictures / f"{i:03d}.png")
        (pictures / f"{i:03d}.txt").write_text(sample.caption, encoding="utf-8")
    model, file = make(drawn), checkpoint / "model.safetensors"
    checkpoint.mkdir(parents=True, exist_ok=True)
    write_single_file(model, file)
    tensors = load_tensors(file)
    save_tensors(file, {**tensors, **published_extras(tensors)})
    if not (checkpoint / "tokenizer").exists():
        model.tokenizer.write(checkpoint / "tokenizer")
    print(f"{file}: {len(tensors)} weights; {pictures}: {len(drawn)} pictures")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
