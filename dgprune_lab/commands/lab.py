"""JupyterLab on the laid-out notebooks: on this machine only, with its token, started and ended cleanly."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from ..core import DgpruneError
from . import notebooks as desk

HOST = "127.0.0.1"
FIRST_PORT = 8888
FIRST_NOTEBOOK = "00_start.ipynb"
_GRACE = 15.0  # seconds for the server to end its kernels
_QUIET = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}


def serve(
    workdir: str | Path | None = None, *, port: int | None = None, browser: bool = True, reset: str | None = None
) -> int:
    """Lay the notebooks out, run JupyterLab on them until it ends, and return its exit code.

    Args:
        workdir: the working folder; by default `default_workdir()`.
        port: on this machine; by default the first free one from 8888.
        browser: open a browser on the first notebook.
        reset: a notebook to put back as shipped.

    Raises:
        DgpruneError: the port is in use, the folder cannot be written, or there is no such notebook.
    """
    chosen = free_port(port)
    place = default_workdir() if workdir is None else Path(workdir).expanduser().resolve()
    for action in desk.lay_out(place, reset=reset):
        if action.did != "unchanged":
            print(action.sentence)
    print(f"Notebooks: {place}")
    print(_thread_words(os.environ))
    print("Ctrl-C in this window ends the lab; what you saved stays.", flush=True)
    with tempfile.TemporaryDirectory(prefix="dgprune-lab-") as settings:
        return _run(command(place, port=chosen, browser=browser), environment=_quiet(Path(settings)))


def default_workdir() -> Path:
    """The folder `dgprune-lab` under the current one, or the current one where notebooks were laid out in it before."""
    here = Path.cwd()
    return here if (here / desk.RECORD).exists() else here / "dgprune-lab"


def free_port(port: int | None = None) -> int:
    """The port asked for if nobody listens on it, or the first free one from 8888.

    Raises:
        DgpruneError: it is in use, or no port at all.
    """
    if port is None:
        for candidate in range(FIRST_PORT, FIRST_PORT + 100):
            if _is_free(candidate):
                return candidate
        raise DgpruneError(f"no free port from {FIRST_PORT} to {FIRST_PORT + 99}. Name one with --port.")
    if not 1 <= port <= 65535:
        raise DgpruneError(f"a port is a number from 1 to 65535, got {port}. Leave --port out to take a free one.")
    if not _is_free(port):
        raise DgpruneError(
            f"port {port} cannot be used: another program has it (an earlier lab, perhaps), or it is reserved. "
            f"End that program, choose another with --port, or leave --port out to take a free one."
        )
    return port


def command(place: Path, *, port: int, browser: bool) -> list[str]:
    """JupyterLab's command line: this machine and port only, its token left on, nothing asked of the network."""
    words = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={place}",
        f"--ServerApp.ip={HOST}",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
    ]
    if (place / FIRST_NOTEBOOK).exists():
        words.append(f"--LabApp.default_url=/lab/tree/{FIRST_NOTEBOOK}")
    if not browser:
        words.append("--no-browser")
    if hasattr(os, "getuid") and os.getuid() == 0:
        words.append("--allow-root")  # containers often have no other user
    return words


def _quiet(settings: Path) -> dict[str, str]:
    """The environment in which JupyterLab does not ask about news; a setting the user made still wins."""
    folder = settings / "labconfig"
    folder.mkdir()
    (folder / "default_setting_overrides.json").write_text(json.dumps(_QUIET), encoding="utf-8")
    others = os.environ.get("JUPYTER_CONFIG_PATH")
    return {**os.environ, "JUPYTER_CONFIG_PATH": os.pathsep.join([*([others] if others else []), str(settings)])}


def _run(words: list[str], *, environment: Mapping[str, str] | None = None) -> int:
    """Run the server in a process group of its own, hand a wish to end on to it, and kill it if it does not listen."""
    server: subprocess.Popen[bytes] | None = None
    wishes, patience = 0, float("inf")

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal wishes, patience
        wishes, patience = wishes + 1, time.monotonic() + _GRACE
        if server is not None and server.poll() is None:
            server.terminate() if wishes == 1 else server.kill()

    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), end) for name in names}
    try:
        server = subprocess.Popen(words, start_new_session=True, env=environment)
        if wishes:  # it came while the server was being started
            server.terminate()
        while True:
            try:
                code = server.wait(timeout=0.5)
                return code if code >= 0 else 128 - code  # ended by a signal: as a shell counts it
            except subprocess.TimeoutExpired:
                if time.monotonic() > patience:
                    server.kill()
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def _is_free(port: int) -> bool:
    """Whether this port of this machine can be listened on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a lab that ended a moment ago is no obstacle
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _thread_words(environment: Mapping[str, str]) -> str:
    """What will decide the number of threads in each notebook."""
    for name in ("DGPRUNE_THREADS", "OMP_NUM_THREADS"):
        if environment.get(name):
            return f"Threads: {name}={environment[name]} is set and decides."
    return "Threads: each notebook measures what is fastest here when it starts, and says so."
