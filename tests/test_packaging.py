"""What travels in the wheel, and what the one configuration promises."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MADE_HERE = {
    "notebooks/99_made_by_a_test.ipynb": "dgprune_lab/notebooks/99_made_by_a_test.ipynb",
    "notebooks/results/made_by_a_test.csv": "dgprune_lab/notebooks/results/made_by_a_test.csv",
    "notebooks/results/made_by_a_test.json": "dgprune_lab/notebooks/results/made_by_a_test.json",
    "dgprune_lab/widgets/page/static/made_by_a_test.js": "dgprune_lab/widgets/page/static/made_by_a_test.js",
    "dgprune_lab/widgets/page/static/made_by_a_test.css": "dgprune_lab/widgets/page/static/made_by_a_test.css",
    "dgprune_lab/models/shipped/made_by_a_test.safetensors": "dgprune_lab/models/shipped/made_by_a_test.safetensors",
}


def run(*words: str | Path, cwd: Path, env: dict[str, str] | None = None, code: int = 0) -> str:
    """The output of a command that must end with this code."""
    done = subprocess.run([*map(str, words)], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the tree, so that nothing is left in the tree itself."""
    box = tmp_path_factory.mktemp("wheel")
    tree = box / "tree"
    for name in ("dgprune_lab", "notebooks"):
        skip = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(ROOT / name, tree / name, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    for name in MADE_HERE:
        (tree / name).write_text("{}", encoding="utf-8")
    build = ("wheel", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-w", box / "dist", ".")
    run(sys.executable, "-m", "pip", *build, cwd=tree)
    (made,) = (box / "dist").glob("dgprune_lab-*.whl")
    return made


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    """The names of the files in the wheel."""
    with zipfile.ZipFile(wheel) as opened:
        return set(opened.namelist())


def test_the_wheel_carries_every_module(contents: set[str]) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "dgprune_lab").rglob("*.py")}
    assert modules - contents == set()


def test_the_wheel_carries_notebooks_scripts_and_checkpoints(contents: set[str]) -> None:
    wanted = {*MADE_HERE.values(), "dgprune_lab/notebooks/results/zoo.md"}
    wanted |= {f"dgprune_lab/notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    data = {"widgets/page/static": "*.*s", "models/shipped": "*.*", "data/fashion_mnist": "*"}
    for folder, pattern in data.items():
        wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "dgprune_lab" / folder).glob(pattern)}
    assert wanted - contents == set()


def test_the_wheel_carries_nothing_else(contents: set[str]) -> None:
    assert {name.split("/")[0].split("-")[0] for name in contents} == {"dgprune_lab"}
    assert not [name for name in contents if "__pycache__" in name or name.startswith("dgprune_lab/tests")]


def test_an_installed_wheel_copies_its_notebooks_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    site, away = tmp_path / "site", tmp_path / "away"
    away.mkdir()
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--target", site)
    run(sys.executable, "-m", "pip", "install", *quiet, wheel, cwd=away)
    script = (
        "from dgprune_lab.commands import notebooks; print(notebooks.__file__); "
        "[print(a.notebook, a.kind) for a in notebooks.update_folder('here')]; "
        "[print(a.kind) for a in notebooks.update_folder('here')]"
    )
    said = run(sys.executable, "-c", script, cwd=away, env={**os.environ, "PYTHONPATH": str(site)}).splitlines()
    assert Path(said[0]).is_relative_to(site)
    assert "99_made_by_a_test.ipynb added" in said
    assert said[-1] == "unchanged"
    assert (away / "here" / "99_made_by_a_test.ipynb").read_text() == "{}"


def test_the_list_of_packages_is_the_folders() -> None:
    listed = set(CONFIGURATION["tool"]["setuptools"]["packages"])
    code = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in (ROOT / "dgprune_lab").rglob("*.py")}
    data = {f"dgprune_lab.{name}" for name in ("data.fashion_mnist", "models.shipped", "notebooks")}
    data.add("dgprune_lab.widgets.page.static")
    assert listed == code | data, "name every package in pyproject.toml under [tool.setuptools]"
    for name in code:
        assert (ROOT / name.replace(".", "/") / "__init__.py").exists(), f"{name} lacks __init__.py"


def test_only_the_known_folders_stand_at_the_top() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    given = {"pyproject.toml", "dgprune_lab", "notebooks", "tests", "README.md", "binder"}
    forced = {".ci", ".github", ".gitignore", "LICENSE"}  # by the tools that look for them there
    assert {name.split("/")[0] for name in listed.splitlines()} <= given | forced


@pytest.mark.parametrize("name", ["binder/postBuild", "binder/start", ".ci/run"])
def test_scripts_parse_and_may_be_run(name: str) -> None:
    path = ROOT / name
    assert path.stat().st_mode & stat.S_IXUSR
    run("bash", "-n", path, cwd=ROOT)


def test_binder_starts_with_one_thread(tmp_path: Path) -> None:
    said = run(ROOT / "binder" / "start", "bash", "-c", 'echo "$OMP_NUM_THREADS $0 $1"', "a b", "c", cwd=tmp_path)
    assert said == "1 a b c\n"
    run(ROOT / "binder" / "start", "bash", "-c", "exit 7", cwd=tmp_path, code=7)


def test_binder_takes_torch_from_conda_and_leaves_the_rest_to_pyproject() -> None:
    lines = (ROOT / "binder" / "environment.yml").read_text(encoding="utf-8").splitlines()
    asked = {line.removeprefix("  - ") for line in lines if line.startswith("  - ")}
    ours = {need for need in CONFIGURATION["project"]["dependencies"] if need.split(">")[0] in {"torch", "torchvision"}}
    assert {need.replace("torch>", "pytorch-cpu>") for need in ours} <= asked, "the bounds differ from pyproject.toml"


def test_the_badge_opens_the_first_notebook_of_the_repository_that_pyproject_names() -> None:
    place = CONFIGURATION["project"]["urls"]["Repository"].removeprefix("https://github.com/")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"(https://mybinder.org/v2/gh/{place}/HEAD?urlpath=lab/tree/notebooks/00_start.ipynb)" in readme


def test_a_required_browser_test_may_not_be_skipped(tmp_path: Path) -> None:
    source = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
    absent = "\n\ndef browser_missing() -> str | None:\n    return 'no browser on this machine'\n"
    (tmp_path / "conftest.py").write_text(source + absent, encoding="utf-8")
    (tmp_path / "test_it.py").write_text(
        "import pytest\n\n@pytest.mark.browser\ndef test_in_browser():\n    pass\n\n"
        "def test_else():\n    pytest.skip('x')\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    browser: b\n    gpu: g\n")
    words = (sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", ".")
    env = {name: value for name, value in os.environ.items() if name != "DGPRUNE_REQUIRE_BROWSER"}
    said = run(*words, cwd=tmp_path, env=env)
    assert "2 skipped" in said and "no browser on this machine" in said
    said = run(*words, cwd=tmp_path, env={**env, "DGPRUNE_REQUIRE_BROWSER": "1"}, code=1)
    assert "1 skipped, 1 error" in said
    assert "DGPRUNE_REQUIRE_BROWSER=1, but this test was skipped: Skipped: no browser on this machine" in said
