"""No module of the package can run data as code: a gate over its source, and the proof that the gate closes."""

import ast
from pathlib import Path

import pytest

import spire_ray

# What can run data as code, and who may use it all the same.
IMPORTS = {
    *("pickle", "cPickle", "_pickle", "joblib", "cloudpickle", "dill", "marshal", "shelve", "sklearn", "skops"),
    *("jsonpickle", "pandas", "code", "codeop", "runpy", "ctypes", "yaml", "pty", "jinja2"),
}
CALLS = {"eval", "exec", "compile", "__import__", "execfile", "input"}
METHODS = {"torch.load", "torch.jit.load", "torch.hub.load", "np.load", "numpy.load", "os.system", "os.popen"}
KEYWORDS = {
    "shell": True,
    "trust_remote_code": True,
    "allow_pickle": True,
    "weights_only": False,
    "use_safetensors": False,
}
CONVERTERS = {"convert.py", "kmeans_pickle.py"}  # the child process, which alone imports them


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def findings(source: str, converter: bool = False) -> list[str]:
    """What a module does that could run data as code; a converter may read pickles, by readers that execute nothing."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        forbidden = IMPORTS - ({"pickle"} if converter else set())
        if not converter:
            names = [name.replace("spire_ray.convert", "pickle") for name in names]
            names = [name.replace("spire_ray.kmeans_pickle", "pickle") for name in names]
        found += [f"imports {name}" for name in names if name.partition(".")[0] in forbidden]
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        words = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
        if called in CALLS or (called in METHODS and not (converter and words.get("weights_only") is True)):
            found.append(f"calls {called}")
        if converter and called in ("pickle.load", "pickle.loads", "pickle.Unpickler"):
            found.append(f"calls {called}")
        found += [f"{name}={value}" for name, value in KEYWORDS.items() if words.get(name) is value]
        if called.endswith(".from_pretrained") and words.get("trust_remote_code") is not False:
            found.append(f"{called} without trust_remote_code=False")
    return found


def test_no_module_runs_data() -> None:
    """The gate over the code itself. What only the converting child imports may read pickles, and never calls them."""
    package = Path(spire_ray.__file__).parent
    modules = sorted(package.rglob("*.py"))
    assert len(modules) > 40
    found = {path.name: findings(path.read_text(), path.name in CONVERTERS) for path in modules}
    assert {name: things for name, things in found.items() if things} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "import torch; torch.load('x', weights_only=True)",
        "import spire_ray.convert",
        "from spire_ray.kmeans_pickle import read_centroids",
        "eval('1')",
        "import subprocess; subprocess.run('ls', shell=True)",
        "AutoTokenizer.from_pretrained('x')",
        "AutoTokenizer.from_pretrained('x', trust_remote_code=True)",
        "np.load('x', allow_pickle=True)",
    ],
)
def test_the_gate_closes(line: str) -> None:
    assert findings(line)


def test_the_gate_lets_converters_read_what_executes_nothing() -> None:
    assert findings("import pickle, torch; torch.load('x', weights_only=True)", converter=True) == []
    assert findings("import pickle; pickle.loads(b'')", converter=True)
    assert findings("import torch; torch.load('x')", converter=True)
