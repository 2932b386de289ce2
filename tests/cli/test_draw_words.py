"""What is asked for, as people's shells and editors write it: read, refused in one line, or remarked on; and grids."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.inference.record import Record
from tests.support import pipelines

Run = Callable[..., int]
Said = pytest.CaptureFixture[str]
PROMPT = "a small red circle"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(pipelines.assembled(tmp_path_factory.mktemp("drawn")))


@pytest.fixture
def place(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the trained pipeline where the commands look for it."""
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "pipeline").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_THREADS", str(torch.get_num_threads()))
    monkeypatch.setenv("DARKROOM_DETERMINISTIC", "0")
    before = torch.get_deterministic_debug_mode()
    yield tmp_path
    torch.set_deterministic_debug_mode(before)


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize(
    "written",
    [
        PROMPT.encode("utf-8-sig") + b"\n",
        PROMPT.encode("utf-16"),
        f"  {PROMPT} \t\r\n\r\n".encode(),
        b"\n" + PROMPT.encode("utf-8-sig"),  # of files that were joined
        PROMPT.encode("utf-32"),
    ],
    ids=["mark", "utf-16", "crlf", "mark within", "utf-32"],
)
def test_a_prompts_file_draws_the_same_however_an_editor_wrote_it(written: bytes, place: Path, run: Run) -> None:
    """Catches: a byte order mark that becomes a part of the first prompt, and so draws another picture."""
    Path("prompts.txt").write_bytes(written)
    assert run("generate", PROMPT, "--steps", "1", "--out", "a.png") == 0
    assert run("generate", "--prompts", "prompts.txt", "--steps", "1", "--out", "b.png") == 0
    assert Record.read(Path("b.png")).prompts == [PROMPT]
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


@pytest.mark.parametrize("text", ["caf\udce9", "\ud800", "a\0circle", "a\x1b[31m circle", "red\x7f"], ids=ascii)
@pytest.mark.parametrize("option", ["prompt", "negative"])
def test_what_is_no_text_is_refused_in_one_line_before_drawing(
    text: str, option: str, place: Path, run: Run, capsys: Said
) -> None:
    """Catches: a traceback when the picture is saved, after it was drawn; letters that no person sees."""
    command = ("generate", text) if option == "prompt" else ("generate", PROMPT, "--negative-prompt", text)
    assert run(*command, "--steps", "1") == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"darkroom: {'prompt' if option == 'prompt' else 'negative_prompt'} ")
    assert not Path("samples").exists()


def test_a_file_that_is_no_text_is_refused_and_so_is_a_line_of_it(place: Path, run: Run, capsys: Said) -> None:
    for written, message in (
        (b"caf\xe9", "--prompts = p.txt: is not UTF-8; save it as UTF-8"),
        (b"a circle\na\x07 square", "--prompts = p.txt: line 2 "),
        ("a circle".encode("utf-16-le"), "--prompts = p.txt: holds zero bytes"),
    ):
        Path("p.txt").write_bytes(written)
        assert run("generate", "--prompts", "p.txt") == 1
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith(f"darkroom: {message}")


def test_a_place_that_no_terminal_can_show_is_refused(place: Path, run: Run, capsys: Said) -> None:
    assert run("generate", PROMPT, "--out", "caf\udce9.png") == 1
    assert "cannot be written as UTF-8" in capsys.readouterr().err


def test_composed_and_decomposed_letters_are_one_prompt(place: Path, run: Run) -> None:
    for text in ("caf\u00e9", "cafe\u0301"):
        assert run("generate", text, "--steps", "1") == 0
    assert [file.name for file in Path("samples").iterdir()] == ["caf\u00e9.png"]


def test_words_and_sizes_the_model_never_saw_are_remarked_on_once(place: Path, run: Run, capsys: Said) -> None:
    """Catches: a cat on a skateboard, which draws something and says nothing; and a remark for each picture."""
    command = ("generate", "a cat on a red cirle", "-n", "3", "--width", "20", "--steps", "1", "--out", "x.png")
    assert run(*command, "--negative-prompt", "a dog") == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "steps" not in line]
    assert said == [
        "darkroom: 20 x 16 pixels: the model was trained on 16 x 16 and may fail at others",
        "darkroom: words that the model never saw: cat, on, cirle (circle?), dog are not among the training captions; "
        "it knows a, blue, circle, green, large, red, small, square",
    ]
    assert run("generate", "A LARGE, green square!", "--steps", "1", "--out", "y.png") == 0
    assert "never saw" not in capsys.readouterr().err


def test_a_grid_has_a_row_for_each_prompt_and_is_made_again(place: Path, run: Run, capsys: Said) -> None:
    """Catches: a grid whose rows mix prompts; one without their words; one that regenerate cannot make."""
    Path("prompts.txt").write_text("a small red circle\na large blue square\n")
    options = ("-n", "3", "--steps", "1", "--scale", "2", "--out", "x.png")
    assert run("generate", "--prompts", "prompts.txt", *options) == 0
    grid = pixels("x.png")
    top = 0
    for first in (1, 4):
        for k in range(3):
            picture = pixels(f"x-{first + k}.png")
            assert picture.shape == (32, 32, 3), "enlarged by --scale"
            assert np.array_equal(picture[::2, ::2], picture[1::2, 1::2])
            found = [
                (y, x)
                for y in range(top, grid.shape[0] - 31)
                for x in (16 + k * 36,)
                if np.array_equal(grid[y : y + 32, x : x + 32], picture)
            ]
            assert len(found) == 1
        top = found[0][0] + 32
        words = grid[top + 2 : top + 16, 16:144]
        assert (words < 128).any(), "a caption stands below the row"
    for name in ("x", "x-5"):
        assert run("regenerate", f"{name}.png") == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"{name}-again.png: the same file, to the byte"


def test_what_a_file_manager_leaves_makes_no_other_pipeline(place: Path, run: Run, capsys: Said) -> None:
    """Catches: .DS_Store in the pipeline's folder, for which regenerate blamed the pipeline."""
    other = pipelines.assembled(Path("other"))
    command = ("--pipeline", str(other))
    assert run("generate", PROMPT, "--steps", "1", "--out", "x.png", *command) == 0
    for name in (".DS_Store", "unet/._config.json", "Thumbs.db", "vae/desktop.ini", "@eaDir/x@SynoEAStream"):
        (other / name).parent.mkdir(exist_ok=True)
        (other / name).write_bytes(b"view")
    assert run("regenerate", "x.png", *command) == 0
    assert "the same file, to the byte" in capsys.readouterr().out
    (other / "unet" / "notes.json").write_text("{}")
    assert run("regenerate", "x.png", *command) == 1
