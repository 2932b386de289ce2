"""What is recorded of the project's files in git; git's refusal to look is no answer, and never "clean"."""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from darkroom.config.stage_spec import stage_specs
from darkroom.core.errors import DarkroomError
from darkroom.tracking import repository as repositories
from darkroom.tracking import stage_run
from darkroom.tracking.repository import (
    NO_COMMIT,
    NO_REPOSITORY,
    commit_page,
    git_text_or_none,
    repository_page,
    state,
    why_git_fails,
)

IDENTITY = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *IDENTITY, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a commit, the current folder; settings of git of its own."""
    monkeypatch.setenv("HOME", str(project / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(project / "home"))
    Path("home").mkdir()
    Path("dvc.yaml").write_text("stages: {}\n")
    git("init", "-q")
    git("add", "dvc.yaml")
    git("commit", "-q", "-m", "all")
    return project


def recorded(client: mlflow.MlflowClient) -> dict[str, str]:
    """The tags of a run made here and now."""
    with stage_run("anything", {}, {}, {}, [], {}) as run:
        pass
    tags: dict[str, str] = client.get_run(run.id).data.tags
    return tags


def test_files_of_another_owner_are_not_recorded_as_clean(
    repository: Path,
    client: mlflow.MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where git said "dubious ownership", the run had no commit and git.dirty = false, and nobody was told."""
    Path("dvc.yaml").write_text("stages: {} # changed\n")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch to try this
    tags = recorded(client)
    assert tags["git.dirty"] == "unknown"
    assert "mlflow.source.git.commit" not in tags
    assert "another owner" in tags["git.unknown"]
    assert "another owner" in tags["mlflow.note.content"]
    said = capsys.readouterr().err
    assert said.count("another owner") == 1
    assert why_git_fails() in said
    remedy = tags["git.unknown"].rpartition(": ")[2]
    subprocess.run(shlex.split(remedy), check=True)
    assert why_git_fails() == ""
    tags = recorded(client)
    assert (tags["mlflow.source.git.commit"], tags["git.dirty"]) == (git("rev-parse", "HEAD"), "true")
    assert "git.unknown" not in tags
    assert "another owner" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("remote", "page"),
    [
        ("https://git.example.org/team/project.git", "https://git.example.org/team/project/commit/c0ffee"),
        ("https://me:secret@git.example.org/a%20b", "https://git.example.org/a%20b/commit/c0ffee"),
        ("https://git.example.org/a/b/?token=secret#secret", "https://git.example.org/a/b/commit/c0ffee"),
        ("http://127.0.0.1:3000/a/b.git/", "http://127.0.0.1:3000/a/b/commit/c0ffee"),
        ("git@github.com:team/project.git", "https://github.com/team/project/commit/c0ffee"),
        ("ssh://git@gitlab.example.org:2222/team/project", "https://gitlab.example.org/team/project/commit/c0ffee"),
        ("git@bitbucket.org:team/project.git", "https://bitbucket.org/team/project/commits/c0ffee"),
        ("me@backup.example.org:project.git", ""),
        ("/srv/git/project.git", ""),
        ("file:///srv/git/project.git", ""),
        ("https://git.example.org", ""),
        ("", ""),
    ],
)
def test_a_commit_leads_to_the_web_where_the_remote_says_where(repository: Path, remote: str, page: str) -> None:
    """Catches a password in a link, and links to hosts that show nothing."""
    if remote:
        git("remote", "add", "origin", remote)
    assert commit_page(repository_page(), "c0ffee") == page


def test_what_is_not_known_is_told_apart(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = state()
    assert (clean.commit, clean.dirty, clean.why, clean.silent) == (git("rev-parse", "HEAD"), False, "", False)
    index = repository / ".git" / "index"
    kept = index.read_bytes()
    index.write_bytes(b"no index")
    broken = state()
    assert broken.dirty is None
    assert broken.silent
    index.write_bytes(kept)
    (tmp_path / "within").mkdir()
    monkeypatch.chdir(tmp_path / "within")
    Path("dvc.yaml").write_text("stages: {}\n")
    assert (state().dirty, state().why, state().silent) == (None, NO_REPOSITORY, False), "a repository around it"
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert (state().dirty, state().why) == (None, NO_REPOSITORY)
    git("init", "-q")
    git("add", "dvc.yaml")
    assert (state().commit, state().dirty, state().why) == ("", True, NO_COMMIT)
    assert why_git_fails() == ""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert state().silent
    assert "install it" in state().why
    assert state().dirty is None


def test_one_file_asks_git() -> None:
    source = Path(repositories.__file__).parents[1]
    asking = [file.name for file in source.rglob("*.py") if re.search(r'\[\s*"git"', file.read_text())]
    assert asking == ["repository.py"]


def test_a_reproduction_names_gits_remedy(
    repository: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert run("reproduce", "learn") == 1
    assert "git config --global --add safe.directory" in capsys.readouterr().err
    assert git_text_or_none("rev-parse", "HEAD") is None
    with pytest.raises(DarkroomError, match="another owner"):
        repositories.git_text("rev-parse", "HEAD")


def test_a_clone_with_autocrlf_has_the_same_code(
    tmp_path: Path, copied_project: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As git is set up on Windows: without .gitattributes every line ended otherwise, and all counted as changed."""
    copied_project(tmp_path / "made")
    clone = tmp_path / "clone"
    git("clone", "-q", "-c", "core.autocrlf=true", "-c", "core.eol=crlf", str(tmp_path / "made"), str(clone))
    found = []
    for folder in (tmp_path / "made", clone):
        monkeypatch.chdir(folder)
        found.append({name: place.code_hashes() for name, place in stage_specs().items()})
        assert git("status", "--porcelain") == ""
    assert found[0] == found[1]
    for file in (path for path in clone.rglob("*") if path.is_file() and ".git" not in path.parts):
        assert file.read_bytes() == (tmp_path / "made" / file.relative_to(clone)).read_bytes(), file
