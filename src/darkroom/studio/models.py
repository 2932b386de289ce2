"""The models that can be drawn with: folders, averages of a training, registered versions; loaded when first asked."""

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import yaml

from darkroom.config.paths import PIPELINE
from darkroom.core import device as devices
from darkroom.core.errors import DarkroomError
from darkroom.evaluation.card import read_card
from darkroom.inference.pipeline import Pipeline
from darkroom.serving.registry import take_out
from darkroom.studio.checkpoints import Checkpoint, checkpoints, example, pipeline_of, remark, situation
from darkroom.studio.versions import versions
from darkroom.tracking.store import Store

LOADED = 4  # models that are kept in memory
LATEST = "train_unet, latest average"
Kind = Literal["folder", "checkpoint", "version"]


@dataclass(frozen=True)
class Model:
    """A model that was loaded. key: which one it is, also when `name` has come to mean another.

    remark: what makes its pictures doubtful; "": nothing.
    """

    name: str
    key: str
    pipeline: Pipeline
    remark: str = ""


@dataclass(frozen=True)
class Defaults:
    """What a page asks for unless a person asks otherwise. side: pixels. sized: whether it draws other sizes too.

    knows: what it can be asked for, in a line.
    """

    prompt: str
    steps: int
    guidance_scale: float
    sampler: str
    side: int
    sized: bool
    knows: str


class Models:
    """All that can be chosen, by name.

    Args:
        folders: of pipelines. beside: a folder for what is taken out of the registry.
    """

    def __init__(self, folders: Sequence[Path], beside: Path) -> None:
        self.folders, self.beside = list(folders), beside
        self._device: torch.device | None = None
        self._loaded: OrderedDict[str, Model] = OrderedDict()
        self._sources: dict[str, Path] = {}  # key -> folder of its pipeline
        self._hashes: dict[str, str] = {}  # content of a pipeline -> key
        self._averages: dict[str, Checkpoint] = {}  # key -> whose average it is
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """What can be chosen now: folders that are there, then averages, then registered versions."""
        found = [str(folder) for folder in self.folders if folder.exists()]
        saved = checkpoints()
        found += [LATEST] * bool(saved) + [one.name for one in saved]
        return found + list(versions())

    def check(self) -> None:
        """Refuse to begin without anything to draw with.

        Raises:
            DarkroomError: a folder that was asked for is missing, or there is nothing at all.
        """
        for folder in self.folders:
            if not folder.exists() and folder != PIPELINE:
                raise DarkroomError(f"{folder}: no such pipeline; name another folder")
        if not self.names():
            raise DarkroomError(
                f"{PIPELINE}: no such pipeline, and {situation()[0].lower()}{situation()[1:-1]}; dvc repro trains "
                "one, or name the folder of a pipeline: darkroom studio FOLDER"
            )

    def model(self, name: str) -> Model:
        """The model of this name, loaded.

        Raises:
            DarkroomError: there is none, or it cannot be read.
        """
        with self._lock:
            return self._model(name)

    def drew(self, content: str) -> Model:
        """The model of this content, one of those that were loaded here.

        Raises:
            DarkroomError: there is none.
        """
        with self._lock:
            if content not in self._hashes:
                raise DarkroomError(f"it was drawn by the pipeline {content}, which is not open in this studio")
            return self._load(self._hashes[content], self._hashes[content])

    def checkpoint_of(self, content: str) -> Checkpoint | None:
        """The checkpoint whose average has this content, where it was drawn with here."""
        return self._averages.get(self._hashes.get(content, ""))

    def defaults(self, name: str) -> Defaults:
        """What a page asks of a model unless a person asks otherwise."""
        model = self.model(name)
        pipeline, sampling = model.pipeline, model.pipeline.info.sampling
        return Defaults(
            prompt=_prompt(pipeline, model.key),
            steps=sampling.num_inference_steps,
            guidance_scale=sampling.guidance_scale,
            sampler=sampling.sampler.kind,
            side=pipeline.info.image_size,
            sized=pipeline.unet.fixed_side is None,
            knows=_knows(pipeline),
        )

    def _model(self, name: str) -> Model:
        saved = checkpoints()
        if name == LATEST:
            if not saved:
                raise DarkroomError(situation())
            return self._of_checkpoint(name, saved[0])
        for one in saved:
            if one.name == name:
                return self._of_checkpoint(name, one)
        if name in self._sources:  # also a checkpoint that its training has cleared by now
            return self._load(name, name)
        if name in map(str, self.folders):
            return self._load(name, name, Path(name))
        if (number := versions().get(name)) is not None:
            return self._load(name, name, self._take_out(number))
        raise DarkroomError(f"{name or 'model'}: is not here; choose another model, or press Refresh")

    def _of_checkpoint(self, name: str, checkpoint: Checkpoint) -> Model:
        key = checkpoint.name
        self._averages[key] = checkpoint
        if key in self._loaded:
            return self._load(name, key)
        return self._load(name, key, pipeline_of(checkpoint), remark(checkpoint))

    def _load(self, name: str, key: str, folder: Path | None = None, said: str = "") -> Model:
        """The model `key`, under a name."""
        if key not in self._loaded:
            folder = folder or self._sources[key]
            self._device = self._device or devices.start()
            pipeline = Pipeline.from_pretrained(folder, device=self._device)
            _ = pipeline.model_hash, pipeline.remarks  # while its files are there
            self._loaded[key] = Model(name, key, pipeline, said)
            self._sources[key] = folder
            self._hashes[pipeline.model_hash] = key
            while len(self._loaded) > LOADED:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(key)
        found = self._loaded[key]
        return Model(name, key, found.pipeline, found.remark)

    def _take_out(self, number: str) -> Path:
        """The pipeline of a registered version."""
        _, folder = take_out(Store(), number, Path(tempfile.mkdtemp(dir=self.beside)))
        described = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
        return folder / str(described["flavors"]["python_function"]["artifacts"]["pipeline"]["path"])


def _prompt(pipeline: Pipeline, key: str) -> str:
    """A prompt that this model was made for."""
    condition = pipeline.info.condition
    if not condition.takes_prompts:
        return ""
    if condition.of_classes:
        return condition.classes[0]
    try:
        return read_card(pipeline.path).example
    except DarkroomError:
        if key.startswith("train_unet") and (asked := example()):
            return asked
    words = pipeline.remarks.words
    return " ".join(words.words[:3]) if words else ""


def _knows(pipeline: Pipeline) -> str:
    """What it can be asked for."""
    condition, words = pipeline.info.condition, pipeline.remarks.words
    if not condition.takes_prompts:
        return "This model takes no prompts: its pictures depend on the seeds alone."
    if condition.of_classes:
        return f"Its classes: {', '.join(condition.classes)}"
    return f"It knows {', '.join(words.words[:24])}{' …' if words.distinct > 24 else ''}" if words else ""
