"""What the scripts in stages/ of a project around the installed package run: the package's own script of that name."""

import runpy
import sys

from darkroom.config.shipped import shipped
from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable_text
from darkroom.project.code_files import check_installed
from darkroom.runner.launch import report


def run_installed(stage: str) -> None:
    """Run a stage, unless code/STAGE.json names other code than is installed: what DVC notes is what runs."""
    try:
        script = shipped(f"stages/{stage}.py")
        check_installed(stage)
    except DarkroomError as error:
        report(f"darkroom: {stage}: {printable_text(error)}")
        sys.exit(1)
    runpy.run_path(str(script), run_name="__main__")
