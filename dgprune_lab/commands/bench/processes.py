"""Time what new processes cost and gain: imports, and a sweep in two processes against the same sweep in one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial

import pandas as pd
import torch

from ...core import threads
from ...diagnostics import grid, sweep
from ...study import Study
from .cases import domains, network
from .timing import Row, race, race_calls, require_same, seconds

_WORKERS = 2
_STATEMENTS = {
    "bare": "pass",
    "ours": "import dgprune_lab",
    "study": "import dgprune_lab; dgprune_lab.Study",
    "torch": "import torch",
    "both": "import torch, torchvision",
}


def process_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Time a sweep of LeNet or ResNet-18, from scores already computed, in two new processes and in this one."""
    name, pixels, images, ratios = ("lenet", 28, 16, 2) if quick else ("resnet18", 32, 250, 20)
    model, pair, frames = network(name), domains(pixels), dict[str, pd.DataFrame]()
    scores = Study(model, sources=pair[:1], targets=pair[1:]).score("l1")

    def run(side: str, executor: Executor | None) -> None:
        study = Study(model, sources=pair[:1], targets=pair[1:])  # a new one, with an empty cache
        frames[side] = sweep(study, scorers=[scores], ratios=grid(0, 0.9, ratios), images=images, executor=executor)

    def two() -> None:
        with ProcessPoolExecutor(_WORKERS) as executor:
            run("two", executor)

    repeats = 1 if quick else 3
    sides = {"two": two, "one": lambda: run("one", None)}
    times = race_calls(sides, device, repeats=repeats)
    require_same(frames["one"].equals(frames["two"]), "rows")
    note = (
        f"peer: the same sweep in this process, {threads().count} thread(s); ours: {_WORKERS} new processes with one "
        f"thread each; {ratios} ratios, 2 domains of {images} images"
    )
    shared = {"ours": times["two"], "peer": times["one"], "repeats": repeats, "note": note}
    yield Row(name=f"sweep in two processes, {name}, {pixels} px", aim=">= 1.7", **shared)


def import_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Time `import dgprune_lab`, alone and with a name that needs torch, against torch alone and with torchvision."""
    repeats = 1 if quick else 5
    times = race({name: _timer(text) for name, text in _STATEMENTS.items()}, repeats=repeats, warm_up=not quick)
    note = f"the interpreter itself takes {times['bare']:.2f} s of each"
    alone, study = f"peer: import torch; {note}", "import dgprune_lab, then Study"
    yield Row(name="import dgprune_lab", ours=times["ours"], peer=times["torch"], repeats=repeats, note=alone)
    yield Row(name=study, ours=times["study"], peer=times["torch"], repeats=repeats, note=alone)
    note = f"peer: {_STATEMENTS['both']}; {note}"
    yield Row(name=f"{study} (against both)", ours=times["study"], peer=times["both"], repeats=repeats, note=note)


def _timer(statement: str) -> Callable[[], float]:
    run = partial(subprocess.run, [sys.executable, "-c", statement], check=True)
    return lambda: seconds(run, torch.device("cpu"))
