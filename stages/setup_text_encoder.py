"""setup_text_encoder: what conditions the U-Net. data/prepared -> artifacts/text_encoder, data/conditioning."""

import darkroom.runner.startup  # noqa: F401

# isort: split
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from darkroom.config.networks import TextSpec
from darkroom.config.params import Params
from darkroom.config.paths import CONDITIONING, PREPARED, TEXT_ENCODER, report_of
from darkroom.config.text_encoder import PretrainedTextEncoder, TrainedTextEncoder
from darkroom.core.artifact import CONFIG, PROVENANCE, atomic_path, content_hash, provenance, save_tensors, write_json
from darkroom.core.weights import WEIGHTS
from darkroom.data.conditioning import Conditioning, ConditioningInfo, distinct
from darkroom.data.prepared import Prepared, PreparedSplit
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.interop.pretrained import read_pretrained_text_encoder
from darkroom.nn.text.clip import CLIPTextModel
from darkroom.runner.stage import Work, run_stage
from darkroom.training.contrastive import embed_captions
from darkroom.training.engine.curves import Curves
from darkroom.training.engine.fit import fit
from darkroom.training.text_encoder_task import TextEncoderTask

REPORT = report_of("setup_text_encoder")
TOKENIZER = "tokenizer"  # in the artifact, and beside the encoder of an imported model
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
    texts: list[str] = []
    spec: dict[str, Any] = {}
    sources = [PREPARED]
    encoder = None
    if isinstance(p, TrainedTextEncoder | PretrainedTextEncoder):
        texts, index = distinct({name: split.captions for name, split in splits.items()})
        # Before anything is written: of several processes, those that do not lead go no further.
        encoder = _trained(p, splits, texts, index, work) if isinstance(p, TrainedTextEncoder) else _pretrained(p, work)
        conditioning = _embedded(p, encoder, texts, index, work)
        spec = TextSpec(network=encoder.model.config, sizes=encoder.model.sizes).model_dump()
        sources += encoder.sources
        figures = {**encoder.figures, "distinct_captions": len(texts), "vocabulary": len(encoder.tokenizer.vocab)}
    else:
        classes = list(data.info.heads[0].classes) if p.kind == "class" else []
        index = {name: split.labels[:, 0] for name, split in splits.items()} if p.kind == "class" else {}
        conditioning = Conditioning(ConditioningInfo(p.kind, None, 0, 0, classes), index, None, None)
        figures = {"classes": len(classes)}
    if not isinstance(p, TrainedTextEncoder):
        Curves(1, work.run.metrics).write(REPORT)
    with atomic_path(TEXT_ENCODER) as folder:
        folder.mkdir()
        if encoder is not None:
            encoder.tokenizer.write(folder / TOKENIZER)
            save_tensors(folder / WEIGHTS, encoder.model.state_dict())
        write_json(folder / CONFIG, {**asdict(conditioning.info), **spec})
        write_json(folder / PROVENANCE, provenance(*sources))
    with atomic_path(CONDITIONING) as folder:
        conditioning.write(folder, texts)
        write_json(folder / PROVENANCE, provenance(PREPARED, TEXT_ENCODER))
    write_json(REPORT / "metrics.json", figures)
    return figures


def _trained(
    p: TrainedTextEncoder, splits: Splits, texts: list[str], index: Mapping[str, Tensor], work: Work
) -> TextEncoder:
    tokenizer = CLIPTokenizer.train(splits["train"].captions, p.text.vocab_size, p.text.max_length)
    task = TextEncoderTask(p, splits, tokenizer, tokenizer(texts), index, work.context(p))
    fitted = fit(task, p, work, REPORT)
    return TextEncoder(fitted.network.text_model, tokenizer, {**fitted.held_out, **fitted.against_chance}, [])


def _pretrained(p: PretrainedTextEncoder, work: Work) -> TextEncoder:
    weights = Path(p.path)
    sources = [weights, weights.parent / TOKENIZER]
    figures: dict[str, float | str] = {f"pretrained: {path.name}": content_hash(path) for path in sources}
    tokenizer = CLIPTokenizer.read(sources[1])
    return TextEncoder(read_pretrained_text_encoder(weights, tokenizer, work.device), tokenizer, figures, sources)


def _embedded(
    p: TrainedTextEncoder | PretrainedTextEncoder,
    encoder: TextEncoder,
    texts: list[str],
    index: dict[str, Tensor],
    work: Work,
) -> Conditioning:
    """The captions and the null condition, embedded."""
    model, tokenizer, *_ = encoder
    embeddings, nulls = (embed_captions(model, tokenizer(t), work.device) for t in (texts, [""]))
    null = nulls[0] if p.null_condition == "empty_prompt" else torch.zeros_like(nulls[0])
    info = ConditioningInfo("text", p.null_condition, tokenizer.max_length, model.config.hidden_size, [])
    return Conditioning(info, index, embeddings, null)


if __name__ == "__main__":
    run_stage("setup_text_encoder", body, trains=True)
