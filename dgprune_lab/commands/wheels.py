"""`dgprune-lab wheels FOLDER`: one folder with everything needed to install on machines without a network."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from ..core import DgpruneError, check_writable_folder, write_file

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_SHELL = f"""#!/bin/sh
# Installs dgprune-lab from this folder alone, without a network, into a new environment: sh install.sh [FOLDER]
set -e
here=$(cd "$(dirname "$0")" && pwd)
env=${{1:-dgprune-lab-env}}
python=${{PYTHON:-python{_PYTHON}}}
if ! "$python" -c "import sys; sys.exit(sys.version_info[:2] != ({_PYTHON.replace(".", ", ")}))"; then
  echo "These wheels are for Python {_PYTHON}, and $python is not that one." >&2
  echo "Install Python {_PYTHON}, or say where it is: PYTHON=/path/to/python sh install.sh" >&2
  exit 1
fi
"$python" -m venv "$env"
"$env/bin/python" -m pip install --disable-pip-version-check --no-index --find-links "$here" dgprune-lab
echo "Installed. Start it with: $env/bin/dgprune-lab lab"
"""
_BATCH = f"""@echo off
rem Installs dgprune-lab from this folder alone, without a network, into a new environment: install.bat [FOLDER]
setlocal
set "ENV=%~1"
if "%ENV%"=="" set "ENV=dgprune-lab-env"
py -{_PYTHON} -m venv "%ENV%"
if errorlevel 1 (
  echo These wheels are for Python {_PYTHON}, which the command py does not find. Install it first.
  exit /b 1
)
"%ENV%\\Scripts\\python" -m pip install --disable-pip-version-check --no-index --find-links "%~dp0." dgprune-lab
if errorlevel 1 exit /b 1
echo Installed. Start it with: "%ENV%\\Scripts\\dgprune-lab" lab
"""


def fetch_wheels(folder: str | Path, *, cpu: str | None = None) -> list[Path]:
    """Fetch the wheels of this package and of all it needs into a folder, with scripts that install from it.

    They are for machines with this machine's system and Python version. pip's own settings say where it looks.

    Args:
        folder: the folder; wheels already in it are used.
        cpu: address of an index that has the CPU builds of PyTorch; without it pip takes builds from its usual index,
            which for Linux include several GB of CUDA.

    Returns:
        The wheels.

    Raises:
        DgpruneError: a folder that cannot be written to, no source of this package, a failure of pip, or a torch
            or torchvision from `cpu` that is not a CPU build.
    """
    folder = check_writable_folder(folder, argument="the folder of the wheels")
    folder.mkdir(parents=True, exist_ok=True)
    arguments = ["wheel", str(_own_source(folder)), "--wheel-dir", str(folder), "--find-links", str(folder)]
    if cpu is None:
        _run_pip(*arguments)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            built = [wheel.name.split("-")[:2] for wheel in _fetch_cpu_builds(cpu, Path(scratch))]
            pinned = write_file(Path(scratch) / "same.txt", "".join(f"{name}=={version}\n" for name, version in built))
            _run_pip(*arguments, "--extra-index-url", cpu, "--find-links", scratch, "--constraint", str(pinned))
    write_file(folder / "install.sh", _SHELL).chmod(0o755)
    write_file(folder / "install.bat", _BATCH.replace("\n", "\r\n"))
    return sorted(folder.glob("*.whl"))


def _fetch_cpu_builds(cpu: str, folder: Path) -> list[Path]:
    """Fetch the CPU builds of torch and torchvision from this index alone, and return them."""
    settings = {"PIP_INDEX_URL": cpu, "PIP_EXTRA_INDEX_URL": cpu, "PIP_FIND_LINKS": str(folder)}  # override pip's own
    _run_pip("download", "torch", "torchvision", "--no-deps", "--dest", str(folder), **settings)
    wheels = sorted(folder.glob("torch*.whl"))
    for wheel in wheels:
        if "+cpu" not in wheel.name and sys.platform != "darwin":  # macOS has one build, without a local version
            raise DgpruneError(f"{wheel.name} of {cpu} is no CPU build. Give --cpu an index that has the CPU builds.")
    return wheels


def _run_pip(*arguments: str, **settings: str) -> None:
    command, environment = [sys.executable, "-m", "pip", *arguments], {**os.environ, **settings}
    if subprocess.run(command, env=environment, check=False).returncode:
        raise DgpruneError(
            "pip could not fetch the wheels; see above why. Run the command again: wheels in the folder are kept."
        )


def _own_source(folder: Path) -> Path:
    """Return the source checkout of this package, or its wheel in the folder."""
    checkout = Path(str(files("dgprune_lab"))).parent
    if (checkout / "pyproject.toml").is_file():
        return checkout
    wheels = sorted(folder.glob("dgprune_lab-*.whl"))
    if not wheels:
        raise DgpruneError(
            "dgprune-lab is installed here without its source: run the command in the repository, or put the wheel of "
            f"dgprune-lab into {folder} first."
        )
    return wheels[-1]
