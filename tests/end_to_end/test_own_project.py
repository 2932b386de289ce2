"""From the wheel alone: a project of one's own trains, is audited, and after an upgrade names what is out of date."""

from pathlib import Path

import pytest
import yaml

from darkroom.config.merging import complete_text
from tests.support import recipe
from tests.support.projects import ROOT
from tests.support.wheels import Installation, build

pytest.importorskip("hatchling", reason="building the wheel needs the test extras")
MODULE = "training/latent_statistics.py"  # which cache_latents runs, and no other stage
NEWER = {
    f"src/darkroom/{MODULE}": ('"""', '"""Newer. '),
    "src/darkroom/__init__.py": ('"0.1.0"', '"0.1.1"'),
    "pyproject.toml": ('version = "0.1.0"', 'version = "0.1.1"'),
}
WHY = f"darkroom 0.1.1 runs other code than 0.1.0: darkroom/{MODULE}"


@pytest.mark.slow
def test_the_wheel_alone_trains_audits_and_knows_what_an_upgrade_changes(tmp_path: Path) -> None:
    """Fails if something of the clone is needed, if the chain is not whole, or if an upgrade is silent or too loud."""
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    here = Installation(tmp_path / "environment")
    here.install(build(tmp_path / "first", {}))
    where = here.run(tmp_path, "python", "-P", "-c", "import darkroom; print(darkroom.__file__)")
    assert where.startswith(str(tmp_path / "environment"))

    here.run(tmp_path, "darkroom", "new", "birds", "--recipe", "scenes-quick")
    project = tmp_path / "birds"
    assert (project / "params.yaml").read_text() == complete_text(ROOT / "recipes" / "scenes-quick.yaml")
    recipe.write(ROOT / "recipes" / "scenes-quick.yaml", project / "params.yaml")
    commit = ("git", "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "--all", "-m", "x")
    here.run(project, *commit)
    said = here.run(project, "dvc", "repro")
    stages = [name for name in yaml.safe_load((project / "dvc.yaml").read_text())["stages"] if name != "code"]
    assert [name for name in stages if f"Running stage '{name}'" in said] == stages
    here.run(project, "git", "add", ".")
    here.run(project, *commit)
    assert "The chain is whole: 7 stages" in (found := here.run(project, "darkroom", "audit"))
    assert not [line for line in found.splitlines() if line.startswith(("✗", "!"))]
    here.run(project, "darkroom", "generate", "a ring", "--out", "ring.png", "--steps", "2")
    assert "The chain is whole" in here.run(project, "darkroom", "audit", "ring.png")
    assert "cache_latents: identical" in here.run(project, "darkroom", "reproduce", "cache_latents")

    here.install(build(tmp_path / "second", NEWER))
    said = here.run(project, "darkroom", "status")
    assert f"{'cache_latents':20}out of date: {WHY}\n" in said
    assert [line.split()[0] for line in said.splitlines() if "out of date" in line] == ["cache_latents"]
    assert f"✗ out of date: code/cache_latents.json: {WHY}; " in here.run(project, "darkroom", "audit", status=1)

    assert "cache_latents: kept" in here.run(project, "darkroom", "keep", "cache_latents")
    assert "Running stage 'cache_latents'" not in here.run(project, "dvc", "repro")
    here.run(project, "git", "add", ".")
    here.run(project, *commit)
    found = here.run(project, "darkroom", "audit")
    assert "! not rerun: cache_latents: kept since 20" in found
    assert f"(darkroom/{MODULE}), and not rerun; none needed" in found
    here.run(project, "dvc", "repro", "--force", "--single-item", "cache_latents")
    assert "not rerun" not in here.run(project, "darkroom", "audit")
    assert "out of date" not in here.run(project, "darkroom", "status")
