"""What `darkroom reproduce` tells of execution profiles: the recorded one is found by what its run wrote."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from darkroom.core.artifact import content_hash, write_json
from darkroom.runner.reproduce import Files, Output, Reproduction
from darkroom.tracking import stage_run
from darkroom.tracking.query import RunQuery
from darkroom.tracking.store import Store

VAE, HERE = Path("artifacts/vae"), {"threads": "4", "device": "cpu"}
COMMIT, BEFORE, NOW = "0123456789abcdef", "a" * 32 + ".dir", "b" * 32 + ".dir"


def test_the_profile_of_the_run_that_wrote_an_output_is_found(project: Path) -> None:
    with stage_run("train_vae", {}, {}, {}, [VAE], {"threads": "64"}):
        write_json(VAE / "config.json", {"only": "here"})
    assert Store().profile_of_maker("artifacts/vae", content_hash(VAE)) == {"threads": "64"}
    assert Store().profile_of_maker("artifacts/vae", BEFORE) is None
    assert Store().profile_of_maker("artifacts/unet", content_hash(VAE)) is None


def test_a_run_that_an_audit_recorded_afterwards_made_nothing_where_another_did(project: Path) -> None:
    write_json(VAE / "config.json", {"only": str(project)})
    made = {VAE.as_posix(): content_hash(VAE)}
    RunQuery().record("train_vae", {}, {}, made, "restored")
    assert Store().find_maker(*next(iter(made.items()))) is not None
    with stage_run("train_vae", {}, {}, {}, [VAE], {"threads": "64"}):
        pass
    RunQuery().record("train_vae", {}, {}, made, "restored")
    assert Store().profile_of_maker("artifacts/vae", content_hash(VAE)) == {"threads": "64"}


def done(recorded: dict[str, str] | None, same: bool, here: dict[str, str] | None = HERE) -> Reproduction:
    """A stage made again, one of whose two outputs may have come out otherwise."""
    files = None if same else Files([f"{i}.txt" for i in range(10)], [], ["new.txt"])
    outputs = [
        Output("metrics.json", "c" * 32, "c" * 32, None),
        Output("artifacts/vae", BEFORE, BEFORE if same else NOW, files),
    ]
    return Reproduction(
        "train_vae", COMMIT, 1.25, outputs, recorded, here, None if same else Path(".reproduce/train_vae")
    )


@pytest.mark.parametrize(
    ("recorded", "same", "line"),
    [
        (None, True, "no run that wrote the outputs of dvc.lock is known here"),
        (HERE, True, "as recorded"),
        ({**HERE, "threads": "2"}, True, "another than recorded: threads: 2 -> 4"),
        ({**HERE, "threads": "2"}, False, "another than recorded, which may explain it: threads: 2 -> 4"),
    ],
)
def test_profiles_are_compared(
    recorded: dict[str, str] | None,
    same: bool,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without what draws pictures, which changed code may have broken."""
    for module in ("record", "pipeline"):
        monkeypatch.setitem(sys.modules, f"darkroom.inference.{module}", None)
    monkeypatch.setattr("darkroom.runner.reproduce.reproduce", lambda stage: done(recorded, same))
    assert run("reproduce", "train_vae") == (0 if same else 1)
    said = capsys.readouterr().out
    assert f"  execution profile: {line}" in said
    if same:
        assert (
            said.splitlines()[0] == "train_vae: identical: 2 of 2 outputs are those of commit 0123456789, to the byte"
        )
    else:
        assert said.splitlines()[:4] == [
            "train_vae: different: 1 of 2 outputs are not those of commit 0123456789",
            f"  artifacts/vae: {BEFORE} in dvc.lock, {NOW} now",
            "    changed: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt, 5.txt, 6.txt, 7.txt and 2 more",
            "    new: new.txt",
        ]
    assert run("reproduce", "train_vae", "--json") == (0 if same else 1)
    values = json.loads(capsys.readouterr().out)
    assert values["profile"]["recorded"] == recorded
    assert values["profile"]["differences"] == (
        None if recorded is None else [] if recorded == HERE else ["threads: 2 -> 4"]
    )
    assert [one["same"] for one in values["outputs"]] == [True, same]


def test_a_stage_that_does_not_say_its_profile_is_compared_with_none(
    monkeypatch: pytest.MonkeyPatch, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("darkroom.runner.reproduce.reproduce", lambda stage: done(HERE, True, None))
    assert run("reproduce", "train_vae") == 0
    assert "did not record its profile in that commit" in capsys.readouterr().out
    assert run("reproduce", "train_vae", "--json") == 0
    assert json.loads(capsys.readouterr().out)["profile"] == {"recorded": HERE, "here": None, "differences": None}
