"""setup_text_encoder: what conditions the U-Net. data/prepared -> artifacts/text_encoder, data/conditioning."""

import darkroom.runner.startup  # noqa: F401

# isort: split
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from darkroom.config.networks import TextSpec, TowersConfig, TowersSizes
from darkroom.config.params import Params, SetupTextEncoder
from darkroom.core.artifact import CONFIG, PROVENANCE, atomic_path, content_hash, provenance, save_tensors, write_json
from darkroom.core.rng import seeded
from darkroom.core.weights import WEIGHTS
from darkroom.data.conditioning import Conditioning, ConditioningInfo, distinct
from darkroom.data.prepared import Prepared, PreparedSplit
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.interop.pretrained import read_pretrained_text_encoder
from darkroom.nn.judge.towers import Towers
from darkroom.nn.text.clip import CLIPTextModel
from darkroom.runner.stage import Work, run_stage
from darkroom.training.contrastive import ContrastiveTask, embed_captions, retrieval, retrieval_by_chance
from darkroom.training.engine.blank import matched
from darkroom.training.engine.chance import Reached, against_chance
from darkroom.training.engine.context import TrainingContext
from darkroom.training.engine.curves import Curves
from darkroom.training.engine.ema import EMA
from darkroom.training.engine.loop import Phase, train
from darkroom.training.engine.throughput import TRAINING, Throughput, flops
from darkroom.training.hard_negatives import HardNegativesConfig

PREPARED, ARTIFACT = Path("data/prepared"), Path("artifacts/text_encoder")
CONDITIONING, REPORT = Path("data/conditioning"), Path("reports/setup_text_encoder")
TOKENIZER = "tokenizer"  # in the artifact, and beside the encoder of an imported model
SPLITS = ("train", "validation")  # what training reads; evaluation embeds its own prompts


def body(params: Params, work: Work) -> Mapping[str, float | str]:
    """Make the conditions as `mode` says and cache them for every picture that training sees."""
    p, data = params.setup_text_encoder, Prepared.open(PREPARED)
    splits = {name: data.split(name) for name in SPLITS}
    curves, figures = Curves(p.log_every, work.run.metrics), dict[str, float | str]()
    texts: list[str] = []
    sources = [PREPARED]
    with atomic_path(ARTIFACT) as folder:
        folder.mkdir()
        if p.mode in ("clip", "pretrained"):
            texts, index = distinct({name: split.captions for name, split in splits.items()})
            if p.pretrained_path is not None:
                sources += [Path(p.pretrained_path), Path(p.pretrained_path).parent / TOKENIZER]
                tokenizer = CLIPTokenizer.read(sources[2])
                encoder = read_pretrained_text_encoder(sources[1], tokenizer, work.device)
                figures = {f"pretrained: {path.name}": content_hash(path) for path in sources[1:]}
            else:
                tokenizer = CLIPTokenizer.train(splits["train"].captions, p.text.vocab_size, p.text.max_length)
                encoder, measured = _train(p, splits, tokenizer, tokenizer(texts), index, work, curves)
                loss, chance = measured["held_out/loss"], retrieval_by_chance(index["validation"], p.batch_size)
                says = f"captions told apart by no more than luck, ln {min(p.batch_size, len(index['validation']))}"
                reached = Reached("held_out/loss", loss, chance["held_out/loss"], says)
                figures = {**measured, **against_chance("setup_text_encoder", p.on_worse_than_chance, [reached])}
            embeddings, null = (embed_captions(encoder, tokenizer(t), work.device) for t in (texts, [""]))
            null = null[0] if p.null_condition == "empty_prompt" else torch.zeros_like(null[0])
            dim = encoder.config.hidden_size
            info = ConditioningInfo("text", p.null_condition, tokenizer.max_length, dim, [])
            conditioning = Conditioning(info, index, embeddings, null)
            tokenizer.write(folder / TOKENIZER)
            save_tensors(folder / WEIGHTS, encoder.state_dict())
            spec = TextSpec(network=encoder.config, sizes=encoder.sizes).model_dump()
            figures |= {"distinct_captions": len(texts), "vocabulary": len(tokenizer.vocab)}
        else:
            classes = list(data.info.heads[0].classes) if p.mode == "class" else []
            info = ConditioningInfo(p.mode, None, 0, 0, classes)
            index = {name: split.labels[:, 0] for name, split in splits.items()} if p.mode == "class" else {}
            conditioning, spec = Conditioning(info, index, None, None), {}
            figures = {"classes": len(info.classes)}
        write_json(folder / CONFIG, {**asdict(info), **spec})
        write_json(folder / PROVENANCE, provenance(*sources))
    with atomic_path(CONDITIONING) as folder:
        conditioning.write(folder, texts)
        write_json(folder / PROVENANCE, provenance(PREPARED, ARTIFACT))
    write_json(REPORT / "metrics.json", figures)
    curves.write(REPORT)
    return figures


def _train(
    p: SetupTextEncoder,
    splits: dict[str, PreparedSplit],
    tokenizer: CLIPTokenizer,
    input_ids: Tensor,
    index: dict[str, Tensor],
    work: Work,
    curves: Curves,
) -> tuple[CLIPTextModel, dict[str, float]]:
    config = TowersConfig(image=p.image, text=p.text.learnt(len(tokenizer.vocab)))
    sizes = TowersSizes(in_channels=splits["train"].info.channels, tokens=tokenizer.sizes)
    with seeded(p.seed, "text encoder"):
        towers = Towers(config, sizes).to(work.device)
    setting = TrainingContext(p.batch_size, p.seed, p.precision, work.device, work.processes)
    hard = p.hard_negatives and HardNegativesConfig(**p.hard_negatives.model_dump())
    training = ContrastiveTask(towers, splits["train"].images, input_ids, index["train"], setting, hard)
    held_out_task = ContrastiveTask(towers, splits["validation"].images, input_ids, index["validation"], setting)
    ema, ending = EMA(towers, p.ema_half_life), work.ending(p.steps, p.stop_at)

    def held_out(step: int, values: Mapping[str, float]) -> None:
        if step % p.validate_every == 0 or step == ending.step:
            curves.record(step, retrieval(held_out_task, ema.network))

    phase = Phase("", towers, p, training.loss)
    x = splits["train"].info
    size = (x.channels, x.image_size, x.image_size)
    cost = TRAINING * flops(towers, lambda: matched(towers, 1, size, p.text.max_length))
    speed = Throughput(cost, curves.every, setting, work.run.metrics)
    train(
        [phase],
        ema,
        steps=p.steps,
        batch_size=p.batch_size,
        accumulation=1,
        hooks=speed.around([curves, held_out]),
        description="text encoder",
        read_every=(curves.every, p.validate_every),
        checkpoints=work.checkpoints,
        remembered={"curves": curves} | training.memory(),
        processes=work.processes,
        ending=ending,
    )
    return ema.network.text_model, retrieval(held_out_task, ema.network)


if __name__ == "__main__":
    run_stage("setup_text_encoder", body, trains=True)
