"""`darkroom register` and the gate before `candidate`; what the gate itself decides is in test_gate.py."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from darkroom.core.artifact import content_hash, write_json
from darkroom.tracking import stage_run
from darkroom.tracking.store import Store
from tests.support.registering import PIPELINE, ClientOf, around, describe, figures


@pytest.fixture
def own(
    register: Callable[..., str], project: Path, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch, store_root: Path
) -> mlflow.MlflowClient:
    """The view of a store without any version, for register to begin with."""
    shutil.copytree(store_root / ".mlflow", project / ".mlflow") if (store_root / ".mlflow").exists() else None
    monkeypatch.setenv("DVC_ROOT", str(project))
    Store()
    client = client_of(project)
    if client.search_registered_models("name = 'darkroom'"):
        client.delete_registered_model("darkroom")
    return client


def candidate(client: mlflow.MlflowClient) -> str | None:
    version = client.get_registered_model("darkroom").aliases.get("candidate")
    return None if version is None else str(version)


def model(example: str, **changes: Any) -> None:
    """Another pipeline, with figures."""
    describe(PIPELINE, example)
    write_json(PIPELINE / "evaluation.json", figures(**changes))


def test_what_does_not_reach_the_thresholds_is_registered_and_not_promoted_in_one_line(
    register: Callable[..., str], own: mlflow.MlflowClient
) -> None:
    """Catches a register that names a model of brown clouds the candidate, or fails the whole `make repro` for it."""
    model("poor", alignment__test__exact_match=around(0.02), vae__psnr=around(12.0))
    said = register()
    assert "is version 1 of the model darkroom, just registered\n" in said
    (line,) = (line for line in said.splitlines() if "not promoted" in line)
    assert "candidate names no version" in line
    assert "exact_match 0.02 [0, 0.04] is not above chance" in line
    assert "vae.psnr 12 dB is below register.vae_psnr = 25" in line
    assert "darkroom register --promote" in line
    assert "darkroom serve --version 1\n" in said, "there is no alias to serve"
    assert candidate(own) is None
    version = own.get_model_version("darkroom", "1")
    assert version.tags["gate"] == "refused"
    assert "vae.psnr 12 dB" in version.tags["gate.reasons"]
    assert version.description.startswith("**Not promoted to `candidate`**: ")
    assert "## Metrics" in version.description

    model("good")
    assert "is version 2 of the model darkroom, just registered; candidate now names it" in register()
    assert candidate(own) == "2"
    assert own.get_model_version("darkroom", "2").tags["gate"] == "passed"
    model("poor", alignment__test__exact_match=around(0.02), vae__psnr=around(12.0))
    assert "candidate stays version 2" in register()
    assert candidate(own) == "2"


def test_a_promotion_against_the_thresholds_is_recorded_with_the_reasons(
    register: Callable[..., str], own: mlflow.MlflowClient
) -> None:
    model("poor", evaluator__valid=False)
    register()
    said = register("--promote")
    assert "registered before; candidate now names it" in said
    assert "promoted by --promote, though the judge is not valid" in said
    version = own.get_model_version_by_alias("darkroom", "candidate")
    assert version.tags["gate"] == "overridden"
    assert version.tags["gate.reasons"] == "the judge is not valid"
    assert version.description.startswith("**Promoted to `candidate` by `--promote`**, though the judge is not valid")
    model("good")
    register("--promote")
    assert own.get_model_version_by_alias("darkroom", "candidate").tags["gate"] == "passed", "nothing was overridden"


def test_the_figures_of_the_candidate_are_read_back_from_its_version(
    register: Callable[..., str], own: mlflow.MlflowClient
) -> None:
    """Whatever its folder was called; catches a comparison with the figures of the folder at hand."""
    model("first")
    PIPELINE.rename("artifacts/mine")
    register("--pipeline", "artifacts/mine")
    Path("artifacts/mine").rename(PIPELINE)
    model("worse", alignment__test__exact_match=around(0.5))
    said = register()
    assert "exact_match 0.5 [0.48, 0.52] is below the 0.7 [0.64, 0.76] of version 1" in said, said
    assert candidate(own) == "1"
    model("other judge", alignment__test__exact_match=around(0.5), judged_with={"artifacts/evaluator": "other"})
    said = register()
    assert "not compared with version 1: judged with another artifacts/evaluator and another data/prepared" in said
    assert candidate(own) == "3"


def test_a_pipeline_without_figures_is_promoted_only_when_told_to(
    register: Callable[..., str], own: mlflow.MlflowClient
) -> None:
    model("older")
    (PIPELINE / "evaluation.json").unlink()
    assert "it has no evaluation.json" in register()
    assert candidate(own) is None
    assert "though it has no evaluation.json" in register("--promote")
    assert candidate(own) == "1"
    model("newer")
    assert "not compared with version 1: it has no evaluation.json" in register()
    assert candidate(own) == "2"
    (PIPELINE / "evaluation.json").write_text("{broken")
    assert "evaluation.json is not as evaluate writes it" in register()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_keeps_a_model_from_being_promoted(
    value: float, register: Callable[..., str], own: mlflow.MlflowClient
) -> None:
    """By the runs that made its parts: MLflow's databases keep infinity as the largest number there is."""
    unet = Path("artifacts/unet")
    unet.mkdir()
    (unet / "weights").write_text(f"{value}")
    with stage_run("train_unet", {}, {}, {}, [unet], {}) as run:
        run.metrics(1, {"train/loss": value})
    model("of this U-Net")
    write_json(PIPELINE / "provenance.json", {"inputs": {"artifacts/unet": content_hash(unet)}})
    said = register()
    assert f"train/loss of train_unet is {value}" in said, said
    assert candidate(own) is None


