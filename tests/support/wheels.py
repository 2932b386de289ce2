"""Darkroom as a person has it who installs a wheel: built, changed, and installed in an environment of its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from tests.support.projects import ROOT, SETTINGS

SOURCES = (*SETTINGS, ".dvc/.gitignore", "LICENSE", "README.md", "data/manifests", "dvc.yaml", "pyproject.toml")
FOLDERS = ("recipes", "src", "stages")
DVC = "#!{python}\nimport sys\nfrom dvc.cli import main\nsys.exit(main())\n"


def build(folder: Path, changes: Mapping[str, tuple[str, str]]) -> Path:
    """A wheel of the sources with some texts replaced, {file: (before, after)}; built in `folder`, which is new."""
    source = folder / "source"
    for name in (*SOURCES, *FOLDERS):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    for name, (before, after) in changes.items():
        text = (source / name).read_text(encoding="utf-8")
        assert before in text, f"{name}: no {before!r}"
        (source / name).write_text(text.replace(before, after, 1), encoding="utf-8")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


class Installation:
    """An environment with the packages of this one, but for Darkroom, of which it has what is installed."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        self.python = folder / "bin" / "python"
        packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
        for entry in Path(sysconfig.get_path("purelib")).iterdir():
            if not (entry.name.startswith("darkroom") or "editable" in entry.name):
                (packages / entry.name).symlink_to(entry)
        (folder / "bin" / "dvc").write_text(DVC.format(python=self.python))
        (folder / "bin" / "dvc").chmod(0o755)

    def install(self, wheel: Path) -> None:
        """Install a wheel, in place of an earlier one."""
        uv = Path(sys.executable).parent / "uv"
        command = [str(uv), "pip", "install", "--quiet", "--offline", "--no-deps", "--reinstall"]
        subprocess.run([*command, "--python", str(self.python), str(wheel)], check=True, capture_output=True)

    def run(self, folder: Path, *command: str, status: int = 0) -> str:
        """What a program of the environment says, on both streams, in a folder; its exit status is checked."""
        kept = ("HOME", "TMPDIR", "LANG")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment |= {"PATH": f"{self.python.parent}{os.pathsep}{os.defpath}"}
        environment |= {"DARKROOM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == status, f"{command}: {done.stdout[-4000:]}"
        return done.stdout
