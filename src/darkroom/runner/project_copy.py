"""Stages at work in a copy of the project, as `dvc exp run --temp`, `--queue` and `darkroom reproduce` make one.

A copy holds what git keeps. Here a stage is given what it lacks: its own code, and what lies in the project alone.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import darkroom
from darkroom.config.autoencoder import PretrainedVAE, TrainedVAE
from darkroom.config.params import Params
from darkroom.config.paths import RAW
from darkroom.config.text_encoder import PretrainedTextEncoder
from darkroom.core.device import RUNTIME_FILE
from darkroom.core.errors import DarkroomError
from darkroom.data.manifest import ROOT_VARIABLE
from darkroom.tracking.address import project_root

SOURCES = Path("src")  # below the current folder, as dvc.yaml names them
SEARCHED = "PYTHONPATH"
RESTARTED = "DARKROOM_RESTARTED"  # of the environment of a process that began again: its id, which does not change then
REPRODUCTION = "DARKROOM_REPRODUCTION"  # of the environment of a stage that `darkroom reproduce` runs
PROFILE = Path("profile.json")  # in the folder that it names: the execution profile of that stage


def run_own_code() -> None:
    """Where another folder's code was imported, as an editable installation does in a copy, begin again with ours.

    DVC notes the hashes of the code in the current folder; no other may run.
    """
    package = SOURCES / "darkroom" / "__init__.py"
    if not package.is_file() or package.samefile(darkroom.__file__):
        return
    if os.environ.get(RESTARTED) == str(os.getpid()):
        raise DarkroomError(
            f"{SOURCES.resolve()}: holds the code, but {darkroom.__file__} runs, whatever {SEARCHED} says; start "
            "python without -I and -E, and keep that folder out of sys.path"
        )
    sys.stdout.flush()
    os.environ |= {SEARCHED: own_code_first(), RESTARTED: str(os.getpid())}
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def own_code_first() -> str:
    """PYTHONPATH as it is, but for the code of the folder in which a process starts, which is found first.

    Named relative to that folder, for whose own name there may be no way to stand in a list.
    """
    source = str(SOURCES)
    others = [folder for folder in os.environ.get(SEARCHED, "").split(os.pathsep) if folder and folder != source]
    return os.pathsep.join([source, *others])


def programs_of_python_first() -> str:
    """PATH as it is, but for the programs of the running Python's installation, `python` among them, found first."""
    programs = str(Path(sys.executable).parent)
    if os.pathsep in programs:
        raise DarkroomError(
            f"{programs}: cannot stand in PATH, whose folders {os.pathsep!r} separates; install Darkroom in a folder "
            f"without {os.pathsep!r} in its path"
        )
    return os.pathsep.join([programs, os.environ.get("PATH", os.defpath)])


def reproduction() -> Path | None:
    """Where a stage that `darkroom reproduce` runs keeps what goes with its copy: checkpoints, and its PROFILE."""
    folder = os.environ.get(REPRODUCTION)
    return Path(folder) if folder else None


def link_untracked(params: Params) -> None:
    """In a copy, link what a stage may need and neither git nor DVC keeps: data, imported models, runtime.yaml."""
    root, here = project_root(), Path.cwd().resolve()
    if root == here:
        return
    if data_root := os.environ.get(ROOT_VARIABLE):
        os.environ[ROOT_VARIABLE] = str(root / data_root)
    for name in (RUNTIME_FILE, RAW, *_external_models(params)):
        if name.is_absolute() or ".." in name.parts or name.exists() or not (root / name).exists():
            continue
        name.parent.mkdir(parents=True, exist_ok=True)
        name.symlink_to(root / name)


def _external_models(params: Params) -> Iterator[Path]:
    """The imported models (whole: a part is read with what stands beside it) and files that the parameters name."""
    vae, text, unet = params.train_vae, params.setup_text_encoder, params.train_unet
    if isinstance(vae, PretrainedVAE):
        yield Path(vae.path).parent
    if isinstance(text, PretrainedTextEncoder):
        yield Path(text.path).parent
    if unet.init_from is not None:
        yield Path(unet.init_from).parent
    if isinstance(vae, TrainedVAE) and vae.perceptual is not None:
        yield Path(vae.perceptual.weights)


def link(source: Path, target: Path, without: Sequence[Path]) -> None:
    """Make the folder `target`, and in it links to all that is in `source`, but for the paths `without` below it.

    Folders in which such a path lies are made, not linked.
    """
    target.mkdir()
    for entry in source.iterdir():
        below = [path.relative_to(entry.name) for path in without if path.parts[0] == entry.name]
        if not below:
            (target / entry.name).symlink_to(entry)
        elif all(path.parts for path in below) and entry.is_dir():
            link(entry, target / entry.name, below)
