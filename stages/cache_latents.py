"""cache_latents: what the autoencoder makes of every picture. data/prepared, artifacts/vae -> data/latents."""

import darkroom.startup  # noqa: F401

# isort: split
from collections.abc import Mapping
from pathlib import Path

import torch

from darkroom.core.artifact import CONFIG, PROVENANCE, check_made_from, provenance, read_json, whole, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.tensors import image_grid, save_png, to_float, to_uint8
from darkroom.data.latents import LatentsInfo, PreviewMap, measured_scaling_factor, write_latents
from darkroom.data.prepared import Prepared
from darkroom.nn.identity import IdentityAutoencoder
from darkroom.nn.vae import Moments
from darkroom.params import Params
from darkroom.stage import Work, run_stage
from darkroom.training.autoencoder import encode
from darkroom.training.trained import read_autoencoder

PREPARED, VAE = Path("data/prepared"), Path("artifacts/vae")
LATENTS, REPORT = Path("data/latents"), Path("reports/cache_latents")
SPLITS = ("train", "validation")  # what training reads; evaluation starts from captions
N_FITTED, N_SHOWN = 2000, 16  # pictures the preview map is fitted to, and shown on


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
    n = min(N_FITTED, len(train))
    pictures = train.images(range(n))
    preview = PreviewMap.fit(mean[:n].float() * scaling_factor, to_float(pictures))
    with whole(LATENTS) as folder:
        write_latents(folder, moments, info, preview)
        write_json(folder / PROVENANCE, provenance(PREPARED, VAE))

    figures = {"scaling_factor": scaling_factor, "latent_mean": float(mean.float().mean())}
    if p.mirror:
        figures |= {"training_pictures": len(train), "training_latents": len(mean)}
    write_json(REPORT / "metrics.json", figures)
    shown = min(n, N_SHOWN)
    small = torch.nn.functional.interpolate(
        preview(mean[:shown].float() * scaling_factor), size=pictures.shape[-2:], mode="nearest"
    )
    pairs = torch.stack([pictures[:shown], to_uint8(small)], dim=1).flatten(0, 1)
    save_png(REPORT / "preview.png", image_grid(pairs, columns=8), scale=3)
    return figures


if __name__ == "__main__":
    run_stage("cache_latents", body)
