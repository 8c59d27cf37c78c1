"""Time of imports, each in a separate process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch

from .timing import Row, race, seconds

_STATEMENTS = {
    "bare": "pass",
    "ours": "import dgprune_lab",
    "study": "import dgprune_lab; dgprune_lab.Study",
    "torch": "import torch",
    "both": "import torch, torchvision",
}


def import_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Time `import dgprune_lab`, alone and with a name that needs torch, against torch alone and with torchvision."""
    if device.type != "cpu":
        return
    repeats = 1 if quick else 5
    times = race({name: _process(text) for name, text in _STATEMENTS.items()}, repeats=repeats, warm_up=not quick)
    note = f"the interpreter itself takes {times['bare']:.2f} s of each"
    alone, study = f"peer: import torch; {note}", "import dgprune_lab, then Study"
    yield Row(name="import dgprune_lab", ours=times["ours"], peer=times["torch"], repeats=repeats, note=alone)
    yield Row(name=study, ours=times["study"], peer=times["torch"], repeats=repeats, note=alone)
    note = f"peer: {_STATEMENTS['both']}; {note}"
    yield Row(name=f"{study} (against both)", ours=times["study"], peer=times["both"], repeats=repeats, note=note)


def _process(statement: str) -> Callable[[], float]:
    run = partial(subprocess.run, [sys.executable, "-c", statement], check=True)
    return lambda: seconds(run, torch.device("cpu"))
