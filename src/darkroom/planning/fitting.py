"""`darkroom recipe fit`: a recipe made to fit the pictures that are there and the minutes that may pass.

The data are prepared in a passing folder by the code and the parameters that `prepare_data` will use, so that what is
counted is what will be. No clock is read: times are those of this recipe's networks on two cores, so that the same
pictures and minutes give the same file everywhere. `darkroom params budget` measures this machine.
"""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.config import recipes
from darkroom.config.edit import edited
from darkroom.config.params import PARAMS_FILE, Params, load, read
from darkroom.core.errors import DarkroomError
from darkroom.data.prepare import prepare
from darkroom.data.prepared import Prepared
from darkroom.data.sources.captioned_folder import CaptionedFolder, CaptionedFolderSource
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.planning import demands

FITTED = "captioned"
FEWEST = 60  # pictures: fewer leave no held-out ones to measure by
HELD_OUT = {
    "test": (0.1, 100, 0.2),
    "validation": (0.05, 50, 0.15),
}  # usual fraction; pictures wanted; fraction at most
SECONDS = {
    "train_vae": 0.0165,
    "setup_text_encoder": 0.0018,
    "train_unet": 0.0045,
    "train_evaluator": 0.0064,
}  # a sample
SHARES = {"train_vae": 0.3, "setup_text_encoder": 0.08, "train_evaluator": 0.15}  # of the time; the U-Net has the rest
# At most: then captions are known by heart, and of a thousand pictures the held-out loss was lowest after 52.
EPOCHS = {"setup_text_encoder": 30, "train_evaluator": 30, "train_unet": 80}
STARTING = 90  # seconds for preparing, starting stages and evaluating
DRAWING = 1 / 3  # of the time of a training sample takes a step of drawing, twice for guidance
BATCHES = {"train_vae": 16, "setup_text_encoder": 64, "train_unet": 64, "train_evaluator": 64}
VOCABULARIES = (1024, 2048, 4096, 8192)
WHOLE_WORDS = 0.9  # of the distinct training words that a vocabulary is to hold in one piece
LENGTH_STEP, LONGEST = 4, 64  # tokens
WARM_UP, VALIDATIONS, LOGGED, FEWEST_STEPS = 13, 5, 100, 20


@dataclass(frozen=True)
class Choice:
    """Values that follow from one thing, in the words that say which."""

    values: Mapping[str, Any]
    why: str

    def __str__(self) -> str:
        return f"{', '.join(f'{key} = {value}' for key, value in self.values.items())}: {self.why}"


def fit(name: str, root: str | None, minutes: float) -> list[str]:
    """Write the recipe `name`, fitted, to params.yaml; returns what was chosen and why, a line each.

    Args:
        root: the folder of the pictures; None: as params.yaml has it where that is of captioned pictures, else the
            recipe's.

    Raises:
        DarkroomError: the recipe is not fitted to data, there are too few pictures or minutes, or the data are faulty.
    """
    file = recipes.file_of(name)
    if name != FITTED:
        raise DarkroomError(
            f"recipe {name!r} is of fixed size; darkroom recipe fit {FITTED} fits pictures with captions"
        )
    p = load(file)
    root = root or _present_root() or _root(p)
    reader = CaptionedFolder(root)
    dealt = _held_out(reader.description.size, root)
    with tempfile.TemporaryDirectory(prefix="darkroom-fit-") as passing:
        fractions = {key.removeprefix("prepare_data."): value for key, value in dealt.values.items()}
        out = Path(passing) / "prepared"
        prepare(reader, out, p.prepare_data.model_copy(update=fractions))
        data = Prepared.open(out)
        choices = [Choice({"prepare_data.source.root": root}, "where the pictures are"), dealt]
        choices += [*_captions(data), *_sizes(data), *_steps(p, data, minutes)]
        text = recipes.complete(name)
        for choice in choices:
            for key, value in choice.values.items():
                text = edited(file, text, tuple(key.split(".")), value)
        checked = Path(passing) / PARAMS_FILE.name
        checked.write_text(text, encoding="utf-8")
        remarks = demands.met(load(checked), data)
    counts = ", ".join(f"{n} {split}" for split, n in sorted(data.info.splits.items()))
    account = data.info.pictures
    lost = account.seen - account.kept
    left_out = f"; {lost} of {account.seen} pictures left out, as prepare_data will list" if lost else ""
    lines = [f"{root}: {sum(data.info.splits.values())} captioned pictures ({counts}){left_out}", *map(str, choices)]
    lines += [f"{key}: {remark}" for key, remark in remarks.items()]
    return [*lines, recipes.put(text, f"the recipe {name}, fitted to {root} and {minutes:g} minutes")]


