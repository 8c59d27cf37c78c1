"""Outcomes of many masks, computed by the workers of an executor."""

from __future__ import annotations

import pickle
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from ..core import DgpruneError, Lock, Mask, Outcomes, collect_notes, note
from ..core.machine import cores
from ..study import Study

_POLL = 0.2  # seconds after which a caller may cancel

Keep = dict[str, np.ndarray]
Numbers = dict[str, np.ndarray | None]
_lock = Lock()
_running: dict[str, Study] = {}  # the studies of running sweeps, which forked workers inherit
_received: dict[str, Study] = {}


def evaluate_in_workers(
    executor: Executor, study: Study, masks: Sequence[Mask], *, options: Mapping[str, Any]
) -> Generator[tuple[int, int], None, dict[str, list[Outcomes]]]:
    """Return domain -> the outcomes of each mask; yields (done, total) evaluations.

    Args:
        executor: its workers must be able to import this package, but may run on other machines.
        study: the network and its domains.
        masks: the filters to remove.
        options: split, batchnorm and images of `Study.outcomes`.

    Raises:
        DgpruneError: a study that cannot be pickled, or unpickled by a worker; an executor that is shut down, breaks
            or cancels a part.
    """
    token = f"{study.content} {study.layers} {study.device} {len(study.sources)}"
    workers = int(getattr(executor, "_max_workers", None) or cores())
    order = sorted(range(len(masks)), key=lambda k: -masks[k].cost.macs)
    outcomes: dict[int, list[Outcomes]] = {}
    _running[token] = study
    try:
        # Forked workers inherit the study and get many small parts, which balances their load. Other workers get the
        # study with each part, pickled here so that PyTorch moves no tensor into shared memory.
        for part_count in (8 * workers, workers):
            remaining = [k for k in order if k not in outcomes]
            pickled = pickle.dumps(study) if remaining and part_count == workers else None
            parts = [remaining[k::part_count] for k in range(min(len(remaining), part_count))]
            for part, arrays in _collect_results(executor, token, pickled, parts=parts, masks=masks, options=options):
                outcomes |= zip(part, ([_outcomes(n) for n in per_domain] for per_domain in arrays), strict=True)
                yield len(outcomes) * len(study.domains), len(masks) * len(study.domains)
    except CancelledError:
        raise DgpruneError("executor: a part of the sweep was cancelled; run the sweep again.") from None
    except (BrokenExecutor, RuntimeError, OSError) as error:
        raise DgpruneError(
            f"executor: {type(executor).__name__} cannot finish the sweep ({error}). A worker may have run out of "
            "memory: use fewer. A script that starts processes needs `if __name__ == '__main__':`. Without executor= "
            "the sweep runs in this process."
        ) from error
    finally:
        _running.pop(token, None)
    return {domain.name: [outcomes[k][index] for k in range(len(masks))] for index, domain in enumerate(study.domains)}


def _collect_results(
    executor: Executor,
    token: str,
    pickled: bytes | None,
    *,
    parts: Sequence[Sequence[int]],
    masks: Sequence[Mask],
    options: Mapping[str, Any],
) -> Iterator[tuple[Sequence[int], list[list[Numbers]]]]:
    """Yield each part of the masks (indices) with its outcomes, except parts whose worker lacks the study.

    Yields an empty part now and then while it waits, so that the caller can cancel.
    """
    pending: dict[Future[Any], Sequence[int]] = {}
    try:
        for part in parts:
            keeps = [{name: keep.numpy() for name, keep in masks[k].keep.items()} for k in part]
            pending[executor.submit(evaluate_masks, token, pickled, keeps, dict(options))] = part
        while pending:
            for future in wait(pending, timeout=_POLL, return_when=FIRST_COMPLETED).done:
                part, result = pending.pop(future), future.result()
                if result is not None:
                    yield part, result[0]
                    for text in result[1]:
                        note(text)
            yield (), []
    finally:
        for future in pending:
            future.cancel()


def evaluate_masks(
    token: str, pickled: bytes | None, keeps: Sequence[Keep], options: Mapping[str, Any]
) -> tuple[list[list[Numbers]], list[str]] | None:
    """Return the outcomes of each mask and domain as arrays, and the notes; runs in a worker, with one thread.

    A worker keeps the last study and its token for the next part. Returns None if the worker lacks the study.
    """
    torch.set_num_threads(1)  # before anything else: OpenMP may hang in a forked process that uses more
    notes: list[str] = []
    with collect_notes(notes.append):
        study = _study(token, pickled)
        if study is None:
            return None
        torch.set_num_threads(1)
        full_mask, arrays = Mask.by_hand(study.graph), []
        with study.assume_unchanged():
            for keep in keeps:
                mask = replace(full_mask, keep={name: torch.from_numpy(kept) for name, kept in keep.items()})
                outcomes = [study.outcomes(mask, domain=domain.name, **options) for domain in study.domains]
                arrays.append([_arrays(outcome) for outcome in outcomes])
    return arrays, list(dict.fromkeys(notes))


def _study(token: str, pickled: bytes | None) -> Study | None:
    with _lock:
        study = _running.get(token) or _received.get(token)
        if study is None and pickled is not None:
            try:
                study = pickle.loads(pickled)
            except Exception as error:
                raise DgpruneError(
                    f"executor: a worker cannot unpickle the study ({type(error).__name__}: {error}). Classes of the "
                    "network and its data must be in a module that workers can import, not in a notebook."
                ) from error
            _received.clear()
            _received[token] = study
        return study


def _arrays(outcomes: Outcomes) -> Numbers:
    values = {f.name: getattr(outcomes, f.name) for f in fields(outcomes)}
    return {name: None if value is None else value.numpy() for name, value in values.items()}


def _outcomes(arrays: Numbers) -> Outcomes:
    tensors: dict[str, Any] = {name: None if v is None else torch.from_numpy(v) for name, v in arrays.items()}
    return Outcomes(**tensors)
