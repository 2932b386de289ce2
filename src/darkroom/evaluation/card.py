"""The model card: README.md of artifacts/pipeline, in the form of the Hugging Face Hub.

Everything in it is read where it is kept: pipeline.json, the networks' files, dataset.json, the metrics, the
provenance of what the pipeline was made from.
"""

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open

from darkroom.config.kinds import KIND
from darkroom.core.artifact import CONFIG, PROVENANCE, atomic_path, read_json
from darkroom.core.errors import DarkroomError
from darkroom.data.prepared import Info
from darkroom.evaluation.limits import measured
from darkroom.evaluation.report import beside, estimates, withheld
from darkroom.inference.folder import PipelineInfo

CARD = "README.md"
OF_JUDGES = "evaluator."  # figures about the judges, not the model
FENCE = "---\n"
WIDTH = 120
UNKNOWN = "unknown"
LICENCES = {"scenes": "apache-2.0"}  # of data that this project draws itself; other data has its owner's
TASKS = {"text": "text-to-image", "class": "text-to-image", "none": "unconditional-image-generation"}
SETTINGS = ("steps", "batch_size", "accumulation", "learning_rate", "precision", "seed")


@dataclass(frozen=True)
class Card:
    """A model card that was read: its text without the front matter, and from the front matter the facts in it.

    example: a prompt that the model was tested with.
    """

    text: str
    example: str
    metrics: dict[str, float]


def read_card(folder: Path) -> Card:
    """The model card of a pipeline.

    Raises:
        DarkroomError: there is none, or it was not written by `write_card`.
    """
    path = folder / CARD
    try:
        _, front, text = path.read_text(encoding="utf-8").split(FENCE, 2)
        facts = yaml.safe_load(front)
        (result,) = facts["model-index"][0]["results"]
        metrics = {metric["type"]: float(metric["value"]) for metric in result["metrics"]}
        return Card(text.strip() + "\n", str(facts["widget"][0]["text"]), metrics)
    except FileNotFoundError:
        raise DarkroomError(f"{path}: no such model card; run dvc repro evaluate, which writes it") from None
    except (KeyError, TypeError, ValueError, IndexError, yaml.YAMLError):
        raise DarkroomError(f"{path}: not the model card that evaluate wrote; run dvc repro -f -s evaluate") from None


def write_card(
    folder: Path, data: Info, metrics: Mapping[str, Any], trained: Mapping[str, Mapping[str, Any]], example: str
) -> None:
    """Write the card of the pipeline in `folder`, from what lies there and beside it.

    Args:
        data: what it was trained on.
        metrics: what report.as_json made of the evaluation.
        trained: the parameters of each stage that trained a part.
        example: a prompt of the evaluation.
    """
    info = PipelineInfo.read(folder)
    sections = [
        _title(data, info),
        _use(info, example),
        _data(data),
        _networks(folder, info),
        _training(trained),
        _metrics(metrics),
        _limits(data, info, metrics),
        _licence(data),
        _lineage(folder),
    ]
    with atomic_path(folder / CARD) as beside:
        front = yaml.safe_dump(_front(data, info, metrics, example), sort_keys=False, allow_unicode=True, width=WIDTH)
        beside.write_text(f"{FENCE}{front}{FENCE}\n" + "\n\n".join(sections) + "\n", encoding="utf-8")


def lineage(folder: Path) -> dict[str, str]:
    """Everything a folder was made from, directly or not: path -> content hash, from the provenance files."""
    found: dict[str, str] = {}
    for path, digest in read_json(folder / PROVENANCE)["inputs"].items():
        found[path] = digest
        if (Path(path) / PROVENANCE).is_file():
            found |= lineage(Path(path))
    return dict(sorted(found.items()))