def _root(p: Params) -> str:
    assert isinstance(p.prepare_data.source, CaptionedFolderSource)
    return p.prepare_data.source.root


def _present_root() -> str | None:
    """Of params.yaml, where that is of captioned pictures; it may be faulty otherwise."""
    try:
        source = read(PARAMS_FILE)["prepare_data"]["source"]
        return str(source["root"]) if source["kind"] == "captioned_folder" else None
    except (DarkroomError, KeyError, TypeError):
        return None


def _held_out(n: int, root: str) -> Choice:
    if n < FEWEST:
        raise DarkroomError(f"{root}: {n} pictures are too few to train on and to measure by; give {FEWEST} at least")
    values = {
        f"prepare_data.{split}_fraction": round(min(max(usual, wanted / n), most), 3) if usual * n < wanted else usual
        for split, (usual, wanted, most) in HELD_OUT.items()
    }
    return Choice(values, f"of {n} pictures, where no folders name the splits")


def _captions(data: Prepared) -> list[Choice]:
    train = data.split("train").captions
    texts = sorted({caption for split in data.info.splits for caption in data.split(split).captions})
    for size in VOCABULARIES:
        tokenizer = CLIPTokenizer.train(train, size, LONGEST)
        fit = tokenizer.fit(train)
        if len(fit.in_pieces) <= (1 - WHOLE_WORDS) * fit.words:
            break
    pieces = f"{fit.words - len(fit.in_pieces)} of {fit.words} distinct training words are one token"
    longest = max(tokenizer.fit(texts).lengths)
    length = min(max(8, -(-longest // LENGTH_STEP) * LENGTH_STEP), LONGEST)
    sections = ("setup_text_encoder", "train_evaluator")
    return [
        Choice({f"{section}.text.vocab_size": size for section in sections}, pieces),
        Choice({f"{section}.text.max_length": length for section in sections}, f"the longest has {longest}"),
    ]


def _sizes(data: Prepared) -> list[Choice]:
    splits = data.info.splits
    batches = {f"{section}.batch_size": min(most, splits["train"]) for section, most in BATCHES.items()}
    return [
        Choice(batches, f"of {splits['train']} training pictures"),
        Choice({"train_unet.held_out": splits["validation"]}, "all of validation"),
        Choice({"train_unet.samples": min(16, splits["validation"])}, "a preview"),
        Choice({"evaluate.n_test": splits["test"]}, "all of test"),
        Choice({"evaluate.n_grid": min(24, splits["test"]), "evaluate.n_sweep": min(8, splits["test"])}, "shown"),
    ]


def _steps(p: Params, data: Prepared, minutes: float) -> list[Choice]:
    train = data.info.splits["train"]
    drawing = data.info.splits["test"] * p.evaluate.sampling.num_inference_steps * 2 * SECONDS["train_unet"] * DRAWING
    left = total = 60 * minutes - STARTING - drawing
    choices = []
    for section in (*SHARES, "train_unet"):
        batch = min(BATCHES[section], train)
        seconds = SHARES[section] * total if section in SHARES else left
        most = EPOCHS.get(section, math.inf) * train
        samples = min(seconds / SECONDS[section], most)
        steps = int(samples / batch)
        if steps < FEWEST_STEPS:
            raise DarkroomError(f"--minutes {minutes:g} leaves {section} {max(steps, 0)} steps; give more minutes")
        left -= steps * batch * SECONDS[section]
        every = max(1, steps // VALIDATIONS)
        values = {"steps": steps, "lr_schedule.warmup_steps": steps // WARM_UP, "validate_every": every}
        values["log_every"] = max(1, steps // LOGGED)
        if section == "train_unet":
            values["sample_every"] = every
        why = f"{steps * batch / train:.0f} epochs, about {steps * batch * SECONDS[section] / 60:.1f} min on two cores"
        if section == "train_unet" and samples == most:
            why += f", {left / 60:.1f} min unused: more pictures would help more, and cache_latents.mirror doubles them"
        choices.append(Choice({f"{section}.{key}": value for key, value in values.items()}, why))
    return choices
