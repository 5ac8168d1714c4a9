"""Laws of the import table in docs: who may import whom, and what a fresh interpreter loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "groundglass"
LEAVES = {"types", "errors", "child", "write"}
# Room -> rooms that it may import; a room may always import itself, but for the doors.
MAY_IMPORT: dict[str, set[str]] = {
    "types": {"errors"},
    "errors": set(),
    "child": {"errors"},
    "write": {"errors"},
    "read": LEAVES,
    "infer": LEAVES | {"read"},
    "report": LEAVES | {"read", "infer"},
    "data": LEAVES | {"read", "infer", "report"},
    "phantom": LEAVES | {"read", "infer"},
    "judge": LEAVES | {"read", "infer", "report", "data", "phantom"},
    "learn": LEAVES | {"read", "infer", "report", "data", "judge", "phantom"},
    "remote": LEAVES | {"read", "infer", "report"},
    "doors": LEAVES | {"read", "infer", "report", "data", "judge", "learn", "phantom", "remote"},
    "__init__": {"types", "errors", "read", "infer"},
    "__main__": {"doors"},
}
# Doors that several doors use.
SHARED_DOORS = {"progress", "signals", "streams"}
TORCH = {
    "torch",
    "torchvision",
    "timm",
    "captum",
    "kornia",
    "lightning",
    "lightning_fabric",
    "monai",
    "onnx",
    "safetensors",
}
UNSAFE = {"pickle", "cPickle", "joblib", "dill", "shelve", "marshal", "cloudpickle"}


def _modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def _room(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return parts[0]


def _imports(path: Path) -> Iterator[str]:
    """Every absolute module name that a file imports, at whatever depth."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            module = node.module or ""
            yield module
            if module.partition(".")[0] == "groundglass":
                yield from (f"{module}.{alias.name}" for alias in node.names if alias.name != "__version__")


def _of_the_same_door(path: Path, name: str) -> bool:
    """Whether a door imports a part of itself or what all doors share; the command line starts the other doors."""
    own, parts = path.relative_to(SOURCE).parts, name.split(".")
    if own[0] != "doors" or parts[1:2] != ["doors"]:
        return False
    return own[1] in ("cli", parts[2]) or parts[2] in SHARED_DOORS


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_every_module_imports_only_what_the_table_allows(path: Path) -> None:
    room = _room(path)
    own = {room} if room not in ("doors", "__init__") else set()
    for name in _imports(path):
        if name.startswith("groundglass.") and not _of_the_same_door(path, name):
            assert name.split(".")[1] in MAY_IMPORT[room] | own, f"{room} imports {name}"


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_only_learn_imports_torch(path: Path) -> None:
    heavy = {name.split(".")[0] for name in _imports(path)} & TORCH
    assert not heavy or _room(path) == "learn"


def test_no_import_stands_inside_a_function_to_hide_a_circle() -> None:
    names = {".".join(("groundglass", *p.relative_to(SOURCE).with_suffix("").parts)): p for p in _modules()}
    graph = {name: sorted({n for n in _imports(path) if n in names} - {name}) for name, path in names.items()}
    # raises CycleError, which names the circle, however deep in a function an import stands
    TopologicalSorter(graph).prepare()


def _loaded(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `code`."""
    probe = f"{code}\nimport sys; print(*sorted({{m.split('.')[0] for m in sys.modules}}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stderr.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"torch", "scipy", "sklearn", "onnxruntime", "matplotlib", "pydicom", "PIL", "rich", "click", "numpy"}
    assert not _loaded("import groundglass") & heavy


def test_the_help_of_a_command_loads_none_of_what_the_command_needs() -> None:
    code = (
        "from groundglass.doors.cli.main import cli\n"
        "for name in ('', *cli.parts): cli.main([*name.split(), '--help'], standalone_mode=False)"
    )
    assert not _loaded(code) & {
        "torch",
        "scipy",
        "sklearn",
        "onnxruntime",
        "pydicom",
        "PIL",
        "rich",
        "numpy",
        "sqlite3",
    }


def test_a_prediction_on_the_command_line_never_loads_torch() -> None:
    code = (
        "from groundglass.doors.cli.main import cli\n"
        "cli.main(['predict', 'examples/healthy.png', '--json'], standalone_mode=False)"
    )
    loaded = _loaded(code)
    assert "onnxruntime" in loaded
    # Pixels are decoded in the child: the parsers of untrusted files are not even loaded here.
    assert not loaded & {
        "torch",
        "sklearn",
        "matplotlib",
        "rich",
        "pydicom",
        "nibabel",
        "gdcm",
        "openjpeg",
        "highdicom",
    }


def test_every_public_name_is_there() -> None:
    import groundglass

    for name in groundglass.__all__:
        assert getattr(groundglass, name) is not None
    with pytest.raises(AttributeError):
        groundglass.nothing_of_this_name  # noqa: B018


def _all_python() -> list[Path]:
    return [p for folder in ("src", "tests", "benchmarks", "studies") for p in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", _all_python(), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_loads_a_pickle(path: Path) -> None:
    assert not {name.split(".")[0] for name in _imports(path)} & UNSAFE
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        given = {k.arg: k.value for k in node.keywords}
        assert "allow_pickle" not in given or ast.unparse(given["allow_pickle"]) == "False"
        if ast.unparse(node.func) == "torch.load":
            assert ast.unparse(given["weights_only"]) == "True"
