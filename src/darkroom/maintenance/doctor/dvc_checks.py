"""DVC: its folder, the pipeline's files, the cache, locks and remotes."""

import logging
import shlex
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from darkroom.audit.lineage import read_lineage
from darkroom.config.stage_spec import LOCK, PIPELINE, check_not_linked, stage_specs
from darkroom.core.dvc_settings import DVC, cache_root
from darkroom.core.errors import DarkroomError
from darkroom.maintenance.doctor.result import Result, from_error, ok, problem, warning
from darkroom.maintenance.dvc_processes import NOTES, holders
from darkroom.tracking.repository import git_text_or_none

ANSWERS_WITHIN = 10.0  # seconds that a remote has
LEVELS = ("local", "repo", "global", "system")  # of DVC's settings, the strongest first
FLAGS = {"local": " --local", "repo": "", "global": " --global", "system": " --system"}
EXTRA_OF = {"s3": "s3"}  # scheme of a remote -> extra of Darkroom's that brings what reads it


def check_dvc() -> Iterator[Result]:
    """Whether DVC opens the project, and its two files are whole."""
    if not DVC.is_dir():
        committed = git_text_or_none("ls-tree", "--name-only", "HEAD", "--", f"{DVC}/config")
        without_git = "" if git_text_or_none("rev-parse", "--git-dir") else " --no-scm"
        command = f"git checkout HEAD -- {DVC}" if committed else f"dvc init{without_git}"
        yield problem("dvc", f"{DVC}: not there: every dvc command would fail", "", command)
        return
    try:
        from dvc import __version__

        opened().close()
    except Exception as error:  # whatever is wrong with settings that anybody may have edited
        yield problem("dvc", f"does not open the project ({_first(error)}): every dvc command would fail", *_opening())
        return
    try:
        specs = stage_specs()
        check_not_linked(output for spec in specs.values() for output in spec.outputs)
    except DarkroomError as error:
        yield from_error("dvc", error, _committed(PIPELINE) if str(error).startswith(f"{PIPELINE}: not") else "")
        return
    try:
        ran = read_lineage(LOCK.read_bytes() if LOCK.is_file() else None, specs).steps
    except DarkroomError as error:
        yield from_error("dvc", error, _committed(LOCK) or f"rm {LOCK}")
        return
    yield ok("dvc", f"{__version__}, {len(specs)} stages, {len(ran)} of them in {LOCK}")


def check_cache() -> Iterator[Result]:
    """Whether DVC could keep an output."""
    if not DVC.is_dir():
        return
    folder = cache_root()
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        found = (
            f"{folder}: nothing can be written there ({error.strerror}): a stage would run, and DVC lose its outputs"
        )
        level = next((name for name in LEVELS if _configured(name, "cache", "dir")), None)
        if folder.is_dir():
            command = f"find {shlex.quote(str(folder))} -type d -exec chmod u+w {{}} +"  # objects stay read only
            yield problem("dvc cache", found, "make it writable", command)
        elif level:
            command = f"dvc config{FLAGS[level]} --unset cache.dir"
            yield problem("dvc cache", found, "mount its disk, or go back to the project's own", command)
        else:
            yield problem("dvc cache", found, "make the project's folder writable")
        return
    yield ok("dvc cache", f"{folder}, writable")


def check_locks() -> Iterator[Result]:
    """Who holds DVC's locks: a dvc at work, one that is gone, or a process that was given the number of one."""
    try:
        found = holders()
    except DarkroomError as error:
        yield Result("dvc lock", "problem", str(error).partition("; ")[0], "while no dvc runs", f"rm {NOTES}")
        return
    for holder in found:
        about = f"process {holder.pid} (dvc {holder.command})"
        if holder.is_dvc:
            yield ok("dvc lock", f"{about} is at work")
        elif holder.process is None:
            yield ok("dvc lock", f"left by {about}, which is gone; the next dvc takes it away")
        else:
            name = holder.process.name()
            said = f"left by {about}, which is gone, and {holder.pid} is {name} now: dvc would wait for that"
            if working := [other.pid for other in found if other.is_dvc]:
                yield problem("dvc lock", said, f"wait until process {working[0]}, which is dvc, is through")
            else:
                yield problem("dvc lock", said, "", f"rm {NOTES}")


