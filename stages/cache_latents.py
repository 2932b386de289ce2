"""cache_latents: what the autoencoder makes of every picture. data/prepared, artifacts/vae -> data/latents."""

import darkroom.runner.startup  # noqa: F401

# isort: split
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from darkroom.config.params import Params
from darkroom.core.artifact import CONFIG, PROVENANCE, atomic_path, check_made_from, provenance, read_json, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.rng import randn_each
from darkroom.core.tensors import save_png, to_float, to_pil, to_uint8
from darkroom.data.latents import Latents, LatentsInfo, PreviewMap, measured_scaling_factor, write_latents
from darkroom.data.prepared import Prepared
from darkroom.nn.autoencoder import tiling as memory
from darkroom.nn.autoencoder.identity import Autoencoder, IdentityAutoencoder
from darkroom.nn.autoencoder.vae import Moments
from darkroom.runner.stage import Work, run_stage
from darkroom.training.autoencoder import encode
from darkroom.training.channels import Channels
from darkroom.training.trained import read_autoencoder
from darkroom.view.sheet import Plate, sheet, stacked

PREPARED, VAE = Path("data/prepared"), Path("artifacts/vae")
LATENTS, REPORT = Path("data/latents"), Path("reports/cache_latents")
SPLITS = ("train", "validation")  # what training reads; evaluation starts from captions
N_FITTED, N_SHOWN, COLUMNS = 2000, 12, 3  # pictures the preview map is fitted to, and shown on, three in a row
HEADING = "left: picture · middle: a sample of its latent, through the linear map · right: the sample, decoded"


def body(params: Params, work: Work) -> Mapping[str, float | str]:
    """Encode, measure the scale of the training latents, fit the preview map."""
    p, data = params.cache_latents, Prepared.open(PREPARED)
    check_made_from(VAE, PREPARED)
    vae = read_autoencoder(VAE, work.device)
    splits = {name: data.split(name) for name in SPLITS}
    moments = {
        name: encode(vae, split.images, len(split), p.batch_size, p.precision, work.device, f"cache_latents {name}")
        for name, split in splits.items()
    }
    train = splits["train"]
    if p.mirror:
        mirrored = encode(
            vae,
            lambda rows: train.images(rows).flip(3),
            len(train),
            p.batch_size,
            p.precision,
            work.device,
            "cache_latents train, mirrored",
        )
        mean, logvar = (torch.cat(pair) for pair in zip(moments["train"], mirrored, strict=True))
        moments["train"] = Moments(mean, logvar)
    imported = read_json(VAE / CONFIG)["scaling_factor"]
    scaling_factor = {"none": 1.0, "imported": imported, "measured": measured_scaling_factor(moments["train"])}[
        p.scaling
    ]
    if scaling_factor is None:
        raise DarkroomError(
            f"cache_latents.scaling = 'imported', but {VAE / CONFIG} brings no scaling_factor; use measured"
        )
    mean = moments["train"].mean
    info = LatentsInfo(
        scaling_factor=scaling_factor,
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
        "scaling_factor": scaling_factor,
        "latent_mean": float(mean.float().mean()),
        "preview_map_psnr": preview.psnr(drawn["validation"], to_float(pictures["validation"])),
    }
    if p.mirror:
        figures |= {"training_pictures": len(train), "training_latents": len(mean)}
    measured: dict[str, Any] = dict(figures)
    first = slice(N_SHOWN)
    decoded = to_uint8(_decoded(vae, drawn["train"][first] / scaling_factor, work.device))
    seen = [pictures["train"][first], to_uint8(preview(drawn["train"][first])), decoded]
    captions = splits["train"].captions[first]
    plates = [Plate([to_pil(x) for x in three], said) for *three, said in zip(*seen, captions, strict=True)]
    picture = sheet(plates, COLUMNS, HEADING)
    if not info.deterministic:
        channels = Channels.of(moments["train"])
        measured |= channels.as_json()
        figures |= channels.summary(pretrained=imported is not None)
        work.run.metrics(0, channels.metrics())
        picture = stacked(picture, channels.plot(picture.width))
    write_json(REPORT / "metrics.json", measured)
    save_png(REPORT / "preview.png", picture)
    return figures


def _samples(moments: Moments, info: LatentsInfo, pictures: int) -> torch.Tensor:
    """Scaled latents of the first of so many pictures, drawn from their posteriors as training draws them."""
    first = torch.arange(min(N_FITTED, pictures))
    latents = Latents(moments.mean, None if info.deterministic else moments.logvar, info.scaling_factor)
    return latents.sample(first, randn_each(latents.shape, first.tolist(), "preview map"))


@torch.no_grad()
def _decoded(vae: Autoencoder, latents: torch.Tensor, device: torch.device) -> torch.Tensor:
    return memory.decode(vae, latents.to(device)).cpu()


if __name__ == "__main__":
    run_stage("cache_latents", body)
