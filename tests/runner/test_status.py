"""What `darkroom status` says of stages that build on each other."""

from pathlib import Path

import pytest

from darkroom.config.stage_spec import stage_specs
from darkroom.core.errors import DarkroomError
from darkroom.runner.outlook import still_to_run
from darkroom.runner.status import status
from tests.support import toy

PIPELINE = """\
stages:
  evaluate:
    cmd: evaluate
    deps: [{read}]
    outs: [artifacts/pipeline]
  train_vae:
    cmd: train
    outs: [artifacts/vae]
"""
LOCK = """\
stages:
  evaluate: {{cmd: evaluate, deps: [{{path: {read}, md5: "0"}}], outs: [{{path: artifacts/pipeline, md5: {md5}}}]}}
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    toy.write_files({"artifacts/pipeline": "a", "artifacts/vae/weights.txt": "b", "params.yaml": "{}\n"})


@pytest.mark.parametrize("read", ["artifacts/vae", "artifacts/vae/weights.txt"])
def test_a_stage_waits_for_its_maker_wherever_that_is_listed(read: str) -> None:
    """Fails where a maker is listed later, or where only a file of its output is read: "up to date", while dvc repro
    would run both."""
    Path("dvc.yaml").write_text(PIPELINE.format(read=read))
    Path("dvc.lock").write_text(LOCK.format(read=read, md5="0cc175b9c0f1b6a831c399e269772661"))
    evaluate, vae = status()
    assert (evaluate.stage, evaluate.after, evaluate.reasons) == ("evaluate", ["train_vae"], [])
    assert (vae.stage, vae.after, vae.reasons) == ("train_vae", [], ["never ran"])
    assert still_to_run("train_vae", stage_specs(), []) == ["evaluate"]


def test_stages_that_wait_for_each_other_are_named() -> None:
    Path("dvc.yaml").write_text(PIPELINE.format(read="artifacts/vae") + "    deps: [artifacts/pipeline]\n")
    with pytest.raises(DarkroomError, match=r"dvc\.yaml: stages wait for each other: .*; fix it"):
        status()
