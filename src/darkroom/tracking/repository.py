"""What git knows of the project's files. The one place that asks it; where git does not answer, that is said."""

import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

from darkroom.core.artifact import folder_hash
from darkroom.core.errors import DarkroomError

NO_REPOSITORY = "made outside a git repository"
NO_COMMIT = "made before the repository had a commit"
OWNER = re.compile(r"detected dubious ownership in repository at '(.*)'")
SSH = re.compile(r"(?:ssh://)?[\w.-]+@([\w.-]+)(?::\d+/|[:/])(.+)")
HOSTS = ("github", "gitlab", "bitbucket", "codeberg", "gitea", "forgejo")  # in names of hosts that show what they keep
# In English, and without waiting for another git's lock on the index.
SPEAKING = {"LC_ALL": "C", "LANGUAGE": "C", "GIT_OPTIONAL_LOCKS": "0"}


class GitError(DarkroomError):
    """git did what was asked, and has no such thing; or it does not answer at all: see its other kinds."""


class SilentGitError(GitError):
    """git is not there, or refuses to look at the repository: nothing follows about the files."""


class NoRepositoryError(GitError):
    """There is no repository here."""


@dataclass(frozen=True)
class State:
    """Of the project's files: the commit, and whether they differ from it, leaving out what dvc repro itself writes.

    commit: empty where there is none. dirty: None where that is not known. why: of these two gaps, empty without one.
    silent: there is a gap because git does not answer, which the user can fix.
    """

    commit: str
    dirty: bool | None
    why: str = ""
    silent: bool = False


def git_bytes(*arguments: str) -> bytes:
    """What git prints. Raises GitError: it prints nothing, with the reason and the remedy; see its kinds."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False, env={**os.environ, **SPEAKING})
    except OSError as error:
        raise SilentGitError(f"git: cannot be run ({error.strerror}); install it") from None
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode(errors="replace").strip()
    if owner := OWNER.search(said):
        raise SilentGitError(
            f"git refuses to look at files of another owner in {owner[1]}; allow it: "
            f"git config --global --add safe.directory {shlex.quote(owner[1])}"
        )
    lines = said.splitlines() or ["it does not say why"]
    reason = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1])
    if "not a git repository" in said:
        raise NoRepositoryError(f"git {arguments[0]}: {reason}; a project in git with a commit is needed")
    raise GitError(f"git {arguments[0]}: {reason}; a project in git with a commit is needed")


def git_text(*arguments: str) -> str:
    """What git prints, as text without the last newline. Raises GitError: see `git_bytes`."""
    return git_bytes(*arguments).decode(errors="replace").rstrip("\n")


def git_text_or_none(*arguments: str) -> str | None:
    """Likewise; None where it has no such thing, or does not answer: `why_git_fails` says which."""
    try:
        return git_text(*arguments)
    except GitError:
        return None


def why_git_fails() -> str:
    """Why git does not answer here, with the remedy; empty where it does, or where there is no repository."""
    try:
        git_bytes("rev-parse", "--git-dir")
        git_bytes("ls-files", "--error-unmatch", "dvc.yaml")
    except SilentGitError as error:
        return str(error)
    except GitError:
        pass
    return ""


def repository_page() -> str:
    """Where the repository is to be seen on the web, as the address of its remote `origin` has it, without what is
    secret there; "" where that does not say."""
    remote = git_text_or_none("config", "--get", "remote.origin.url") or ""
    scheme, mark, rest = remote.partition("://")
    if mark and scheme in ("http", "https"):
        host, _, path = re.split("[?#]", rest)[0].partition("/")
        host = host.rpartition("@")[2]
    elif (found := SSH.fullmatch(remote)) and any(name in found[1] for name in HOSTS):
        scheme, (host, path) = "https", found.groups()
    else:
        return ""
    path = quote(path.strip("/").removesuffix(".git"), safe="/~%")
    return f"{scheme}://{host}/{path}" if path else ""


def commit_page(repository: str, commit: str) -> str:
    """Where a commit is to be seen on the web, given the page of its repository; "" where that is not known."""
    if not repository:
        return ""
    return f"{repository}/{'commits' if 'bitbucket' in repository else 'commit'}/{commit}"


def md5_at_head(path: str) -> str | None:
    """The md5 of a file as it was last committed; None where it was not."""
    try:
        return hashlib.md5(git_bytes("show", f"HEAD:./{path}")).hexdigest()
    except GitError:
        return None


def head_holds(path: str, digest: str, there: Collection[str]) -> bool:
    """Whether a checkout from the last commit would give a file or folder this content, DVC's hash.

    there: the files of the folder now, by name relative to it; a checkout removes none.
    """
    names = (git_text_or_none("ls-tree", "-r", "-z", "--name-only", "HEAD", "--", path) or "").rstrip("\0").split("\0")
    if names == [path]:
        return md5_at_head(path) == digest
    files = {name.removeprefix(f"{path}/"): md5_at_head(name) or "" for name in names if name}
    return bool(files) and files.keys() >= set(there) and folder_hash(files) == digest


def state() -> State:
    """How the project's files stand. Where git refuses to answer, nothing is known."""
    unknown = partial(State, "", None)
    try:
        git_bytes("rev-parse", "--git-dir")
    except NoRepositoryError:
        return unknown(NO_REPOSITORY)
    except GitError as error:
        return unknown(str(error), silent=True)
    try:
        git_bytes("ls-files", "--error-unmatch", "dvc.yaml")
    except SilentGitError as error:
        return unknown(str(error), silent=True)
    except GitError as error:  # also inside a repository that is not this project's
        listed = "did not match any file" in str(error)
        return unknown(NO_REPOSITORY) if listed else unknown(str(error), silent=True)
    commit = git_text_or_none("rev-parse", "--verify", "--quiet", "HEAD") or ""
    try:
        changes = git_bytes(
            "status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock", ":!reports", ":!.darkroom"
        )
    except GitError as error:
        return State(commit, None, str(error), silent=True)
    return State(commit, bool(changes), "" if commit else NO_COMMIT)
