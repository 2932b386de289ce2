"""cache_latents: what the autoencoder makes of every picture. data/prepared, artifacts/vae -> data/latents."""

import darkroom.runner.startup  # noqa: F401

# isort: split
from collections.abc import Callable, Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from darkroom.config.params import Params
from darkroom.config.paths import LATENTS, PREPARED, VAE, report_of
from darkroom.config.sections import CacheLatents
from darkroom.core.artifact import CONFIG, PROVENANCE, atomic_path, check_made_from, provenance, read_json, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.rng import randn_each
from darkroom.core.tensors import save_png, to_float, to_pil, to_uint8
from darkroom.data.latents import Latents, LatentsInfo, PreviewMap, measured_scaling_factor, write_latents
from darkroom.data.prepared import Prepared, PreparedSplit
from darkroom.nn.autoencoder import tiling as memory
from darkroom.nn.autoencoder.identity import Autoencoder, IdentityAutoencoder
from darkroom.nn.autoencoder.vae import Moments
from darkroom.runner.stage import Work, run_stage
from darkroom.training.autoencoder import encode
from darkroom.training.channels import DEAD, Channels
from darkroom.training.trained import read_autoencoder
from darkroom.view.channels import channel_bars
from darkroom.view.sheet import Plate, sheet, stacked

REPORT = report_of("cache_latents")
SPLITS = ("train", "validation")  # what training reads; evaluation starts from captions
N_FITTED, N_SHOWN, COLUMNS = 2000, 12, 3  # pictures the preview map is fitted to, and shown on, three in a row
HEADING = "left: picture · middle: a sample of its latent, through the linear map · right: the sample, decoded"


def body(params: Params, work: Work) -> Mapping[str, float | str]:
    """Encode, measure the scale of the training latents, fit the preview map."""
    p, data = params.cache_latents, Prepared.open(PREPARED)
    check_made_from(VAE, PREPARED)
    vae = read_autoencoder(VAE, work.device)
    splits = {name: data.split(name) for name in SPLITS}
    moments = _encoded(p, vae, splits, work)
    mean = moments["train"].mean
    info = LatentsInfo(
        scaling_factor=_scaling_factor(p, moments["train"]),
        scaling=p.scaling,
        shape=(mean.shape[1], mean.shape[2], mean.shape[3]),
        deterministic=isinstance(vae, IdentityAutoencoder),
        splits={name: len(of.mean) for name, of in moments.items()},
        variants=2 if p.mirror else 1,
    )
    drawn = {name: _samples(moments[name], info, len(splits[name])) for name in SPLITS}
    pictures = {name: splits[name].images(range(len(drawn[name]))) for name in SPLITS}
    preview = PreviewMap.fit(drawn["train"], to_float(pictures["train"]))
    with atomic_path(LATENTS) as folder:
        write_latents(folder, moments, info, preview)
        write_json(folder / PROVENANCE, provenance(PREPARED, VAE))

    figures: dict[str, float | str] = {
        "scaling_factor": info.scaling_factor,
        "latent_mean": float(mean.float().mean()),
        "preview_map_psnr": preview.psnr(drawn["validation"], to_float(pictures["validation"])),
    }
    if p.mirror:
        figures |= {"training_pictures": len(splits["train"]), "training_latents": len(mean)}
    measured: dict[str, Any] = dict(figures)
    decoded = _decoded(vae, drawn["train"][:N_SHOWN] / info.scaling_factor, work.device)
    picture = _sheet(pictures["train"], preview(drawn["train"][:N_SHOWN]), decoded, splits["train"].captions)
    if not info.deterministic:
        channels = Channels.of(moments["train"])
        measured |= channels.as_json()
        figures |= channels.summary(pretrained=_imported_factor() is not None)
        work.run.metrics(0, channels.metrics())
        bars = channel_bars(channels.signal, channels.kl, channels.dead, DEAD, picture.width)
        picture = stacked(picture, bars)
    write_json(REPORT / "metrics.json", measured)
    save_png(REPORT / "preview.png", picture)
    return figures


def _encoded(p: CacheLatents, vae: Autoencoder, splits: Mapping[str, PreparedSplit], work: Work) -> dict[str, Moments]:
    """The moments of each split; those of train once more of the mirrored pictures, where that is asked for."""

    def encoded(images: Callable[[Tensor], Tensor], n: int, of: str) -> Moments:
        return encode(vae, images, n, p.batch_size, p.precision, work.device, f"cache_latents {of}")

    moments = {name: encoded(split.images, len(split), name) for name, split in splits.items()}
    if p.mirror:
        train = splits["train"]
        mirrored = encoded(lambda rows: train.images(rows).flip(3), len(train), "train, mirrored")
        mean, logvar = (torch.cat(pair) for pair in zip(moments["train"], mirrored, strict=True))
        moments["train"] = Moments(mean, logvar)
    return moments


def _imported_factor() -> float | None:
    factor: float | None = read_json(VAE / CONFIG)["scaling_factor"]
    return factor


def _scaling_factor(p: CacheLatents, moments: Moments) -> float:
    if p.scaling == "none":
        return 1.0
    if p.scaling == "measured":
        return measured_scaling_factor(moments)
    if (factor := _imported_factor()) is None:
        raise DarkroomError(
            f"cache_latents.scaling = 'imported', but {VAE / CONFIG} brings no scaling_factor; use measured"
        )
    return factor


def _samples(moments: Moments, info: LatentsInfo, pictures: int) -> Tensor:
    """Scaled latents of the first of so many pictures, drawn from their posteriors as training draws them."""
    first = torch.arange(min(N_FITTED, pictures))
    latents = Latents(moments.mean, None if info.deterministic else moments.logvar, info.scaling_factor)
    return latents.sample(first, randn_each(latents.shape, first.tolist(), "preview map"))


@torch.no_grad()
def _decoded(vae: Autoencoder, latents: Tensor, device: torch.device) -> Tensor:
    return memory.decode(vae, latents.to(device)).cpu()


def _sheet(pictures: Tensor, mapped: Tensor, decoded: Tensor, captions: list[str]) -> Image.Image:
    """The first pictures, uint8, each beside what the map and the decoder make of its latent, about [-1, 1]."""
    columns = [pictures[:N_SHOWN], to_uint8(mapped), to_uint8(decoded)]
    rows = zip(*columns, captions[:N_SHOWN], strict=True)
    plates = [Plate([to_pil(x) for x in three], caption) for *three, caption in rows]
    return sheet(plates, COLUMNS, HEADING)


if __name__ == "__main__":
    run_stage("cache_latents", body)
