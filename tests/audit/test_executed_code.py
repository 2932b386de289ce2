"""What a run tells of the code it ran is held against the project."""

import json
from pathlib import Path
from typing import Any

import pytest

from darkroom.config.stage_spec import stage_specs
from darkroom.core.artifact import file_hash
from darkroom.tracking.executed_code import DEFINITION, FRAME, OUTSIDE
from tests.support import toy
from tests.support.tampering import Audit, named


@pytest.mark.usefixtures("tracked")
def test_code_that_a_run_imported_from_elsewhere_is_named(audit: Audit, mend: Any) -> None:
    """As through PYTHONPATH, or a sitecustomize in it."""
    told = {
        DEFINITION: stage_specs()["train_vae"].definition,
        FRAME: "{}",
        OUTSIDE: json.dumps(["sitecustomize: /elsewhere/sitecustomize.py"]),
    }
    toy.record_run("train_vae", ran=told)
    found = audit()
    assert named(found, "foreign code", "/elsewhere/sitecustomize.py")
    mended = mend(found, tracked=True)
    assert mended["whole"], mended["findings"]


@pytest.mark.usefixtures("tracked")
def test_what_starts_stages_is_witnessed_by_their_runs(audit: Audit) -> None:
    """It is no dependency, and code added to it would really run: named where it is not committed, else a remark."""
    toy.write_files({"frame.py": "A = 1\n"})
    toy.commit()
    frame = json.dumps({"frame.py": file_hash(Path("frame.py"))[:12]})
    told = {DEFINITION: stage_specs()["train_vae"].definition, FRAME: frame, OUTSIDE: "[]"}
    toy.record_run("train_vae", ran=told)
    assert audit()["findings"] == []
    Path("frame.py").write_text("A = 1\nimport evil\n")
    found = audit()
    assert named(found, "out of date", "frame.py")
    toy.shell(found["findings"][0]["remedy"])
    assert audit()["findings"] == []
    Path("frame.py").write_text("A = 2\n")
    toy.commit()
    found = audit()
    assert found["whole"]
    assert [finding["kind"] for finding in found["findings"]] == ["other frame"]


@pytest.mark.usefixtures("tracked")
def test_a_run_that_tells_nothing_of_its_start_is_a_remark(audit: Audit) -> None:
    """Runs of before; what is compared since was not silently agreed to."""
    toy.record_run("train_vae", ran={})
    found = audit()
    assert found["whole"]
    assert [finding["kind"] for finding in found["findings"]] == ["no definition"]
