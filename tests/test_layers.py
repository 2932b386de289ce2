"""The shape of the code, read from its imports: who may know whom, and that stages depend on the code they run."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
LIBRARY = SRC / "darkroom"
STAGES = sorted((ROOT / "stages").glob("*.py"))
SOURCES = sorted(LIBRARY.rglob("*.py"))

# What each room of the library may import, besides itself; siblings are blind to each other.
FOUNDATION = {"core", "config"}
DIFFUSION_CORE = FOUNDATION | {"nn", "diffusion", "data"}
MAY_IMPORT = {
    "core": set(),
    "config": {"core"},
    "nn": FOUNDATION,
    "diffusion": FOUNDATION,
    "data": FOUNDATION,
    "view": DIFFUSION_CORE,
    "training": DIFFUSION_CORE | {"view"},
    "interop": DIFFUSION_CORE,
    "inference": DIFFUSION_CORE | {"view", "interop"},
    "evaluation": DIFFUSION_CORE | {"view", "interop", "inference"},
    "planning": DIFFUSION_CORE | {"training"},
    "tracking": FOUNDATION,
    "serving": FOUNDATION | {"data", "inference", "tracking"},
    "audit": FOUNDATION | {"data", "inference", "serving", "tracking"},
    "runner": FOUNDATION | {"data", "training", "planning", "tracking"},
}
MAY_IMPORT["cli"] = set(MAY_IMPORT)
LOOSE = {"__init__"}  # modules at the root of the package
SERVED = (
    LIBRARY / "serving" / "served.py"
)  # what MLflow runs where a model is served; it copies the file into the model
# Cannot change a byte of an output: errors, messages, tracking, how a stage is started, and what its params tell it.
CONFIG_PLUMBING = tuple(
    f"config/{name}.py" for name in ("base", "diffusion", "edit", "faults", "networks", "params", "recipes", "sections")
)
PLUMBING = (
    *CONFIG_PLUMBING,
    "config/stage_spec.py",
    "config/yaml_file.py",
    "core/errors.py",
    "core/progress.py",
    "planning/demands.py",
    "runner",
    "tracking",
)


def part(module: str) -> str:
    """The part of the library a module belongs to: darkroom.nn.vae -> nn."""
    return module.split(".")[1] if "." in module else ""


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imports(file: Path) -> frozenset[str]:
    """Every module a file imports, wherever in it and also for types alone; of the library, the modules that exist."""
    found = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are written out in full"
            assert node.module is not None
            names = {f"{node.module}.{name.name}" for name in node.names}
            found |= {node.module} | {name for name in names if name.startswith("darkroom.") and file_of(name)}
    return frozenset(found)


def file_of(module: str) -> Path | None:
    """The file of a module of the library; None for what is no module of it."""
    place = SRC.joinpath(*module.split("."))
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def own(file: Path) -> set[str]:
    """The library's modules that a file imports."""
    return {module for module in imports(file) if module.split(".")[0] == "darkroom"}


def module_of(file: Path) -> str:
    names = file.relative_to(SRC).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def closure(start: Path) -> set[Path]:
    """The library's files that run when `start` runs, with the packages they lie in, but for the library's own."""
    reached: set[Path] = set()
    waiting = [start]
    while waiting:
        file = waiting.pop()
        if file in reached:
            continue
        reached.add(file)
        if is_plumbing(file):
            continue
        for module in own(file):
            names = module.split(".")
            packages = (".".join(names[:length]) for length in range(2, len(names) + 1))
            waiting += [found for package in packages if (found := file_of(package))]
    return reached - {start}


def is_plumbing(file: Path) -> bool:
    return any(file.is_relative_to(LIBRARY / name) for name in PLUMBING)


def holds_no_code(file: Path) -> bool:
    """Whether a file is a docstring at most."""
    body = tree(file).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_each_part_imports_only_the_parts_below_it(file: Path) -> None:
    here = part(module_of(file))
    if file.parent == LIBRARY:
        assert file.stem in LOOSE, f"{name(file)}: belongs in a room"
        return
    above = {module for module in own(file) if part(module) not in {"", here} | MAY_IMPORT[here]}
    assert not above, f"{name(file)} imports {sorted(above)}; {here} may import {sorted(MAY_IMPORT[here])}"


