"""Runs an experiment in this process or on any executor; writes each finished run at once, and resumes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from ..core import DgpruneError, check_writable_folder, code_key, note, progress_bar, stepwise, versions
from ..core import device as resolved_device
from .executors import is_local, width
from .experiment import Experiment
from .plan import Pace, about_experiment, keys_of, name_of
from .results import Results
from .store import writing
from .worker import finished_run, process_name, work

_POLL = 0.2  # seconds after which the caller can cancel
# Sent as text: a Dask worker ends if it cannot import a submitted function; this way it returns an error.
_CALL = f"__import__('pkgutil').resolve_name('{work.__module__}:{work.__name__}')(task)"
Steps = Generator[tuple[int, int, str], None, Results]
Answer = dict[str, Any]


@stepwise(partial(progress_bar, unit="run"))
def run(
    experiment: Experiment,
    *,
    folder: str | Path,
    executor: Executor | None = None,
    device: str | None = None,
    retry: bool = False,
    progress: bool = False,
) -> Steps:
    """Run all runs of an experiment that the folder does not hold yet, and return its results.

    Each finished run is written at once, by this process alone. A run that raises an error becomes a row with its
    traceback and does not stop the others. A run interrupted by Ctrl-C, a killed process or a full disk has not failed:
    it stays open, and the next start computes it and repeats nothing else. A folder whose finished runs are all in the
    grid also accepts a larger grid, with more training seeds for example. The global random generators are seeded by
    the settings before each run and restored after it.

    Args:
        experiment: the grid of settings and the function that computes a run.
        folder: the results folder, made if it is missing; `Results(folder)` reads it, also from another process.
        executor: computes the runs: `executors.local(2)`, `executors.dask(address)`, or any other whose workers can
            import this package and the module of the experiment's function. None: this process does.
        device: name of the device of each run; None for the worker's GPU if it has one, otherwise its CPU.
        retry: whether to repeat failed runs.
        progress: whether to show a bar.

    Returns:
        The results. (The steps yield the numbers of finished and of all runs, and a text with the time left.)

    Raises:
        DgpruneError: two runs with the same settings, settings that are not plain; data or packages that are missing
            here; a folder that cannot be written to, that another process works on, or that holds something else; a
            worker without the package, or with another version; workers that ended before their runs did (the message
            says how many runs are open).
    """
    folder = check_writable_folder(folder, argument="folder").absolute()
    keys, about = keys_of(experiment), about_experiment(experiment)
    columns = [*about["axes"], *about["protocol"], *about["extra"]]
    shared = {"folder": str(folder), "device": device, "columns": columns}
    if executor is None:
        resolved_device(device)
    else:
        shared |= {"function": name_of(experiment.run), "versions": versions(), "code": code_key()}
    with writing(folder, about, keys=keys) as store:
        finished = store.states()
        states = {key: state for key, state in finished.items() if not (retry and state == "failed")}
        failed = sum(state == "failed" for state in states.values())
        pace = Pace(total=len(keys), done=len(states) - failed, failed=failed, workers=width(executor))
        shared["start"] = time.time()  # so that Dask distinguishes a run from the same one of an earlier start
        store.begin(started=shared["start"], workers=pace.workers, driver=process_name())
        if count := store.other_code():
            note(
                f"{count} of the {len(finished)} runs that {folder} holds were computed by other code of dgprune-lab. "
                "Name another folder to compute all of them by this code."
            )
        if experiment.ready is not None and len(states) < len(keys) and is_local(executor):
            experiment.ready()
        tasks = (
            {**shared, "place": place, "key": key, "settings": experiment.settings(place)}
            for place, key in enumerate(keys)
            if key not in states
        )
        own_answers = (finished_run(experiment.run, task) for task in tasks)
        with closing(own_answers if executor is None else _submit_runs(executor, tasks, pace=pace)) as answers:
            yield pace.finished, pace.total, pace.status()
            for answer in answers:
                if answer is not None:
                    store.write(answer)
                    pace.count(answer)
                elif pace.recount_workers(executor):
                    store.set_workers(pace.workers)
                yield pace.finished, pace.total, pace.status()
    if pace.lost:
        raise DgpruneError(pace.lost_message())
    return _note_failures(Results(folder), pace)


def _note_failures(results: Results, pace: Pace) -> Results:
    """Issue a note with the number of failed runs and the first error; return the results."""
    if not pace.failed:
        return results
    runs = results.runs()
    first = runs[runs["state"] == "failed"].iloc[0]
    error = str(first["error"]).strip().splitlines()[-1].rstrip(".")
    note(
        f"{pace.failed} of {pace.total} runs failed, the first with {error}. They are rows of results.runs() with "
        "their tracebacks; retry=True computes them again."
    )
    return results


def _submit_runs(executor: Executor, tasks: Iterator[Answer], *, pace: Pace) -> Generator[Answer | None, None, None]:
    """Yield the answers of an executor's workers; None while nothing is finished, so that the caller can cancel.

    Only a few more runs than workers are submitted at a time. The generator ends early if the executor breaks.

    Raises:
        DgpruneError: a worker that would compute something else.
    """
    pending: set[Future[Answer]] = set()
    try:
        while not pace.broken:
            for task in itertools.islice(tasks, max(0, pace.room - len(pending))):
                pending.add(executor.submit(eval, _CALL, {"task": task}))
            if not pending:
                return
            done, pending = wait(pending, timeout=_POLL, return_when=FIRST_COMPLETED)
            refusals = []
            for answer in (_read_answer(future, pace=pace) for future in done):
                if answer is not None and "refused" in answer:
                    refusals.append(answer["refused"])  # answers that arrived at the same time are kept
                else:
                    yield answer
            if refusals:
                raise DgpruneError(f"executor: {refusals[0]} No run was lost: start again.")
            yield None
    except RuntimeError as error:  # an executor that is broken or shut down accepts no run
        pace.lost.append(error)
    finally:
        for future in pending:
            future.cancel()


def _read_answer(future: Future[Answer], *, pace: Pace) -> Answer | None:
    """Return a worker's answer; None if it was interrupted, which does not make the run a failed one."""
    try:
        return future.result()
    except (ImportError, AttributeError) as error:
        return {
            "refused": f"a worker cannot import this package ({error}). Install the version of dgprune-lab there that "
            f"is installed here, {versions()['dgprune-lab']}."
        }
    except Exception as error:  # an error of the worker, such as its end: `work` catches the errors of a run
        pace.lost.append(error)
        return None
