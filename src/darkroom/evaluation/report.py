"""reports/evaluation/metrics.json: what is measured, of what, and how sure it is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from darkroom.core.rng import numpy_rng
from darkroom.core.tensors import batches, to_float
from darkroom.data.prepared import PreparedSplit
from darkroom.evaluation.alignment import Figures, attribute_alignment, class_alignment, matches, retrieval_alignment
from darkroom.evaluation.distances import fid, kid, precision, recall
from darkroom.evaluation.drawing import Drawn
from darkroom.evaluation.estimates import Estimate, bootstrap_mean, from_halves
from darkroom.evaluation.features import Judge
from darkroom.evaluation.memorisation import closeness_to_training
from darkroom.evaluation.reconstruction import psnr, ssim
from darkroom.inference.pipeline import Pipeline

DIGITS = 6  # significant, of figures in reports
TRAINING_PICTURES = 10_000  # at most, among which nearest neighbours are sought


@dataclass(frozen=True)
class Examiner:
    """Measures with one judge, one seed and so many bootstrap resamples."""

    judge: Judge
    seed: int
    resamples: int

    def alignment(self, pictures: Tensor, captions: list[str], labels: Tensor, named: Tensor, what: str) -> Figures:
        """How well pictures uint8 (N, C, H, W) show what was asked, in the figures the judge's data allows; else {}."""
        judge, rng = self.judge, numpy_rng(self.seed, "alignment", what)
        if judge.kind == "towers":
            return retrieval_alignment(judge.finds_caption(pictures, captions), self.resamples, rng)
        if judge.kind != "classifier":
            return {}
        predicted = judge.classes(pictures)
        if judge.class_labelled:
            return class_alignment(predicted[:, 0], labels[:, 0], judge.heads[0].classes, self.resamples, rng)
        heads = [head.name for head in judge.heads]
        return attribute_alignment(predicted, labels, named, heads, self.resamples, rng)

    def of_drawn(self, drawn: Drawn, what: str) -> Figures:
        """How well what was drawn shows what was asked; {} where nothing was."""
        if not drawn.asked:
            return {}
        return self.alignment(drawn.pictures, drawn.captions, drawn.labels, drawn.named, what)

    def verdicts(self, drawn: Drawn, n: int) -> list[bool | None]:
        """For the first n pictures whether all that was asked is there; None each where nobody can tell."""
        n = min(n, len(drawn))
        if self.judge.kind != "classifier" or not drawn.asked:
            return [None] * n
        return [*matches(self.judge.classes(drawn.pictures[:n]), drawn.labels[:n], drawn.named[:n])]

    def itself(self, test: PreparedSplit) -> Figures:
        """The judge on all real test pictures: how far its word goes. Every attribute that is present counts."""
        pictures = test.images()
        return self.alignment(pictures, test.captions, test.labels, test.labels >= 0, "real")

    def fidelity(self, drawn: Drawn, train: PreparedSplit) -> dict[str, Any]:
        """Generated pictures against the real ones of the same captions, in the judge's features.

        The features are scaled to mean square 1 on the real pictures: FID is then in units one can compare between
        judges, and the cube of KID's kernel does not run away.
        """
        chosen = torch.linspace(0, len(train) - 1, min(len(train), TRAINING_PICTURES)).long()
        real, generated = self.judge.features(drawn.real), self.judge.features(drawn.pictures)
        seen = torch.cat([self.judge.features(train.images(chosen[rows])) for rows in batches(len(chosen), 1000)])
        scale = real.square().mean().sqrt()
        real, generated, seen = real / scale, generated / scale, seen / scale
        halves = {"fid": fid, "precision": precision, "recall": recall}
        return {
            **{
                name: from_halves(metric, real, generated, numpy_rng(self.seed, "halves", name))
                for name, metric in halves.items()
            },
            "kid": kid(real, generated, numpy_rng(self.seed, "kid")),
            "closer_to_training_than_test": closeness_to_training(generated, real, seen),
            "features": f"darkroom evaluator ({self.judge.kind}, {real.shape[1]} features, mean square 1)",
            "n_generated": len(generated),
            "n_real": len(real),
        }

    def autoencoder(self, pipeline: Pipeline, test: PreparedSplit) -> dict[str, Estimate]:
        """PSNR (dB) and SSIM of all real test pictures and their reconstructions, means over pictures.

        Empty where there is no autoencoder: then nothing is lost.
        """
        if pipeline.info.autoencoder == "identity":
            return {}
        pairs = [(x, pipeline.reconstruct(to_float(x))) for x in map(test.images, batches(len(test), 250))]
        return {
            name: bootstrap_mean(
                torch.cat([likeness(*pair) for pair in pairs]).numpy(), self.resamples, numpy_rng(self.seed, name)
            )
            for name, likeness in (("psnr", psnr), ("ssim", ssim))
        }


def as_json(value: Any) -> Any:
    """Estimates as {value, low, high, n}; numbers to 6 significant digits, which every machine writes alike."""
    if isinstance(value, Estimate):
        return as_json(asdict(value))
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def estimates(metrics: Mapping[str, Any], of: str = "") -> dict[str, Mapping[str, Any]]:
    """All {value, low, high, n}, by their place: {"alignment.test.exact_match": …}; single attributes left out."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping) and not name.startswith("by_"):
            if set(value) == {"value", "low", "high", "n"}:
                found[of + name] = value
            else:
                found |= estimates(value, f"{of}{name}.")
    return found


def key_figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The values of all `estimates`."""
    return {name: figure["value"] for name, figure in estimates(metrics).items()}
