"""Two hundred hostile pictures, pipelines, checkpoints and tokenizers, and a process that gives them to the commands.

    python -m tests.support.hostile_models FOLDER SEED SAMPLE

FOLDER holds sound ones: pipeline/, drawn.png, single/ and diffusers/. Prints, as JSON, what became of each of SAMPLE
cases (0: all): its name, exit status, what was said, seconds of the processor, and bytes of memory above what sound
ones take.
"""

import contextlib
import io
import json
import random
import shutil
import signal
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from tests.support.hostile_cases import Case
from tests.support.hostile_checkpoints import checkpoints, tokenizers
from tests.support.hostile_pipelines import pictures, pipelines

HANGING = 90  # seconds on the clock, which others may share; what is measured are those of the processor


@dataclass(frozen=True)
class Outcome:
    """What became of a case."""

    name: str
    status: int
    said: str
    seconds: float
    memory: int
    says: str | None


def every_case(base: Path, seed: int) -> list[Case]:
    """All of them, always in the same order."""
    dice = random.Random(seed)
    return [*pictures(base, dice), *pipelines(base, dice), *checkpoints(base, dice), *tokenizers(base, dice)]


class Hang(BaseException):
    """No Exception, so that nothing on its way takes it for a damaged file."""


def bark(number: int, frame: FrameType | None) -> None:
    raise Hang(f"more than {HANGING} s")


def peak(*, anew: bool = False) -> int:
    """The most memory this process had, in bytes; anew: since now."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def run(arguments: list[str]) -> tuple[int, str]:
    """darkroom ARGUMENTS -> its exit status and what it says on stderr; 70: a traceback."""
    from darkroom import cli

    said = io.StringIO()
    sys.argv = ["darkroom", *arguments]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.main()
        except SystemExit as left:
            return int(left.code or 0), said.getvalue()
        except BaseException as error:
            return 70, "".join(traceback.format_exception(error))[-3000:]
    return 0, said.getvalue()


def main(base: Path, seed: int, sample: int) -> None:
    signal.signal(signal.SIGALRM, bark)
    cases = every_case(base, seed)
    if sample:
        cases = random.Random(seed).sample(cases, sample)
    words = ["--tokenizer", str(base / "single" / "tokenizer")]
    for command in (
        ["regenerate", str(base / "drawn.png"), "--pipeline", str(base / "pipeline"), "--out", str(base / "again.png")],
        ["import", str(base / "single" / "model.safetensors"), str(base / "imported"), *words],
        ["import", str(base / "diffusers"), str(base / "imported")],
    ):
        status, said = run(command)
        assert status == 0, said
    usual = peak()
    outcomes = []
    for case in cases:
        folder = base / "case"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        arguments = case.make(folder)
        peak(anew=True)
        signal.setitimer(signal.ITIMER_REAL, HANGING)
        begin = time.process_time()
        status, said = run(arguments)
        seconds = time.process_time() - begin
        signal.setitimer(signal.ITIMER_REAL, 0)
        outcomes.append(Outcome(case.name, status, said, seconds, peak() - usual, case.says))
    print(json.dumps([asdict(outcome) for outcome in outcomes]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
