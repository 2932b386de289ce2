"""setup_text_encoder: what conditions the U-Net. data/prepared -> artifacts/text_encoder, data/conditioning."""

import darkroom.runner.startup  # noqa: F401

# isort: split
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from darkroom.config.networks import TextSpec
from darkroom.config.params import Params
from darkroom.config.paths import CONDITIONING, PREPARED, TEXT_ENCODER, report_of
from darkroom.config.text_encoder import PretrainedTextEncoder, TrainedTextEncoder
from darkroom.core.artifact import CONFIG, PROVENANCE, atomic_path, content_hash, provenance, save_tensors, write_json
from darkroom.core.output_shards import take_over
from darkroom.core.progress import readable_size
from darkroom.core.weights import WEIGHTS
from darkroom.data.caption_table import batches_of, distinct, write_captions
from darkroom.data.caption_variants import longest_of, with_variants
from darkroom.data.conditioning import (
    CAPTIONS,
    DTYPES,
    SHARD_ROWS,
    Cache,
    ConditioningInfo,
    shard_name,
    write_description,
)
from darkroom.data.prepared import Prepared, PreparedSplit
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.interop.pretrained import read_pretrained_text_encoder
from darkroom.nn.text.clip import CLIPTextModel
from darkroom.runner.stage import Work, run_stage
from darkroom.training.caption_shards import TOKENIZER, CaptionShards, kept_encoder
from darkroom.training.contrastive import embed_captions
from darkroom.training.engine.curves import Curves
from darkroom.training.engine.disk_space import check_room, kept
from darkroom.training.engine.fit import fit
from darkroom.training.text_encoder_task import TextEncoderTask

REPORT = report_of("setup_text_encoder")
SPLITS = ("train", "validation")  # what training reads; evaluation embeds its own prompts

Splits = Mapping[str, PreparedSplit]


class TextEncoder(NamedTuple):
    """What captions are embedded with. sources: files it was made from, besides the data."""

    model: CLIPTextModel
    tokenizer: CLIPTokenizer
    figures: dict[str, float | str]
    sources: list[Path]


def body(params: Params, work: Work) -> Mapping[str, float | str]:
    """Make the conditions and cache them for every picture that training sees."""
    p, data = params.setup_text_encoder, Prepared.open(PREPARED)
    splits = {name: data.split(name) for name in SPLITS}
    if isinstance(p, TrainedTextEncoder | PretrainedTextEncoder):
        figures = _text(p, splits, work)
    else:
        classes = list(data.info.heads[0].classes) if p.kind == "class" else []
        index = {name: split.labels[:, 0] for name, split in splits.items()} if p.kind == "class" else {}
        index |= _pictures(splits)
        info, figures = ConditioningInfo(p.kind, None, 0, 0, classes), {"classes": len(classes)}
        _write_encoder(info, None)
        with _conditions() as folder:
            write_description(folder, info, index, None)
    if not isinstance(p, TrainedTextEncoder):
        Curves(1, work.run.metrics).write(REPORT)
    write_json(REPORT / "metrics.json", figures)
    return figures


def _text(p: TrainedTextEncoder | PretrainedTextEncoder, splits: Splits, work: Work) -> dict[str, float | str]:
    texts, index = distinct({name: split.caption_column for name, split in splits.items()})
    uncut, drops = (texts, index), p.caption_dropout
    if drops is not None:
        texts, index = with_variants(texts, index, drops)
    if isinstance(p, TrainedTextEncoder):
        check_cache(p.cache, len(texts), p.text.max_length, p.text.hidden_size)
        encoder = _trained(p, splits, *uncut, work)
    else:
        encoder = _pretrained(p, work)
        check_cache(p.cache, len(texts), encoder.tokenizer.max_length, encoder.model.config.hidden_size)
    model, tokenizer = encoder.model, encoder.tokenizer
    null = embed_captions(model, tokenizer([""]), work.device)[0]
    if p.null_condition == "zeros":
        null = torch.zeros_like(null)
    info = ConditioningInfo("text", p.null_condition, tokenizer.max_length, model.config.hidden_size, [])
    _write_encoder(info, encoder)
    with _conditions() as folder:
        write_description(folder, info, {**index, **_pictures(splits), **_longest(splits)}, null)
        write_captions(folder / CAPTIONS, texts)
        captions, version = (folder / CAPTIONS).absolute(), content_hash(TEXT_ENCODER / WEIGHTS)
        shards = CaptionShards(kept_encoder(TEXT_ENCODER, p.cache), p.cache, captions, version).of(len(texts))
        for number, file in enumerate(work.shards.all(shards, f"cache {p.cache} of captions", "caption")):
            take_over(file, folder / shard_name(p.cache, number))
    counts = {"distinct_captions": len(uncut[0]), "vocabulary": len(tokenizer.vocab)}
    return {**encoder.figures, **counts, **({} if drops is None else {"with_variants": len(texts)})}


