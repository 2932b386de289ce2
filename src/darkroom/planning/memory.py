"""`darkroom params check --memory`: what each stage will need at its peak, before it is run.

The stage's networks are built and a step of a full batch is made on tensors that have sizes and no content (PyTorch's
FakeTensorMode): what lives at once is counted, and nothing is computed. What the optimiser, the average and the best
weights hold is added. On GPUs, norms and softmax are taken in fp32 under bf16, as PyTorch's autocast does there.
"""

import math
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from darkroom.config.autoencoder import PretrainedVAE, TrainedVAE
from darkroom.config.base import Precision
from darkroom.config.denoisers import DenoiserSizes
from darkroom.config.networks import (
    AutoencoderKLConfig,
    ClassifierSizes,
    CLIPTextConfig,
    ConvTowerConfig,
    PictureSizes,
    TokenSizes,
    TowersConfig,
    TowersSizes,
)
from darkroom.config.params import Params
from darkroom.config.paths import PREPARED
from darkroom.config.text_encoder import PretrainedTextEncoder, TrainedTextEncoder
from darkroom.core.artifact import CONFIG, read_json
from darkroom.core.device import autocast, resolve_device, runtime
from darkroom.core.weights import WEIGHTS
from darkroom.data.prepared import INFO, Prepared
from darkroom.nn.autoencoder.discriminator import PatchDiscriminator
from darkroom.nn.autoencoder.perceptual import PerceptualDistance
from darkroom.nn.autoencoder.tiling import AT_ONCE
from darkroom.nn.autoencoder.vae import AutoencoderKL
from darkroom.nn.denoiser.base import DenoisingNetwork, build
from darkroom.nn.judge.classifier import ROTATIONS, Classifier, SelfSupervised
from darkroom.nn.judge.towers import Towers
from darkroom.nn.layers import attention
from darkroom.nn.layers.recompute import checkpoint_activations
from darkroom.nn.text.clip import CLIPTextModel
from darkroom.planning.adapters import adapted
from darkroom.planning.footprint import Footprint
from darkroom.training.engine.blank import Size, denoised, judged, matched, reconstructed
from darkroom.training.engine.sharding import block_bytes

ERROR = 25  # percent by which an estimate may be off; a test holds it on the CPU
CPU = torch.device("cpu")  # where all is counted, whatever the device
STAGES = ("train_vae", "cache_latents", "setup_text_encoder", "train_unet", "train_evaluator", "evaluate")
SD_VAE = {  # of an imported autoencoder that is not there yet
    "latent_channels": 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "norm_num_groups": 32,
}
CLIP_BYTES = 492_000_000  # of the text encoder of SD 1.x, where it is not there yet
CLASSES = 10  # of data that are not prepared yet
ON_GPUS_IN_FP32 = (F.group_norm, F.layer_norm, torch.softmax, torch.Tensor.softmax, F.softmax, F.normalize)


def device_of(name: str) -> torch.device:
    """The device that is set, whether it is here or not: `cuda` can be asked about where there is none."""
    return resolve_device(name) if name in ("auto", "cpu") else torch.device(name)


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that are alive of what is made in it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Iterable[Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        return out

    def know(self, tensors: Iterable[Tensor]) -> None:
        """Do not count these."""
        self._known |= {tensor.untyped_storage()._cdata for tensor in tensors}

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known.add(key)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, storage.nbytes()).atexit = False

    def _gone(self, key: int, n_bytes: int) -> None:
        self._known.discard(key)
        self.now -= n_bytes


