"""`dgprune-lab lab`: JupyterLab on the notebooks, for this machine only, with a token, started and ended cleanly."""

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

from ..core import DgpruneError, at_home
from .notebook_versions import Version
from .notebooks import RECORD, update_folder

HOST = "127.0.0.1"
FIRST_PORT = 8888
FIRST_NOTEBOOK = "00_start.ipynb"
_GRACE = 15.0  # seconds for the server to end its kernels
_QUIET = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}


def serve(
    workdir: str | Path | None = None,
    *,
    port: int | None = None,
    browser: bool = True,
    reset: str | None = None,
    version: Version | None = None,
) -> int:
    """Copy the notebooks to a folder, run JupyterLab on them until it ends, and return its exit code.

    Args:
        workdir: the folder for the notebooks; by default `default_workdir()`.
        port: port on this machine; by default the first free one from 8888.
        browser: whether to open a browser on the first notebook.
        reset: name of a notebook to restore as shipped.
        version: "student" for notebooks without solutions, "teacher" for those with notes for the speaker.

    Raises:
        DgpruneError: the port is in use, the folder cannot be written, there is no such notebook, or a version is
            requested in the folder that the notebooks come from.
    """
    port = free_port(port)
    folder = default_workdir() if workdir is None else at_home(workdir).resolve()
    for action in update_folder(folder, reset=reset, version=version):
        if action.kind != "unchanged":
            print(action.sentence)
    print(f"Notebooks: {folder}")
    pinned = [f"{name}={os.environ[name]}" for name in ("DGPRUNE_THREADS", "OMP_NUM_THREADS") if os.environ.get(name)]
    print(f"Threads: {pinned[0]} is set." if pinned else "Threads: each notebook measures the fastest number.")
    print("Press Ctrl-C in this window to end the lab; saved notebooks stay.", flush=True)
    with tempfile.TemporaryDirectory(prefix="dgprune-lab-") as settings:
        return _run_server(command(folder, port=port, browser=browser), environment=_quiet_environment(Path(settings)))


def default_workdir() -> Path:
    """Return the folder `dgprune-lab` under the current folder, or the current folder if it holds our notebooks."""
    return Path.cwd() if Path(RECORD).exists() else Path.cwd() / "dgprune-lab"


def free_port(port: int | None = None) -> int:
    """Return the given port if it is free, or the first free one from 8888.

    Raises:
        DgpruneError: the given port is in use or not a port number, or no port is free.
    """
    if port is None:
        candidates = range(FIRST_PORT, FIRST_PORT + 100)
        port = next((candidate for candidate in candidates if _is_free(candidate)), None)
        if port is None:
            raise DgpruneError(f"no free port from {FIRST_PORT} to {FIRST_PORT + 99}. Give one with --port.")
        return port
    if not 1 <= port <= 65535:
        raise DgpruneError(f"a port is a number from 1 to 65535; got {port}. Leave --port out to take a free one.")
    if not _is_free(port):
        raise DgpruneError(
            f"port {port} cannot be used: another program uses it (an earlier lab, perhaps), or it is reserved. End "
            "that program, choose another port with --port, or leave --port out to take a free one."
        )
    return port


def command(folder: Path, *, port: int, browser: bool) -> list[str]:
    """Return a command line for JupyterLab to serve only this machine and port, with a token, and make no requests."""
    arguments = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={folder}",
        f"--ServerApp.ip={HOST}",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
    ]
    if (folder / FIRST_NOTEBOOK).exists():
        arguments.append(f"--LabApp.default_url=/lab/tree/{FIRST_NOTEBOOK}")
    if not browser:
        arguments.append("--no-browser")
    if hasattr(os, "getuid") and os.getuid() == 0:
        arguments.append("--allow-root")  # containers often have no other user
    return arguments


def _quiet_environment(settings: Path) -> dict[str, str]:
    """Return an environment in which JupyterLab does not ask about news; the user's own settings come first."""
    folder = settings / "labconfig"
    folder.mkdir()
    (folder / "default_setting_overrides.json").write_text(json.dumps(_QUIET), encoding="utf-8")
    others = os.environ.get("JUPYTER_CONFIG_PATH")
    return {**os.environ, "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, (others, str(settings))))}


def _run_server(arguments: list[str], *, environment: Mapping[str, str] | None = None) -> int:
    """Run the server in its own process group, forward signals to it, and kill it if it does not end."""
    server: subprocess.Popen[bytes] | None = None
    signals, deadline = 0, float("inf")

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal signals, deadline
        signals, deadline = signals + 1, time.monotonic() + _GRACE
        if server is not None and server.poll() is None:
            server.terminate() if signals == 1 else server.kill()

    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handlers = {name: signal.signal(getattr(signal, name), end) for name in names}
    try:
        server = subprocess.Popen(arguments, start_new_session=True, env=environment)
        if signals:  # received while the server was being started
            server.terminate()
        while True:
            try:
                code = server.wait(timeout=0.5)
                return code if code >= 0 else 128 - code  # ended by a signal: the code that a shell gives
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    server.kill()
    finally:
        for name, handler in handlers.items():
            signal.signal(getattr(signal, name), handler)


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if os.name == "posix":  # so that a lab that has just ended does not block it
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