def test_dvcs_record_is_kept_with_the_run_if_it_is_of_this_pipeline(
    register: Callable[..., str], own: mlflow.MlflowClient, tmp_path: Path
) -> None:
    model("recorded")
    Path("dvc.lock").write_text(f"stages: {{evaluate: {{outs: [{{md5: {content_hash(PIPELINE)}}}]}}}}\n")
    register()
    version = own.get_model_version("darkroom", "1")
    kept = own.download_artifacts(version.run_id, "dvc.lock", str(tmp_path))
    assert Path(kept).read_text() == Path("dvc.lock").read_text()
    model("another")
    register()
    files = {file.path for file in own.list_artifacts(own.get_model_version("darkroom", "2").run_id)}
    assert "dvc.lock" not in files, "it is not that of this pipeline"


def test_the_gate_works_with_a_server(
    register: Callable[..., str], server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The candidate's figures come back over HTTP, and so does that it has none."""
    server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    (PIPELINE / "evaluation.json").unlink()
    register("--promote")
    model("first")
    assert "not compared with version 1: it has no evaluation.json" in register()
    model("worse", alignment__test__exact_match=around(0.5))
    assert "exact_match 0.5 [0.48, 0.52] is below the 0.7 [0.64, 0.76] of version 2" in register()
    client = mlflow.MlflowClient(tracking_uri=server.address, registry_uri=server.address)
    assert candidate(client) == "2"
    assert client.get_model_version("darkroom", "3").tags["gate"] == "refused"


def test_params_without_the_section_are_named(register: Callable[..., str]) -> None:
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.partition("\nregister:")[0] + "\n")
    assert "params.yaml: register is missing; add it" in register(status=1)


def test_what_a_system_left_in_a_pipelines_folder_makes_no_other_version(
    register: Callable[..., str], own: mlflow.MlflowClient
) -> None:
    """Catches: .DS_Store in the folder, for which it was another content, that no run had made."""
    model("looked at")
    with stage_run("evaluate", {}, {}, {}, [PIPELINE], {}) as run:
        pass
    Path("dvc.lock").write_text(f"stages: {{evaluate: {{outs: [{{md5: {content_hash(PIPELINE)}}}]}}}}\n")
    for name in (".DS_Store", "unet/._config.json", "Thumbs.db"):
        (PIPELINE / name).write_bytes(b"left")
    assert "is version 1 of the model darkroom, just registered" in register()
    assert own.get_model_version("darkroom", "1").run_id == run.id
    assert "dvc.lock" in {file.path for file in own.list_artifacts(run.id)}
    (PIPELINE / "Thumbs.db").unlink()
    assert "registered before" in register()
