"""`darkroom params upgrade`: older params files in today's keys. Each test says which fault it would catch."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from darkroom.config.params import Params, problems, read
from darkroom.config.rewrite import rewritten
from darkroom.config.upgrade import STEPS, upgraded
from darkroom.core.errors import DarkroomError

ROOT = Path(__file__).parents[2]
OLD = Path(__file__).parent / "old"
RECIPES = ("scenes", "mnist-score-transformer", "sd15-finetune")  # as they were before `kind` came into train_vae
Run = Callable[..., int]


@pytest.mark.parametrize("name", RECIPES)
def test_an_old_recipe_means_what_the_new_one_says(name: str) -> None:
    """Fails if a step changes a value, drops one that counts, or leaves one that nothing reads."""
    values, done = upgraded(read(OLD / f"{name}.yaml"))
    assert done
    assert Params.model_validate(values) == Params.model_validate(read(ROOT / "recipes" / f"{name}.yaml"))


def test_the_first_recipe_can_still_be_used() -> None:
    """Fails if a key was added since without a step that gives it the value that keeps the old meaning."""
    values, done = upgraded(read(OLD / "scenes-first.yaml"))
    p = Params.model_validate(values)
    assert len(done) == len(STEPS) - 1  # `offer_labels` is about captioned folders
    assert p.train_unet.optimizer.kind == "adamw"
    assert (p.prepare_data.repeats, p.prepare_data.crops, p.cache_latents.mirror) == ("keep", 1, False)
    assert p.train_unet.log_every == p.train_unet.steps // 100
    assert not p.register.valid_judge


def test_a_captioned_folder_had_no_labels() -> None:
    """Fails if a file of yesterday needs more than the upgrade, or other sources are given what they do not have."""
    source = {"kind": "captioned_folder", "root": "birds", "manifest": None}
    values, (said,) = upgraded({"prepare_data": {"source": source}})
    assert values["prepare_data"]["source"] == {**source, "labels": []}
    assert said.startswith("prepare_data.source.labels: []")
    other = {"prepare_data": {"source": {"kind": "webdataset", "root": "birds", "manifest": None}}}
    assert upgraded(other) == (other, [])


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_file_of_today_stays_as_it_is(file: Path) -> None:
    """Fails if upgrading twice is not the same as once, or touches what it need not."""
    assert upgraded(read(file)) == (read(file), [])


@pytest.mark.parametrize(
    ("section", "changes", "said"),
    [
        ("train_vae", {"mode": "vq"}, "train_vae.mode = 'vq': not known; give train, pretrained or identity"),
        ("train_vae", {"mode": "pretrained"}, "train_vae.mode = 'pretrained' has no pretrained_path; give"),
        ("setup_text_encoder", {"mode": "t5"}, "setup_text_encoder.mode = 't5': not known; give clip, pretrained"),
        ("train_unet", {"lr_schedule": "exponential"}, "train_unet.lr_schedule = 'exponential' has no lr_decay; add"),
    ],
)
def test_what_cannot_be_known_is_refused(section: str, changes: dict[str, str], said: str) -> None:
    """Fails if a value is made up that the old file does not give."""
    values = read(OLD / "scenes.yaml")
    values[section] |= changes
    with pytest.raises(DarkroomError) as error:
        upgraded(values)
    assert str(error.value).startswith(said)


def test_a_missing_key_is_named() -> None:
    """Fails if an old file with a hole ends in a traceback."""
    values = read(OLD / "scenes.yaml")
    del values["train_vae"]["betas"]
    with pytest.raises(DarkroomError, match="betas is missing"):
        upgraded(values)


def test_comments_stay_with_their_keys() -> None:
    """Fails if a comment is lost whose key is still there, or told of none that is gone."""
    values, _ = upgraded(read(OLD / "mnist-score-transformer.yaml"))
    text, lost = rewritten((OLD / "mnist-score-transformer.yaml").read_text(encoding="utf-8"), values)
    assert yaml.safe_load(text) == yaml.safe_load(yaml.safe_dump(values))
    assert text.startswith("# The digit asked for, from a score network")
    for line in (
        "    root: . # what torchvision calls root, below DARKROOM_DATA",
        "  kind: identity # latents are the pictures; of what follows, identity_range and batch_size alone are used",
        "  optimizer: # without decay: Adam",
        "    every: 59 # an epoch is 58.6 steps",
    ):
        assert f"{line}\n" in text
    assert "# from here on: of text encoders" in lost


def test_a_key_of_the_new_form_keeps_what_stands_above_it() -> None:
    """Fails if comments on lines of their own, or odd values, do not survive."""
    text = "# head\na:\n  # above\n  b: 'it: # is' # beside\nc: [x, 'y, z']\n"
    values = yaml.safe_load(text) | {"d": 1e-5}
    again, lost = rewritten(text, values)
    assert yaml.safe_load(again.replace("0.00001", "1.0e-5")) == values
    assert again == "# head\n\na:\n  # above\n  b: 'it: # is' # beside\n\nc: [x, 'y, z']\n\nd: 0.00001\n"
    assert lost == []


def test_the_command_shows_what_it_does_and_check_names_it(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Fails if a dry run writes, the remedy of an old file does not work, or a second upgrade does anything."""
    file = tmp_path / "old.yaml"
    file.write_bytes((OLD / "scenes.yaml").read_bytes())
    assert run("params", "check", str(file)) == 1
    assert f"{file}: is of an older form; darkroom params upgrade {file} brings" in capsys.readouterr().out
    assert run("params", "upgrade", str(file), "--dry-run") == 0
    said = capsys.readouterr().out
    assert "\n-  mode: train\n" in said
    assert "\n+  kind: kl\n" in said
    assert file.read_bytes() == (OLD / "scenes.yaml").read_bytes()
    assert run("params", "upgrade", str(file)) == 0
    assert problems(file) == []
    capsys.readouterr()
    assert run("params", "upgrade", str(file)) == 0
    assert f"{file}: is of the present form" in capsys.readouterr().out