def _front(data: Info, info: PipelineInfo, metrics: Mapping[str, Any], example: str) -> dict[str, Any]:
    task = TASKS[info.condition.kind]
    of_the_model = {name: figure for name, figure in estimates(metrics).items() if not name.startswith(OF_JUDGES)}
    measured = [{"type": name, "value": figure["value"]} for name, figure in of_the_model.items()]
    dataset = {"name": data.source, "type": data.source}
    return {
        "license": LICENCES.get(data.source, UNKNOWN),
        "library_name": "diffusers" if info.for_diffusers else "darkroom",
        "pipeline_tag": task,
        "tags": ["darkroom", "latent-diffusion" if info.autoencoder == "kl" else "diffusion", task],
        "widget": [{"text": example}],
        "model-index": [
            {"name": "darkroom", "results": [{"task": {"type": task}, "dataset": dataset, "metrics": measured}]}
        ],
    }


def _title(data: Info, info: PipelineInfo) -> str:
    asked = {"text": "from text", "class": "of named classes", "none": "without being asked for anything"}
    kind = "latent diffusion model" if info.autoencoder == "kl" else "diffusion model"
    return f"# Darkroom: {data.source} at {info.image_size} × {info.image_size}\n\n" + _filled(
        f"A {kind} that draws {info.image_size} × {info.image_size} "
        f"{'colour' if info.channels == 3 else 'grey'} pictures {asked[info.condition.kind]}. "
        "Darkroom trained and measured it and wrote this card."
    )


def _use(info: PipelineInfo, example: str) -> str:
    intended = "Intended for studying, teaching and testing diffusion models, and as a start for training on other data"
    if info.condition.takes_prompts:
        intended += ". It answers prompts like those it was trained on and nothing else"
    ours = (
        f"from darkroom import Pipeline\n\nPipeline.from_pretrained(PATH).text_to_image({example!r}, seeds=[0]).images"
    )
    theirs = "" if not info.for_diffusers else _filled("diffusers' `StableDiffusionPipeline.from_pretrained` loads it.")
    sampling = described(info.sampling.model_dump())
    return "\n\n".join(
        part
        for part in (
            "## Intended use",
            _filled(f"{intended}."),
            f"```python\n{ours}\n```",
            theirs,
            _filled(f"Draws, unless asked otherwise, with {sampling}, precision {info.precision}."),
        )
        if part
    )


def _data(data: Info) -> str:
    rows = [[name, str(count)] for name, count in data.splits.items()]
    words = f" Training captions hold {data.vocabulary['words']} distinct words." if data.captions else ""
    seen = data.pictures
    left_out = (
        f" Left out: {seen.skipped} unusable pictures, {seen.duplicates_across_splits} with the pixels of a held-out "
        f"one, {seen.repeats_within_splits} that repeat one of their split."
    )
    return f"## Data\n\n{_filled(f'Source: `{data.source}`.{words}{left_out}')}\n\n" + _table(
        ["split", "pictures"], rows
    )


def _networks(folder: Path, info: PipelineInfo) -> str:
    rows = [
        [config.parent.name, f"{sum(map(_weights, sorted(config.parent.glob('*.safetensors')))):,}"]
        for config in sorted(folder.glob(f"*/{CONFIG}"))
    ]
    process = _component(info.process.model_dump())
    scale = f"latents scaled by {info.scaling_factor:.6g} ({info.scaling})"
    return (
        "## Networks\n\n"
        + _table(["network", "parameters"], rows)
        + "\n\n"
        + _filled(f"Prediction: {info.prediction_type}; process: {process}; {scale}; condition: {info.condition.kind}.")
    )


def described(values: Mapping[str, Any]) -> str:
    """Keys and values in a line; of a component its kind, and in parentheses its own keys: "sampler ddim (eta 0.0)"."""
    return ", ".join(
        f"{key} {_component(value) if isinstance(value, Mapping) else value}" for key, value in values.items()
    )


def _component(values: Mapping[str, Any]) -> str:
    own_keys = described({key: value for key, value in values.items() if key != KIND})
    return f"{values[KIND]} ({own_keys})" if own_keys else str(values[KIND])


def _weights(file: Path) -> int:
    """The number of weights in a safetensors file, from its header alone."""
    with safe_open(file, framework="pt") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


