"""Paths of artifacts are stated in one file: those that a stage writes are outputs of dvc.yaml, under the same name."""

from pathlib import Path

from darkroom.config import paths
from darkroom.config.stage_spec import stage_specs

ROOT = Path(__file__).parents[2]


def test_what_has_a_path_is_an_output_and_every_report_lies_where_its_stage_says() -> None:
    """Would catch a path changed in one of the two places."""
    specs = stage_specs(ROOT / "dvc.yaml")
    outputs = {output for spec in specs.values() for output in spec.outputs}
    named = {paths.PREPARED, paths.LATENTS, paths.CONDITIONING, paths.VAE, paths.TEXT_ENCODER, paths.UNET}
    assert named | {paths.EVALUATOR, paths.PIPELINE} <= outputs
    for stage, spec in specs.items():
        assert any(output.is_relative_to(paths.report_of(stage)) for output in spec.outputs), stage
