"""How long an import takes, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch

from .timing import Row, race

_OURS = "import dgprune_lab"
_STUDY = "import dgprune_lab; dgprune_lab.Study"


def import_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """`import dgprune_lab`, alone and with a name that needs torch, against torch alone and with torchvision."""
    if device.type != "cpu":
        return
    repeats = 1 if quick else 5
    statements = {
        "bare": "pass",
        "ours": _OURS,
        "study": _STUDY,
        "torch": "import torch",
        "both": "import torch, torchvision",
    }
    found = race({name: _process(text) for name, text in statements.items()}, repeats=repeats, warm_up=not quick)
    start = f"the interpreter itself takes {found['bare']:.2f} s of each"
    alone = f"peer: import torch; {start}"
    yield Row("import dgprune_lab", found["ours"], found["torch"], "s", repeats, note=alone)
    yield Row("import dgprune_lab, then Study", found["study"], found["torch"], "s", repeats, note=alone)
    yield Row(
        "import dgprune_lab, then Study (against both)",
        found["study"],
        found["both"],
        "s",
        repeats,
        note=f"peer: import torch, torchvision; {start}",
    )


def _process(statement: str) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        return time.perf_counter() - start

    return run
