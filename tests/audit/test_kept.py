"""`darkroom keep`: outputs stay under changed code, every audit says so, and nothing but code may differ."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darkroom.core.errors import DarkroomError
from darkroom.project.kept import Kept, file_of, forget
from darkroom.runner.commit import commit
from darkroom.runner.keep import keep
from tests.support import toy
from tests.support.tampering import Audit, edited, named

Run = Callable[..., int]
Said = pytest.CaptureFixture[str]
NET = Path("src/toy/net.py")


def kinds(found: dict[str, Any]) -> list[str]:
    return [finding["kind"] for finding in found["findings"]]


@pytest.mark.usefixtures("tracked")
def test_a_kept_stage_is_a_remark_in_every_audit(audit: Audit, run: Run, capsys: Said) -> None:
    """Fails if keep runs the stage, if the chain is broken after it, or if nobody is told that it was not rerun."""
    weights = Path("artifacts/vae/weights.txt")
    before = weights.stat().st_mtime_ns
    NET.write_text("A = 2\n")
    assert named(audit(), "out of date", "src/toy")
    assert run("status") == 0
    assert "train_vae           out of date: its code changed: src/toy\n" in (said := capsys.readouterr().out)
    assert "darkroom keep train_vae\n" in said
    assert run("keep", "train_vae") == 0
    assert "train_vae: kept, though its code changed (src/toy)" in capsys.readouterr().out
    toy.commit()
    found = audit()
    assert found["whole"]
    assert kinds(found) == ["not rerun"]
    assert weights.stat().st_mtime_ns == before
    assert run("status") == 0
    assert "train_vae           up to date; not rerun: kept since 20" in capsys.readouterr().out
    forget("train_vae")  # as a run of the stage does, whose note git still has
    assert kinds(audit()) == ["other code"]


@pytest.mark.usefixtures("tracked")
def test_what_made_the_outputs_is_not_forgotten_by_a_second_keep(audit: Audit, run: Run) -> None:
    """Nor is a note left where the code is again what made them."""
    NET.write_text("A = 2\n")
    assert run("keep", "train_vae") == 0
    first = Kept.read("train_vae")
    NET.write_text("A = 3\n")
    assert run("keep", "train_vae") == 0
    second = Kept.read("train_vae")
    assert first is not None
    assert second is not None
    assert (second.made_by, second.since) == (first.made_by, first.since)
    assert second.code != first.code
    NET.write_text("A = 1\n")
    assert run("keep", "train_vae") == 0
    assert not file_of("train_vae").exists()
    toy.commit()
    assert audit()["findings"] == []


@pytest.mark.usefixtures("tracked")
def test_other_dependencies_of_code_are_kept_too(audit: Audit, run: Run) -> None:
    """As after `make deps`: the run that made it tells of a dependency that dvc.yaml no longer has."""
    Path("src/toy").rename("src/toys")
    edited(Path("dvc.yaml"), "src/toy]", "src/toys]")()
    assert run("keep", "train_vae") == 0
    toy.commit()
    found = audit()
    assert found["whole"], found["findings"]
    assert kinds(found) == ["not rerun"]


VAE = "stages/train_vae.py"
REFUSED = {  # what is edited, from what to what; what is said
    "nothing": ("", "", "", "is up to date, so there is nothing to keep"),
    "params": ("params.yaml", "steps: 3", "steps: 4", "its parameters changed (train_vae); dvc repro train_vae, or"),
    "outputs": ("artifacts/vae/weights.txt", "3", "4", "outputs are not those that it wrote (artifacts/vae); dvc"),
    "data": ("data/prepared/dataset.json", "dataset", "other", "its data changed (data/prepared); dvc repro train_vae"),
    "command": ("dvc.yaml", f"-P {VAE}", f"-B -P {VAE}", "dvc.yaml starts it otherwise (command); dvc repro train_vae"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.usefixtures("project")
def test_where_more_than_code_differs_nothing_is_kept(case: str, run: Run, capsys: Said) -> None:
    """Fails if keep hides changed data, parameters or outputs behind changed code."""
    file, before, now, reason = REFUSED[case]
    if file:
        NET.write_text("A = 2\n")
        edited(Path(file), before, now)()
    lock = Path("dvc.lock").read_bytes()
    assert run("keep", "train_vae") == 1
    said = capsys.readouterr().err
    assert said.startswith("darkroom: train_vae: ")
    assert reason in said
    assert Path("dvc.lock").read_bytes() == lock
    assert not file_of("train_vae").exists()


@pytest.mark.usefixtures("project")
def test_a_stage_that_dvc_does_not_commit_is_not_noted(run: Run, capsys: Said) -> None:
    """As while a dvc repro runs, which locks the project."""
    NET.write_text("A = 2\n")
    Path(".dvc/config").write_text("[core\n")
    assert run("keep", "train_vae") == 1
    assert "dvc commit did not take it over" in capsys.readouterr().err
    assert not file_of("train_vae").exists()


@pytest.mark.usefixtures("project")
def test_kept_outputs_do_not_stand_for_the_code_that_did_not_make_them(run: Run) -> None:
    """Fails if DVC's run cache has them under the present code: a later dvc repro would take them from there."""
    before = sorted(Path(".dvc/cache/runs").rglob("*"))
    assert before
    NET.write_text("A = 2\n")
    assert run("keep", "train_vae") == 0
    assert sorted(Path(".dvc/cache/runs").rglob("*")) == before
    toy.shell("dvc status train_vae")


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, None])
@pytest.mark.usefixtures("project")
def test_a_commit_that_fails_takes_nothing_back_but_its_own(
    end: type[BaseException] | None, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if the earlier note is lost, or what a dvc repro beside it wrote into dvc.lock meanwhile."""
    NET.write_text("A = 2\n")
    assert run("keep", "train_vae") == 0
    note, lock = file_of("train_vae").read_bytes(), Path("dvc.lock")
    NET.write_text("A = 3\n")

    def beside(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        edited(lock, "stages/evaluate.py", "stages/other.py")()
        if end is not None:
            raise end
        return subprocess.CompletedProcess(command, 1, "", "another dvc runs")

    monkeypatch.setattr(subprocess, "run", beside)
    with pytest.raises(end or DarkroomError):
        keep("train_vae")
    assert file_of("train_vae").read_bytes() == note
    assert "stages/other.py" in lock.read_text()


@pytest.mark.usefixtures("project")
def test_a_lock_file_that_does_not_say_what_the_note_says_is_as_before() -> None:
    """Fails if a commit that is refused afterwards stays in dvc.lock."""
    lock = Path("dvc.lock").read_bytes()
    NET.write_text("A = 2\n")
    with pytest.raises(DarkroomError, match="changed meanwhile"):
        commit("train_vae")  # no note is there
    assert Path("dvc.lock").read_bytes() == lock


@pytest.mark.usefixtures("tracked")
def test_a_damaged_note_is_named(audit: Audit, run: Run) -> None:
    NET.write_text("A = 2\n")
    assert run("keep", "train_vae") == 0
    toy.commit()
    file_of("train_vae").write_text(json.dumps({"stage": "train_vae"}))
    found = audit()
    assert named(found, "lost record", ".darkroom/kept-train_vae.json")
    toy.shell(found["findings"][0]["remedy"].partition(", or ")[0])
    assert kinds(audit()) == ["not rerun"]
