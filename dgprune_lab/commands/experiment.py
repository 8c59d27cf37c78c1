"""`dgprune-lab experiment NAME`: run a study, resume it where it was stopped, and judge each claim."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from textwrap import fill
from typing import Any

from ..core import DIAMOND, DgpruneError, DgpruneNote, duration
from ..core.machine import cores
from ..experiments import STUDIES, Claim, Experiment, Results, executors, export, run, shipped_card, study_named
from ..experiments.claims import WORDS
from ..experiments.store import FILE

FOLDER = Path("experiments")
STOPPED = 130  # the exit status of a command that Ctrl-C ended
_WIDTH = 100


def main(
    name: str,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    device: str | None = None,
    quick: bool = False,
    seeds: int | None = None,
    out: Path | None = None,
    retry: bool = False,
) -> int:
    """Run a study, print its claims, write its table and card beside its results, and return the exit status.

    Args:
        name: name of the study.
        scheduler: address of a Dask scheduler; None for processes of this machine.
        workers: number of processes on this machine; None for one per core, 1 for this process alone.
        device, retry: see `experiments.run`.
        quick, seeds: see `experiments.study_named`.
        out: results folder; None for experiments/NAME under the current folder.

    Raises:
        DgpruneError: an unknown study, a number of workers together with a scheduler, and what `experiments.run`
            refuses.
    """
    experiment = study_named(name, quick=quick, seeds=seeds)
    folder = FOLDER / experiment.name if out is None else out
    parts = [f"dgprune-lab experiment {name}", "--quick" if quick else "", f"--seeds {seeds}" if seeds else ""]
    command = " ".join(part for part in (*parts, f"--device {device}" if device else "") if part)
    print(f"{experiment.question}\n{len(experiment.grid)} runs; results in {folder}", flush=True)
    try:
        with _executor(scheduler, workers) as executor, warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"\d+ of \d+ runs failed", DgpruneNote)  # the report names them
            results = run(experiment, folder=folder, executor=executor, device=device, retry=retry, progress=True)
    except KeyboardInterrupt:
        print(_stop_message(folder))
        return STOPPED
    return _print_report(experiment, results, command)


def listing(workers: int | None = None) -> Iterator[str]:
    """Yield what each study asks, how many runs it has, and what it costs here, judging by its finished runs.

    Args:
        workers: number of processes for which the time is given; None for one per core.
    """
    for name in STUDIES:
        yield name
        for quick in (False, True):
            try:
                experiment = study_named(name, quick=quick)
            except DgpruneError as error:
                yield fill(f"full: {error}", _WIDTH, initial_indent="  ", subsequent_indent="    ")
                continue
            if not quick:
                yield fill(experiment.question, _WIDTH, initial_indent="  ", subsequent_indent="  ")
            cost = cost_text(experiment, FOLDER / experiment.name, workers=workers or cores())
            yield f"  {'quick' if quick else 'full':<5}  {len(experiment.grid):>5} runs, {cost}"


def cost_text(experiment: Experiment, folder: Path, *, workers: int) -> str:
    """Return how long an experiment takes here if its folder holds finished runs, else how long its shipped table took.

    Args:
        experiment: the experiment, for its name and number of runs.
        folder: its results folder.
        workers: number of processes.
    """
    if (folder / FILE).exists():
        runs: Any = Results(folder).runs()
        done = runs[runs["state"] == "done"]
        if len(done):
            total = float(done["seconds"].mean()) * len(experiment.grid) / workers
            processes = "process" if workers == 1 else "processes"
            return f"about {duration(total)} with {workers} {processes} here, as {len(done)} finished runs took"
    try:
        card = shipped_card(experiment.name)
    except DgpruneError:
        return "not yet measured here; known after its first runs"
    return f"not yet measured here; {duration(card['cpu_seconds'])} of CPU time on {next(iter(card['machines']))}"


def claim_lines(claims: Sequence[Claim]) -> Iterator[str]:
    """Yield claims, our estimates and the verdicts as lines of text; shares are in percentage points."""
    for claim in claims:
        scale, unit, digits = (100, "points", 1) if claim.unit == "share" else (1, claim.unit, 2)
        estimate, low, high = (f"{scale * number:+.{digits}f}" for number in (claim.estimate, claim.low, claim.high))
        count, smallest = len(claim.seeds.split(", ")), f"{scale * claim.minimum_detectable_effect:.{digits}f}"
        mark = f"{DIAMOND} target-aware: " if claim.target_aware else ""
        source = f"{'ours, after ' * claim.ours}{claim.paper}"
        source += f": {claim.published}" if claim.published else ""
        result = f"here {estimate} {unit} [{low}, {high}], {count} training seeds, minimum detectable effect {smallest}"
        yield fill(f"{mark}{claim.claim} ({source})", _WIDTH, subsequent_indent="  ")
        for text in (f"{result}: {WORDS[claim.verdict]}", claim.note):
            yield from [fill(text, _WIDTH, initial_indent="  ", subsequent_indent="  ")] if text else []


def _executor(scheduler: str | None, workers: int | None) -> AbstractContextManager[Executor | None]:
    """Return a context manager that yields the executor of the runs; None for this process."""
    if scheduler is None:
        count = workers or cores()
        return nullcontext() if count == 1 else executors.local(count)
    if workers is not None:
        raise DgpruneError("--workers counts processes of this machine; a --scheduler has its own. Leave out one.")
    return executors.dask(scheduler)


def _stop_message(folder: Path) -> str:
    try:
        progress = Results(folder).progress()
    except DgpruneError:
        return "\nStopped before the first run was written."
    count = f"{progress.done + progress.failed} of {progress.total} runs"
    return f"\nStopped. {count} are written in {folder}; the same command resumes there and repeats none of them."


def _print_report(experiment: Experiment, results: Results, command: str) -> int:
    """Print claims, failures and where the files are; return the exit status."""
    progress = results.progress()
    if progress.failed:
        runs: Any = results.runs()
        first = runs.loc[runs["state"] == "failed", "error"].iloc[0]
        print(f"{progress.failed} of {progress.total} runs failed; --retry does them again. The first: {first}")
    if not progress.done:
        return 1
    try:
        claims = experiment.claims(results.table()) if experiment.claims else ()
        print(
            "Estimates with their 95 % interval, over training seeds unless a note says otherwise:"
            if claims
            else "No claim to judge."
        )
        for line in claim_lines(claims):
            print(line)
    except DgpruneError as error:
        print(f"No claim can be judged from these runs: {error}")
    for path in export(results, results.folder / experiment.name, experiment=experiment, command=command):
        print(path)
    return 1 if progress.failed else 0
