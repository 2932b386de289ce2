"""Keys and values of a params file that would break a line: each fault is told in one all the same."""

from pathlib import Path

from darkroom.config.merging import complete_text
from darkroom.config.params import problems
from tests.support import trial

SOUND = complete_text(Path(__file__).parents[2] / "recipes" / "scenes.yaml")


def test_keys_and_values_of_many_lines_are_told_in_one(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(SOUND.replace("kind: scenes", 'kind: "a\\nb"') + '"a\\nb": 3\n' + "k" * 900 + ": 3\n", "utf-8")
    with trial.within(5):
        found = problems(file)
    assert all(line.isprintable() and len(line) < 600 for line in found)
    assert any("'a\\nb' = 3 is an unknown key" in line for line in found)
    assert any("prepare_data.source.kind = 'a\\nb': give scenes or" in line for line in found)
