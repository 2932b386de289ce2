"""Tracking: each execution of a stage leaves one run in MLflow, evidence of what it read, did and wrote.

Nothing of it enters an output. Of all files only `store` imports mlflow, and only when a store is opened.
"""

from darkroom.tracking.run import Run, stage_run
from darkroom.tracking.ui import serve

__all__ = ["Run", "serve", "stage_run"]
