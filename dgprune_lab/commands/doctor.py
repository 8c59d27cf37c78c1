"""`dgprune-lab doctor`: one screen about this installation: versions, device, threads, data, and what is missing."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from ..core import DgpruneError, device, threads
from ..core.memory import memory
from .notebooks import shipped

WIDTH, HEIGHT = 100, 24
NEEDED = 1_000_000_000  # bytes that the first notebook takes, including torch
PACKAGES = ("torch", "torchvision", "torch-pruning", "jupyterlab", "altair", "anywidget", "ipywidgets", "numpy")


@dataclass(frozen=True)
class Lack:
    """Something missing: what it is, the command or action that fixes it, and whether the lab needs it."""

    what: str
    fix: str
    needed: bool


@dataclass(frozen=True)
class Examination:
    """The result of an examination: whether all is ready, a screenful of text, and one line to read out."""

    ready: bool
    screen: str
    line: str


def examine() -> Examination:
    """Examine the installation; nothing is changed but torch's thread count, and nothing is downloaded."""
    lacks = [*requirements(), *matching(), *notebooks(), *browser()]
    rows = [("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"), *_version_rows()]
    where, count, usage = "cpu", "threads unknown", memory(gpu=True)
    try:
        reason = threads().reason
        where, count = str(device()), reason.partition(":")[0].partition(",")[0]
        rows += [("device", _device_name(where)), ("threads", reason)]
    except DgpruneError as error:
        lacks.append(Lack(str(error), "unset DGPRUNE_THREADS", needed=True))
    rows.append(("memory", str(usage)))
    if usage.available < NEEDED:
        lacks.append(Lack(f"memory: {usage.available / 1e9:.1f} GB left", "close other programs", needed=True))
    rows += _data_rows()
    blocking = [lack for lack in lacks if lack.needed]
    line = (
        f"ready: dgprune-lab {_installed_version('dgprune-lab') or '?'}, Python {platform.python_version()}, "
        f"torch {_installed_version('torch')}, {where}, {count}, {usage.available / 1e9:.1f} GB free"
    )
    if blocking:
        line = f"not ready: {blocking[0].what}; do this: {blocking[0].fix}"
    rows += [("missing", f"{lack.what}: {lack.fix}" + ("" if lack.needed else " (optional)")) for lack in lacks]
    lines = [_shorten(f"{name:<10}{text}") for name, text in rows]
    screen = "\n".join([*lines[: HEIGHT - 1], _shorten(line)])
    return Examination(ready=not blocking, screen=screen, line=line)


def requirements(needs: Iterable[str] | None = None) -> list[Lack]:
    """Return the requirements that this environment lacks or does not meet.

    Args:
        needs: requirements such as "torch>=2.6"; by default those of the installed package.
    """
    if needs is None:
        try:
            needs = [need for need in metadata.requires("dgprune-lab") or [] if "extra ==" not in need]
        except metadata.PackageNotFoundError:
            return [Lack("dgprune-lab is not installed", "pip install -e . (in the repository)", needed=True)]
    lacks = []
    for need in map(Requirement, needs):
        version = _installed_version(need.name)
        if version is None or not need.specifier.contains(version, prereleases=True):
            state = "is missing" if version is None else f"{version} does not meet {need.specifier}"
            lacks.append(Lack(f"{need.name} {state}", f'pip install -U "{need.name}{need.specifier}"', needed=True))
    return lacks


def matching(load: Callable[[str], object] = importlib.import_module) -> list[Lack]:
    """Return what is wrong if torch and torchvision cannot be imported together, as when their builds do not match."""
    for name in ("torch", "torchvision"):
        try:
            load(name)
        except Exception as error:  # any error of a foreign import is the result
            reason = (str(error) or type(error).__name__).splitlines()[0]
            fix = "pip install --force-reinstall torch torchvision (both from one place)"
            return [Lack(f"{name} cannot be imported ({reason[:40]})", fix, needed=True)]
    return []


def notebooks() -> list[Lack]:
    """Return what is missing if the package lacks its notebooks."""
    try:
        shipped()
    except DgpruneError:
        return [Lack("the notebooks are not in the package", "pip install --force-reinstall dgprune-lab", needed=True)]
    return []


def browser() -> list[Lack]:
    """Return what is missing for the browser tests; nothing else needs it."""
    lacks = []
    if chromium() is None:
        lacks.append(Lack("chromium, for the browser tests", "apt-get install -y chromium", needed=False))
    if _installed_version("playwright") is None:
        lacks.append(Lack("playwright, for the browser tests", 'pip install -e ".[test]"', needed=False))
    return lacks


def chromium() -> str | None:
    """Return the path of the system's Chromium, or None."""
    usual = Path("/usr/bin/chromium")
    return str(usual) if usual.exists() else shutil.which("chromium") or shutil.which("chromium-browser")


def data_sets() -> str:
    """Return as text where each data set that is not built in is, or how to get it."""
    from ..data import available

    return "\n".join(
        f"{name}: found, {where}" if present else f"{name}: not found. To get it:\n    {where}"
        for name, present, where in available()
    )


def _device_name(name: str) -> str:
    if not name.startswith("cuda"):
        return name
    import torch

    return f"{name}: {torch.cuda.get_device_name()}"


def _version_rows() -> list[tuple[str, str]]:
    versions = [f"{name} {_installed_version(name) or 'missing'}" for name in PACKAGES]
    own = f"dgprune-lab {_installed_version('dgprune-lab') or 'not installed'}"
    return [("package", ", ".join([own, *versions[:3]])), ("", ", ".join(versions[3:]))]


def _data_rows() -> list[tuple[str, str]]:
    """Return rows on the built-in data, then rows on the data that DGPRUNE_DATA adds."""
    from ..data import BUILTIN, available  # here, so that a broken torchvision is reported by `matching`

    folder, sets = os.environ.get("DGPRUNE_DATA"), available()
    rows = [
        ("data", f"{', '.join(BUILTIN)}: built in, no download"),
        ("", f"DGPRUNE_DATA={folder}" if folder else "DGPRUNE_DATA is not set: it names a folder of further data"),
    ]
    if present := [name for name, exists, _ in sets if exists]:
        rows.append(("", f"found: {', '.join(present)}"))
    if absent := [name for name, exists, _ in sets if not exists]:
        rows.append(("", f"not found (optional): {', '.join(absent)}"))
        rows.append(("", "how to get them: dgprune-lab doctor --data"))
    return rows


def _installed_version(name: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _shorten(text: str) -> str:
    """Return a text shortened to at most one line of the screen."""
    return text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."
