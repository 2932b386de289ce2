"""train_vae: the autoencoder between pictures and latents. data/prepared -> artifacts/vae, reports/train_vae."""

import darkroom.runner.startup  # noqa: F401

# isort: split
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom.config.networks import AutoencoderSpec, IdentityConfig
from darkroom.config.params import Params, TrainVAE
from darkroom.config.paths import PREPARED, VAE, report_of
from darkroom.core.artifact import content_hash, provenance, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.tensors import save_png, to_pil
from darkroom.core.weights import DIFFUSERS_WEIGHTS, write_network
from darkroom.data.prepared import Prepared, PreparedSplit
from darkroom.interop.pretrained import read_pretrained_autoencoder
from darkroom.nn.autoencoder.identity import Autoencoder, IdentityAutoencoder
from darkroom.nn.autoencoder.vae import AutoencoderKL
from darkroom.runner.stage import Work, run_stage
from darkroom.training.autoencoder import comparison, encode, validate
from darkroom.training.channels import Channels
from darkroom.training.engine.curves import Curves
from darkroom.training.engine.fit import fit
from darkroom.training.vae_task import VAETask
from darkroom.view.sheet import Plate, sheet

REPORT = report_of("train_vae")
N_SHOWN, COLUMNS = 16, 4  # held-out pictures shown, in a row
HEADING = "left: held-out picture · right: what the autoencoder makes of it"


def body(params: Params, work: Work) -> Mapping[str, float | str]:
    """Train, take over or do without an autoencoder, as `mode` says, and measure it on held-out pictures."""
    p, data = params.train_vae, Prepared.open(PREPARED)
    train, held_out = data.split("train"), data.split("validation")
    config: dict[str, Any] = {"kind": "identity" if p.mode == "identity" else "kl", "scaling_factor": None}
    vae: Autoencoder
    sources, figures = [PREPARED], dict[str, float | str]()
    if p.mode == "train":
        fitted = fit(VAETask(p, train, held_out, work.context(p)), p, work, REPORT)
        vae, figures = fitted.network, {**fitted.held_out, **fitted.against_chance}
    else:
        if p.pretrained_path is not None:
            vae, config["scaling_factor"] = read_pretrained_autoencoder(Path(p.pretrained_path), work.device)
            sources.append(Path(p.pretrained_path))
            _check_fits(p, vae, data.info.channels)
            figures["pretrained"] = content_hash(p.pretrained_path)
        elif p.identity_range is not None:
            vae = IdentityAutoencoder(IdentityConfig(range=p.identity_range))
        figures |= validate(vae, held_out.images, len(held_out), p.batch_size, work.device)
        Curves(1, work.run.metrics).write(REPORT)
    channels = _channels(vae, held_out, p, work) if isinstance(vae, AutoencoderKL) else None
    if isinstance(vae, AutoencoderKL):
        config |= AutoencoderSpec(network=vae.config, sizes=vae.sizes).model_dump()
    else:
        config["network"] = vae.config.model_dump()
    write_json(REPORT / "metrics.json", figures if channels is None else {**figures, **channels.as_json()})
    _show(vae, held_out, work)
    write_network(VAE, DIFFUSERS_WEIGHTS, vae, config, provenance(*sources))
    return figures if channels is None else {**figures, **channels.summary(pretrained=p.mode == "pretrained")}


def _channels(vae: AutoencoderKL, held_out: PreparedSplit, p: TrainVAE, work: Work) -> Channels:
    """Which latent channels carry the held-out pictures."""
    n, description = len(held_out), "train_vae held-out latents"
    channels = Channels.of(encode(vae, held_out.images, n, p.batch_size, "fp32", work.device, description))
    work.run.metrics(p.steps, channels.metrics())
    return channels


def _show(vae: Autoencoder, held_out: PreparedSplit, work: Work) -> None:
    first = held_out.images(range(min(len(held_out), N_SHOWN)))
    pairs = [to_pil(x) for x in comparison(vae, first, work.device)]
    plates = [Plate(pair, "") for pair in zip(pairs[::2], pairs[1::2], strict=True)]
    save_png(REPORT / "reconstructions.png", sheet(plates, COLUMNS, HEADING))


def _check_fits(p: TrainVAE, vae: AutoencoderKL, channels: int) -> None:
    """Refuse a pretrained autoencoder that the parameters describe otherwise."""
    for key, value in p.autoencoder:
        if (found := getattr(vae.config, key)) != value:
            raise DarkroomError(f"train_vae.{key} = {value}, but {p.pretrained_path} has {found}; they must agree")
    if (taken := vae.sizes.in_channels) != channels:
        raise DarkroomError(f"prepare_data.channels = {channels}, but {p.pretrained_path} takes {taken}")


if __name__ == "__main__":
    run_stage("train_vae", body, trains=True)
