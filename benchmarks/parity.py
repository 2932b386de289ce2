"""Whether our networks are those of diffusers and transformers at Stable Diffusion 1.x's size, with random weights.

    python benchmarks/parity.py [unet] [vae] [text]

Prints the norm of the difference over the norm of the reference, in fp32 and under bf16 autocast. One network at a
time: under 12 GiB. Exit status 1 when a bound is exceeded.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.config.base import Precision
from darkroom.data.sources.torchvision_import import torchvision
from darkroom.inference.packed_unet import PackedUNet
from darkroom.interop.configs import text_config, text_spec, unet_config, unet_spec, vae_config, vae_spec
from darkroom.interop.model import build, weights_in_memory

FP32, BF16 = 1e-5, 2e-2  # the bounds
STABLE = Path("Stable Diffusion 1.x")  # whose configurations are what silence means
SIDE = 16  # of the latents; the pictures are eight times larger
Outputs = dict[str, Tensor]
Pair = tuple[Callable[[Precision], Outputs], Callable[[], Outputs]]  # ours, theirs


def unet(diffusers: Any, transformers: Any) -> Pair:
    """The denoiser at three times at once."""
    spec = unet_spec({}, STABLE)
    theirs = random(diffusers.UNet2DConditionModel(**unet_config(spec)))
    ours = build(spec, weights_in_memory(theirs), torch.device("cpu"))
    x, t, words = torch.randn(2, 4, SIDE, SIDE), torch.tensor([7.0, 981.0]), torch.randn(2, 77, 768)
    both: tuple[Precision, ...] = ("fp32", "bf16")
    drawing = {p: PackedUNet(build(spec, weights_in_memory(theirs), torch.device("cpu"), p)) for p in both}

    def found(precision: Precision) -> Outputs:
        for_drawing = drawing[precision]
        return {
            "noise": ours(x, t, ours.prepare_context(words)),
            "noise, drawing": for_drawing(x, t, for_drawing.prepare_context(words)).float(),
        }

    return found, lambda: dict.fromkeys(("noise", "noise, drawing"), theirs(x, t, words).sample)


def vae(diffusers: Any, transformers: Any) -> Pair:
    """Moments of a picture, and the picture of latents."""
    spec = vae_spec({}, STABLE)
    theirs = random(diffusers.AutoencoderKL(**vae_config(spec, 8 * SIDE, 1.0)))
    ours = build(spec, weights_in_memory(theirs), torch.device("cpu"))
    x, z = torch.rand(1, 3, 8 * SIDE, 8 * SIDE) * 2 - 1, torch.randn(1, 4, SIDE, SIDE)

    def reference() -> Outputs:
        moments = theirs.encode(x).latent_dist
        return {"mean": moments.mean, "logvar": moments.logvar, "picture": theirs.decode(z).sample}

    return lambda precision: {**ours.encode(x)._asdict(), "picture": ours.decode(z)}, reference


def text(diffusers: Any, transformers: Any) -> Pair:
    """Tokens' states and the pooled one."""
    spec = text_spec({}, STABLE)
    theirs = random(transformers.CLIPTextModel(transformers.CLIPTextConfig(**text_config(spec))).eval())
    ours = build(spec, weights_in_memory(theirs), torch.device("cpu"))
    ids = torch.randint(0, 49406, (2, 77))
    ids[:, 0], ids[0, 9:], ids[1, 76] = spec.sizes.bos_token_id, spec.sizes.eos_token_id, spec.sizes.eos_token_id

    def reference() -> Outputs:
        output = theirs(ids)
        return {"states": output.last_hidden_state, "pooled": output.pooler_output}

    return lambda precision: dict(zip(("states", "pooled"), ours(ids), strict=True)), reference


def random(network: Any) -> Any:
    """Norms and biases, which start alike in every layer, made different."""
    with torch.no_grad():
        for p in network.parameters():
            if p.ndim == 1:
                p.add_(0.1 * torch.randn_like(p))
    assert isinstance(network, nn.Module)
    return network.eval()


NETWORKS = {"unet": unet, "vae": vae, "text": text}


@torch.no_grad()
def main(names: list[str]) -> int:
    """Measure the networks named; the number of outputs beyond their bound."""
    torchvision("datasets")
    import diffusers
    import transformers

    beyond = 0
    for name in names or list(NETWORKS):
        torch.manual_seed(0)
        ours, theirs = NETWORKS[name](diffusers, transformers)
        began = time.monotonic()
        expected, found = theirs(), ours("fp32")
        with torch.autocast("cpu", torch.bfloat16):
            rough = ours("bf16")
        for key, value in expected.items():
            exact, low = (float((f[key].float() - value).norm() / value.norm()) for f in (found, rough))
            beyond += (exact > FP32) + (low > BF16)
            print(f"{name} {key}: fp32 {exact:.1e}, bf16 {low:.1e}", flush=True)
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return beyond


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
