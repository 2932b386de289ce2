"""Completion, as a real bash asks for it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASK = """
eval "$(darkroom completion bash)"
complete -p darkroom >/dev/null || exit 9
COMP_WORDS=({words}) COMP_CWORD={last}
_darkroom_completion darkroom
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
ASKED = {
    "darkroom rec": ["recipe"],
    "darkroom recipe ": ["list", "show", "use", "fit"],
    "darkroom recipe use scenes-q": ["scenes-quick"],
    "darkroom reproduce train_": ["train_evaluator", "train_unet", "train_vae"],
    "darkroom params budget setup": ["setup_text_encoder"],
    "darkroom params explain train_unet.ste": ["train_unet.steps"],
    "darkroom gc --": ["--yes", "--experiments", "--help"],
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """With the program `darkroom` first on the PATH, as this Python's."""
    programs = tmp_path_factory.mktemp("bin")
    program = programs / "darkroom"
    program.write_text(f"#!{sys.executable}\nfrom darkroom.cli import main\nmain()\n")
    program.chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")}


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize("line", ASKED)
def test_bash_completes(line: str, environment: dict[str, str]) -> None:
    """Catches a script that bash does not take, and values that are not this project's."""
    words = line.split(" ")
    script = ASK.format(words=" ".join(f"'{word}'" for word in words), last=len(words) - 1)
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert sorted(done.stdout.split()) == sorted(ASKED[line]), done.stderr


def test_outside_a_project_nothing_is_completed_and_nothing_said(tmp_path: Path, environment: dict[str, str]) -> None:
    asked = environment | {
        "_DARKROOM_COMPLETE": "complete_bash",
        "COMP_WORDS": "darkroom reproduce train",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(["darkroom"], cwd=tmp_path, env=asked, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_for_each_shell(
    shell: str, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("completion", shell) == 0
    script = capsys.readouterr().out
    assert "_DARKROOM_COMPLETE" in script
    assert f"complete_{shell}" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)
