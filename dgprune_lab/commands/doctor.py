"""One screen about this installation: what is here, what was decided, what is missing and the command that gets it."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ..core import DgpruneError
from ..core import machine as runtime
from . import notebooks as desk

WIDTH, HEIGHT = 100, 24
NEEDED = 1_000_000_000  # bytes the first notebook takes, with torch
SHOWN = ("torch", "torchvision", "torch-pruning", "jupyterlab", "altair", "anywidget", "ipywidgets", "numpy")


@dataclass(frozen=True)
class Lack:
    """Something missing, the command or deed that mends it, and whether the lab can run without it."""

    what: str
    mend: str
    needed: bool


@dataclass(frozen=True)
class Finding:
    """The doctor's answer: ready or not, the screen, and one line to read out."""

    ready: bool
    screen: str
    line: str


def examine() -> Finding:
    """Look at the installation; nothing is changed but torch's thread count, and nothing is downloaded."""
    lacks = [*requirements(), *matching(), *notebooks(), *browser()]
    rows = [("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    rows += _version_rows()
    where, spare = "cpu", runtime.memory()
    try:
        threads = runtime.threads()
        where = str(runtime.device())
        rows += [("device", _device_words(where)), ("threads", threads.reason)]
        said = threads.reason.partition(":")[0].partition(",")[0]
    except DgpruneError as error:
        lacks.append(Lack(str(error), "unset DGPRUNE_THREADS", needed=True))
        said = "threads unknown"
    rows.append(("memory", str(spare)))
    if spare.available < NEEDED:
        lacks.append(Lack(f"memory: {spare.available / 1e9:.1f} GB left", "close other programs", needed=True))
    rows += _data_rows()
    blocking = [lack for lack in lacks if lack.needed]
    if blocking:
        line = f"not ready: {blocking[0].what}; do this: {blocking[0].mend}"
    else:
        line = (
            f"ready: dgprune-lab {_installed('dgprune-lab') or '?'}, Python {platform.python_version()}, "
            f"torch {_installed('torch')}, {where}, {said}, {spare.available / 1e9:.1f} GB free"
        )
    rows += [("missing", f"{lack.what}: {lack.mend}" + ("" if lack.needed else " (optional)")) for lack in lacks]
    lines = [_cut(f"{name:<10}{text}") for name, text in rows]
    return Finding(ready=not blocking, screen="\n".join([*lines[: HEIGHT - 1], _cut(line)]), line=line)


def requirements(needs: Iterable[str] | None = None) -> list[Lack]:
    """What the package needs and this environment lacks or has too old.

    Args:
        needs: requirements such as "torch>=2.6"; by default those of the installed package.
    """
    if needs is None:
        try:
            listed = metadata.requires("dgprune-lab") or []
        except metadata.PackageNotFoundError:
            return [Lack("dgprune-lab is not installed", "pip install -e . (in the repository)", needed=True)]
        needs = [need for need in listed if "extra ==" not in need]
    lacks = []
    for need in needs:
        name, _, bound = need.partition(">=")
        name, bound = re.split(r"[\s;<>=!~\[]", name.strip(), maxsplit=1)[0], re.split(r"[,;\s]", bound.strip())[0]
        here = _installed(name)
        if here is None or (bound and _numbers(here) < _numbers(bound)):
            state = "is missing" if here is None else f"{here} is older than {bound}"
            mend = f'pip install -U "{name}>={bound}"' if bound else f"pip install {name}"
            lacks.append(Lack(f"{name} {state}", mend, needed=True))
    return lacks


def matching(load: Callable[[str], object] = importlib.import_module) -> list[Lack]:
    """Whether torch and torchvision can be imported together: builds of different origin cannot."""
    for name in ("torch", "torchvision"):
        try:
            load(name)
        except Exception as error:  # any failure of a foreign import is the finding
            said = (str(error) or type(error).__name__).splitlines()[0]
            mend = "pip install --force-reinstall torch torchvision (both from one place)"
            return [Lack(f"{name} cannot be imported ({said[:40]})", mend, needed=True)]
    return []


def notebooks() -> list[Lack]:
    """Whether the notebooks came with the package."""
    try:
        desk.shipped()
    except DgpruneError:
        return [Lack("the notebooks are not in the package", "pip install --force-reinstall dgprune-lab", needed=True)]
    return []


def browser() -> list[Lack]:
    """What the browser tests need; nothing else needs it."""
    lacks = []
    if chromium() is None:
        lacks.append(Lack("chromium, for the browser tests", "apt-get install -y chromium", needed=False))
    if _installed("playwright") is None:
        lacks.append(Lack("playwright, for the browser tests", 'pip install -e ".[test]"', needed=False))
    return lacks


def chromium() -> str | None:
    """The path of the system's Chromium, if there is one."""
    usual = Path("/usr/bin/chromium")
    return str(usual) if usual.exists() else shutil.which("chromium") or shutil.which("chromium-browser")


def _device_words(name: str) -> str:
    """The device that is used unless told otherwise, with the GPU's own name."""
    if not name.startswith("cuda"):
        return name
    import torch

    return f"{name}: {torch.cuda.get_device_name()}"


def _version_rows() -> list[tuple[str, str]]:
    """The versions that matter, in two rows."""
    said = [f"{name} {_installed(name) or 'missing'}" for name in SHOWN]
    return [
        ("package", f"dgprune-lab {_installed('dgprune-lab') or 'not installed'}, " + ", ".join(said[:3])),
        ("", ", ".join(said[3:])),
    ]


def data_sets() -> str:
    """Every data set beyond the built-in ones: where it is, or in full how to get it."""
    from ..data import available

    lines = []
    for name, there, where in available():
        lines.append(f"{name}: found, {where}" if there else f"{name}: not there. To get it:\n    {where}")
    return "\n".join(lines)


def _data_rows() -> list[tuple[str, str]]:
    """Where the data are: the built-in ones, then what DGPRUNE_DATA adds."""
    folder = os.environ.get("DGPRUNE_DATA")
    rows = [
        ("data", "mnist, mnist_m, uci_digits: built in, no download"),
        ("", f"DGPRUNE_DATA={folder}" if folder else "DGPRUNE_DATA is not set: it names a folder of further data"),
    ]
    from ..data import available

    sets = available()
    found, absent = [name for name, there, _ in sets if there], [name for name, there, _ in sets if not there]
    if found:
        rows.append(("", f"found: {', '.join(found)}"))
    if absent:
        rows.append(("", f"not there (optional): {', '.join(absent)}"))
        rows.append(("", "how to get them: dgprune-lab doctor --data"))
    return rows


def _installed(name: str) -> str | None:
    """The installed version of a distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparing with a lower bound: "2.6.0+cpu" is (2, 6, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", re.match(r"[\d.]*", version)[0]))  # type: ignore[index]


def _cut(text: str) -> str:
    """At most one screen line."""
    return text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."
