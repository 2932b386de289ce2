"""The averages that checkpoints of `train_unet` hold, as pipelines, also while the training runs."""

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from darkroom.config.params import Params, load
from darkroom.config.paths import CONDITIONING, LATENTS, PREPARED, TEXT_ENCODER, VAE
from darkroom.core.artifact import CONFIG, read_json
from darkroom.core.checkpoint import OneFile
from darkroom.core.errors import DarkroomError
from darkroom.core.progress import duration
from darkroom.core.weights import DIFFUSERS_WEIGHTS, write_network
from darkroom.data.conditioning import ConditioningInfo, read_asked
from darkroom.data.latents import read_info
from darkroom.data.prepared import Prepared
from darkroom.inference.folder import Trained, assemble
from darkroom.inference.words import Words
from darkroom.nn.denoiser.base import build
from darkroom.runner.present import present_fingerprint
from darkroom.runner.resuming import FOLDER
from darkroom.training.unet import description, spec_of

STAGE = "train_unet"
TRAININGS = FOLDER / STAGE
ASSEMBLED = FOLDER / "studio"  # pipelines of averages, for pictures to be made again after the studio has ended
KEPT = 6  # of these
REMEDY = "press Refresh for the newest, or wait for the next"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of a training; training: its fingerprint. at: when it was written, in seconds since 1970."""

    training: str
    step: int
    at: float

    @property
    def path(self) -> Path:
        return TRAININGS / self.training / f"step_{self.step:09d}"

    @property
    def folder(self) -> Path:
        """Where the pipeline of its average is put."""
        return ASSEMBLED / f"{self.training[:8]}-step-{self.step}"

    @property
    def name(self) -> str:
        return f"{STAGE} {self.training[:4]}, step {self.step:,}"


def checkpoints() -> list[Checkpoint]:
    """The checkpoints of all trainings of the U-Net here, the newest first."""
    found = []
    for path in TRAININGS.glob("*/step_*"):
        number = path.name.removeprefix("step_")
        if path.is_dir() and number.isdecimal():
            try:
                found.append(Checkpoint(path.parent.name, int(number), path.stat().st_mtime))
            except FileNotFoundError:  # a training clears its old ones
                continue
    return sorted(found, key=lambda one: (one.at, one.step), reverse=True)


def situation() -> str:
    """What there is of a training of the U-Net, in a sentence."""
    found = checkpoints()
    if not found:
        return (
            f"No checkpoint of {STAGE} is here: a training saves the first after two minutes, and the last goes when "
            "it is through."
        )
    ago = duration(max(time.time() - found[0].at, 0))
    return f"The latest checkpoint of {STAGE} is of step {found[0].step:,}, saved {ago} ago."


def example() -> str:
    """The first held-out caption or class of the data that trainings here learn from; "" where nothing is asked."""
    try:
        return read_asked(CONDITIONING, "validation", 1)[0]
    except (DarkroomError, KeyError, IndexError):
        return ""


def pipeline_of(checkpoint: Checkpoint) -> Path:
    """The folder of a pipeline that draws with the average of a checkpoint; written unless it is there.

    The autoencoder, text encoder and data are those that lie here, which the training reads too.

    Raises:
        DarkroomError: it is gone or damaged, or what params.yaml describes has other weights.
    """
    _hold(ASSEMBLED.resolve())
    if not checkpoint.folder.is_dir():
        average = _average(checkpoint)
        _assemble(checkpoint, average, load())
        _keep_latest(checkpoint.folder)
    return checkpoint.folder


@cache
def _hold(folder: Path) -> FileLock:
    """Hold a lock beside the pipelines for as long as this process lives, so that darkroom gc leaves them alone."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{os.getpid()}.lock", thread_local=False)  # of whichever thread loads the first one
    lock.acquire()
    return lock


def remark(checkpoint: Checkpoint) -> str:
    """What makes its pictures doubtful; "": nothing."""
    return (
        ""
        if checkpoint.training == present_fingerprint(STAGE)
        else (
            f"{checkpoint.name}: params.yaml, the data or the code are not what this training began with; its pictures "
            "may not be what it would draw"
        )
    )


def _average(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Name -> tensor."""
    try:
        return dict(OneFile().read(checkpoint.path)["parts"]["ema"])
    except FileNotFoundError:
        raise DarkroomError(f"{checkpoint.path}: is gone, for a training keeps its last two; {REMEDY}") from None
    except (OSError, ValueError, KeyError, DarkroomError) as error:
        raise DarkroomError(f"{checkpoint.path}: is damaged ({error}); {REMEDY}") from None


def _assemble(checkpoint: Checkpoint, average: Mapping[str, Any], params: Params) -> None:
    """Write the pipeline's folder."""
    if params.train_unet.lora is not None:
        raise DarkroomError(
            f"{checkpoint.path}: holds adapters, which are drawn with when the training is through; see its previews "
            "in reports/train_unet"
        )
    p, info, latents = params.train_unet, ConditioningInfo(**read_json(CONDITIONING / CONFIG)), read_info(LATENTS)
    spec = spec_of(p, latents.shape, info)
    network = build(spec.network, spec.sizes)
    try:
        network.load_state_dict(dict(average))
    except RuntimeError as error:
        first = " ".join(str(error).split())[:160]
        raise DarkroomError(
            f"{checkpoint.path}: its weights are not of the network in params.yaml ({first}); set train_unet.unet as "
            "it was when this training began"
        ) from None
    data = Prepared.open(PREPARED).info
    beside = checkpoint.folder.with_name(f".{checkpoint.folder.name}.unet")
    origin = {"inputs": {checkpoint.path.as_posix(): "a checkpoint, which is no output of a stage"}}
    try:
        write_network(beside, DIFFUSERS_WEIGHTS, network, description(p, latents, info), origin)
        sizes = tuple(of.size for of in data.buckets)
        trained = Trained(beside, VAE, TEXT_ENCODER, latents, data.channels, data.image_size, _words(params), sizes)
        assemble(checkpoint.folder, trained, params.evaluate.sampling, params.evaluate.precision, origin)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _words(params: Params) -> Words | None:
    """Those of the training captions, where they say what the model knows."""
    if params.setup_text_encoder.kind != "clip":
        return None
    return Words.of(Prepared.open(PREPARED).split("train").captions)


def _keep_latest(newest: Path) -> None:
    """Remove all but the latest pipelines of averages."""
    others = [folder for folder in ASSEMBLED.iterdir() if folder.is_dir() and folder != newest]
    for old in sorted(others, key=lambda folder: folder.stat().st_mtime)[: -(KEPT - 1)]:
        shutil.rmtree(old, ignore_errors=True)
