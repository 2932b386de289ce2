"""train_unet: the denoiser, from cached latents and conditions. data/latents, data/conditioning -> artifacts/unet.

artifacts/vae decodes what is shown; nothing is learned from it. artifacts/text_encoder makes the conditions where
setup_text_encoder kept captions as tokens.
"""

import darkroom.runner.startup  # noqa: F401

# isort: split
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image

from darkroom.config.denoisers import DenoiserSizes, UNet2DConditionConfig
from darkroom.config.params import Params
from darkroom.config.paths import CONDITIONING, LATENTS, TEXT_ENCODER, UNET, VAE, report_of
from darkroom.config.sections import LoRAConfig, TrainUNet
from darkroom.core.artifact import check_made_from, content_hash, provenance, write_json
from darkroom.core.device import runtime
from darkroom.core.rng import seeded
from darkroom.core.tensors import save_png
from darkroom.core.weights import DIFFUSERS_WEIGHTS, write_network
from darkroom.data.conditioning import Conditioning, read_words
from darkroom.data.latents import Latents, read_info
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.diffusion.objective import Objective
from darkroom.diffusion.process import process_of
from darkroom.interop.lora import Trained
from darkroom.interop.lora_artifact import write_artifact
from darkroom.interop.lora_names import Network
from darkroom.interop.pretrained import read_pretrained_unet, read_text_encoder_to_adapt
from darkroom.nn.denoiser.adapted import TEXT_TARGETS, AdaptedDenoiser
from darkroom.nn.denoiser.base import DenoisingNetwork, build
from darkroom.nn.layers.recompute import checkpoint_activations
from darkroom.runner.stage import Work, run_stage
from darkroom.training.decoder import LatentDecoder
from darkroom.training.engine.fit import fit
from darkroom.training.frozen_text import FrozenTextEncoder
from darkroom.training.latent_batches import LatentBatches
from darkroom.training.previews import LatentView, UNetPreviews
from darkroom.training.unet import UNetTask, description, spec_of
from darkroom.view.forward import ROWS

REPORT = report_of("train_unet")
TOKENIZER = "tokenizer"  # in artifacts/text_encoder


def body(params: Params, work: Work) -> Mapping[str, float | str]:
    """Train with condition dropout; hand on the averaged weights of the best held-out loss."""
    p = params.train_unet
    latents, held_out = (Latents.read(LATENTS, split) for split in ("train", "validation"))
    conditioning = _conditioning(p, work)
    unet = _network(p, spec_of(p, read_info(LATENTS).shape, conditioning.info).sizes, work)
    drops = p.condition_dropout, p.horizontal_flip
    data = LatentBatches(latents, held_out, conditioning, work.context(p), *drops, p.held_out, p.captions)
    objective = Objective(process_of(p.process), p.objective)
    task = UNetTask(unet, objective, data, p.accumulation)
    fitted = fit(task, p, work, REPORT, _previews(p, task, work))
    figures: dict[str, float | str] = {
        "held_out_loss": fitted.held_out["held_out/loss"],
        **fitted.against_chance,
        "held_out_pictures": data.n_held_out,
        "best_step": fitted.step,
    }
    sources = [LATENTS, CONDITIONING, *([TEXT_ENCODER] if conditioning.of_tokens else [])]
    if p.init_from is not None:
        sources.append(Path(p.init_from))
        figures["init_from"] = content_hash(p.init_from)
    write_json(REPORT / "metrics.json", figures)
    config, origin = description(p, read_info(LATENTS), conditioning.info), provenance(*sources)
    if p.lora is not None and p.init_from is not None:
        trained = Trained(p.lora.rank, p.lora.alpha, _targets(p.lora), str(figures["init_from"]), origin["inputs"])
        write_artifact(UNET, fitted.network.state_dict(), trained, Path(p.init_from), config)
    else:
        write_network(UNET, DIFFUSERS_WEIGHTS, fitted.network, config, origin)
    return figures


def _targets(lora: LoRAConfig) -> dict[Network, Sequence[str]]:
    """The layers that have adapters, of each network that has any."""
    text: dict[Network, Sequence[str]] = {"text_encoder": TEXT_TARGETS} if lora.text_encoder else {}
    return {"unet": lora.targets, **text}


def _conditioning(p: TrainUNet, work: Work) -> Conditioning:
    """Ready for use: with the text encoder where captions are tokens, unless it is trained too."""
    conditioning = Conditioning.read(CONDITIONING)
    if not conditioning.of_tokens:
        return conditioning
    check_made_from(CONDITIONING, TEXT_ENCODER)
    if p.lora is not None and p.lora.text_encoder:
        return conditioning.as_ids(CLIPTokenizer.read(TEXT_ENCODER / TOKENIZER)([""])[0])
    return conditioning.encoded_by(FrozenTextEncoder.read(TEXT_ENCODER, work.device))


def _network(p: TrainUNet, sizes: DenoiserSizes, work: Work) -> DenoisingNetwork:
    """With initial weights, or imported ones."""
    unet: DenoisingNetwork
    device = _first_device(p, work)
    if p.init_from is not None and isinstance(p.unet, UNet2DConditionConfig):
        trained_for = p.process, p.objective.prediction_type
        kept = "fp32" if p.lora is None else p.precision  # what is trained is fp32, whatever it is computed in
        unet = read_pretrained_unet(Path(p.init_from), p.unet, sizes, device, *trained_for, kept)
    else:
        with seeded(p.seed, "unet"):
            unet = build(p.unet, sizes).to(device).stored()
    checkpoint_activations(unet, runtime().checkpoint_activations)
    return unet if p.lora is None else _adapted(p.lora, unet, p, work)


def _first_device(p: TrainUNet, work: Work) -> torch.device:
    """Where the network is made: adapters and what they are beside are divided among no processes."""
    return work.processes.first_device if p.lora is None else work.device


def _adapted(lora: LoRAConfig, unet: DenoisingNetwork, p: TrainUNet, work: Work) -> AdaptedDenoiser:
    """With new adapters, and the text encoder if it gets some too."""
    device = _first_device(p, work)
    text = read_text_encoder_to_adapt(TEXT_ENCODER, device, p.precision) if lora.text_encoder else None
    with seeded(p.seed, "lora"):
        return AdaptedDenoiser(unet, text, lora.targets, lora.rank, lora.alpha, halved=p.precision == "bf16")


def _asked(data: LatentBatches, n: int) -> list[str]:
    """What the held-out samples to look at are asked to show."""
    said = [data.held_out_captions(size, torch.tensor([row])) for size, row in data.to_show(n)]
    rows = [int(of) for of in said if of is not None]
    return read_words(CONDITIONING, rows) if rows else [""] * len(said)


def _previews(p: TrainUNet, task: UNetTask, work: Work) -> UNetPreviews:
    decoder = LatentDecoder(VAE, LATENTS, task.data.train.scaling_factor, work.device)
    view = LatentView(decoder, decoder.centre, _asked(task.data, max(p.samples, ROWS)))

    def emit(picture: Image.Image, name: str, step: int | None) -> None:
        if not work.processes.leads:
            return
        work.run.picture(picture, name, step)
        save_png(REPORT / f"{name}.png", picture)

    return UNetPreviews(task, view, p.sampling, p.samples, p.sample_every, emit)


if __name__ == "__main__":
    run_stage("train_unet", body, trains=True)