def _training(trained: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for stage, section in trained.items():
        settings = _settings(section)
        values = ("–" if (value := settings.get(key)) is None else str(value) for key in SETTINGS)
        rows.append([stage, section.get("kind", "–"), *values])
    return "## Training\n\n" + _table(["stage", "kind", *SETTINGS], rows)


def _settings(section: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of a stage; where it ended early, the steps that were taken."""
    steps, stop_at = section.get("steps"), section.get("stop_at")
    made = steps if stop_at in (None, steps) else f"{stop_at} of {steps}"
    return {**section, "steps": made, "learning_rate": section.get("optimizer", {}).get("learning_rate")}


def _metrics(metrics: Mapping[str, Any]) -> str:
    rows = []
    for name, figure in estimates(metrics).items():
        against = "; ".join(f"{line.of} {line.value:.4g}" for line in beside(metrics, name)) or "–"
        rows.append([f"`{name}`", *map(str, _formatted(figure)), against])
    explained = [
        "With intervals of 95 %; n is the number of pictures. Two judges, networks that saw real pictures alone, each "
        "one half of them; what they are measured on and compare with, they have not seen. A figure of drawn pictures "
        "is the mean of both judges' readings; `disagreement` is the share of pictures on which these differ."
    ]
    if metrics["alignment"].get("test"):
        explained.append(
            "`alignment.test` is over all captions drawn; `unseen_captions` over those that do not stand word for word "
            "in training. Chance is what the same pictures get for captions shuffled among them; `real pictures` is "
            "what the judges get right on real ones."
        )
    if metrics["fidelity"]:
        explained.append(
            f"Fidelity is measured in features of {metrics['fidelity']['features']}: it compares with other models "
            "judged by these alone. Beside each figure stands that of as many real training pictures, of noise, of "
            f"each picture's mean colour and of blurred pictures ({metrics['fidelity']['blur']})."
        )
    blocks = ["## Metrics", _table(["metric", "value", "interval", "n", "to be read against"], rows)]
    blocks.append("\n\n".join(map(_filled, explained)))
    for reason, names in withheld(metrics).items():
        blocks.append(_filled(f"Withheld: {', '.join(f'`{name}`' for name in names)}. Why: {reason}."))
    return "\n\n".join(blocks)


def _limits(data: Info, info: PipelineInfo, metrics: Mapping[str, Any]) -> str:
    limits = [f"Pictures have {info.image_size} × {info.image_size} pixels, as in training.", *measured(metrics)]
    if info.condition.of_text:
        limits.append(
            f"Prompts are cut after {info.condition.max_length} tokens, start and end included. What words look like "
            "it knows from its training captions alone."
        )
    if info.condition.of_classes:
        limits.append(f"It knows these classes and no other: {', '.join(info.condition.classes)}.")
    attributes = metrics["alignment"]["test"].get("by_attribute", {})
    if attributes:
        worst = min(attributes, key=lambda name: (attributes[name]["value"], name))
        value, interval, _ = _formatted(attributes[worst])
        limits.append(f"Of what captions ask for, `{worst}` is drawn right least often: {value} {interval}.")
    limits.append("No filter looks at prompts or pictures, and nobody has looked for biases of the data.")
    return "## Limits\n\n" + "\n".join(_filled(f"- {limit}", subsequent_indent="  ") for limit in limits)


def _licence(data: Info) -> str:
    licence = LICENCES.get(data.source)
    if licence:
        said = f"The pictures and captions were drawn by Darkroom's own code. Weights and data: {licence}."
    else:
        said = "Unknown: it depends on the pictures and captions. Settle it before publishing the weights."
    return f"## Licence\n\n{_filled(said)}"


def _lineage(folder: Path) -> str:
    rows = [[f"`{path}`", f"`{digest}`"] for path, digest in lineage(folder).items()]
    explained = "Content hashes as DVC computes them; `dvc.lock` says which code and parameters made each."
    return "## Made from\n\n" + _table(["what", "content"], rows) + "\n\n" + _filled(explained)


def _formatted(figure: Mapping[str, Any]) -> tuple[str, str, int]:
    value, low, high = (f"{figure[key]:.4g}" for key in ("value", "low", "high"))
    return value, f"[{low}, {high}]", figure["n"]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _filled(text: str, subsequent_indent: str = "") -> str:
    return textwrap.fill(
        text, WIDTH, subsequent_indent=subsequent_indent, break_long_words=False, break_on_hyphens=False
    )
