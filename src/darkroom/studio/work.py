"""What the page does, without a page: drawing, making again, and asking where a picture comes from."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from darkroom.audit import report
from darkroom.audit.auditor import Auditor
from darkroom.diffusion.samplers._base import OnStep
from darkroom.inference.again import IDENTICAL, compared
from darkroom.inference.file_names import slug
from darkroom.inference.record import Record, profile
from darkroom.inference.record_text import differences
from darkroom.serving.limits import Limits
from darkroom.serving.queueing import Queue, Watch
from darkroom.studio.models import Model, Models
from darkroom.studio.request import PageRequest, record_within, remarks

T = TypeVar("T")
OnProgress = Callable[[int, int], None]  # steps done, of so many


def unseen(done: int, of: int) -> None:
    """The default of who is shown progress: nobody."""


@dataclass(frozen=True)
class DrawnFiles:
    """Pictures that were drawn.

    files: PNG files with their records. captions: of each. remarks: what a person should know of them, a line each.
    """

    model: str
    files: list[Path]
    captions: list[str]
    remarks: list[str]
    seconds: float


@dataclass(frozen=True)
class Again:
    """A picture that was made again. said: how it compares."""

    file: Path
    identical: bool
    said: str


class Studio:
    """All that is behind the page. Several threads may ask; one draws at a time, in the order in which they came.

    Args:
        folder: for the pictures that are drawn.
    """

    def __init__(self, models: Models, limits: Limits, folder: Path) -> None:
        self.models, self.limits, self.folder = models, limits, folder
        self._queue = Queue(limits)
        self._numbers = itertools.count(1)
        self._auditing = threading.Lock()

    def in_turn(self, work: Callable[[Watch], T]) -> T:
        """Do work that computes when its turn has come, watched for its deadline.

        Raises:
            RefusedError: it took too long, too many wait, or the studio is ending.
        """
        watch, context = Watch(self.limits), copy_context()
        return self._queue.do(lambda: context.run(work, watch), watch)

    def draw(self, name: str, asked: PageRequest, on_progress: OnProgress = unseen) -> DrawnFiles:
        """Draw with the model of a name.

        Raises:
            DarkroomError: it is more than the limits allow, or makes no sense; nothing was drawn then.
        """
        return self.in_turn(lambda watch: self._draw(self.models.model(name), asked, watch, on_progress))

    def again(self, picture: Path, on_progress: OnProgress = unseen) -> Again:
        """Make a picture again from its record, and compare.

        Raises:
            DarkroomError: it has no record, or its model is not open here.
        """
        return self.in_turn(lambda watch: self._again(picture, watch, on_progress))

    def lineage(self, picture: Path) -> str:
        """What made a picture: what `darkroom audit PICTURE` says, which knows the outputs of stages alone.

        Raises:
            DarkroomError: no project here, or its store does not answer.
        """
        record = Record.read(picture)
        if (checkpoint := self.models.checkpoint_of(record.model)) is not None:
            return (
                f"{picture.name}\n  drawn by the average in {checkpoint.path}\n\nA checkpoint is not an output of a "
                "stage. Its training's run in MLflow names data, code and parameters;\ndarkroom audit follows pictures "
                "of the finished model."
            )
        with self._auditing:
            return report.text(Auditor(str(picture)).audit())

    def new_folder(self) -> Path:
        """An empty folder for what one request makes."""
        path = self.folder / f"{next(self._numbers):05d}"
        path.mkdir(parents=True)
        return path

    def drawn_by(
        self,
        model: Model,
        record: Record,
        watch: Watch,
        on_progress: OnProgress = unseen,
        on_step: OnStep | None = None,
    ) -> tuple[list[Path], list[Tensor]]:
        """The files of a record's pictures, and the pictures, uint8 (C, H, W). on_step: sees each step besides."""
        folder, watched = self.new_folder(), _watched(watch, record.steps(model.pipeline), on_progress, on_step)
        files, pictures = list[Path](), list[Tensor]()
        for batch in record.batches():
            for i, picture in enumerate(batch.draw(model.pipeline, watched, watch.check).tensor):
                name = f"{slug(batch.prompts[i])}-seed-{batch.seeds[i]}"
                path = folder / f"{name}.png"
                files.append(path if path not in files else folder / f"{name}-{len(files)}.png")
                single = replace(batch, index=i, each=None)
                single.save(files[-1], single.file_pixels({i: picture}))
                pictures.append(picture)
        return files, pictures

    def _draw(self, model: Model, asked: PageRequest, watch: Watch, on_progress: OnProgress) -> DrawnFiles:
        began = time.monotonic()
        record = record_within(asked, model.pipeline, self.limits.of_model(model.pipeline.info.image_size))
        files, _ = self.drawn_by(model, record, watch, on_progress)
        said = [*([model.remark] if model.remark else []), *remarks(record, model.pipeline)]
        captions = [f"seed {seed}" for seed in record.seeds]
        return DrawnFiles(model.key, files, captions, said, time.monotonic() - began)

    def _again(self, picture: Path, watch: Watch, on_progress: OnProgress) -> Again:
        record = Record.read(picture)
        model = self.models.drew(record.model)
        record.check_work(model.pipeline)
        watched = _watched(watch, record.steps(model.pipeline), on_progress)
        pixels = record.redraw(model.pipeline, watched, watch.check)
        out, now = self.new_folder() / picture.name, profile(model.pipeline)
        replace(record, profile=now).save(out, pixels)
        said = compared(picture, out, pixels)
        lines = [said, *(f"another execution profile: {line}" for line in differences(record.profile, now))]
        return Again(out, said == IDENTICAL, "\n".join(lines))


def _watched(watch: Watch, total: int, on_progress: OnProgress, other: OnStep | None = None) -> OnStep:
    """To be called after each of so many steps; calls another one too."""
    numbers = itertools.count(1)

    def on_step(step: int, x: Tensor, x0: Tensor) -> None:
        watch.check()
        if other is not None:
            other(step, x, x0)
        on_progress(next(numbers), total)

    return on_step


def prompts_in(text: str) -> Sequence[str]:
    """The prompts of a text, one a line, each once; one that is empty where there is none."""
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip())) or [""]
