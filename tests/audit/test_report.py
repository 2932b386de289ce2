"""What is printed."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from darkroom.audit.findings import BREAKS, WARNINGS, Finding, merged
from darkroom.core.artifact import content_hash
from tests.support import toy

Run = Callable[..., int]
DOCS = Path(__file__).parents[2] / "docs" / "audit.md"


@pytest.fixture
def said(run: Run, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(*arguments: str) -> str:
        run("audit", *arguments)
        return capsys.readouterr().out

    return call


@pytest.mark.usefixtures("tracked")
def test_the_tree_leads_from_the_last_product_to_the_source(said: Callable[..., str]) -> None:
    told = said()
    names = [re.search(r"(artifacts|data)/\S+", line) for line in told.splitlines()[1:6]]
    assert [name and name.group() for name in names] == [
        "artifacts/pipeline",
        "artifacts/vae",
        "data/prepared",
        "data/manifests",
        "data/raw/pictures",
    ]
    assert content_hash("artifacts/vae")[:8] in told.splitlines()[2]
    assert all(len(line) <= 120 for line in told.splitlines())
    assert told.endswith("The chain is whole: 3 stages, 4 outputs, 3 runs.\n")
    assert "params  steps=3, learning_rate=0.001, name=toy" in told
    assert told.count("runs/") == 3


@pytest.mark.usefixtures("project")
def test_each_finding_is_one_line_with_its_remedy_and_its_stage_is_marked(said: Callable[..., str]) -> None:
    Path("artifacts/vae/weights.txt").write_text("forged")
    told = said()
    assert (
        "✗ tampered: artifacts/vae: not as train_vae wrote it: weights.txt; dvc checkout --force artifacts/vae\n"
    ) in told
    marks = {line.split()[-1]: line[0] for line in told.splitlines()[1:4]}
    assert marks == {"evaluate": "✓", "train_vae": "✗", "prepare_data": "✓"}
    assert told.endswith("The chain is broken: 1 finding breaks it; 1 remark.\n")


@pytest.mark.usefixtures("project")
def test_a_picture_is_told_first(said: Callable[..., str]) -> None:
    told = said(str(toy.draw_picture(Path("ring.png"), content_hash("artifacts/pipeline"))))
    assert told.startswith("ring.png\n  drawn     'a ring', seed 7; 12 steps of dpmpp_2m, guidance 3.0\n")
    assert "darkroom regenerate ring.png" in told


def test_what_stages_share_is_said_once_and_breaks_come_first() -> None:
    dirty = [Finding("dirty commit", stage, "so", f"commit, then dvc repro -s {stage}", (stage,)) for stage in "abc"]
    missing, shared = Finding("missing", "x", "gone", "dvc checkout x", ("a",)), merged(dirty)[0]
    assert merged([*dirty, missing]) == [missing, shared]
    assert (shared.where, shared.remedy) == ("a, b, c", "commit, then dvc repro -s a b c")
    assert merged(dirty[:1]) == dirty[:1]


def test_help_and_docs_name_every_kind_and_whether_it_breaks(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("audit", "--help")
    told = capsys.readouterr().out
    broken, _, remarks = told.partition("and 0 with these")
    rows = DOCS.read_text(encoding="utf-8").splitlines()
    for kinds, part, word in ((BREAKS, broken, "breaks"), (WARNINGS, remarks, "remark")):
        for kind in kinds:
            assert f"  {kind} " in part
            assert [row for row in rows if row.startswith(f"| {kind} | {word} |")], kind
