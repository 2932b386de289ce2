"""`darkroom new`: a project around the installed package. Its stages run the package's, and depend on what that is."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

from darkroom import __version__
from darkroom.config import recipes
from darkroom.config.edit import edited
from darkroom.config.params import PARAMS_FILE, load, read
from darkroom.config.paths import MANIFESTS, RAW
from darkroom.config.shipped import DEFAULT, shipped
from darkroom.config.stage_spec import PIPELINE, read_stage_specs
from darkroom.core.artifact import remove
from darkroom.core.errors import DarkroomError
from darkroom.data.manifest import ROOT_VARIABLE, scan
from darkroom.data.walk import files_below
from darkroom.project.closure import rewritten
from darkroom.project.code_files import SYNC, file_of, sync
from darkroom.runner.project_template import CODE_STAGE, README, STAGE
from darkroom.tracking.repository import git_text, git_text_or_none

COPIED = (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitattributes", ".gitignore")
FITTED = "captioned"
CAPTIONS = (".txt", "metadata.jsonl", "metadata.csv", "metadata.tsv")
SCRIPT = re.compile(r"recipes/(\w+\.py)")  # that a recipe's header has a person run
NOBODY = ("-c", "user.name=darkroom", "-c", "user.email=darkroom@localhost")
REMOTE = "storage"
MINUTES = 20.0
ANY_WORDS, LONGEST = "words that your captions use", 60  # letters


@dataclass(frozen=True)
class Wish:
    """What a project is to be of.

    recipe: None: the default one, or, of pictures, the one that is fitted to them. remote: of DVC, a folder or an
    address; "": none. pictures: a folder of them. minutes: that a recipe fitted to them may take; None: 20.
    example: a prompt for the README, where the pictures are the default recipe's.
    """

    recipe: str | None = None
    remote: str = ""
    pictures: Path | None = None
    minutes: float | None = None
    example: str = ""


def new(folder: Path, wish: Wish) -> list[str]:
    """Make a project in an empty folder, with a first commit; returns what was done, a line each.

    Raises:
        DarkroomError: the folder is not empty, or there is no such recipe, or the pictures do not do; nothing is left
            behind then.
    """
    recipe = wish.recipe or (FITTED if wish.pictures else DEFAULT)
    recipes.file_of(recipe)
    git_text("--version")
    pictures = wish.pictures.expanduser().resolve() if wish.pictures else None
    remote = _remote(wish.remote)
    if wish.minutes is not None and (pictures is None or recipe != FITTED):
        raise DarkroomError(
            f"--minutes {wish.minutes:g}: the recipe {FITTED} alone is fitted, to --pictures; leave it out"
        )
    if pictures and not pictures.is_dir():
        raise DarkroomError(f"{pictures}: no such folder; name the folder of your pictures")
    with _empty(folder), chdir(folder):
        _write_files(recipe)
        said = _write_params(recipe, pictures, wish.minutes or MINUTES)
        sync()
        text = README.format(
            name=Path.cwd().name, recipe=recipe, version=__version__, caption=_caption(recipe, wish, pictures)
        )
        Path("README.md").write_text(text, encoding="utf-8")
        git_text("-c", "init.defaultBranch=main", "init", "--quiet")
        if remote:
            _add_remote(remote)
        said += _first_commit(f"A project of darkroom {__version__}, recipe {recipe}")
    return [f"{folder}: a project of the recipe {recipe}, with a first commit", *said]


@contextmanager
def _empty(folder: Path) -> Iterator[None]:
    """A folder to fill, which is as before if that fails."""
    there = folder.exists()
    if there and (not folder.is_dir() or {entry.name for entry in folder.iterdir()} - {".git"}):
        raise DarkroomError(f"{folder}: is there already, and not empty; name another folder")
    before = {entry.name for entry in folder.iterdir()} if there else set()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for entry in folder.iterdir():
            if entry.name not in before:
                remove(entry)
        if not there:
            folder.rmdir()
        raise


def _write_files(recipe: str) -> None:
    for name in COPIED:
        Path(name).parent.mkdir(exist_ok=True)
        shutil.copyfile(shipped(name), name)
    shutil.copytree(shipped(MANIFESTS.as_posix()), MANIFESTS, copy_function=shutil.copyfile)
    text = shipped(PIPELINE.name).read_text(encoding="utf-8")
    stages = list(read_stage_specs(text))
    for stage in stages:
        file = Path("stages", f"{stage}.py")
        file.parent.mkdir(exist_ok=True)
        file.write_text(STAGE.format(stage=stage), encoding="utf-8")
    listed = {stage: [f"stages/{stage}.py", file_of(stage).as_posix()] for stage in stages}
    outputs = "".join(f"      - {file_of(stage).as_posix()}: {{ cache: false, persist: true }}\n" for stage in stages)
    code = CODE_STAGE.format(command=SYNC, outputs=outputs)
    pipeline = rewritten(text, ("src/", "stages/"), listed).replace("stages:\n", f"stages:\n{code}\n", 1)
    PIPELINE.write_text(pipeline, encoding="utf-8")
    for script in dict.fromkeys(SCRIPT.findall(recipes.complete(recipe))):
        Path("recipes").mkdir(exist_ok=True)
        shutil.copyfile(shipped(f"recipes/{script}"), Path("recipes", script))


def _write_params(recipe: str, pictures: Path | None, minutes: float) -> list[str]:
    if pictures is None:
        recipes.use(recipe)
        return []
    root, said = _root(pictures)
    if recipe == FITTED:
        from darkroom.planning.fitting import fit  # imports torch

        if not any(name.lower().endswith(CAPTIONS) for name in files_below(pictures)):
            raise DarkroomError(
                f"{pictures}: no captions beside the pictures (NAME.txt, metadata.jsonl, .csv or .tsv); write some, or "
                "learn them without words: --recipe photos-ddpm-small"
            )
        said += fit(recipe, root, minutes)[:-1]
    else:
        if "root" not in read(recipes.file_of(recipe))["prepare_data"]["source"]:
            raise DarkroomError(f"recipe {recipe!r}: reads no pictures from outside; leave --pictures out")
        text = edited(PARAMS_FILE, recipes.complete(recipe), ("prepare_data", "source", "root"), root)
        recipes.put(text, f"the recipe {recipe}")
    return [*said, _scan()]


def _root(pictures: Path) -> tuple[str, list[str]]:
    """What params.yaml calls a folder of pictures, which it does not say the path of: that is the machine's."""
    if data_root := os.environ.get(ROOT_VARIABLE):
        if not pictures.is_relative_to(Path(data_root).resolve()):
            raise DarkroomError(
                f"{ROOT_VARIABLE} = {data_root}: does not hold {pictures}; unset it, or move them there"
            )
        return pictures.relative_to(Path(data_root).resolve()).as_posix(), []
    link = RAW / (pictures.name or "pictures")
    link.parent.mkdir(parents=True)
    link.symlink_to(pictures)
    return link.name, [f"{link}: a link to {pictures}, which git does not keep"]


