"""How long a rebuild will still take.

Faults caught: durations that are not scaled to the steps that are asked for now, or taken from other networks or
another machine; stages without a known duration that are passed over in silence; stages counted that dvc will not run;
a damaged file of durations that ends a stage.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from darkroom.config.params import Params, load, read
from darkroom.config.stage_spec import StageSpec
from darkroom.core.progress import Ahead
from darkroom.runner.outlook import DvcCommand, StageOutlook, start_outlook, still_to_run

RECIPE = Path(__file__).parents[2] / "recipes" / "scenes-quick.yaml"
PROFILE = {"device": "cpu", "threads": "1", "processes": "1", "torch": "any"}
# stage -> the stages whose outputs it reads
CHAIN = {"prepare_data": (), "train_vae": ("prepare_data",), "train_unet": ("train_vae",), "evaluate": ("train_unet",)}


class Dvc:
    """Of a dvc that runs what its process would tell."""

    def __init__(self, *asked: str, pid: int = 1) -> None:
        self.pid, self._asked = pid, asked

    def create_time(self) -> float:
        return 5.0

    def cmdline(self) -> list[str]:
        return ["python", "dvc", "repro", *self._asked]


@pytest.fixture
def params() -> Params:
    return load(RECIPE)


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, StageSpec]:
    """Four stages in a row, of which dvc.lock says that each is up to date."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    Path("src").mkdir()
    found, locked, now = {}, {}, read(RECIPE)  # as DVC reads it, without the defaults of what is left out
    Path("params.yaml").write_text(yaml.safe_dump(now))
    for stage, before in CHAIN.items():
        code = Path("src") / f"{stage}.py"
        for file in (code, Path(f"{stage}.out")):
            file.write_text(stage)
        found[stage] = StageSpec(
            f"run {stage}", [Path(f"{s}.out") for s in before], [code], [Path(f"{stage}.out")], [], frozenset()
        )
        digest = hashlib.md5(stage.encode()).hexdigest()
        found[stage].params.append(stage)
        read_too = [{"path": f"{s}.out", "md5": hashlib.md5(s.encode()).hexdigest()} for s in before]
        locked[stage] = {
            "cmd": f"run {stage}",
            "deps": [{"path": str(code), "md5": digest}, *read_too],
            "params": {"params.yaml": {stage: now[stage]}},
            "outs": [{"path": f"{stage}.out", "md5": digest}],
        }
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": locked}))
    return found


Outlook = Callable[..., StageOutlook]


@pytest.fixture
def outlook(params: Params, stages: dict[str, StageSpec]) -> Outlook:
    """The outlook of a stage; `changes`: {section: {key: value}} of the parameters."""

    def make(
        stage: str, *asked: str, pid: int = 1, profile: dict[str, str] = PROFILE, **changes: dict[str, Any]
    ) -> StageOutlook:
        now = read(RECIPE)
        for section, values in changes.items():
            now[section] |= values
        return StageOutlook(stage, Params.model_validate(now), stages, profile, Dvc(*asked, pid=pid))  # type: ignore[arg-type]

    return make


def ran(outlook: StageOutlook, seconds: float, steps: int = 0, training: float = 0.0) -> None:
    """A stage is through, after `seconds` of which `training` were for `steps` steps."""
    if steps:
        outlook.trained(steps, training)
    outlook.record(seconds)


def test_a_training_takes_as_long_as_its_steps_do(outlook: Outlook) -> None:
    """100 s for 100 steps and 20 s besides."""
    ran(outlook("evaluate"), 60)
    ran(outlook("train_unet"), 120, steps=100, training=100)
    assert "about 5 min left in all" in outlook("train_unet", train_unet={"steps": 220}).at_start()
    assert "about 3 min left in all" in outlook("train_unet", train_unet={"steps": 220, "stop_at": 100}).at_start()


def test_only_what_ran_alike_is_an_estimate(outlook: Outlook) -> None:
    ran(outlook("evaluate"), 60)
    known = "about 1 min left in all"
    assert known in outlook("evaluate").at_start()
    assert known in outlook("evaluate", train_unet={"batch_size": 64}).at_start(), "of another stage"
    assert known in outlook("evaluate", evaluate={"seed": 7}).at_start(), "takes no longer"
    assert known in outlook("evaluate", profile=PROFILE | {"torch": "newer"}).at_start()
    unknown = "not timed here yet: evaluate"
    assert unknown in outlook("evaluate", evaluate={"n_test": 65}).at_start()
    assert unknown in outlook("evaluate", profile=PROFILE | {"device": "cuda"}).at_start()


def test_one_slow_run_is_no_estimate(outlook: Outlook) -> None:
    for seconds in (60, 6000, 60):
        ran(outlook("evaluate"), seconds)
    assert "about 1 min left" in outlook("evaluate").at_start()
    for _ in range(3):
        ran(outlook("evaluate"), 600)
    assert "about 10 min left" in outlook("evaluate").at_start(), "of the latest ones"


