"""`dgprune-lab wheels`: a folder from which one command installs where there is no network."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dgprune_lab.commands import wheels
from dgprune_lab.core.errors import DgpruneError


def made(folder: Path, name: str, version: str, *, needs: tuple[str, ...] = (), says: str = "") -> Path:
    """A wheel of one module; with `says` it has the command `dgprune-lab`, which prints that."""
    folder.mkdir(parents=True, exist_ok=True)
    path, module = folder / f"{name}-{version}-py3-none-any.whl", "dgprune_lab_pretend" if says else name
    metadata = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
        *(f"Requires-Dist: {need}" for need in needs),
    ]
    files = {
        f"{module}.py": f"def main():\n    print({says!r})\n",
        f"{name}-{version}.dist-info/METADATA": "\n".join(metadata) + "\n",
        f"{name}-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if says:
        files[f"{name}-{version}.dist-info/entry_points.txt"] = f"[console_scripts]\ndgprune-lab = {module}:main\n"
    files[f"{name}-{version}.dist-info/RECORD"] = "".join(f"{file},,\n" for file in files)
    with zipfile.ZipFile(path, "w") as opened:
        for file, text in files.items():
            opened.writestr(file, text)
    return path


def index_of(folder: Path, *wheels: tuple[str, str]) -> Path:
    """A pretend package index of wheels, as (name, version)."""
    for name, version in wheels:
        wheel = made(folder / name, name, version)
        (folder / name / "index.html").write_text(f'<a href="{wheel.name.replace("+", "%2B")}">{wheel.name}</a>')
    return folder


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The index that pip asks, with what a pretend dgprune-lab needs; its torch is newer than the CPU build."""
    own = made(
        tmp_path / "own",
        "dgprune_lab",
        "0.1.0",
        needs=("torch>=2.6", "torchvision", "little"),
        says="installed from the stick",
    )
    monkeypatch.setattr(wheels, "_own_source", lambda _: own)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    folder = index_of(tmp_path / "index", ("torch", "2.7.0"), ("torchvision", "0.22.0"), ("little", "1.0"))
    monkeypatch.setenv("PIP_INDEX_URL", folder.as_uri())
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", folder.as_uri())  # a setting that must not bring its torch instead
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="runs install.sh")
def test_a_folder_of_wheels_installs_with_one_command(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = index_of(tmp_path / "cpu builds", ("torch", "2.6.0+cpu"), ("torchvision", "0.21.0+cpu"))
    fetched = wheels.fetch_wheels(tmp_path / "the stick", cpu=cpu.as_uri())
    assert [wheel.name.split("-")[0] for wheel in fetched] == ["dgprune_lab", "little", "torch", "torchvision"]
    assert "+cpu" in fetched[2].name and "+cpu" in fetched[3].name
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "no such index").as_uri())
    monkeypatch.setenv("PYTHON", sys.executable)
    command = ["sh", str(tmp_path / "the stick" / "install.sh"), "my env"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "Installed. Start it with: my env/bin/dgprune-lab lab"
    start = tmp_path / "my env" / "bin" / "dgprune-lab"
    assert subprocess.run([start], capture_output=True, text=True, check=True).stdout == "installed from the stick\n"
    batch = (tmp_path / "the stick" / "install.bat").read_bytes()
    assert b"--no-index --find-links" in batch and batch.count(b"\r\n") == batch.count(b"\n")


@pytest.mark.skipif(os.name != "posix", reason="runs install.sh")
def test_another_python_is_refused_before_anything_is_made(index: Path, tmp_path: Path) -> None:
    wheels.fetch_wheels(tmp_path / "stick")
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    command, environment = ["sh", "stick/install.sh", "env"], {**os.environ, "PYTHON": "./python"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "are for Python 3." in done.stderr and not (tmp_path / "env").exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has one build of torch")
def test_a_build_with_cuda_is_refused_where_the_cpu_build_was_asked_for(index: Path, tmp_path: Path) -> None:
    for torch, refused in (("2.7.0", r"torch-2\.7\.0"), ("2.7.0+cpu", r"torchvision-0\.22\.0")):
        cpu = index_of(tmp_path / torch, ("torch", torch), ("torchvision", "0.22.0"))
        with pytest.raises(DgpruneError, match=rf"{refused}-\S+ of .* is no CPU build\. Give --cpu an index"):
            wheels.fetch_wheels(tmp_path / "stick", cpu=cpu.as_uri())


def test_what_cannot_be_had_is_said(index: Path, tmp_path: Path) -> None:
    (index / "little" / "index.html").unlink()
    with pytest.raises(DgpruneError, match="pip could not fetch the wheels"):
        wheels.fetch_wheels(tmp_path / "stick")
    assert not (tmp_path / "stick" / "install.sh").exists()


def test_an_installation_without_source_needs_its_own_wheel_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (wheels._own_source(tmp_path) / "pyproject.toml").is_file()
    monkeypatch.setattr(wheels, "files", lambda _: tmp_path / "site-packages" / "dgprune_lab")
    with pytest.raises(DgpruneError, match="run the command in the repository, or put the wheel"):
        wheels._own_source(tmp_path)
    own = made(tmp_path, "dgprune_lab", "0.1.0", says="x")
    assert wheels._own_source(tmp_path) == own
