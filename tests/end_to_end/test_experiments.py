"""`dvc exp run` in its three forms: each runs the code it was given, and its run is in the project's one store."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml

from darkroom.config.merging import complete_text

ROOT = Path(__file__).parents[2]
STAGE = "prepare_data"
SMALL = {"n_train": 40, "n_validation": 20, "n_test": 20, "n_novel": 4}


@pytest.mark.slow
def test_experiments_in_copies_leave_their_runs_in_the_one_store(
    tmp_path: Path, copied_project: Callable[[Path], None], dvc_in: Callable[[Path], Any]
) -> None:
    project = tmp_path / "darkroom"
    project.mkdir()
    shutil.copytree(ROOT / ".dvc", project / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "config.local"))
    values = yaml.safe_load(complete_text(ROOT / "recipes" / "scenes-quick.yaml"))
    values[STAGE]["source"] |= SMALL
    (project / "params.yaml").write_text(yaml.safe_dump(values))
    copied_project(project)
    pipeline = yaml.safe_load((project / "dvc.yaml").read_text())
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {STAGE: pipeline["stages"][STAGE]}}))
    commit = ("-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "-am", "one stage")
    subprocess.run(["git", *commit], cwd=project, check=True)
    dvc = dvc_in(project)
    for seed, name, how in ((1, "here", ""), (2, "aside", " --temp"), (3, "later", " --queue")):
        dvc(f"exp run{how} --set-param {STAGE}.seed={seed} --name {name}")
    code = project / "src/darkroom/data/prepare.py"
    before = code.read_text()
    code.write_text(f"{before}\n\ndef prepare(*_):\n    raise AssertionError('code that was not queued')\n")
    dvc("exp run --run-all")
    code.write_text(before)

    assert [path.relative_to(project) for path in project.rglob("mlflow.db")] == [Path(".mlflow/mlflow.db")]
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{project / '.mlflow/mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("darkroom").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    found = {run.data.tags["dvc.exp_name"]: run for run in runs}
    seeds = {name: run.data.params[f"{STAGE}.seed"] for name, run in found.items()}
    assert seeds == {"here": "1", "aside": "2", "later": "3"}
    assert len({run.data.tags["out.data/prepared"] for run in runs}) == 3
    for run in runs:
        assert run.info.artifact_uri.startswith(str(project / ".mlflow" / "artifacts"))
        assert "manifest.json" in [artifact.path for artifact in client.list_artifacts(run.info.run_id)]

    (workspace, baseline) = json.loads(dvc("exp show --json").stdout)
    del workspace
    shown = {one["name"]: one["revs"][0]["data"]["params"]["params.yaml"]["data"] for one in baseline["experiments"]}
    assert {name: str(one[STAGE]["seed"]) for name, one in shown.items()} == seeds

    dvc("exp apply aside")
    assert yaml.safe_load((project / "params.yaml").read_text())[STAGE]["seed"] == 2
    recorded = yaml.safe_load((project / "dvc.lock").read_text())["stages"][STAGE]["outs"][0]["md5"]
    assert recorded == found["aside"].data.tags["out.data/prepared"]
    assert "Running stage" not in dvc("repro").stdout