def test_stages_that_were_never_timed_are_named(outlook: Outlook) -> None:
    assert outlook("train_vae").at_start() == "stage 1 of 3, not timed here yet: train_vae, train_unet, evaluate"
    ran(outlook("evaluate"), 300)
    ran(outlook("train_vae"), 120)
    now = outlook("train_vae", pid=2)
    assert now.at_start() == "stage 1 of 3, about 7 min left without those not timed here yet: train_unet"
    assert now.in_all(60.0, training=False).endswith("about 7 min left in all; not timed here yet: train_unet")
    assert now.in_all(600.0, training=False).endswith("about 15 min left in all; not timed here yet: train_unet"), (
        "slower today"
    )


def test_stages_that_this_dvc_has_run_are_behind(outlook: Outlook) -> None:
    ran(outlook("prepare_data", pid=7), 5)
    assert outlook("train_vae", pid=7).at_start().startswith("stage 2 of 4, ")
    assert outlook("train_vae", pid=8).at_start().startswith("stage 1 of 3, ")


def test_a_time_in_which_the_machine_slept_is_no_work(outlook: Outlook) -> None:
    slept = outlook("evaluate")
    slept.stopped(3600)
    ran(slept, 3660)
    assert "about 1 min left" in outlook("evaluate").at_start()


@pytest.mark.parametrize("text", ["", "[", "{}", '[{"key": 1}]', "[1]", "null", "\x00"])
def test_durations_that_cannot_be_read_are_none(outlook: Outlook, text: str) -> None:
    Path(".checkpoints").mkdir()
    Path(".checkpoints/evaluate.times.json").write_text(text)
    assert "not timed here yet: evaluate" in outlook("evaluate").at_start()
    ran(outlook("evaluate"), 60)
    assert "about 1 min left" in outlook("evaluate").at_start()


def test_only_the_latest_durations_are_kept(outlook: Outlook) -> None:
    for seconds in range(20):
        ran(outlook("evaluate"), seconds)
    kept = json.loads(Path(".checkpoints/evaluate.times.json").read_text())
    assert [times["seconds"] for times in kept] == [12, 13, 14, 15, 16, 17, 18, 19]


def test_what_builds_on_a_stage_will_run(stages: dict[str, StageSpec]) -> None:
    assert still_to_run("prepare_data", stages, []) == ["train_vae", "train_unet", "evaluate"]
    assert still_to_run("train_unet", stages, []) == ["evaluate"], "those before it are through"
    assert still_to_run("prepare_data", stages, ["train_vae"]) == ["train_vae"]
    assert still_to_run("train_vae", stages, ["train_vae"]) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lock: lock["stages"].pop("evaluate"),
        lambda lock: lock["stages"]["evaluate"].update(cmd="another"),
        lambda lock: lock["stages"]["evaluate"]["params"]["params.yaml"]["evaluate"].update(seed=9),
        lambda lock: lock["stages"]["evaluate"]["deps"][0].update(md5="0" * 32),
        lambda lock: Path("evaluate.out").unlink(),
    ],
)
def test_a_stage_that_is_out_of_date_by_itself_will_run(
    stages: dict[str, StageSpec], spoil: Callable[[Any], object]
) -> None:
    """Beside one that nothing connects it with."""
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    del lock["stages"]["evaluate"]["deps"][1]
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    apart = {**stages, "evaluate": stages["evaluate"].__class__(**{**vars(stages["evaluate"]), "inputs": []})}
    assert still_to_run("train_vae", apart, []) == ["train_unet"]
    spoil(lock)
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    assert still_to_run("train_vae", apart, []) == ["train_unet", "evaluate"]


def test_a_key_within_a_section_is_compared_as_dvc_notes_it(stages: dict[str, StageSpec]) -> None:
    """Fails if a stage that depends on one key of a section always counts as still to run."""
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    entry = lock["stages"]["evaluate"]
    entry["params"]["params.yaml"] = {"train_unet.steps": read(RECIPE)["train_unet"]["steps"]}
    del entry["deps"][1]
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    other = {**vars(stages["evaluate"]), "params": ["train_unet.steps"], "inputs": []}
    assert still_to_run("train_unet", {**stages, "evaluate": StageSpec(**other)}, []) == []


@pytest.mark.parametrize(
    ("command", "targets", "single"),
    [
        ("dvc repro", [], False),
        ("python -m dvc repro train_vae evaluate", ["train_vae", "evaluate"], False),
        ("dvc repro -f -s train_unet", ["train_unet"], True),
        ("dvc repro --single-item train_unet", ["train_unet"], True),
        ("dvc exp run -n train_vae -S train_unet.steps=5 evaluate", ["evaluate"], False),
        ("dvc exp run --set-param train_unet.steps=5 -j 2", [], False),
    ],
)
def test_what_dvc_was_asked_for(command: str, targets: list[str], single: bool) -> None:
    assert DvcCommand.of(command.split()) == DvcCommand(targets, single)


def test_of_a_stage_that_is_run_alone_no_others_are_counted(outlook: Outlook) -> None:
    ran(outlook("train_vae"), 60)
    assert outlook("train_vae", "-s", "train_vae").at_start() == "stage 1 of 1, about 1 min left in all"


def test_outside_dvc_there_is_no_outlook(
    params: Params, stages: dict[str, StageSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    assert start_outlook("train_vae", params, stages["train_vae"], PROFILE) is None
    assert Ahead.outlook is None
