"""git: the repository, who commits, what is not committed, and a lock that a killed git left."""

from collections.abc import Iterator
from pathlib import Path

import psutil

from darkroom.maintenance.doctor.result import Result, from_error, ok, problem, warning
from darkroom.tracking.repository import (
    NO_REPOSITORY,
    GitError,
    NoRepositoryError,
    SilentGitError,
    git_text,
    git_text_or_none,
    state,
)

START = 'git add --all && git commit -m "Start"'
IDENTITY = 'git config user.name "Your Name" && git config user.email you@example.org'
ALLOW = "allow it: "  # before the command, where git refuses files of another owner


def check_git() -> Iterator[Result]:
    """The repository and its state, from which runs take the commit."""
    try:
        version = git_text("--version").removeprefix("git version ")
        git_text("rev-parse", "--git-dir")
    except NoRepositoryError:
        lost = "runs name no commit, dvc exp run and darkroom reproduce fail"
        yield problem("git", f"no repository here: {lost}, and dvc too unless told (core.no_scm)", "", "git init")
        return
    except SilentGitError as error:
        remedy = str(error).rpartition("; ")[2]
        yield from_error("git", error, remedy.removeprefix(ALLOW) if remedy.startswith(ALLOW) else "")
        return
    except GitError as error:
        yield from_error("git", error)
        return
    yield from _identity()
    yield from _lock()
    found = state()
    if found.silent:
        yield problem(
            "git", f"{found.why.rpartition('; ')[0]}: runs would name no commit", found.why.rpartition("; ")[2]
        )
    elif found.why == NO_REPOSITORY:
        yield warning("git", "dvc.yaml is not in the repository: runs name no commit", "", START)
    elif not found.commit:
        yield warning("git", "no commit yet: dvc exp run and darkroom reproduce need one", "", START)
    elif found.dirty:
        yield warning("git", f"uncommitted changes since {found.commit[:8]}: runs that start now say so", "commit them")
    else:
        yield ok("git", f"{version}, commit {found.commit[:8]}, nothing uncommitted")


def _identity() -> Iterator[Result]:
    """Who commits, for git guesses only from what it was told, and dvc exp run makes commits too."""
    if git_text_or_none("-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT") is None:
        yield problem("git identity", "neither name nor e-mail: git commit and dvc exp run would fail", "", IDENTITY)


def _lock() -> Iterator[Result]:
    """A lock on the index; git takes it for that of a living process, whoever left it."""
    file = Path(git_text("rev-parse", "--git-path", "index.lock"))
    if not file.exists():
        return
    if _git_works_here():
        yield warning("git lock", f"{file}: a git is at work here", "wait for it")
    else:
        found = f"{file}: left by a git that is gone: git add, git commit and dvc would fail"
        yield problem("git lock", found, "", f"rm {file}")


def _git_works_here() -> bool:
    top = Path(git_text("rev-parse", "--show-toplevel")).resolve()
    for process in psutil.process_iter(["name", "cwd"]):
        here = process.info["cwd"]
        if process.info["name"] == "git" and (here is None or Path(here).is_relative_to(top)):
            return True
    return False
