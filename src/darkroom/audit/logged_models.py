"""What MLflow calls logged models: folders of registered pipelines, and entries of weights that stages wrote."""

from darkroom.audit.findings import short
from darkroom.core.artifact import file_hash, folder_hash
from darkroom.serving.model_folder import CODE
from darkroom.serving.registry import MODEL
from darkroom.tracking.database import Rows
from darkroom.tracking.records import Record
from darkroom.tracking.sources import CONTENT

READY = 2  # as MLflow's database has it, of one that is complete
OPEN = ("RUNNING", "SCHEDULED")


def is_open(now: Record) -> bool:
    """Whether it is still being written: a run that is not over, a checkpoint whose run is not."""
    if is_checkpoint(now):
        return bool(now.rows["logged_models"][0]["status"] != READY)
    return now.kind == "run" and now.rows["runs"][0]["status"] in OPEN


def is_checkpoint(now: Record) -> bool:
    """Whether it is the entry of weights that a stage wrote, which has no files of its own; see `checkpoint_models`."""
    return any(row["name"] != MODEL for row in now.rows.get("logged_models", []))


def content_of(rows: Rows) -> str:
    """DVC's hash of what a copy is of; "" where it does not say."""
    return next((row["tag_value"] for row in rows.get("logged_model_tags", []) if row["tag_key"] == CONTENT), "")


def wrong_copy(now: Record) -> str:
    """Why a registered pipeline's folder of which no record was kept is not what it should be; empty where it is."""
    content = content_of(now.rows)
    if now.files is None or not content:
        return ""
    inside = [name for name in now.files if name.startswith("artifacts/")]
    files = {name.split("/", 2)[2]: now.files[name] for name in inside if name.count("/") > 1}
    if folder_hash(files) != content:
        return f"its files are not the content {short(content)} that it names"
    return "" if now.files.get(CODE.name) == file_hash(CODE) else f"{CODE.name} is not this Darkroom's"
