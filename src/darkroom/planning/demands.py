"""What every stage asks of the prepared data, and what the data have: said before work is done, not after it.

`prepare_data` asks for all stages before it puts its data in place, each later stage for itself before it begins (its
parameters may have changed since), and `darkroom params check` wherever there are prepared data. What a stage could
not do without is a fault. What it makes do without, because it takes as much as there is, is a remark, which stands in
the stage's summary and run; it is not an output of prepare_data, which does not depend on parameters of later stages.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from darkroom.config.autoencoder import PretrainedVAE, TrainedVAE
from darkroom.config.base import check_multiple_of
from darkroom.config.networks import TrainedTextConfig
from darkroom.config.params import Params
from darkroom.config.paths import PREPARED
from darkroom.config.text_encoder import PretrainedTextEncoder, TrainedTextEncoder
from darkroom.core.artifact import CONFIG, read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable
from darkroom.data.prepared import INFO, Prepared, PreparedSplit
from darkroom.data.tokenizer import CLIPTokenizer

FEWEST_FOR_DISTANCES = 20  # test pictures, for the figures that compare two sets of them
WORDS_SHOWN = 3  # of those that a remark is about
MOST_LETTERS = 60  # of a caption that a fault shows
LETTERS = re.compile(r"[^\W\d_]+")
SIDES = frozenset(  # any of these as a whole word, in any case; - and digits end words
    """
    left leftmost leftward leftwards right rightmost rightward rightwards clockwise anticlockwise counterclockwise
    links linke linken linker linkes rechts rechte rechten rechter rechtes gauche droite
    izquierda izquierdo derecha derecho sinistra sinistro destra destro esquerda esquerdo direita direito
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Demand:
    """One that the data do not meet.

    key: in params.yaml. value: what it says. but: what the data have, and the remedy. fault: the stage could not work.
    """

    key: str
    value: object
    but: str
    fault: bool = False

    def __str__(self) -> str:
        return f"{self.key} = {self.value!r}: {self.but}"


Demands = Iterator[Demand]


def unmet(params: Params, data: Prepared, stages: Collection[str] | None = None) -> list[Demand]:
    """What the stages (all without it) ask for and the data do not have, faults first."""
    found = [one for stage, of in DEMANDS.items() if stages is None or stage in stages for one in of(params, data)]
    return sorted(found, key=lambda one: not one.fault)


def met(params: Params, data: Prepared, stages: Collection[str] | None = None) -> dict[str, str]:
    """The remarks, {key: what stands against it}.

    Raises:
        DarkroomError: a stage could not work; every fault in one line.
    """
    found = unmet(params, data, stages)
    if faults := [str(one) for one in found if one.fault]:
        raise DarkroomError("; also ".join(faults))
    return {one.key: f"{one.value!r} asked; {one.but}" for one in found}


def met_at_start(params: Params, stage: str, inputs: Collection[Path]) -> dict[str, str]:
    """`met` for a stage that is about to read the prepared data; empty for one that does not."""
    return met(params, Prepared.open(PREPARED), (stage,)) if PREPARED in inputs and stage in DEMANDS else {}


def of_what_is_prepared(params: Params) -> list[Demand]:
    """`unmet` by the data that are there; empty where there are none, or they were prepared by other parameters."""
    if not (PREPARED / INFO).is_file():
        return []
    data, asked = Prepared.open(PREPARED), params.prepare_data
    made, kind = data.info, asked.source.kind
    same = (made.source.split()[0], made.image_size, made.channels) == (kind, asked.image_size, asked.channels)
    same = same and bool(made.buckets) == (asked.buckets is not None) and {*made.sizes} <= {*asked.sizes}
    if (counts := asked.source.counts()) is not None:
        same = same and made.splits == {name: min(n, asked.limit or n) for name, n in counts.items()}
    return unmet(params, data) if same else []


