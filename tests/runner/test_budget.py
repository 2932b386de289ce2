"""How many steps a given time holds, and what must change with them.

Faults caught: measurements between the steps that are not counted, so that a training takes longer than was allowed;
a warm-up, a measurement or an end left beyond the last step, which params.yaml then refuses; a budget for a stage that
trains nothing, or whose inputs are not there.
"""

import copy
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from darkroom.config.merging import complete_text
from darkroom.config.params import Params
from darkroom.config.yaml_file import Loader
from darkroom.core.errors import DarkroomError
from darkroom.runner.budget import LONGEST, budget, dependent, fitting, seconds
from darkroom.training.engine.timing import Timing

RECIPES = Path(__file__).parents[2] / "recipes"
TIMINGS = [Timing([0.5] * 4, 3.0, 20.0), Timing([0.013] * 4, 0.0, 0.0), Timing([2.0, 2.0, 50.0], 40.0, 1.0)]


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("within", [30.0, 100.0, 999.0, 7200.0])
@pytest.mark.parametrize("every", [1, 60, 1000])
def test_as_many_steps_as_fit_and_no_more(timing: Timing, within: float, every: int) -> None:
    steps = fitting(timing, within, every)
    assert steps == 0 or seconds(timing, steps, every) <= within
    unit = 10 ** max(len(str(steps)) - 2, 0)
    assert steps % unit == 0
    assert seconds(timing, steps + unit, every) > within


def test_the_time_is_that_of_all_that_happens() -> None:
    """20 s before, 130 steps of half a second, and three times 3 s: after 60, 120 and the last one."""
    assert seconds(TIMINGS[0], 130, 60) == 20 + 65 + 9
    assert fitting(TIMINGS[0], 20 + 65 + 9, 60) == 130
    assert fitting(TIMINGS[0], 20 + 65 + 8.9, 60) == 120


def test_what_does_not_fit_is_no_step_and_what_takes_no_time_has_an_end() -> None:
    assert fitting(TIMINGS[0], 23.4, 60) == 0
    assert fitting(TIMINGS[0], 23.5, 60) == 1
    assert fitting(Timing([1e-12] * 4, 0.0, 0.0), 60, 60) == LONGEST


@pytest.mark.parametrize("recipe", ["scenes", "sd15-finetune", "mnist-score-concat", "photos-ddpm"])
def test_whatever_the_steps_params_stay_sound(recipe: str) -> None:
    sound = yaml.load(complete_text(RECIPES / f"{recipe}.yaml"), Loader)
    for steps in (1, 7, 100):
        values = copy.deepcopy(sound)
        for stage in (name for name, section in values.items() if "steps" in section):
            for key, old, new in dependent(values[stage], steps):
                section = values[stage]
                for name in key[:-1]:
                    section = section[name]
                assert section[key[-1]] == old
                section[key[-1]] = new
            values[stage]["steps"] = steps
            for name in ("validate_every", "sample_every"):
                assert values[stage].get(name, 0) <= steps
            assert values[stage]["lr_schedule"]["warmup_steps"] <= steps
        Params.model_validate(values)


def test_what_would_lie_beyond_the_end_keeps_its_share_and_all_else_stays() -> None:
    section = {
        "steps": 1000,
        "stop_at": 900,
        "lr_schedule": {"warmup_steps": 100},
        "validate_every": 500,
        "sample_every": 20,
        "adversarial": {"start_step": 400, "lr_schedule": {"warmup_steps": 1}},
        "hard_negatives": None,
    }
    assert dependent(section, 50) == [
        (("lr_schedule", "warmup_steps"), 100, 5),
        (("validate_every",), 500, 25),
        (("adversarial", "start_step"), 400, 20),
        (("stop_at",), 900, None),
    ]
    assert dependent(section, 900) == []
    assert dependent(section, 5000) == [], "more steps move nothing"
    assert [new for _, _, new in dependent(section, 1)] == [1, 1, 1, 1, None], "none of them is 0"


def test_more_time_is_never_fewer_steps() -> None:
    found = [fitting(TIMINGS[0], within, 60) for within in range(0, 3000, 7)]
    assert all(less <= more for less, more in pairwise(found))


def test_a_budget_is_refused_before_anything_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DarkroomError, match=r"'cache_latents' is not a stage that trains; those are train_vae, "):
        budget("cache_latents", 5)
    Path("params.yaml").write_bytes(complete_text(RECIPES / "scenes-quick.yaml").encode())
    Path("dvc.yaml").write_bytes((RECIPES.parent / "dvc.yaml").read_bytes())
    before = Path("params.yaml").read_bytes()
    with pytest.raises(DarkroomError, match=r"data/prepared: is not there yet, and train_vae reads it; .*prepare_data"):
        budget("train_vae", 5)
    assert Path("params.yaml").read_bytes() == before
