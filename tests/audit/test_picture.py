"""From a generated picture to the pipeline that drew it and on to the source."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from darkroom.core.artifact import content_hash
from darkroom.inference.record_text import KEY
from tests.support import toy

Audit = Callable[..., dict[str, Any]]
PIPELINE = Path("artifacts/pipeline")


def only(found: dict[str, Any]) -> dict[str, Any]:
    (finding,) = found["findings"]
    return dict(finding)


def train_another() -> None:
    """Have the project hold another pipeline, in files and in git."""
    Path("params.yaml").write_text(toy.PARAMS.replace("steps: 3", "steps: 4"))
    toy.shell("dvc repro")
    toy.commit()


@pytest.mark.usefixtures("project")
def test_a_picture_leads_to_the_pipeline_and_its_source(audit: Audit) -> None:
    found = audit(str(toy.draw_picture(Path("ring.png"), content_hash(PIPELINE))))
    assert found["findings"] == []
    assert [step["stage"] for step in found["steps"]] == ["prepare_data", "train_vae", "evaluate"]
    assert (found["picture"]["found"], found["picture"]["record"]["prompts"]) == ("as in dvc.lock", ["a ring"])


@pytest.mark.usefixtures("project")
def test_what_is_wrong_behind_a_picture_is_told(audit: Audit) -> None:
    picture = toy.draw_picture(Path("ring.png"), content_hash(PIPELINE))
    Path("artifacts/vae/weights.txt").write_text("forged")
    assert only(audit(str(picture)))["where"] == "artifacts/vae"


@pytest.mark.usefixtures("project")
def test_an_earlier_pipeline_is_found_in_git(audit: Audit) -> None:
    picture = toy.draw_picture(Path("ring.png"), content_hash(PIPELINE))
    train_another()
    found = audit(str(picture))
    assert found["whole"]
    assert found["steps"][1]["params"]["train_vae.steps"] == 3
    command = found["picture"]["found"].partition("git checkout ")[2].split()[0]
    toy.shell(f"git checkout {command} && dvc checkout")
    assert content_hash(PIPELINE) == found["picture"]["record"]["model"]


@pytest.mark.usefixtures("project")
def test_an_earlier_pipeline_that_only_a_merge_brought_is_found(audit: Audit) -> None:
    """As where two branches were merged and the stages were run for the result."""
    toy.shell("git checkout -q -b other")
    Path("note.txt").write_text("of the other branch")
    toy.commit()
    toy.shell("git checkout -q -")
    train_another()
    subprocess.run([*toy.GIT, "merge", "-q", "--no-commit", "--no-ff", "other"], check=True)
    Path("params.yaml").write_text(toy.PARAMS.replace("steps: 3", "steps: 6"))
    toy.shell("dvc repro")
    toy.commit()
    picture = toy.draw_picture(Path("ring.png"), content_hash(PIPELINE))
    Path("params.yaml").write_text(toy.PARAMS.replace("steps: 3", "steps: 7"))
    toy.shell("dvc repro")
    toy.commit()
    found = audit(str(picture))
    assert found["whole"]
    assert found["steps"][1]["params"]["train_vae.steps"] == 6


@pytest.mark.usefixtures("tracked")
def test_an_earlier_pipeline_that_git_never_had_is_found_among_the_runs(audit: Audit) -> None:
    """And the runs behind it, by content."""
    Path("params.yaml").write_text(toy.PARAMS.replace("steps: 3", "steps: 5"))
    toy.shell("dvc repro")
    toy.record_run("train_vae", steps=5)
    toy.record_run("evaluate")
    picture = toy.draw_picture(Path("ring.png"), content_hash(PIPELINE))
    toy.shell("git checkout dvc.lock params.yaml && dvc checkout")
    found = audit(str(picture))
    assert {finding["kind"] for finding in found["findings"]} == {"dirty commit"}
    assert "an earlier one, that run" in found["picture"]["found"]
    assert [step["stage"] for step in found["steps"]] == ["prepare_data", "train_vae", "evaluate"]
    assert found["steps"][1]["params"]["train_vae.steps"] == "5"
    assert found["steps"][2]["outputs"][str(PIPELINE)] == found["picture"]["record"]["model"]


@pytest.mark.usefixtures("project")
def test_an_earlier_pipeline_that_the_cache_lost_is_remarked(audit: Audit) -> None:
    picture = toy.draw_picture(Path("ring.png"), model := content_hash(PIPELINE))
    train_another()
    Path(".dvc/cache/files/md5", model[:2], model[2:]).unlink()
    found = audit(str(picture))
    assert found["whole"]
    assert (only(found)["kind"], only(found)["where"]) == ("not in cache", "artifacts/pipeline")


@pytest.mark.usefixtures("project")
def test_a_pipeline_nobody_knows_is_a_finding(audit: Audit) -> None:
    found = audit(str(toy.draw_picture(Path("ring.png"), "0" * 32 + ".dir")))
    assert (only(found)["kind"], only(found)["where"], found["steps"]) == ("unknown model", "ring.png", [])
    (PIPELINE / "weights.txt").write_text("forged")
    found = audit(str(toy.draw_picture(Path("ring.png"), content_hash(PIPELINE))))
    assert "which no stage wrote so" in only(found)["what"]


@pytest.mark.usefixtures("project")
def test_a_picture_without_a_record_is_a_finding(audit: Audit) -> None:
    Image.new("RGB", (8, 8)).save("plain.png")
    finding = only(audit("plain.png"))
    assert (finding["kind"], finding["where"], finding["what"]) == (
        "no record",
        "plain.png",
        "does not say how it was made",
    )
    Path("broken.png").write_bytes(b"no picture")
    assert only(audit("broken.png"))["kind"] == "no record"
    assert "damaged" in only(audit(str(toy.draw_picture(Path("odd.png"), "x", index=9))))["what"]


@pytest.mark.usefixtures("project")
def test_a_picture_that_is_a_pipe_is_not_waited_for(audit: Audit) -> None:
    os.mkfifo("pipe.png")
    assert only(audit("pipe.png"))["what"] == "is not a file"


def draw_with_adapters(path: Path, model: str, *adapters: dict[str, Any]) -> Path:
    """A picture whose record names adapters."""
    toy.draw_picture(path, model)
    record = json.loads(Image.open(path).info[KEY]) | {"adapters": list(adapters)}
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(KEY, json.dumps(record))
    Image.new("RGB", (8, 8)).save(path, pnginfo=chunks)
    return path


@pytest.mark.usefixtures("project")
def test_the_adapters_of_a_picture_lead_to_their_data(audit: Audit) -> None:
    """Of an adapter from elsewhere nothing is known, which is a remark; what is no adapter is left out."""
    known = {"file": "a.safetensors", "md5": "1" * 32, "strength": 0.8, "base": "2" * 32}
    known["inputs"] = {"data/prepared": content_hash("data/prepared"), "artifacts/base/unet": "3" * 32}
    foreign = {"file": "b.safetensors", "md5": "4" * 32, "strength": -0.5, "base": "", "inputs": {}}
    picture = draw_with_adapters(Path("ring.png"), content_hash(PIPELINE), known, foreign, {"md5": 7})
    found = audit(str(picture))
    assert found["whole"]
    assert (only(found)["kind"], "b.safetensors" in only(found)["what"]) == ("unknown adapter", True)
    first, second = found["picture"]["adapters"]
    assert (first["md5"], first["strength"], second["md5"]) == ("1" * 32, 0.8, "4" * 32)
    assert [(one["path"], one["found"]) for one in first["inputs"]] == [
        ("data/prepared", "as in dvc.lock"),
        ("artifacts/base/unet", ""),
    ]
    assert first["inputs"][0]["stages"] == ["prepare_data"]


def test_an_audit_imports_no_torch() -> None:
    code = "import sys; from darkroom import cli; from darkroom.audit import report; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
