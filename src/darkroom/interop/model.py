"""A latent diffusion model of the Stable Diffusion 1.x family, as files of other tools describe it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from darkroom.config.base import Precision
from darkroom.config.choices import PredictionType
from darkroom.config.denoisers import UNetSpec
from darkroom.config.diffusion import ProcessConfig
from darkroom.config.networks import AutoencoderSpec, TextSpec
from darkroom.config.sampling import Sampling
from darkroom.core.artifact import FETCH
from darkroom.core.device import channels_last
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import NETWORK_TENSORS, NETWORK_WEIGHTS, PIXELS
from darkroom.core.tensors import check_finite
from darkroom.core.weights import outline
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.interop.checkpoint import Checkpoint, check_keys, in_memory
from darkroom.nn.autoencoder.vae import AutoencoderKL
from darkroom.nn.denoiser.unet import UNet2DConditionModel
from darkroom.nn.layers.lora import rounded_by_autocast
from darkroom.nn.text.clip import CLIPTextModel

Dtype = Literal["fp32", "fp16", "bf16"]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
Spec = UNetSpec | AutoencoderSpec | TextSpec
NETWORKS: dict[type, Callable[..., nn.Module]] = {
    UNetSpec: UNet2DConditionModel,
    AutoencoderSpec: AutoencoderKL,
    TextSpec: CLIPTextModel,
}
OF_NETWORKS = (NETWORK_TENSORS, NETWORK_WEIGHTS)
# A network with more than so many times what a file holds, and these, is not that file's: others are told by the keys.
SLACK, SLACK_TENSORS, SLACK_WEIGHTS = 4, 64, 1_000_000


@dataclass(frozen=True)
class Weights:
    """Where the weights of one network lie: checked to be there and of the right shapes, read one by one.

    keys: {our name: name in the file}; convolved and linear shapes of the same numbers are one.
    """

    file: Checkpoint
    keys: dict[str, str]
    shapes: dict[str, tuple[int, ...]]

    def tensor(self, key: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight of our name, in our shape; fp32, or rounded from that to `dtype`."""
        return self.file.float32(self.keys[key], dtype).reshape(self.shapes[key])


@dataclass(frozen=True)
class Model:
    """A whole model.

    process: see `process_of`. sampling, precision: how pictures are drawn unless asked otherwise.
    aside: what its folder holds besides and why it is not read, a phrase each.
    """

    unet: UNetSpec
    vae: AutoencoderSpec
    text: TextSpec
    unet_weights: Weights
    vae_weights: Weights
    text_weights: Weights
    tokenizer: CLIPTokenizer
    scaling_factor: float
    process: ProcessConfig
    prediction_type: PredictionType
    sampling: Sampling
    precision: Precision
    aside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unet, text, latent_channels = self.unet.sizes, self.text.network, self.vae.network.latent_channels
        if text.hidden_size != unet.cross_attention_dim:
            raise DarkroomError(
                f"{self.unet_weights.file.path}: cross_attention_dim = {unet.cross_attention_dim}, but the text "
                f"encoder's hidden_size = {text.hidden_size}; they do not belong together"
            )
        if (most := max(self.tokenizer.vocab.values())) >= text.vocab_size:
            raise DarkroomError(
                f"{self.text_weights.file.path}: the text encoder knows {text.vocab_size} tokens, the tokenizer "
                f"{most + 1}; give its own"
            )
        if latent_channels != unet.in_channels:
            raise DarkroomError(
                f"{self.unet_weights.file.path}: in_channels = {unet.in_channels}, but the autoencoder's "
                f"latent_channels = {latent_channels}; only text to image models are read, no inpainting ones"
            )
        PIXELS.check(f"{self.unet_weights.file.path}: image_size^2, of sample_size", self.image_size**2, FETCH)
        self.tokenizer.max_length = min(self.tokenizer.max_length, text.max_length)

    @property
    def weights(self) -> tuple[Weights, Weights, Weights]:
        """The weights of the U-Net, the autoencoder and the text encoder."""
        return self.unet_weights, self.vae_weights, self.text_weights

    @property
    def image_size(self) -> int:
        """Pixels of a side of the pictures that the model is made for."""
        return self.unet.sizes.sample_size * self.vae.network.downscale


def _unmade(spec: Spec, path: Path, tensors: int | None = None, weights: int | None = None) -> nn.Module:
    """The network without memory for its weights; see `outline`."""
    network = NETWORKS[type(spec)]
    return outline(lambda: network(spec.network, spec.sizes), path, tensors, weights, "give the file it is for")