class _AsOnGPUs(TorchFunctionMode):
    """Computes in fp32 what autocast does on GPUs, and not on CPUs."""

    def __torch_function__(
        self, func: Any, types: Iterable[Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func not in ON_GPUS_IN_FP32:
            return func(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            return func(*(x.float() if isinstance(x, Tensor) else x for x in args), **(kwargs or {}))


@contextmanager
def _as_on(device: torch.device, precision: Precision) -> Iterator[None]:
    """Attention in the form that the device will take, and its precision."""
    before = attention.EXPLICIT_UP_TO
    if device.type != "cpu":  # the equation itself where flash attention is impossible
        written_out = device.type == "cuda" and precision == "fp32" and runtime().deterministic
        attention.EXPLICIT_UP_TO = 1 << 60 if written_out else 0
    try:
        with _AsOnGPUs() if device.type != "cpu" and precision == "bf16" else nullcontext():
            yield
    finally:
        attention.EXPLICIT_UP_TO = before


def _bytes(network: nn.Module, trained: bool = False) -> float:
    return sum(p.nbytes for p in network.parameters() if p.requires_grad or not trained)


def _training(
    networks: list[nn.Module], forward: Callable[[], list[Tensor]], section: Any, device: torch.device, best: bool
) -> Footprint:
    """Of a step that moves all networks; their outputs are what `forward` returns, one after the other."""
    with _as_on(device, section.precision):
        live = _Live()
        live.know(p for network in networks for p in network.parameters())
        with live:
            with autocast(CPU, section.precision):
                outputs = forward()
            loss: Tensor = sum((out.float().square().mean() for out in outputs), torch.zeros(()))
            torch.autograd.backward(loss)
            del outputs
    weights = sum(map(_bytes, networks))
    gradients = sum(_bytes(network, trained=True) for network in networks)
    matrices = sum(p.nbytes for n in networks for p in n.parameters() if p.ndim > 1 and p.requires_grad)
    muon = section.optimizer.kind == "muon"
    optimizer = 2 * gradients - (matrices if muon else 0)
    averages = gradients * (1 + best)  # what is frozen is shared
    # Muon's directions are made when the activations are gone.
    return Footprint(
        weights, gradients, optimizer, averages, max(live.peak - gradients, matrices if muon else 0.0, 0.0)
    )


def _drawing(
    networks: list[nn.Module], forward: Callable[[], object], precision: Precision, device: torch.device
) -> Footprint:
    """Of passes without gradients."""
    live = _Live()
    live.know(p for network in networks for p in network.parameters())
    with torch.no_grad(), _as_on(device, precision), live, autocast(CPU, precision):
        forward()
    return Footprint(sum(map(_bytes, networks)), activations=float(live.peak))


class Estimate:
    """The footprints of the stages that compute with networks."""

    def __init__(self, params: Params, device: torch.device) -> None:
        self.p, self.device = params, device
        self.info = Prepared.open(PREPARED).info if (PREPARED / INFO).is_file() else None
        q = params.prepare_data
        height, width = max(q.sizes, key=math.prod)  # batches of other buckets take less
        self.picture = (q.channels, height, width)
        self.autoencoder = self._autoencoder()
        self.latent: Size = self.picture
        if (shape := self.autoencoder) is not None:
            self.latent = (shape.latent_channels, height // shape.downscale, width // shape.downscale)

    def stages(self, wanted: Collection[str] = STAGES) -> dict[str, Footprint]:
        """{stage: what it needs}, of those wanted that have something to compute."""
        found: dict[str, Footprint] = {}
        nothing = set()
        if not isinstance(self.p.train_vae, TrainedVAE):
            nothing.add("train_vae")
        if self.autoencoder is None:
            nothing.add("cache_latents")
        if not isinstance(self.p.setup_text_encoder, TrainedTextEncoder):
            nothing.add("setup_text_encoder")
        for stage in wanted:
            if stage not in nothing:
                with FakeTensorMode():
                    found[stage] = getattr(self, f"_{stage}")()
        return found

    def _rows(self, section: Any) -> int:
        """Of a batch that are computed at once, by one process."""
        return int(-(-section.batch_size // (getattr(section, "accumulation", 1) * runtime().processes)))

    def _autoencoder(self) -> AutoencoderKLConfig | None:
        """Its shape; of an imported one that is not there yet, Stable Diffusion's. None without an autoencoder."""
        v = self.p.train_vae
        if isinstance(v, TrainedVAE):
            return v.autoencoder
        if isinstance(v, PretrainedVAE):
            found = read_json(Path(v.path) / CONFIG) if (Path(v.path) / CONFIG).is_file() else {}
            return AutoencoderKLConfig(**{key: found.get(key, usual) for key, usual in SD_VAE.items()})
        return None

    def _vae(self) -> AutoencoderKL:
        assert self.autoencoder is not None
        vae = AutoencoderKL(self.autoencoder, PictureSizes(in_channels=self.picture[0]))
        checkpoint_activations(vae, runtime().checkpoint_activations)
        return vae

    def _train_vae(self) -> Footprint:
        p, vae, n = self.p.train_vae, self._vae(), self._rows(self.p.train_vae)
        assert isinstance(p, TrainedVAE)
        networks: list[nn.Module] = [vae]
        perceptual = PerceptualDistance() if p.perceptual is not None else None
        critic = None
        if p.adversarial is not None:
            critic = PatchDiscriminator(p.adversarial.discriminator, self.picture[0])
            networks.append(critic)

        def forward() -> list[Tensor]:
            y = reconstructed(vae, n, self.picture).float()
            likeness = [] if perceptual is None else [perceptual(y, torch.zeros_like(y))]
            return [y, *likeness, *([] if critic is None else [critic(y)])]

        found = _training(networks, forward, p, self.device, best=p.adversarial is None)
        extra = 0.0 if perceptual is None else _bytes(perceptual)
        return Footprint(found.weights + extra, found.gradients, found.optimizer, found.averages, found.activations)

    def _cache_latents(self) -> Footprint:
        p, vae = self.p.cache_latents, self._vae()
        return _drawing([vae], lambda: vae.encode(torch.zeros(p.batch_size, *self.picture)), p.precision, self.device)

    def _towers(self, text: CLIPTextConfig, image: ConvTowerConfig) -> Towers:
        tokens = TokenSizes(bos_token_id=0, eos_token_id=0, pad_token_id=0)
        sizes = TowersSizes(in_channels=self.picture[0], tokens=tokens)
        return Towers(TowersConfig(image=image, text=text), sizes)

    def _setup_text_encoder(self) -> Footprint:
        p = self.p.setup_text_encoder
        assert isinstance(p, TrainedTextEncoder)
        towers, n = self._towers(p.text, p.image), self._rows(p)
        forward = lambda: [matched(towers, n, self.picture, p.text.max_length)]  # noqa: E731
        return _training([towers], forward, p, self.device, best=False)

    def _unet(self) -> tuple[DenoisingNetwork, tuple[int, ...] | None]:
        classes = None
        if self.p.setup_text_encoder.kind == "class":
            classes = len(self.info.heads[0].classes) if self.info and self.info.heads else CLASSES
        words = self._words()
        sizes = DenoiserSizes(
            in_channels=self.latent[0],
            sample_size=self.latent[-1],
            cross_attention_dim=words[1] if words else None,
            num_classes=classes,
        )
        unet = build(self.p.train_unet.unet, sizes)
        checkpoint_activations(unet, runtime().checkpoint_activations)
        return unet, words

    def _words(self) -> tuple[int, int] | None:
        """(tokens, width) of a text condition; of an imported encoder that is not there yet, CLIP's."""
        p = self.p.setup_text_encoder
        if isinstance(p, TrainedTextEncoder):
            return p.text.max_length, p.text.hidden_size
        if not isinstance(p, PretrainedTextEncoder):
            return None
        found = read_json(Path(p.path) / CONFIG) if (Path(p.path) / CONFIG).is_file() else {}
        return int(found.get("max_position_embeddings", 77)), int(found.get("hidden_size", 768))

    def _train_unet(self) -> Footprint:
        p, n = self.p.train_unet, self._rows(self.p.train_unet)
        unet, words = self._unet()
        if p.lora is not None:
            unet = adapted(p, p.lora, unet, self.p.setup_text_encoder)
            words = words[:1] if words is not None and p.lora.text_encoder else words  # token ids
        found = _training([unet], lambda: [denoised(unet, n, self.latent, words)], p, self.device, best=True)
        if runtime().strategy == "fsdp2" and p.lora is None and p.optimizer.kind == "adamw":
            found = found.divided(runtime().processes, max(block_bytes(unet)))
        return replace(found, weights=found.weights + self._frozen_text())

    def _frozen_text(self) -> float:
        """Of the text encoder beside the denoiser, where captions are kept as tokens."""
        p = self.p.setup_text_encoder
        lora = self.p.train_unet.lora
        if not isinstance(p, TrainedTextEncoder | PretrainedTextEncoder) or p.cache == "states":
            return 0.0
        if lora is not None and lora.text_encoder:
            return 0.0  # it is a part of what is trained
        if isinstance(p, TrainedTextEncoder):
            return _bytes(CLIPTextModel(p.text, TokenSizes(bos_token_id=0, eos_token_id=0, pad_token_id=0)))
        weights = Path(p.path) / WEIGHTS
        return float(weights.stat().st_size if weights.is_file() else CLIP_BYTES)

    def _train_evaluator(self) -> Footprint:
        p, n = self.p.train_evaluator, self._rows(self.p.train_evaluator)
        heads = [len(head.classes) for head in self.info.heads] if self.info else [CLASSES]
        judge: nn.Module
        if heads:
            sizes = ClassifierSizes(in_channels=self.picture[0], classes=heads, absent=[False] * len(heads))
            judge = Classifier(p.image, sizes)
            forward = lambda: [judged(judge, n, self.picture)]  # noqa: E731
        elif self.info and self.info.captions:
            judge = self._towers(p.text, p.image)
            forward = lambda: [matched(judge, n, self.picture, p.text.max_length)]  # noqa: E731
        else:
            judge = SelfSupervised(p.image, PictureSizes(in_channels=self.picture[0]))
            forward = lambda: [judged(judge, ROTATIONS * n, self.picture)]  # noqa: E731
        one = _training([judge], forward, p, self.device, best=False)  # one after the other takes its turn
        return Footprint(2 * one.weights, 2 * one.gradients, 2 * one.optimizer, 2 * one.averages, one.activations)

    def _evaluate(self) -> Footprint:
        p, (unet, words) = self.p.evaluate, self._unet()
        unet.eval()
        guided = 2 * p.batch_size
        found = _drawing([unet], lambda: denoised(unet, guided, self.latent, words), p.precision, self.device)
        if self.autoencoder is None:
            return found
        vae = self._vae()
        at_once = min(max(1, AT_ONCE // math.prod(self.picture[1:])), p.batch_size)
        decoding = _drawing([vae], lambda: vae.decode(torch.zeros(at_once, *self.latent)), p.precision, self.device)
        return Footprint(found.weights + decoding.weights, activations=max(found.activations, decoding.activations))