def _pictures(splits: Splits) -> dict[str, Tensor]:
    """Of the splits in which pictures have several captions, row -> picture."""
    return {f"{name}/pictures": of for name, split in splits.items() if (of := split.pictures) is not None}


def _longest(splits: Splits) -> dict[str, Tensor]:
    """Of these splits, picture -> the row of its longest caption."""
    return {
        f"{name}/longest": longest_of(split.caption_column, of)
        for name, split in splits.items()
        if (of := split.pictures) is not None
    }


def check_cache(cache: Cache, captions: int, length: int, width: int) -> None:
    """Say what states and tokens of so many captions take, and refuse states that the disk does not hold.

    Raises:
        DarkroomError: there is less room; nothing has been done.
    """
    tokens = captions * length * DTYPES["tokens"].itemsize
    states = captions * length * width * DTYPES["states"].itemsize
    print(
        f"setup_text_encoder: of {captions:,} captions, states ({length} x {width} each) take "
        f"{readable_size(states)} and tokens {readable_size(tokens)}; cache = {cache!r}",
        file=sys.stderr,
        flush=True,
    )
    if cache == "states":
        remedy = f"give setup_text_encoder.cache: tokens, which takes {readable_size(tokens)}, or "
        check_room("setup_text_encoder", kept("text states", CONDITIONING, states), remedy)


def _write_encoder(info: ConditioningInfo, encoder: TextEncoder | None) -> None:
    """artifacts/text_encoder, which without text is a description alone."""
    with atomic_path(TEXT_ENCODER) as folder:
        folder.mkdir()
        spec: dict[str, Any] = {}
        if encoder is not None:
            encoder.tokenizer.write(folder / TOKENIZER)
            save_tensors(folder / WEIGHTS, encoder.model.state_dict())
            spec = TextSpec(network=encoder.model.config, sizes=encoder.model.sizes).model_dump()
        write_json(folder / CONFIG, {**asdict(info), **spec})
        write_json(folder / PROVENANCE, provenance(PREPARED, *(encoder.sources if encoder is not None else ())))


@contextmanager
def _conditions() -> Iterator[Path]:
    """The folder of data/conditioning, which appears whole."""
    with atomic_path(CONDITIONING) as folder:
        folder.mkdir(parents=True)
        yield folder
        write_json(folder / PROVENANCE, provenance(PREPARED, TEXT_ENCODER))


def _trained(
    p: TrainedTextEncoder, splits: Splits, texts: pa.Array, index: Mapping[str, Tensor], work: Work
) -> TextEncoder:
    words = (caption for chunk in splits["train"].caption_column.chunks for caption in chunk.to_pylist())
    tokenizer = CLIPTokenizer.train(words, p.text.vocab_size, p.text.max_length)
    ids = torch.cat([tokenizer(captions).int() for captions in batches_of(texts, SHARD_ROWS)])
    task = TextEncoderTask(p, splits, tokenizer, ids, index, work.context(p))
    fitted = fit(task, p, work, REPORT)
    return TextEncoder(fitted.network.text_model, tokenizer, {**fitted.held_out, **fitted.against_chance}, [])


def _pretrained(p: PretrainedTextEncoder, work: Work) -> TextEncoder:
    weights = Path(p.path)
    sources = [weights, weights.parent / TOKENIZER]
    figures: dict[str, float | str] = {f"pretrained: {path.name}": content_hash(path) for path in sources}
    tokenizer = CLIPTokenizer.read(sources[1])
    return TextEncoder(read_pretrained_text_encoder(weights, tokenizer, work.device), tokenizer, figures, sources)


if __name__ == "__main__":
    run_stage("setup_text_encoder", body, trains=True)
