"""JupyterLab in a real browser: start it, open a notebook, run the notebook, and run code in its kernel."""

from __future__ import annotations

import json
import os
import queue
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ...core import DgpruneError
from ..doctor import chromium
from ..lab import HOST

_FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]
_PATIENCE = 180.0  # seconds for a server or a kernel to start; a busy machine takes more than one minute
_LOCAL = re.compile(r"^(https?|wss?)://(127\.0\.0\.1|localhost)[:/]|^(data|blob|about):")


class LabPage:
    """One notebook in one tab.

    Attributes:
        page: Playwright's page.
        outside: addresses of requests to other hosts, which the browser cannot reach.
    """

    def __init__(self, page: Any, *, base: str, token: str, runtime: Path) -> None:
        self.page, self.outside = page, []
        self._base, self._token, self._runtime = base, token, runtime
        self._client: Any = None
        page.set_default_timeout(120_000)
        page.on("request", lambda request: None if _LOCAL.match(request.url) else self.outside.append(request.url))

    def open(self, notebook: str) -> None:
        """Open a notebook and wait until its kernel is idle."""
        self.page.goto(f"{self._base}/lab/tree/{notebook}?token={self._token}")
        self.page.wait_for_selector(".jp-Notebook")
        idle = "() => document.querySelector('.jp-Notebook-ExecutionIndicator')?.getAttribute('data-status') === 'idle'"
        self.page.wait_for_function(idle)
        end = time.monotonic() + _PATIENCE
        while not self._kernel_is_connected():
            if time.monotonic() > end:
                raise DgpruneError("the notebook's kernel did not start in time.")
            self.page.wait_for_timeout(200)
        self.page.wait_for_timeout(1000)  # the page shows its kernel a moment later
        if self.page.locator(".jp-Dialog").count():
            raise DgpruneError(f"JupyterLab opened a dialog: {self.page.locator('.jp-Dialog').first.inner_text()}")

    def _kernel_is_connected(self) -> bool:
        try:
            return any(kernel["connections"] for kernel in json.loads(self._send("GET", "/api/kernels")))
        except urllib.error.URLError:  # a server that is still busy starting
            return False

    def run_all(self, *, timeout: float = 180) -> None:
        """Run every cell and wait until the last one has run."""
        self.page.locator(".lm-MenuBar-item", has_text=re.compile("^Run$")).click()
        self.page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()
        prompts = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.textContent)"
        self.page.wait_for_function(f"() => {prompts}.every(text => /[0-9]/.test(text))", timeout=timeout * 1000)

    def settled(self, *, timeout: float = 120, index: int = 0) -> None:
        """Wait until the badge shows that all images were evaluated."""
        badge = f"[...document.querySelectorAll('.dgx-explorer')][{index}].querySelector('.dgx-badge')"
        self.page.wait_for_function(f"() => {badge}.dataset.state === 'exact'", timeout=timeout * 1000)

    def kernel(self, code: str, *, timeout: float = 60) -> str:
        """Run code in the notebook's kernel as a cell would, and return its output."""
        return self.collect(self.start(code), timeout=timeout)

    def start(self, code: str) -> str:
        """Send code to the notebook's kernel without waiting; return the message's id for `collect`."""
        return self._kernel_client().execute(code)

    def collect(self, message: str, *, timeout: float = 60) -> str:
        """Return the output of the code sent by `start`.

        Raises:
            DgpruneError: the code raised an exception, or did not end in time.
        """
        output, end = [], time.monotonic() + timeout
        while time.monotonic() < end:
            try:
                reply = self._kernel_client().get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            if reply["parent_header"].get("msg_id") != message:
                continue
            if reply["msg_type"] == "stream":
                output.append(reply["content"]["text"])
            elif reply["msg_type"] == "error":
                raise DgpruneError("\n".join(reply["content"]["traceback"]))
            elif reply["msg_type"] == "status" and reply["content"]["execution_state"] == "idle":
                return "".join(output)
        raise DgpruneError(f"the kernel did not answer within {timeout} s.")

    def _kernel_client(self) -> Any:
        if self._client is None:
            from jupyter_client.blocking.client import BlockingKernelClient

            newest = max(self._runtime.glob("kernel-*.json"), key=lambda path: path.stat().st_mtime)
            self._client = BlockingKernelClient(connection_file=str(newest))
            self._client.load_connection_file()
            self._client.start_channels()
            self._client.wait_for_ready(timeout=60)
        return self._client

    def _send(self, method: str, path: str, *, body: Any = None) -> str:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._base + path, data=data, method=method, headers={"Authorization": f"token {self._token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.read().decode()

    def end(self) -> None:
        """Disconnect from the kernel."""
        if self._client is not None:
            self._client.stop_channels()


Page = TypeVar("Page", bound=LabPage)


@contextmanager
def lab_page(folder: Path, *, kind: type[Page] = LabPage) -> Iterator[Page]:
    """Within the context, run `dgprune-lab lab` in a folder, with an empty headless Chromium tab ready for it.

    Raises:
        DgpruneError: no Chromium, or a lab that does not start.
    """
    from playwright.sync_api import sync_playwright

    browser_path = chromium()
    if browser_path is None:
        raise DgpruneError("Chromium is not installed: apt-get install -y chromium")
    runtime = folder / "runtime"
    with socket.create_server((HOST, 0)) as probe:  # any free port: several pages may start at once
        port = probe.getsockname()[1]
    environment = {**os.environ, "JUPYTER_RUNTIME_DIR": str(runtime), "JUPYTER_CONFIG_DIR": str(folder / "config")}
    options = ["--no-browser", f"--port={port}", f"--workdir={folder / 'notebooks'}"]
    command = [sys.executable, "-m", "dgprune_lab.commands.cli", "lab", *options]
    log = (folder / "lab.log").open("w")
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder)
    try:
        token = _read_token(folder / "lab.log", server)
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=str(browser_path), args=_FLAGS)
            tab = kind(
                browser.new_page(viewport={"width": 1400, "height": 1000}),
                base=f"http://127.0.0.1:{port}",
                token=token,
                runtime=runtime,
            )
            try:
                yield tab
            finally:
                tab.end()
                browser.close()
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def _read_token(log: Path, server: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and server.poll() is None:
        match = re.search(r"token=([0-9a-f]{16,})", log.read_text(errors="replace"))
        if match:
            return match[1]
        time.sleep(0.2)
    raise DgpruneError(f"the lab did not start:\n{log.read_text(errors='replace')[-2000:]}")