def _scan() -> str:
    from darkroom.data.sources.base import OutsideSource

    source = load().prepare_data.source
    assert isinstance(source, OutsideSource)
    file = source.manifest_file
    if file is None:
        return "prepare_data.source.manifest = null: changes of the pictures will not be noticed"
    found = scan(source.reader(None).files, file)
    if not found.files:
        raise DarkroomError(f"{source.root}: no files of the kind {source.kind} here; name another folder")
    found.write()
    return f"{file}: a manifest of {len(found.files)} files"


def _remote(remote: str) -> str:
    """A remote as DVC takes it in any folder."""
    return remote if not remote or "://" in remote else str(Path(remote).expanduser().resolve())


def _add_remote(remote: str) -> None:
    command = [sys.executable, "-m", "dvc", "remote", "add", "--quiet", "--default", REMOTE, remote]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DarkroomError(f"--remote {remote}: {' '.join(done.stderr.split())}; name another")


def _first_commit(message: str) -> list[str]:
    identity = () if git_text_or_none("config", "user.email") else NOBODY
    git_text("add", "--all")
    git_text(*identity, "-c", "commit.gpgsign=false", "commit", "--quiet", "--no-verify", "--message", message)
    if not identity:
        return []
    return ["git knows no name of yours, so the commit has none: git config --global user.name, user.email"]


def _caption(recipe: str, wish: Wish, pictures: Path | None) -> str:
    """A prompt for the README: a caption of the pictures, where it is a short one."""
    if pictures is None:
        return wish.example if recipe.startswith(DEFAULT) and wish.example else ANY_WORDS
    first = next((name for name in files_below(pictures) if name.lower().endswith(".txt")), None)
    lines = (pictures / first).read_text(encoding="utf-8", errors="replace").splitlines() if first else []
    words = lines[0].strip() if lines else ""
    return words if 0 < len(words) <= LONGEST and not re.search(r"[^\w ,.-]", words) else ANY_WORDS