def _vae(params: Params, data: Prepared) -> Demands:
    p = params.train_vae
    if isinstance(p, TrainedVAE):
        yield from _batch("train_vae", p.batch_size, data)
        yield from _buckets("train_vae", p.batch_size, data)
    if isinstance(p, PretrainedVAE) and (config := Path(p.path) / CONFIG).is_file():
        found = read_json(config)
        takes = found.get("in_channels", data.info.channels)
        if takes != data.info.channels:
            but = f"{p.path} takes {takes}; give that, or another autoencoder"
            yield Demand("prepare_data.channels", data.info.channels, but, fault=True)
        yield from _fits_the_unet(params, 2 ** (len(found.get("block_out_channels", [0])) - 1))


def _fits_the_unet(params: Params, downscale: int) -> Demands:
    """Whether pictures can be halved so often, and the U-Net takes latents of that size."""
    p = params.prepare_data
    for side in dict.fromkeys([p.image_size, *(side for size in p.sizes for side in size)]):
        key = "prepare_data.image_size" if side == p.image_size else "prepare_data.buckets"
        try:
            check_multiple_of(key, side, downscale, "the downscale factor of train_vae.path")
            params.train_unet.check_side(side // downscale, key)
        except ValueError as error:
            yield Demand(key, side, str(error), fault=True)
            return


def _latents(params: Params, data: Prepared) -> Demands:
    if params.cache_latents.mirror is not True:
        return
    captions = data.split("train").captions
    if sided := [caption for caption in captions if SIDES & set(LETTERS.findall(caption.casefold()))]:
        but = (
            f"{len(sided)} of {len(captions)} training captions tell left from right, such as "
            f"{printable(sided[0])[:MOST_LETTERS]!r}; give false, or always to mirror their pictures all the same"
        )
        yield Demand("cache_latents.mirror", True, but, fault=True)


def _text_encoder(params: Params, data: Prepared) -> Demands:
    p, key = params.setup_text_encoder, "setup_text_encoder.kind"
    train = data.split("train")
    if p.kind == "class":
        yield from _classes(data, train)
    if not isinstance(p, TrainedTextEncoder | PretrainedTextEncoder):
        return
    if not any(train.captions):
        yield Demand(key, p.kind, "no training picture has a caption; use none, or class for labelled pictures", True)
        return
    if without := sum(not caption for caption in train.captions):
        yield Demand(key, p.kind, f"{without} of {len(train)} training pictures have no caption and count as ''")
    distinct = len(set(train.captions))
    if distinct == 1:
        yield Demand(key, p.kind, "all training pictures have one caption, which tells nothing apart; use none")
    if not isinstance(p, TrainedTextEncoder):
        return
    yield from _batch("setup_text_encoder", p.batch_size, data)
    yield from _text("setup_text_encoder.text", p.text, data, ("train", "validation"))
    hard = p.hard_negatives
    if hard is not None and distinct < hard.group_size:
        but = f"there are {distinct} distinct training captions to make groups of; give hard_negatives: null"
        yield Demand("setup_text_encoder.hard_negatives.group_size", hard.group_size, but, fault=True)
    elif hard is not None and distinct <= hard.neighbours:
        but = f"a training caption has {distinct - 1} others beside it; all are used"
        yield Demand("setup_text_encoder.hard_negatives.neighbours", hard.neighbours, but)


def _classes(data: Prepared, train: PreparedSplit) -> Demands:
    key, kind = "setup_text_encoder.kind", "class"
    if not data.info.class_labelled:
        yield Demand(key, kind, f"{PREPARED} has no classes; use clip or none", fault=True)
        return
    classes = data.info.heads[0].classes
    if missing := sorted(set(range(len(classes))) - set(train.labels.flatten().tolist())):
        but = (
            f"no training picture shows {classes[missing[0]]!r}, so it could be asked for and never drawn; give "
            "pictures of it, or raise prepare_data.limit"
        )
        yield Demand(key, kind, but, fault=True)


def _unet(params: Params, data: Prepared) -> Demands:
    p, there = params.train_unet, data.info.splits["validation"]
    yield from _batch("train_unet", p.batch_size, data)
    yield from _buckets("train_unet", p.batch_size, data)
    yield from _clipped("train_unet.held_out", p.held_out, "validation", there)
    yield from _clipped("train_unet.samples", p.samples, "validation", there)


def _evaluator(params: Params, data: Prepared) -> Demands:
    p = params.train_evaluator
    yield from _batch("train_evaluator", p.batch_size, data)
    if not data.info.heads and data.info.captions:  # the judge reads captions
        yield from _text("train_evaluator.text", p.text, data, ("train", "test"))


def _evaluate(params: Params, data: Prepared) -> Demands:
    p, splits = params.evaluate, data.info.splits
    few = f"; distances need {FEWEST_FOR_DISTANCES} and are withheld; raise prepare_data.test_fraction"
    more = few if min(p.n_test, splits["test"]) < FEWEST_FOR_DISTANCES else ""
    if p.n_test < FEWEST_FOR_DISTANCES <= splits["test"]:
        but = f"distances need {FEWEST_FOR_DISTANCES} and are withheld; raise it, the test split has {splits['test']}"
        yield Demand("evaluate.n_test", p.n_test, but)
    yield from _clipped("evaluate.n_test", p.n_test, "test", splits["test"], more)
    if p.n_novel and "novel" not in splits:
        yield Demand("evaluate.n_novel", p.n_novel, "the data have no split novel, so nothing is drawn of it; give 0")
    elif p.n_novel:
        yield from _clipped("evaluate.n_novel", p.n_novel, "novel", splits["novel"])
    drawn = min(p.n_test, splits["test"])
    for name in ("n_grid", "n_sweep"):
        yield from _clipped(f"evaluate.{name}", getattr(p, name), "test", drawn)


def _batch(section: str, size: int, data: Prepared) -> Demands:
    if size > (there := data.info.splits["train"]):
        but = f"the train split has {there}, so pictures stand in a batch more than once; lower it"
        yield Demand(f"{section}.batch_size", size, but)


def _buckets(section: str, size: int, data: Prepared) -> Demands:
    train = {f"{of.height} x {of.width}": of.splits.get("train", 0) for of in data.info.buckets}
    if few := {name: count for name, count in train.items() if 0 < count < size}:
        listed = ", ".join(f"{name}: {count}" for name, count in few.items())
        but = (
            f"{len(few)} of {len(train)} buckets have fewer training pictures ({listed}), which stand in their batches"
        )
        yield Demand(f"{section}.batch_size", size, f"{but} more than once; lower it, or give fewer buckets")


def _clipped(key: str, asked: int, split: str, there: int, more: str = "") -> Demands:
    if asked > there:
        yield Demand(key, asked, f"the {split} split has {there}; all are used{more}")


def _text(key: str, text: TrainedTextConfig, data: Prepared, splits: tuple[str, ...]) -> Demands:
    """Captions against the tokenizer that the stage will learn from those of the train split."""
    tokenizer = CLIPTokenizer.train(data.split("train").captions, text.vocab_size, text.max_length)
    texts = sorted({caption for name in splits for caption in data.split(name).captions})
    fit = tokenizer.fit(texts)
    if cut := sum(length > text.max_length for length in fit.lengths):
        but = f"{cut} of {len(texts)} distinct captions are longer and are cut, the longest from {max(fit.lengths)}"
        yield Demand(f"{key}.max_length", text.max_length, f"{but}; raise it")
    if len(tokenizer.vocab) == text.vocab_size and fit.in_pieces:
        examples = ", ".join(repr(word) for word in fit.in_pieces[:WORDS_SHOWN])
        but = f"full: {len(fit.in_pieces)} of {fit.words} distinct words are read in pieces, such as {examples}"
        yield Demand(f"{key}.vocab_size", text.vocab_size, f"{but}; raise it")


DEMANDS: Mapping[str, Callable[[Params, Prepared], Demands]] = {
    "train_vae": _vae,
    "cache_latents": _latents,
    "setup_text_encoder": _text_encoder,
    "train_unet": _unet,
    "train_evaluator": _evaluator,
    "evaluate": _evaluate,
}
