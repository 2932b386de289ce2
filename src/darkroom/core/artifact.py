"""Artifacts: files and folders that appear whole, describe themselves, and are named by the hash of their content."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from darkroom.core.errors import DarkroomError
from darkroom.core.limits import Limit
from darkroom.core.outside import parse_json, read_bytes
from darkroom.core.system_files import left_by_system
from darkroom.core.text import UnreadableTextError, decode_text

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
OS_ERROR = re.compile(r"os error (\d+)")
PROVENANCE = "provenance.json"
PIPELINE = "pipeline.json"  # of a folder that holds a whole model

# What to do about a file that cannot be used: it depends on whose it is.
REPRO = "run the stage that makes it (dvc repro)"
FETCH = "fetch the model again, or name another"
COPY = "copy the whole folder again from where it was made"


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A path beside `path` to write a file or folder to; it takes its place when the block succeeds.

    What stood there before stays until its replacement is complete; when the block fails, nothing is left behind.
    Raises DarkroomError: nothing was written, or a file that would replace a folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = unfinished(path)
    remove(beside)
    try:
        with name_errors(path):
            yield beside
        if not beside.exists():
            raise DarkroomError(f"{path}: nothing was written for it")
        if beside.is_file() and path.is_dir():
            raise DarkroomError(f"{path}: is a folder, and a file is to be written; give the name of a file")
        if beside.is_dir():
            remove(path)
        beside.replace(path)
    finally:
        remove(beside)


def unfinished(path: Path) -> Path:
    """Where `atomic_path` has `path` written first."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def name_errors(path: Path) -> Iterator[None]:
    """Errors of the system in this block that name no file name `path`: of a full disk, writing tells no name."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def remove(path: Path) -> None:
    """A file, a link or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def content_hash(path: Path | str) -> str:
    """The hash DVC gives `path`: a file's md5; for a folder, the md5 of its listing [{md5, relpath}] and ".dir".

    Raises DarkroomError: nothing is there.
    """
    path = Path(path)
    if path.is_file():
        return file_hash(path)
    if not path.is_dir():
        raise DarkroomError(f"{path}: no such file or folder; {REPRO}")
    return folder_hash({f.relative_to(path).as_posix(): file_hash(f) for f in path.rglob("*") if f.is_file()})


def model_hash(path: Path) -> str:
    """The `content_hash` of a model, but for what systems left in its folder (.DS_Store, Thumbs.db, …)."""
    if not path.is_dir():
        return content_hash(path)
    files = [(file.relative_to(path), file) for file in path.rglob("*") if file.is_file()]
    return folder_hash({name.as_posix(): file_hash(file) for name, file in files if not left_by_system(name.parts)})


def folder_hash(files: Mapping[str, str]) -> str:
    """The hash DVC gives a folder that holds these files: {relative POSIX name: md5}."""
    listing = [{"md5": digest, "relpath": name} for name, digest in sorted(files.items())]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"


def files_of(path: Path) -> list[Path]:
    """The files of a file or folder, in order, without bytecode."""
    found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [file for file in found if "__pycache__" not in file.parts]


def file_hash(path: Path) -> str:
    """The md5 of a file, in hexadecimal digits."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "md5").hexdigest()


def write_json(path: Path | str, value: Any) -> None:
    """Sorted, indented, newline at the end: the same value always gives the same bytes. Appears whole."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with name_errors(Path(path)), atomic_path(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path | str, remedy: str = REPRO, limit: Limit | None = None, infinite: Collection[str] = ()) -> Any:
    """The value in a JSON file, in any encoding that `decode_text` knows, checked as `parse_json` does.

    Args:
        remedy: what its reader can do about a file that is missing or torn.
        limit: of its bytes, for files that strangers may have made.
        infinite: see `parse_json`.

    Raises DarkroomError: the file is missing, too large or no JSON.
    """
    try:
        return parse_json(decode_text(read_bytes(Path(path), limit, remedy)), infinite)
    except (ValueError, UnreadableTextError) as error:
        raise DarkroomError(f"{path}: not valid JSON ({error}); {remedy}") from None


def save_tensors(path: Path | str, tensors: Mapping[str, "Tensor"]) -> None:
    """Safetensors without metadata (two keys of it would be written in random order), readable by everyone.

    Raises OSError: it cannot be written, because the disk is full, say.
    """
    from safetensors.torch import save_file  # imports torch, which takes seconds and few readers of artifacts need

    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path)
    except SafetensorError as error:
        if code := OS_ERROR.search(str(error)):  # as an error of their own, it would look like a fault in the tensors
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from None
        raise
    os.chmod(path, 0o644)  # noqa: PTH101


def load_tensors(path: Path | str, remedy: str = REPRO) -> dict[str, "Tensor"]:
    """All tensors of a safetensors file, on the CPU; remedy: see `read_json`.

    Raises DarkroomError: the file is missing, truncated or of another kind.
    """
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise DarkroomError(f"{path}: no such file; {remedy}") from None
    except (SafetensorError, OSError) as error:
        raise DarkroomError(f"{path}: not a readable safetensors file ({error}); {remedy}") from None


def provenance(*inputs: Path | str) -> dict[str, Any]:
    """What an artifact was made from: {"inputs": {path as given, POSIX: content hash}}."""
    return {"inputs": {Path(p).as_posix(): content_hash(p) for p in inputs}}


def check_made_from(artifact: Path | str, source: Path | str) -> None:
    """Refuse an artifact that was made from another version of `source` than the one on disk."""
    recorded = read_json(Path(artifact) / PROVENANCE)["inputs"].get(Path(source).as_posix())
    found = content_hash(source)
    if recorded != found:
        raise DarkroomError(
            f"{artifact}: was made from {source} {recorded}, but {source} is now {found}; "
            f"they do not belong together: run dvc repro to rebuild {artifact}"
        )