def shapes_of(spec: Spec, file: Checkpoint | None = None) -> dict[str, tuple[int, ...]]:
    """{our name: shape} of every weight of a network, without making it.

    Args:
        file: that is to hold its weights, under whatever names.

    Raises:
        DarkroomError: no network can be of that shape, or it has far more weights than the file.
    """
    if file is None:
        network = _unmade(spec, Path(type(spec.network).__name__))
    else:
        most = SLACK * len(file.shapes) + SLACK_TENSORS, SLACK * file.numbers + SLACK_WEIGHTS
        network = _unmade(spec, file.path, *(min(n, limit.most) for n, limit in zip(most, OF_NETWORKS, strict=True)))
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def weights_in_memory(network: nn.Module) -> Weights:
    """Those of a network that is there, to be written."""
    tensors = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    return Weights(
        Checkpoint(Path(type(network).__name__), shapes, in_memory(tensors)), {k: k for k in tensors}, shapes
    )


def weights_of(spec: Spec, file: Checkpoint, keys: dict[str, str], found: dict[str, tuple[int, ...]]) -> Weights:
    """The weights of the network of `spec` in `file`, of which `keys` are named {our name: name there}.

    Raises:
        DarkroomError: not exactly the network's weights, or not of their shapes.
    """
    wanted = shapes_of(spec, file)
    theirs = {keys.get(key, key): shape for key, shape in wanted.items()}
    names = {name: key for key, name in keys.items()}
    same = {key: theirs[key] if _same_numbers(key, shape, names, wanted) else shape for key, shape in found.items()}
    check_keys(file.path, theirs, same)
    return Weights(file, keys, wanted)


def _same_numbers(name: str, shape: tuple[int, ...], names: dict[str, str], wanted: dict[str, tuple[int, ...]]) -> bool:
    """A linear layer of the autoencoder's attention that is held as a 1x1 convolution."""
    expected = wanted.get(names.get(name, ""))
    return expected is not None and len(expected) == 2 and shape == (*expected, 1, 1)


def build(
    spec: Spec,
    weights: Weights,
    device: torch.device,
    precision: Precision = "fp32",
    later: str | None = None,
    layout: torch.memory_format = torch.contiguous_format,
) -> Any:
    """The network with its weights, on `device`, in eval mode and frozen.

    Its weights are in memory once: each is read, and rounded, by itself.

    Args:
        precision: bf16 keeps those that autocast would round anew at every call in 16 bits; the network is then to be
            run under autocast.
        later: a part of the network whose weights are read when it is first called, which may be never.
        layout: of the kernels of convolutions; laid out anew afterwards, they leave holes in memory.
    """
    network = _unmade(spec, weights.file.path)
    halved = rounded_by_autocast(network).keys() if precision == "bf16" else ()

    def placed(value: Tensor) -> Tensor:
        if value.ndim == 4 and not value.is_contiguous(memory_format=layout):
            value = value.contiguous(memory_format=layout)
        return value.to(device)

    def fill(part: nn.Module, prefix: str, keys: Iterable[str]) -> None:
        types = {True: torch.bfloat16, False: torch.float32}
        values = {key.removeprefix(prefix): placed(weights.tensor(key, types[key in halved])) for key in keys}
        part.load_state_dict(values, strict=False, assign=True)
        part.requires_grad_(False)

    deferred = [key for key in weights.keys if later is not None and key.startswith(f"{later}.")]
    fill(network, "", [key for key in weights.keys if key not in deferred])
    if later is not None:
        part = network.get_submodule(later)

        def read(*_: object) -> None:
            fill(part, f"{later}.", deferred)
            handle.remove()

        handle = part.register_forward_pre_hook(read)
    return network.eval()


def build_vae(spec: AutoencoderSpec, weights: Weights, device: torch.device) -> AutoencoderKL:
    """The autoencoder, see `build`; its encoder, a third of it, is read when the first picture is encoded."""
    vae: AutoencoderKL = build(spec, weights, device, later="encoder")
    channels_last(vae.decoder)
    return vae


def converted(value: Tensor, dtype: Dtype, key: str, path: Path) -> Tensor:
    """A weight in the number type of an export.

    Raises:
        DarkroomError: the type cannot hold it, or it is not finite.
    """
    out = value.to(DTYPES[dtype])
    if dtype != "fp32" and bool((out.isinf() & value.isfinite()).any()):
        wider = "bf16 or fp32" if dtype == "fp16" else "fp32"
        raise DarkroomError(f"{path}: {key} is too large for {dtype}; export with --dtype {wider}")
    check_finite(out, f"{path}: {key}", "train it again, or name another model")
    return out.contiguous()
