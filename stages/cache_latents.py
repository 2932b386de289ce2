"""cache_latents: what the autoencoder makes of every picture. data/prepared, artifacts/vae -> data/latents."""

import darkroom.runner.startup  # noqa: F401

# isort: split
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from darkroom.config.params import Params
from darkroom.config.paths import LATENTS, PREPARED, VAE, report_of
from darkroom.config.sections import CacheLatents
from darkroom.core.artifact import CONFIG, PROVENANCE, atomic_path, check_made_from, provenance, read_json, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.output_shards import take_over
from darkroom.core.rng import randn_each
from darkroom.core.tensors import save_png, to_float, to_pil, to_uint8
from darkroom.data.latents import Latents, LatentsInfo, PreviewMap, write_description
from darkroom.data.prepared import Prepared
from darkroom.data.rows import Rows
from darkroom.nn.autoencoder import tiling as memory
from darkroom.nn.autoencoder.identity import Autoencoder, IdentityAutoencoder
from darkroom.runner.stage import Work, run_stage
from darkroom.training.channels import DEAD, Channels
from darkroom.training.latent_shards import Encoding, Pictures, kept_autoencoder
from darkroom.training.latent_statistics import LatentStatistics, measure
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
    encoding = Encoding(kept_autoencoder(VAE), p.batch_size, p.precision)
    pictures = {name: Pictures.of(PREPARED, name, bool(p.mirror) and name == "train") for name in SPLITS}
    shards = {
        name: work.shards.all(encoding.shards(pictures[name]), f"cache_latents {name}", "image") for name in SPLITS
    }
    vae = encoding.vae()
    deterministic = isinstance(vae, IdentityAutoencoder)
    mean = {name: Rows.mapped(files, "mean") for name, files in shards.items()}
    logvar = {name: None if deterministic else Rows.mapped(files, "logvar") for name, files in shards.items()}
    found = measure(mean["train"], logvar["train"])
    info = LatentsInfo(
        scaling_factor=_scaling_factor(p, found),
        scaling=p.scaling,
        shape=_shape(mean["train"], data.info.image_size // vae.downscale, bool(data.info.buckets)),
        deterministic=deterministic,
        splits={name: len(of) for name, of in pictures.items()},
        variants=2 if p.mirror else 1,
    )
    latents = {name: Latents(mean[name], logvar[name], info.scaling_factor) for name in SPLITS}
    pairs = {
        name: [(_samples(latents[name], rows), to_float(of(rows))) for rows in of.spread(N_FITTED)]
        for name, of in pictures.items()
    }
    preview = PreviewMap.fit_all(pairs["train"])
    with atomic_path(LATENTS) as folder:
        folder.mkdir(parents=True)
        for file in (file for files in shards.values() for file in files):
            take_over(file, folder / file.name)
        write_description(folder, info, preview)
        write_json(folder / PROVENANCE, provenance(PREPARED, VAE))

    figures: dict[str, float | str] = {
        "scaling_factor": info.scaling_factor,
        "latent_mean": found.mean,
        "preview_map_psnr": preview.psnr_of_all(pairs["validation"]),
    }
    if p.mirror:
        figures |= {"training_pictures": pictures["train"].n, "training_latents": len(mean["train"])}
    measured: dict[str, Any] = dict(figures)
    captions, plates = data.split("train").caption_column, list[Plate]()
    for rows in pictures["train"].spread(N_SHOWN):
        drawn = _samples(latents["train"], rows)
        decoded = _decoded(vae, drawn / info.scaling_factor, work.device)
        said = [captions[row].as_py() for row in pictures["train"].prepared_rows(rows).tolist()]
        plates += _plates(pictures["train"](rows), preview(drawn), decoded, said)
    picture = sheet(plates, COLUMNS, HEADING)
    if (variances := logvar["train"]) is not None:
        channels = Channels.of(mean["train"], variances)
        measured |= channels.as_json()
        figures |= channels.summary(pretrained=_imported_factor() is not None)
        work.run.metrics(0, channels.metrics())
        bars = channel_bars(channels.signal, channels.kl, channels.dead, DEAD, picture.width)
        picture = stacked(picture, bars)
    write_json(REPORT / "metrics.json", measured)
    save_png(REPORT / "preview.png", picture)
    return figures


def _imported_factor() -> float | None:
    factor: float | None = read_json(VAE / CONFIG)["scaling_factor"]
    return factor


def _scaling_factor(p: CacheLatents, found: LatentStatistics) -> float:
    if p.scaling == "none":
        return 1.0
    if p.scaling == "measured":
        return found.scaling_factor
    if (factor := _imported_factor()) is None:
        raise DarkroomError(
            f"cache_latents.scaling = 'imported', but {VAE / CONFIG} brings no scaling_factor; use measured"
        )
    return factor


def _samples(latents: Latents, rows: Tensor) -> Tensor:
    """Scaled latents of these pictures, drawn from their posteriors as training draws them."""
    shape = tuple(latents.mean[rows[:1]].shape[1:])
    return latents.sample(rows, randn_each(shape, rows.tolist(), "preview map"))


def _shape(mean: Rows, side: int, bucketed: bool) -> tuple[int, int, int]:
    """Of latents, all alike; or with buckets, however many have pictures, of a square one of `side`."""
    channels, height, width = mean.by_shape()[0][1].shape
    return (channels, side, side) if bucketed else (channels, height, width)


@torch.no_grad()
def _decoded(vae: Autoencoder, latents: Tensor, device: torch.device) -> Tensor:
    return memory.decode(vae, latents.to(device)).cpu()


def _plates(pictures: Tensor, mapped: Tensor, decoded: Tensor, captions: list[str]) -> list[Plate]:
    """Pictures, uint8, each beside what the map and the decoder make of its latent, about [-1, 1]."""
    rows = zip(pictures, to_uint8(mapped), to_uint8(decoded), captions, strict=True)
    return [Plate([to_pil(x) for x in three], caption) for *three, caption in rows]


if __name__ == "__main__":
    run_stage("cache_latents", body, divides=True)