def check_remotes() -> Iterator[Result]:
    """Whether each remote answers, asked by DVC itself."""
    try:
        repo = opened()
    except Exception:  # see check_dvc
        return
    remotes: Mapping[str, Any] = repo.config.get("remote", {})
    if not remotes:
        yield ok("dvc remote", "none: outputs are on this machine alone (docs/remotes.md)")
    for name, options in remotes.items():
        yield from _remote(repo, name, str(options["url"]))


def opened() -> Any:
    """The project as DVC sees it, a `dvc.repo.Repo`. Raises whatever DVC raises."""
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)  # its warnings are on what was never run
    return Repo(".")


def _remote(repo: Any, name: str, url: str) -> Iterator[Result]:
    scheme, _, rest = url.partition("://")
    check = f"dvc remote {name}"
    if not rest:
        folder = Path(url)
        if folder.is_dir():
            yield from _writable_remote(check, folder)
        else:
            found = f"{folder}: no such folder: dvc pull and darkroom reproduce would fetch nothing"
            yield problem(check, found, "mount its disk, or make it", f"mkdir -p {shlex.quote(url)}")
        return
    fails = "dvc pull, dvc push and darkroom reproduce would fail"
    answer: list[BaseException | None] = []
    asking = threading.Thread(target=_ask, args=(repo, name, answer), name=f"ask {name}", daemon=True)
    asking.start()
    asking.join(ANSWERS_WITHIN)
    correct = f"start it, or correct its settings (dvc remote modify {name})"
    if not answer:
        yield problem(check, f"{url}: no answer within {ANSWERS_WITHIN:.0f} s: {fails}", correct)
    elif answer[0] is None:
        yield ok(check, f"{url} answers")
    elif type(answer[0]).__name__ == "RemoteMissingDepsError":
        extra = EXTRA_OF.get(scheme)
        package = f"'darkroom[{extra}]'" if extra else f"dvc-{scheme}"
        yield problem(check, f"{url}: what reads {scheme}:// is not installed: {fails}", "", f"pip install {package}")
    else:
        yield problem(check, f"{url}: {_first(answer[0])}: {fails}", correct)


def _ask(repo: Any, name: str, answer: list[BaseException | None]) -> None:
    try:
        store = repo.cloud.get_remote_odb(name)
        with suppress(FileNotFoundError):  # empty so far
            store.fs.ls(store.fs.parent(store.path.rstrip("/")))
        answer.append(None)
    except BaseException as error:  # of whichever client: it is only told
        answer.append(error)


def _writable_remote(check: str, folder: Path) -> Iterator[Result]:
    try:
        with tempfile.TemporaryFile(dir=folder):
            yield ok(check, f"{folder}, writable")
    except OSError as error:
        yield warning(check, f"{folder}: read only ({error.strerror}): dvc push would fail", "make it writable")


def _configured(level: str, section: str, key: str) -> Any:
    try:
        return opened().config.read(level)[section].get(key)
    except Exception:  # see check_dvc
        return None


def _opening() -> tuple[str, str]:
    """What has DVC open the project again: remedy and command."""
    if git_text_or_none("rev-parse", "--git-dir") is None:
        return "", "git init"
    return f"correct {DVC}/config and {DVC}/config.local", _committed(DVC / "config")


def _committed(file: Path) -> str:
    """The command that brings back a file as it was committed; "" where it was not, or is as it was."""
    return f"git checkout HEAD -- {file}" if git_text_or_none("diff", "--name-only", "HEAD", "--", str(file)) else ""


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
