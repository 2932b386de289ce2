"""A tiny Stable Diffusion 1.x checkpoint with all that published ones hold, made once."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
Edit = Callable[..., Path]


@pytest.fixture(scope="session")
def maker(load: Callable[[Path], ModuleType]) -> ModuleType:
    """recipes/make_tiny_sd15.py."""
    return load(ROOT / "recipes" / "make_tiny_sd15.py")


@pytest.fixture(scope="session")
def tiny(maker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.safetensors with tokenizer/ and pictures/ beside it. Leave it as it is."""
    folder = tmp_path_factory.mktemp("tiny")
    maker.main(folder, folder / "pictures")
    return folder / "model.safetensors"


@pytest.fixture(scope="session")
def made_folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a diffusers folder. Leave it as it is."""
    from darkroom.interop.diffusers import write_folder
    from darkroom.interop.source import read_model

    folder = tmp_path_factory.mktemp("diffusers") / "folder"
    write_folder(read_model(tiny), folder)
    return folder


@pytest.fixture
def folder(made_folder: Path, tmp_path: Path) -> Path:
    """A copy of it to work in."""
    shutil.copytree(made_folder, tmp_path / "folder")
    return tmp_path / "folder"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """darkroom ARGUMENTS -> its exit status and what it says on stderr."""
    import sys

    from darkroom import cli

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["darkroom", *arguments])
        try:
            cli.main()
        except SystemExit as left:
            return int(left.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return call
