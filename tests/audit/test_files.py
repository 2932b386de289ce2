"""dvc.lock against disk, DVC's cache and params.yaml: each fault is named, and its remedy mends it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
import pytest
import yaml

from darkroom.core.artifact import file_hash
from darkroom.core.dvc_settings import cache_root, has_remote
from darkroom.core.errors import DarkroomError
from tests.support import toy

Audit = Callable[..., dict[str, Any]]
VAE, WEIGHTS = Path("artifacts/vae"), Path("artifacts/vae/weights.txt")
METRICS = Path("reports/train_vae/metrics.json")


def only(found: dict[str, Any]) -> dict[str, Any]:
    """The one finding."""
    (finding,) = found["findings"]
    return dict(finding)


def in_cache(file: Path) -> Path:
    """The object of a file in DVC's cache."""
    digest = file_hash(file)
    return Path(".dvc/cache/files/md5", digest[:2], digest[2:])


def corrupt(file: Path) -> Path:
    """Spoil a file's object in the cache, keeping its mode, as a failing disk does."""
    place = in_cache(file)
    place.chmod(0o644)
    place.write_text("spoilt")
    place.chmod(0o444)
    return place


@pytest.mark.usefixtures("project")
def test_a_whole_project_has_no_findings(audit: Audit) -> None:
    found = audit()
    assert found["findings"] == []
    assert [step["stage"] for step in found["steps"]] == ["prepare_data", "train_vae", "evaluate"]
    assert found["steps"][2]["builds_on"] == ["train_vae", "prepare_data"]
    assert found["steps"][1]["params"]["train_vae.steps"] == 3


@pytest.mark.usefixtures("project")
def test_a_tampered_folder_is_told_by_its_files(audit: Audit) -> None:
    WEIGHTS.write_text("forged")
    (VAE / "provenance.json").unlink()
    (VAE / "more.txt").write_text("")
    finding = only(audit())
    assert (finding["kind"], finding["where"], finding["stages"]) == ("tampered", "artifacts/vae", ["train_vae"])
    assert finding["what"].endswith(": provenance.json (gone), weights.txt, more.txt (new)")
    toy.shell(finding["remedy"])
    assert audit()["findings"] == []


@pytest.mark.usefixtures("project")
def test_only_what_a_target_builds_on_is_looked_at(audit: Audit) -> None:
    Path("artifacts/pipeline/weights.txt").write_text("forged")
    for target in ("train_vae", "artifacts/vae", str(WEIGHTS), str(METRICS.resolve())):
        assert [step["stage"] for step in audit(target)["steps"]] == ["prepare_data", "train_vae"]
        assert audit(target)["whole"]
    assert not audit("artifacts/pipeline")["whole"]


