"""A notebook in a real browser, for tests: its slider, its charts and what its cells wrote to stderr."""

from __future__ import annotations

import contextlib
import json
import queue
import time
from typing import Any

import nbformat

from dgprune_lab.commands.bench.browser_lab import LabPage
from dgprune_lab.core import DgpruneError

HANDLE = 16.0  # width of the slider's handle in pixels
CHART = "[...document.querySelectorAll('.dgx-explorer')][{index}].querySelector('.dgx-{chart} .dgx-chart').vegaView"


class NotebookPage(LabPage):
    """One notebook in one tab, with the controls and charts of its explorers."""

    def begin(self, code: str) -> str:
        """Send code as `start` does, and wait until it runs."""
        message, end = self.start(code), time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(queue.Empty):
                reply = self._kernel_client().get_iopub_msg(timeout=1)
                if reply["parent_header"].get("msg_id") == message and reply["msg_type"] == "execute_input":
                    return message
        raise DgpruneError("the kernel did not begin within a minute.")

    def errors(self) -> list[str]:
        """What cells wrote to stderr or raised."""
        where = "[data-mime-type='application/vnd.jupyter.stderr'], [data-mime-type='application/vnd.jupyter.error']"
        return [text.strip() for text in self.page.locator(where).all_inner_texts()]

    def slider(self, index: int = 0) -> Any:
        """The explorer's slider."""
        return self.page.locator(".dgx-explorer input[type=range][aria-label^='Remove']").nth(index)

    def drag(self, fraction: float, *, index: int = 0) -> None:
        """Take the slider's handle with the mouse and put it at a fraction of its range."""
        slider = self.slider(index)
        box = self._at_rest(slider)
        first, last = (float(slider.get_attribute(name) or 0) for name in ("min", "max"))
        start = (float(slider.input_value()) - first) / (last - first)
        x = [box["x"] + HANDLE / 2 + (box["width"] - HANDLE) * share for share in (start, fraction)]
        y = box["y"] + box["height"] / 2
        self.page.mouse.move(x[0], y)
        self.page.mouse.down()
        self.page.mouse.move(x[1], y, steps=8)
        self.page.mouse.up()

    def _at_rest(self, element: Any) -> dict[str, float]:
        """Where an element is, once it stays there: a cell that was just run scrolls the notebook to the next."""
        element.scroll_into_view_if_needed()
        before, end = None, time.monotonic() + 10
        while (box := element.bounding_box()) != before or box is None:
            if time.monotonic() > end:
                raise DgpruneError("the slider does not come to rest on the page.")
            before = box
            self.page.wait_for_timeout(100)
        return box

    def data(self, chart: str, name: str, *, index: int = 0) -> list[dict[str, Any]]:
        """The rows behind a chart ("a", "c" or "d") of an explorer, as its Vega view holds them."""
        return self.page.evaluate(
            f"() => {CHART.format(index=index, chart=chart)}.data('{name}').map(row => ({{...row}}))"
        )

    def text(self, part: str, *, index: int = 0) -> str:
        """Words of an explorer: "sentence", "badge", "progress", ..."""
        return self.page.locator(".dgx-explorer").nth(index).locator(f".dgx-{part}").first.inner_text()

    def saved(self, notebook: str) -> str:
        """When a notebook was last written."""
        return json.loads(self._send("GET", f"/api/contents/{notebook}?content=0"))["last_modified"]

    def in_notebook_7(self, name: str, *cells: str) -> NotebookPage:
        """A tab of Notebook 7 on the same server, with a new notebook of these cells in the same kernel."""
        content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        content.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        self._send("PUT", f"/api/contents/{name}", body={"type": "notebook", "content": content})
        kernel = {"id": json.loads(self._send("GET", "/api/kernels"))[0]["id"]}
        session = {"path": name, "name": name, "type": "notebook", "kernel": kernel}
        self._send("POST", "/api/sessions", body=session)
        tab = self.page.context.browser.new_page(viewport={"width": 1280, "height": 1400})
        opened = NotebookPage(tab, base=self._base, token=self._token, runtime=self._runtime)
        tab.goto(f"{self._base}/notebooks/{name}?token={self._token}")
        tab.locator(".jp-CodeCell").nth(len(cells) - 1).wait_for()
        tab.locator(".jp-NotebookKernelStatus, .jp-KernelStatus, [data-status='idle']").first.wait_for(state="attached")
        return opened

    def delete_kernel(self) -> None:
        """Take the kernel away, as a server that shuts down does."""
        for kernel in json.loads(self._send("GET", "/api/kernels")):
            self._send("DELETE", f"/api/kernels/{kernel['id']}")
