"""What is judged: pictures that a pipeline drew of captions of the data, or that lie in a folder, beside real ones."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darkroom.core.artifact import PIPELINE
from darkroom.core.errors import DarkroomError
from darkroom.core.output_shards import Shards
from darkroom.core.rng import generator
from darkroom.core.tensors import to_pil
from darkroom.core.text import plural, printable
from darkroom.data.halves import halves
from darkroom.data.images import conform
from darkroom.data.prepared import Info, Prepared, PreparedSplit
from darkroom.evaluation.alignment import Asked
from darkroom.evaluation.caveats import Caveat, listed
from darkroom.evaluation.drawing import Drawn, draw_prompts, kept_pipeline
from darkroom.evaluation.judging import normalised
from darkroom.evaluation.picture_folder import FolderPictures, has_pictures, of_sizes, read_folder
from darkroom.inference.pipeline import Pipeline
from darkroom.interop.contents import INDEX

PICTURES = 500  # that a pipeline draws, unless asked for another number
BATCH_SIZE = 128
SQUASH = "squash"  # square pictures have no other way to another size
NOTHING_ASKED = "alignment"  # what caveats on captions are about


@dataclass(frozen=True)
class Subject:
    """N pictures in the form of the data, beside as many real ones of a split.

    asked: (n,) int64, the pictures that have captions or classes.
    matched: (N,) bool, whether the real picture has the caption of the other.
    sampling: how they were drawn, for a pipeline; {} of a folder.
    """

    kind: str
    drawn: Drawn
    asked: Tensor
    matched: Tensor
    sampling: dict[str, Any]
    caveats: list[Caveat]


@dataclass(frozen=True)
class Choice:
    """n: pictures; None: what is usual. sampling: fields of `Sampling` in place of the pipeline's own.

    resize: how pictures of a folder become square, see `images.conform`.
    """

    n: int | None
    seed: int
    sampling: Mapping[str, Any]
    resize: str


def is_pipeline(target: Path) -> bool:
    """Is this a model, and no folder of pictures?

    Raises:
        DarkroomError: it is neither.
    """
    if not target.exists():
        raise DarkroomError(f"{printable(target)}: nothing is there; give a pipeline's folder or a folder of pictures")
    if target.is_file() or any((target / name).is_file() for name in (PIPELINE, INDEX)):
        return True
    if not has_pictures(target):
        raise DarkroomError(
            f"{printable(target)}: holds neither {PIPELINE} nor {INDEX}, so it is not a pipeline, and no picture; give "
            "a pipeline's folder or a folder of pictures"
        )
    return False


class PipelineSubject:
    """A pipeline that is to be judged: everything that can be refused is refused before `draw`.

    Raises:
        DarkroomError: it cannot be loaded, or does not take such sampling.
    """

    def __init__(self, target: Path, wanted: Choice) -> None:
        self._kept, self._wanted = kept_pipeline(target, wanted.sampling), wanted
        self.pipeline: Pipeline = self._kept()

    def draw(self, data: Prepared, split: PreparedSplit) -> Subject:
        """Pictures of captions of a split chosen at random, all of them where there are no more than wanted."""
        info, seed = self.pipeline.info, self._wanted.seed
        known, classes, caveats = self._askable(data.info, split)
        n = min(self._wanted.n or PICTURES, len(known))
        chosen = torch.randperm(len(known), generator=generator(seed, "chosen", split.name))[:n].sort().values
        rows = known[chosen]
        captions = [split.captions[i] for i in rows.tolist()]
        labels, mentioned = split.labels[rows], split.mentioned[rows]
        if classes:
            prompts = [classes[i % len(classes)] for i in range(n)]
        elif info.condition.of_classes:
            prompts = [data.info.heads[0].classes[i] for i in labels[:, 0].tolist()]
        else:
            prompts = captions if info.condition.of_text else [""] * n
        asks = info.condition.takes_prompts and not classes and (info.condition.of_classes or data.info.captions)
        seeds = list(range(seed, seed + n))
        pictures, evaluations = draw_prompts(self._kept, prompts, seeds, BATCH_SIZE, Shards(), split.name)
        pictures, changed = _in_form(pictures, data.info)
        drawn = Drawn(
            asks,
            Asked(captions if asks else [""] * n, labels, mentioned),
            prompts,
            seeds,
            split.squares(rows),
            pictures,
            evaluations,
            halves(split, rows),
            of=None if split.pictures is None else split.pictures[rows],
        )
        sampling = {**info.sampling.model_dump(), "precision": info.precision, "network_evaluations": evaluations}
        everything = torch.arange(n) if asks else torch.empty(0, dtype=torch.int64)
        return Subject("pipeline", drawn, everything, torch.full((n,), asks), sampling, [*caveats, *changed])

    def _askable(self, data: Info, split: PreparedSplit) -> tuple[Tensor, list[str], list[Caveat]]:
        """The rows of a split that the pipeline can be asked for; its classes, where it knows none of the data's."""
        condition, everything = self.pipeline.info.condition, torch.arange(len(split))
        if not condition.takes_prompts:
            return everything, [], [Caveat(NOTHING_ASKED, "the pipeline takes no prompts, so nothing is asked of it")]
        if condition.of_text:
            if data.captions:
                return everything, [], []
            said = "the data have no captions: pictures of the empty prompt are judged"
            return everything, [], [Caveat(NOTHING_ASKED, said)]
        names = list(data.heads[0].classes) if data.class_labelled else []
        shared = [i for i, name in enumerate(names) if name in condition.classes]
        if not shared:
            said = f"the data have none of the pipeline's classes, which are drawn in turn: {listed(condition.classes)}"
            return everything, list(condition.classes), [Caveat(NOTHING_ASKED, said)]
        rows = torch.isin(split.labels[:, 0], torch.tensor(shared)).nonzero().flatten()
        if not len(rows):
            known = listed(names[i] for i in shared)
            raise DarkroomError(
                f"--split = {split.name}: no picture of it has a class that the pipeline knows ({known}); name another "
                "split"
            )
        if len(rows) == len(split):
            return rows, [], []
        unknown = listed(name for name in names if name not in condition.classes)
        said = f"{len(split) - len(rows)} pictures of the split have classes the pipeline does not know ({unknown})"
        return rows, [], [Caveat("classes", f"{said} and are left out")]


