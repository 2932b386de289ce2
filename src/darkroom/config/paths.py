"""Where the pipeline's artifacts lie, relative to the project's folder; dvc.yaml names the same, as a test holds."""

from pathlib import Path

RAW = Path("data/raw")  # sources, where DARKROOM_DATA says nothing else
MANIFESTS = Path("data/manifests")
PREPARED = Path("data/prepared")
LATENTS = Path("data/latents")
CONDITIONING = Path("data/conditioning")

ARTIFACTS = Path("artifacts")
VAE = ARTIFACTS / "vae"
TEXT_ENCODER = ARTIFACTS / "text_encoder"
UNET = ARTIFACTS / "unet"
EVALUATOR = ARTIFACTS / "evaluator"
PIPELINE = ARTIFACTS / "pipeline"

REPORTS = Path("reports")  # what people look at, and no stage reads
EVALUATION = REPORTS / "evaluation"


def report_of(stage: str) -> Path:
    """The folder of a stage's figures and pictures."""
    return EVALUATION if stage == "evaluate" else REPORTS / stage
