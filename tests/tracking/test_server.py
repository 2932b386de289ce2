"""Tracking to a real MLflow server on loopback, also one that goes away."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
from PIL import Image

from darkroom.core.artifact import content_hash, write_json
from darkroom.core.errors import DarkroomError
from darkroom.tracking import stage_run

if TYPE_CHECKING:
    from tests.tracking.conftest import Server

UNET = Path("artifacts/unet")


def test_a_server_that_does_not_answer_stops_the_stage_before_any_work(
    project: Path, server: "Server", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    worked = False
    began = time.monotonic()
    with pytest.raises(DarkroomError) as caught, stage_run("train_unet", {}, {}, {}, [], {}):
        worked = True
    assert not worked
    assert time.monotonic() - began < 5
    message = str(caught.value)
    assert server.address in message
    assert "DARKROOM_TRACKING=off" in message
    assert "\n" not in message


def test_a_server_that_is_away_for_a_while_loses_nothing(
    project: Path, server: "Server", monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    with stage_run("train_unet", {"train_unet": {"steps": 30}}, {}, {}, [UNET], {}) as run:
        for step in range(30):
            if step == 10:
                while run.address is None:
                    time.sleep(0.05)
                server.stop()
            run.metrics(step, {"loss": float(step)})
            run.picture(Image.new("RGB", (2, 2)), "samples", step)
            if step == 20:
                server.start()
        write_json(UNET / "config.json", {})
    client = mlflow.MlflowClient(tracking_uri=server.address, registry_uri=server.address)
    assert run.address is not None
    assert run.address.startswith(f"{server.address}/#/experiments/")
    found = client.get_run(run.id)
    assert found.info.status == "FINISHED"
    losses = client.get_metric_history(found.info.run_id, "loss")
    assert sorted((m.step, m.value) for m in losses) == [(step, float(step)) for step in range(30)]
    pictures = {Path(a.path).name for a in client.list_artifacts(found.info.run_id, "samples")}
    assert pictures == {f"step_{step:06d}.png" for step in range(30)}
    (version,) = client.search_model_versions("name = 'darkroom-unet'")
    assert version.tags["content"] == content_hash(UNET)
