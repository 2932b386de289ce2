"""docs/remotes.md: what it says is done, in its order, with PostgreSQL, a server of buckets and MLflow's login.

Fails if a command of the page does not work, if a stage of a fresh clone comes out otherwise, if the audit there misses
a run, or if a password, key or token got into anything that was said, written, stored or served.
"""

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from darkroom.core.artifact import write_json
from tests.support import recipe, toy
from tests.support.projects import ROOT, copy_project
from tests.support.remotes_page import PAGE, SECRETS, Walkthrough

TRAINED, ELSEWHERE, UPGRADED = "Where people train", "Elsewhere", "Newer versions of MLflow"
FOLLOWED = ("What is installed", "The database", "The server", TRAINED, ELSEWHERE, UPGRADED)
TELLS = """
from tests.support.toy import record_run
record_run("{stage}")
"""


def make_toy(project: Path) -> None:
    """Three stages that take no time, each of which tracks its run itself."""
    files = {f"stages/{stage}.py": text + TELLS.format(stage=stage) for stage, text in toy.SCRIPTS.items()}
    files |= {"dvc.yaml": toy.PIPELINE, "params.yaml": toy.PARAMS, "src/toy/net.py": "A = 1\n", "data/manifests/a": ""}
    files |= {".gitignore": ".mlflow/\n.reproduce/\ndata/prepared\nartifacts/\n", ".dvcignore": "__pycache__\n*.pyc\n"}
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    write_json(project / "data/manifests/toy.json", {})
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    for command in ("init", "config core.analytics false", "config core.autostage true"):
        subprocess.run(["dvc", *command.split(), "--quiet"], cwd=project, check=True)
    subprocess.run([*toy.GIT, "add", "--all"], cwd=project, check=True)
    subprocess.run([*toy.GIT, "commit", "--quiet", "--message", "x"], cwd=project, check=True)


def make_small(project: Path) -> None:
    """The project itself, with scenes-quick made small."""
    copy_project(project)
    recipe.write(project / "recipes" / "scenes-quick.yaml", project / "params.yaml")
    subprocess.run([*toy.GIT, "add", "--all"], cwd=project, check=True)
    subprocess.run([*toy.GIT, "commit", "--quiet", "--message", "x"], cwd=project, check=True)


def check_round_trip(walkthrough: Walkthrough, make: Callable[[Path], None], paths: Mapping[str, str]) -> None:
    """From a project to a pushed one, and from there to a clone that makes a stage again and audits everything."""
    place = walkthrough.place / make.__name__
    project = place / "project"
    project.mkdir(parents=True)
    make(project)
    repository = walkthrough.place / "repository.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=master", str(repository)], check=True)
    walkthrough.follow(TRAINED, project, {"PYTHONPATH": paths["project"]})
    said = walkthrough.follow(ELSEWHERE, place, {"PYTHONPATH": paths["clone"]})
    outputs = len(yaml.safe_load((project / "dvc.lock").read_text())["stages"]["train_vae"]["outs"])
    assert f"train_vae: identical: {outputs} of {outputs} outputs" in said
    assert "no run that wrote" not in said, "the profile came from the server"
    assert "\n✗" not in said
    assert walkthrough.address in said, "links lead to the server"
    assert not (project / ".mlflow" / "mlflow.db").exists()
    assert walkthrough.leaks() == []
    (place / "planted").write_bytes(quote(SECRETS["MLFLOW_TRACKING_PASSWORD"], safe="").encode())
    assert walkthrough.leaks() == [f"MLFLOW_TRACKING_PASSWORD in {place / 'planted'}"]
    (place / "planted").unlink()


def test_every_command_of_the_page_is_run(walkthrough: Walkthrough) -> None:
    """A new part with commands fails here until it is followed, too; so does a password that the page would set."""
    with_commands = [name for name, blocks in walkthrough.parts().items() if "console" in dict(blocks)]
    assert with_commands == list(FOLLOWED)
    text = PAGE.read_text(encoding="utf-8")
    assert not [name for name in SECRETS if f"export {name}='…'" not in text]


def test_a_toy_comes_out_the_same_in_a_fresh_clone_and_no_password_gets_anywhere(
    walkthrough: Walkthrough,
) -> None:
    own = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
    check_round_trip(walkthrough, make_toy, {"project": own, "clone": own})


def test_a_database_is_brought_to_a_newer_schema(walkthrough: Walkthrough) -> None:
    """The backup can be read, and what is there stays."""
    before = walkthrough.cluster.psql("mlflow", "SELECT count(*) FROM experiments")
    walkthrough.follow(UPGRADED, walkthrough.place)
    assert (walkthrough.place / "mlflow.dump").stat().st_size > 0
    assert walkthrough.cluster.psql("mlflow", "SELECT count(*) FROM experiments") == before


@pytest.mark.slow
def test_a_recipe_comes_out_the_same_in_a_fresh_clone_and_no_password_gets_anywhere(walkthrough: Walkthrough) -> None:
    place = walkthrough.place / make_small.__name__
    paths = {"project": str(place / "project" / "src"), "clone": str(place / "elsewhere" / "src")}
    check_round_trip(walkthrough, make_small, paths)
    environment = walkthrough.environment({"PYTHONPATH": paths["clone"]})
    walkthrough.run_block("$ source ~/darkroom.env\n$ darkroom register\n", place / "elsewhere", environment)
    assert f"{walkthrough.address}/#/models/darkroom/versions/1" in walkthrough.said[-1]
    assert walkthrough.leaks() == []