def _in_form(pictures: Tensor, data: Info) -> tuple[Tensor, list[Caveat]]:
    """Drawn pictures uint8 (N, C, S, S) in the size and channels of the data, and what was done to them."""
    n, channels, side, _ = pictures.shape
    caveats = of_sizes(Counter({(side, side): n}), data.image_size, SQUASH)
    if channels != data.channels:
        one = channels == 1
        said = "no colours, and the data have: each channel is the same" if one else "colours, and the data have none"
        caveats.append(Caveat("colours", f"drawn pictures have {said}{'' if one else ': their luma is judged'}"))
    if not caveats:
        return pictures, []
    pixels = [conform(to_pil(picture), data.image_size, data.channels, SQUASH) for picture in pictures]
    formed = torch.from_numpy(np.stack(pixels))
    return (formed[:, None] if formed.ndim == 3 else formed.permute(0, 3, 1, 2).contiguous()), caveats


def folder_subject(target: Path, wanted: Choice, data: Prepared, split: PreparedSplit) -> Subject:
    """Pictures of a folder, each beside a real one of the split: of its own caption where one is left, else any.

    What a caption asks for is known where a picture of the data has the same one.

    Raises:
        DarkroomError: see `read_folder`.
    """
    most = min(wanted.n or len(split), len(split))
    found = read_folder(target, data.info, most, wanted.seed, wanted.resize)
    keys = [normalised(caption) for caption in found.captions]
    rows, matched = _real(keys, split, wanted.seed)
    labels, mentioned, known = _labels(keys, data, split)
    caveats = [*found.caveats, *_caption_caveats(found, data.info, known)]
    captioned = torch.tensor([bool(key) for key in keys])
    n = len(keys)
    drawn = Drawn(
        bool(captioned.any()),
        Asked(found.captions, labels, mentioned),
        found.captions,
        list(range(n)),
        split.squares(rows),
        found.pictures,
        0.0,
        halves(split, rows),
        of=None if split.pictures is None else split.pictures[rows],
    )
    return Subject("pictures", drawn, captioned.nonzero().flatten(), matched, {}, caveats)


def _real(keys: Sequence[str], split: PreparedSplit, seed: int) -> tuple[Tensor, Tensor]:
    """A row of the split for each of N captions, none twice: (N,) int64; and whether it has that caption: (N,) bool."""
    free: dict[str, list[int]] = {}
    wanted = {key for key in keys if key}
    for row, caption in enumerate(split.captions):
        if (key := normalised(caption)) in wanted:
            free.setdefault(key, []).append(row)
    rows = [free[key].pop(0) if free.get(key) else -1 for key in keys]
    taken = {row for row in rows if row >= 0}
    order = torch.randperm(len(split), generator=generator(seed, "beside", split.name)).tolist()
    rest = (row for row in order if row not in taken)
    matched = torch.tensor([row >= 0 for row in rows])
    return torch.tensor([row if row >= 0 else next(rest) for row in rows]), matched


def _labels(keys: Sequence[str], data: Prepared, split: PreparedSplit) -> tuple[Tensor, Tensor, Tensor]:
    """Labels (N, H), whether captions name them (N, H), and whether a picture of the data has that caption: (N,)."""
    heads, waiting = len(data.info.heads), {key for key in keys if key}
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name in dict.fromkeys((split.name, *data.info.splits)):
        if not waiting:
            break
        here = split if name == split.name else data.split(name)
        for row, caption in enumerate(here.captions):
            if (key := normalised(caption)) in waiting:
                found[key] = here.labels[row], here.mentioned[row]
                waiting.discard(key)
    nothing = torch.full((heads,), -1, dtype=torch.int64), torch.zeros(heads, dtype=torch.bool)
    each = [found.get(key, nothing) for key in keys]
    labels, mentioned = (torch.stack([one[i] for one in each]) for i in (0, 1))
    return labels, mentioned, torch.tensor([key in found for key in keys])


def _caption_caveats(found: FolderPictures, data: Info, known: Tensor) -> list[Caveat]:
    captioned = torch.tensor([bool(caption) for caption in found.captions])
    if not captioned.any():
        said = "the pictures have no captions beside them (metadata.jsonl, .csv or .tsv, or a .txt for each)"
        return [Caveat(NOTHING_ASKED, f"{said}, so nothing is known of what was asked for")]
    unknown = captioned & ~known
    if not data.heads or not unknown.any():
        return []
    examples = listed(repr(found.captions[i]) for i in unknown.nonzero().flatten().tolist())
    said = f"{int(unknown.sum())} of {plural(int(captioned.sum()), 'caption')} stand nowhere in the data"
    return [Caveat(NOTHING_ASKED, f"{said}, so no labels say what they ask for: {printable(examples)}")]
