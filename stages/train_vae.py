"""train_vae: the autoencoder between pictures and latents. data/prepared -> artifacts/vae, reports/train_vae."""

import darkroom.runner.startup  # noqa: F401

# isort: split
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom.config.autoencoder import PretrainedVAE, TrainedVAE, TrainVAE
from darkroom.config.networks import AutoencoderSpec, IdentityConfig
from darkroom.config.params import Params
from darkroom.config.paths import PREPARED, VAE, report_of
from darkroom.core.artifact import content_hash, provenance, write_json
from darkroom.core.progress import Progress
from darkroom.core.tensors import batches, save_png, to_pil
from darkroom.core.weights import DIFFUSERS_WEIGHTS, write_network
from darkroom.data.prepared import Prepared, PreparedSplit
from darkroom.data.rows import Rows
from darkroom.interop.pretrained import read_pretrained_autoencoder
from darkroom.nn.autoencoder.identity import Autoencoder, IdentityAutoencoder
from darkroom.nn.autoencoder.vae import AutoencoderKL
from darkroom.runner.stage import Work, run_stage
from darkroom.training.autoencoder import comparison, encode_batches, validate
from darkroom.training.channels import Channels
from darkroom.training.engine.curves import Curves
from darkroom.training.engine.fit import fit
from darkroom.training.vae_task import VAETask
from darkroom.view.sheet import Plate, sheet

REPORT = report_of("train_vae")
N_SHOWN, COLUMNS = 16, 4  # held-out pictures shown, in a row
HEADING = "left: held-out picture · right: what the autoencoder makes of it"


def body(params: Params, work: Work) -> Mapping[str, float | str]:
    """Train, take over or do without an autoencoder, and measure it on held-out pictures."""
    p, data = params.train_vae, Prepared.open(PREPARED)
    train, held_out = data.split("train"), data.split("validation")
    vae: Autoencoder
    sources, figures, scaling_factor = [PREPARED], dict[str, float | str](), None
    if isinstance(p, TrainedVAE):
        fitted = fit(VAETask(p, train, held_out, work.context(p)), p, work, REPORT)
        vae, figures = fitted.network, {**fitted.held_out, **fitted.against_chance}
    else:
        if isinstance(p, PretrainedVAE):
            vae, scaling_factor = read_pretrained_autoencoder(Path(p.path), work.device)
            sources.append(Path(p.path))
            figures["pretrained"] = content_hash(p.path)
        else:
            vae = IdentityAutoencoder(IdentityConfig(range=p.range))
        figures |= validate(vae, held_out.images, held_out.runs, p.batch_size, work.device)
        Curves(1, work.run.metrics).write(REPORT)
    config: dict[str, Any] = {"kind": "identity", "network": vae.config.model_dump(), "scaling_factor": scaling_factor}
    if isinstance(vae, AutoencoderKL):
        config |= {"kind": "kl", **AutoencoderSpec(network=vae.config, sizes=vae.sizes).model_dump()}
    channels = _channels(vae, held_out, p, work) if isinstance(vae, AutoencoderKL) else None
    write_json(REPORT / "metrics.json", figures if channels is None else {**figures, **channels.as_json()})
    _show(vae, held_out, work)
    write_network(VAE, DIFFUSERS_WEIGHTS, vae, config, provenance(*sources))
    pretrained = isinstance(p, PretrainedVAE)
    return figures if channels is None else {**figures, **channels.summary(pretrained=pretrained)}


def _channels(vae: AutoencoderKL, held_out: PreparedSplit, p: TrainVAE, work: Work) -> Channels:
    """Which latent channels carry the held-out pictures."""
    with Progress(len(held_out), "train_vae held-out latents", "image") as bar:
        moments = [
            encode_batches(vae, held_out.images, batches([run], p.batch_size), "fp32", work.device, bar)
            for run in held_out.runs
        ]
    channels = Channels.of(Rows([of.mean for of in moments]), Rows([of.logvar for of in moments]))
    work.run.metrics(p.steps if isinstance(p, TrainedVAE) else 0, channels.metrics())
    return channels


def _show(vae: Autoencoder, held_out: PreparedSplit, work: Work) -> None:
    pairs = [
        to_pil(x)
        for _, pictures in held_out.by_size(held_out.spread(N_SHOWN))
        for x in comparison(vae, pictures, work.device)
    ]
    plates = [Plate(pair, "") for pair in zip(pairs[::2], pairs[1::2], strict=True)]
    save_png(REPORT / "reconstructions.png", sheet(plates, COLUMNS, HEADING))


if __name__ == "__main__":
    run_stage("train_vae", body, trains=True)