def test_one_file_imports_mlflow() -> None:
    """And the one that MLflow runs itself, where it serves a model; nothing else imports that."""
    assert [name(f) for f in SOURCES if any(m.split(".")[0] == "mlflow" for m in imports(f))] == [
        name(SERVED),
        "src/darkroom/tracking/store.py",
    ]
    assert not [name(f) for f in SOURCES + STAGES if module_of(SERVED) in own(f)]


def test_one_file_imports_torchvision() -> None:
    imported = [name(f) for f in SOURCES + STAGES if any(m.split(".")[0] == "torchvision" for m in imports(f))]
    assert imported in ([], ["src/darkroom/data/sources/torchvision_import.py"])


def test_one_file_reads_the_parameters() -> None:
    def names_it(file: Path) -> bool:
        constants = (n.value for n in ast.walk(tree(file)) if isinstance(n, ast.Constant))
        return "params.yaml" in constants

    assert [name(f) for f in SOURCES + STAGES if names_it(f)] == ["src/darkroom/config/params.py"]


def test_importing_the_package_costs_nothing_but_the_standard_library() -> None:
    code = "import sys; before = set(sys.modules); import darkroom; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {module.split(".")[0] for module in done.stdout.split()}
    assert loaded <= sys.stdlib_module_names | {"darkroom"}


@pytest.mark.parametrize("file", SOURCES + STAGES, ids=name)
def test_files_stay_readable(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 350


PIPELINE = ROOT / "dvc.yaml"
PIPELINE_STAGES = yaml.safe_load(PIPELINE.read_text())["stages"] if PIPELINE.exists() else {}


@pytest.mark.skipif(not PIPELINE_STAGES, reason="no dvc.yaml")
def test_every_script_is_a_stage() -> None:
    assert {f"python -P stages/{file.name}" for file in STAGES} == {stage["cmd"] for stage in PIPELINE_STAGES.values()}


@pytest.mark.parametrize("stage", PIPELINE_STAGES)
def test_a_stage_depends_on_all_the_code_it_runs_and_on_no_other(stage: str) -> None:
    script = ROOT / "stages" / f"{stage}.py"
    listed = [ROOT / dep for dep in PIPELINE_STAGES[stage]["deps"] if dep.startswith(("src/", "stages/"))]
    needed = {f for f in closure(script) if not is_plumbing(f) and not (f.name == "__init__.py" and holds_no_code(f))}
    missing = {name(file) for file in needed | {script} if not any(file.is_relative_to(dep) for dep in listed)}
    assert not missing, f"dvc.yaml: {stage} runs code it does not depend on: {sorted(missing)}"
    idle = [name(dep) for dep in listed if not any(file.is_relative_to(dep) for file in needed | {script})]
    assert not idle, f"dvc.yaml: {stage} depends on code it does not run: {idle}"


@pytest.mark.parametrize("script", STAGES, ids=name)
def test_a_stage_can_be_ended_while_it_imports(script: Path) -> None:
    first = next(node for node in tree(script).body if isinstance(node, ast.Import | ast.ImportFrom))
    assert isinstance(first, ast.Import)
    assert [each.name for each in first.names] == ["darkroom.runner.startup"]


@pytest.mark.parametrize("stage", ["train_vae", "setup_text_encoder", "train_unet", "train_evaluator"])
def test_a_stage_that_trains_shares_its_training_and_saves_it(stage: str) -> None:
    calls = [node for node in ast.walk(tree(ROOT / "stages" / f"{stage}.py")) if isinstance(node, ast.Call)]
    given = {ast.unparse(call.func): {one.arg: ast.unparse(one.value) for one in call.keywords} for call in calls}
    assert given["run_stage"]["trains"] == "True"
    assert given["train"]["processes"] == "work.processes"
    assert given["train"]["checkpoints"] == "work.checkpoints"
