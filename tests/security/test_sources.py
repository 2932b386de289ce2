"""Read from the sources: nothing unpickles, evaluates or hands text to a shell."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted(file for folder in ("src", "stages", "recipes") for file in (ROOT / folder).rglob("*.py"))
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))

# The one unpickler: CIFAR-10 is published as pickles.
UNPICKLER = "src/darkroom/data/sources/torchvision_sets.py"
MODULES = {"cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle", "pty", "commands"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell",
    "torch.jit.load",
    "torch.hub.load",
    "torch.package.PackageImporter",
    "yaml.unsafe_load",
    "yaml.full_load",
    "yaml.load_all",
    "yaml.unsafe_load_all",
    "np.loads",
    "numpy.loads",
    "pd.read_pickle",
    "pandas.read_pickle",
}
CHECKED = {"torch.load", "yaml.load"}  # by their arguments
HOLDERS = {call.rpartition(".")[0] for call in CALLS | CHECKED} - {"np", "pd", "numpy", "pandas"} | {
    "builtins",
    "pickle",
}
UNPACKERS = {"extractall", "unpack_archive"}  # which may write outside of the folder they are given


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def faults(source: str, file: str) -> Iterator[str]:
    """What is forbidden in a source text, a line each."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
            for module in modules:
                top = module.split(".")[0]
                if top in MODULES or (top == "pickle" and (file != UNPICKLER or isinstance(node, ast.ImportFrom))):
                    yield f"imports {module}"
            yield from _faults_of_import(node)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in CALLS:
            yield ast.unparse(node)
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("pickle."):
            if ast.unparse(node) not in ("pickle.Unpickler", "pickle.UnpicklingError"):
                yield ast.unparse(node)
        elif isinstance(node, ast.Call):
            yield from _faults_of_call(node, tree)


def _faults_of_import(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Other names for what is forbidden."""
    for one in node.names:
        if isinstance(node, ast.ImportFrom):
            if f"{node.module}.{one.name}" in CALLS | CHECKED or node.module == "builtins":
                yield f"imports {node.module}.{one.name}"
        elif one.asname and one.name in HOLDERS:
            yield f"imports {one.name} under another name"


def _faults_of_call(node: ast.Call, tree: ast.Module) -> Iterator[str]:
    called = ast.unparse(node.func).removeprefix("builtins.")
    keywords = {one.arg: ast.unparse(one.value) for one in node.keywords}
    if called in BUILTINS or called.split(".")[-1] in UNPACKERS or called == "pickle.Unpickler":
        yield called
    if called == "torch.load" and keywords.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if called == "yaml.load" and not (len(node.args) == 2 and _is_safe(ast.unparse(node.args[1]), tree)):
        yield "yaml.load without a SafeLoader"
    if keywords.get("allow_pickle", "False") != "False" or keywords.get("trust_remote_code", "False") != "False":
        yield f"{called} that runs what it reads"
    if keywords.get("shell", "False") != "False" and called != "get_completion_script":  # that is a shell's name
        yield f"{called} with a shell"


def _is_safe(loader: str, tree: ast.Module) -> bool:
    """Whether a YAML loader is the safe one, or made from it in the same file or in the one it is imported from."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == loader:
            return [ast.unparse(base) for base in node.bases] == ["yaml.SafeLoader"]
        if isinstance(node, ast.ImportFrom) and loader in [one.asname or one.name for one in node.names]:
            source = ROOT / "src" / f"{(node.module or '').replace('.', '/')}.py"
            name = next(one.name for one in node.names if (one.asname or one.name) == loader)
            return source.is_file() and _is_safe(name, ast.parse(source.read_text(encoding="utf-8")))
    return loader == "yaml.SafeLoader"


@pytest.mark.parametrize("file", FILES, ids=name)
def test_no_file_runs_what_it_reads(file: Path) -> None:
    assert not list(faults(file.read_text(encoding="utf-8"), name(file)))


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import pickle; pickle.loads(data)",
        "import dill",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, yaml.Loader)",
        "yaml.load(text, Loader=yaml.FullLoader)",
        "class L(yaml.Loader): pass\nyaml.load(text, L)",
        "from yaml import Loader\nyaml.load(text, Loader)",
        "from darkroom.params_yaml import read as Loader\nyaml.load(text, Loader)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "exec(text)",
        "os.system(text)",
        "run = os.popen",
        "subprocess.run(text, shell=True)",
        "archive.extractall(folder)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "from os import system",
        "import os as o",
        "from torch import load",
        "from subprocess import getoutput",
        "from yaml import unsafe_load",
        "import yaml as y",
        "import builtins; builtins.eval(text)",
        "from builtins import eval as look",
    ],
)
def test_what_is_forbidden_would_be_seen(line: str) -> None:
    assert list(faults(line, "src/darkroom/some.py"))


def test_the_one_unpickler_chooses_its_classes() -> None:
    tree = ast.parse((ROOT / UNPICKLER).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    (restricted,) = (node for node in classes if "pickle.Unpickler" in map(ast.unparse, node.bases))
    assert "find_class" in [item.name for item in restricted.body if isinstance(item, ast.FunctionDef)]


def test_no_parameter_reaches_the_shell_that_dvc_starts() -> None:
    """DVC fills ${…} of dvc.yaml with parameters, and gives cmd to a shell: there is none."""
    assert "${" not in (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert PIPELINE.keys() == {"stages"}
    for stage, entry in PIPELINE["stages"].items():
        assert entry["cmd"] == f"python -P stages/{stage}.py"
