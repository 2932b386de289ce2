"""What is done to MLflow's database and folders in the toy project, and the remedy that is printed for it."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from darkroom.serving import registry
from darkroom.serving.gate import Thresholds
from darkroom.serving.model_folder import Description
from tests.support import toy

Audit = Callable[..., dict[str, Any]]
ABOUT = Description(
    "# A toy",
    "a ring",
    {"fidelity.fid": 0.5},
    {"num_inference_steps": 12, "guidance_scale": 3.0, "sampler": "ddim", "strength": 0.6},
    {"DARKROOM_SERVE_ROWS": 64},
)
DEMANDS = Thresholds(False, None, None, None, False)
DATABASE = Path(".mlflow/mlflow.db")
VAE = "run_uuid = (SELECT run_uuid FROM runs WHERE name = 'train_vae')"
WEIGHTS = "(SELECT model_id FROM logged_models WHERE name = 'darkroom-vae')"


def change(statement: str) -> None:
    """Do something to the database; it changes a row."""
    with closing(sqlite3.connect(DATABASE)) as database, database:
        assert database.execute(statement.format(vae=VAE, weights=WEIGHTS)).rowcount > 0


def heal(audit: Audit, remedy: str) -> dict[str, Any]:
    """Execute a remedy, as it is printed; the audit after it."""
    found = None
    for command in remedy.split(" && "):
        found = None
        if command.startswith("darkroom audit"):
            found = audit(*command.split()[2:])  # which ends with an audit
        elif command == "darkroom register":
            registry.register(Path("artifacts/pipeline"), ABOUT, DEMANDS, promote=True)
        elif command.startswith("dvc repro -f -s "):
            toy.shell(command)
            toy.record_run(command.split()[-1])
        else:
            toy.shell(command)
    return found or audit()


def broken(found: dict[str, Any]) -> dict[str, Any]:
    """The first finding that breaks the chain."""
    return next(finding for finding in found["findings"] if finding["breaks"])


def flip(file: Path) -> None:
    """Change a byte in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def rows(question: str) -> list[Any]:
    with closing(sqlite3.connect(DATABASE)) as database:
        return database.execute(question).fetchall()


def named_as(found: dict[str, Any], kind: str) -> dict[str, Any]:
    """The one finding of a kind."""
    (finding,) = [finding for finding in found["findings"] if finding["kind"] == kind]
    return dict(finding)