@pytest.mark.usefixtures("project")
def test_a_target_that_is_none_is_refused(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("audit", "train_vea") == 1
    assert "train_vea: neither a stage" in (said := capsys.readouterr().err)
    assert "stages: prepare_data, train_vae, evaluate" in said


@pytest.mark.usefixtures("project")
def test_a_tampered_report_comes_back_from_git(audit: Audit) -> None:
    METRICS.write_text('{"psnr": 40}\n')
    finding = only(audit())
    assert (finding["kind"], finding["where"]) == ("tampered report", str(METRICS))
    assert finding["remedy"] == f"git checkout HEAD -- {METRICS}"
    toy.shell(finding["remedy"])
    assert audit()["whole"]


@pytest.mark.usefixtures("project")
def test_a_tampered_report_that_was_committed_is_made_anew(audit: Audit) -> None:
    METRICS.write_text('{"psnr": 40}\n')
    toy.commit()
    finding = only(audit())
    assert finding["remedy"] == "dvc repro -f -s train_vae"
    toy.shell(finding["remedy"])
    assert audit()["whole"]


@pytest.mark.usefixtures("project")
def test_a_missing_output_comes_back_from_the_cache(audit: Audit) -> None:
    shutil.rmtree(VAE)
    finding = only(audit())
    assert (finding["kind"], finding["where"]) == ("missing", "artifacts/vae")
    toy.shell(finding["remedy"])
    assert audit()["findings"] == []


@pytest.mark.usefixtures("project")
def test_a_missing_output_that_no_cache_has_is_made_anew_or_pulled(audit: Audit) -> None:
    in_cache(WEIGHTS).unlink()
    shutil.rmtree(VAE)
    remedy = only(audit())["remedy"]
    Path(".dvc/config.local").write_text("['remote \"far\"']\n    url = /far\n")
    assert only(audit())["remedy"] == "dvc pull --force artifacts/vae"
    Path(".dvc/config.local").unlink()
    toy.shell(remedy)
    assert audit()["findings"] == []


@pytest.mark.usefixtures("project")
def test_where_all_is_gone_there_is_one_finding_for_a_stage_and_one_command(audit: Audit) -> None:
    for folder in ("data/prepared", "artifacts", ".dvc/cache", "reports"):
        shutil.rmtree(folder)
    found = audit()["findings"]
    assert [(finding["where"], finding["remedy"]) for finding in found] == [
        ("data/prepared", "dvc repro -f -s prepare_data"),
        ("artifacts/vae", "dvc repro train_vae"),
        (str(METRICS), f"git checkout HEAD -- {METRICS}"),
        ("artifacts/pipeline", "dvc repro evaluate"),
    ]
    toy.shell(found[3]["remedy"])
    assert audit()["findings"] == []


@pytest.mark.usefixtures("project")
def test_a_commit_is_not_advised_where_it_would_hide_other_changes(audit: Audit) -> None:
    in_cache(WEIGHTS).unlink()
    assert only(audit())["remedy"] == "dvc commit -f train_vae"
    Path("src/toy/net.py").write_text("A = 2\n")
    remedies = {finding["kind"]: finding["remedy"] for finding in audit()["findings"]}
    assert remedies["not in cache"] == "dvc repro -f -s train_vae"


@pytest.mark.usefixtures("project")
def test_a_corrupt_cache_object_is_found_though_the_disk_is_whole(audit: Audit) -> None:
    place = corrupt(WEIGHTS)
    finding = only(audit())
    assert (finding["kind"], finding["where"]) == ("corrupt cache", str(place))
    assert "artifacts/vae/weights.txt" in finding["what"]
    toy.shell(finding["remedy"])
    assert place.read_text() == WEIGHTS.read_text()
    assert audit()["findings"] == []


@pytest.mark.usefixtures("project")
def test_where_disk_and_cache_are_both_spoilt_the_stage_runs_again(audit: Audit) -> None:
    corrupt(WEIGHTS)
    WEIGHTS.write_text("forged")
    found = audit()
    assert [finding["kind"] for finding in found["findings"]] == ["tampered", "corrupt cache"]
    assert found["findings"][0]["remedy"] == "dvc repro -f -s train_vae"  # a checkout would bring the spoilt object
    toy.shell(found["findings"][1]["remedy"])
    assert audit()["findings"] == []


@pytest.mark.usefixtures("project")
def test_what_the_cache_lacks_is_remarked_and_can_be_put_there(audit: Audit) -> None:
    in_cache(WEIGHTS).unlink()
    found = audit()
    assert found["whole"]
    assert only(found)["kind"] == "not in cache"
    toy.shell(only(found)["remedy"])
    assert audit()["findings"] == []


@pytest.mark.parametrize("level", ["project", "local", "global", "system"])
def test_the_cache_may_lie_elsewhere(audit: Audit, project: Path, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    for each in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"DVC_{each}_CONFIG_DIR", str(project.parent / each))
    shutil.move(".dvc/cache", "../elsewhere")
    assert {finding["kind"] for finding in audit()["findings"]} == {"not in cache"}
    toy.shell(f"dvc config --{level} cache.dir {project.parent / 'elsewhere'}")
    assert audit()["findings"] == []


def test_settings_of_the_project_win_over_those_of_the_user(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_GLOBAL_CONFIG_DIR", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = Path(platformdirs.user_config_dir("dvc", "iterative"), "config")
    settings.parent.mkdir(parents=True)
    settings.write_text("[cache]\n    dir = ~/shelf\n['remote \"far\"']\n    url = /far\n")
    assert (cache_root(), has_remote()) == (tmp_path / "shelf", True)
    Path(".dvc/config.local").write_text("[cache]\n    dir = ../../elsewhere\n")
    assert cache_root().resolve() == tmp_path / "elsewhere"
    settings.write_text("cache\n")
    with pytest.raises(DarkroomError, match="not DVC's settings"):
        has_remote()


@pytest.mark.usefixtures("project")
def test_changed_parameters_code_and_stages_are_out_of_date(audit: Audit) -> None:
    changed = {
        "params.yaml": toy.PARAMS.replace("steps: 3, ", "").replace("n_test: 2", "n_test: 5"),
        "src/toy/net.py": "A = 2\n",
        "src/toy/__pycache__/net.pyc": "no code",
        "dvc.yaml": toy.PIPELINE.replace("python -P stages/prepare_data.py", "python -O stages/prepare_data.py")
        + "  more:\n    cmd: python more.py\n",
    }
    toy.write_files(changed)
    found = audit()
    assert {finding["kind"] for finding in found["findings"]} == {"out of date"}
    told = {finding["where"]: finding["what"] for finding in found["findings"] if finding["where"] != "params.yaml"}
    assert told == {
        "src/toy": "changed since its stages ran",
        "dvc.yaml": "prepare_data ran 'python -P stages/prepare_data.py', now 'python -O stages/prepare_data.py'",
        "more": "never ran, says dvc.lock",
    }
    params = [finding["what"] for finding in found["findings"] if finding["where"] == "params.yaml"]
    assert params == [
        "changed since train_vae ran: train_vae.steps is absent, was 3",
        "changed since evaluate ran: evaluate.n_test is 5, was 2",
    ]


@pytest.mark.usefixtures("project")
def test_what_a_stage_depends_on_may_be_more_or_less_than_when_it_ran(audit: Audit) -> None:
    for before, now, said in (
        ("params: [train_vae]", "params: [train_vae, evaluate]", "train_vae has other parameters"),
        ("params: [train_vae, evaluate]", "params: [train_vae]", "train_vae has other parameters"),
        ("deps: [artifacts/vae, data/prepared,", "deps: [artifacts/vae,", "evaluate reads other things"),
    ):
        Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace(before, now))
        finding = only(audit())
        assert (finding["kind"], finding["where"]) == ("out of date", "dvc.yaml")
        assert finding["what"].startswith(f"{said} than when it ran: ")
        toy.shell(finding["remedy"])
        assert audit()["findings"] == []


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("written", ["0.00001", "1e-5", "1e-4"])  # dvc.lock has 1e-05 and 0.0001
def test_small_numbers_are_the_same_however_they_are_written(audit: Audit, written: str) -> None:
    Path("params.yaml").write_text(toy.PARAMS.replace("0.001", written))
    toy.shell("dvc repro train_vae")
    found = audit("train_vae")
    assert found["findings"] == []
    assert found["steps"][1]["params"]["train_vae.learning_rate"] == float(written)


@pytest.mark.usefixtures("project")
def test_running_the_stages_brings_the_chain_up_to_date(audit: Audit) -> None:
    Path("params.yaml").write_text(toy.PARAMS.replace("steps: 3", "steps: 4"))
    assert only(audit())["remedy"] == "dvc repro train_vae"
    toy.shell("dvc repro train_vae")
    finding = only(audit())
    assert (finding["kind"], finding["where"], finding["stages"]) == ("stale chain", "artifacts/vae", ["evaluate"])
    toy.shell(finding["remedy"])
    assert audit()["findings"] == []


@pytest.mark.usefixtures("project")
def test_an_artifact_that_names_other_inputs_than_dvc_lock_breaks_the_chain(audit: Audit) -> None:
    """Also where its bytes are what dvc.lock says, as when someone rewrote both."""
    file = Path("artifacts/pipeline/provenance.json")
    file.write_text(file.read_text().replace("artifacts/vae", "data/prepared"))
    toy.shell("dvc commit -f evaluate")
    finding = only(audit())
    assert (finding["kind"], finding["where"]) == ("stale chain", str(file))
    assert "was made from data/prepared" in finding["what"]
    toy.shell(finding["remedy"])
    assert audit()["findings"] == []


@pytest.mark.usefixtures("project")
def test_a_changed_manifest_makes_its_reader_out_of_date(audit: Audit) -> None:
    Path("data/manifests/other.json").write_text("{}\n")
    finding = only(audit())
    assert (finding["kind"], finding["where"]) == ("out of date", "data/manifests")


@pytest.mark.usefixtures("project")
def test_a_lock_file_that_is_none_is_one_line(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    Path("dvc.lock").write_text("<<<<<<< HEAD\n")
    assert run("audit") == 1
    said = capsys.readouterr().err
    assert said.startswith("darkroom: dvc.lock: not a lock file")
    assert said.count("\n") == 1


@pytest.mark.usefixtures("project")
def test_without_a_lock_file_nothing_ran(audit: Audit) -> None:
    Path("dvc.lock").unlink()
    finding = only(audit())
    assert (finding["kind"], finding["where"]) == ("out of date", "prepare_data, train_vae, evaluate")


@pytest.mark.usefixtures("project")
def test_the_lock_file_is_read_as_dvc_wrote_it(audit: Audit) -> None:
    lock = yaml.safe_load(Path("dvc.lock").read_text())["stages"]
    for step in audit()["steps"]:
        entry = lock[step["stage"]]
        assert step["inputs"] | step["code"] == {dep["path"]: dep["md5"] for dep in entry["deps"]}
        assert step["outputs"] == {out["path"]: out["md5"] for out in entry["outs"]}
