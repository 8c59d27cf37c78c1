"""Outcomes of many masks, shared out among the workers of an executor."""

from __future__ import annotations

import pickle
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from ..core import DgpruneError, Lock, Mask, Outcomes, collect_notes, note
from ..core.machine import cores
from ..study import Study

_PARTS = 2  # pieces of work per worker, so that none waits long for the slowest
_POLL = 0.2  # seconds after which a caller may cancel

Keep = dict[str, np.ndarray]
Numbers = dict[str, np.ndarray | None]
_lock = Lock()
_kept: dict[str, Study] = {}


def shared_out(
    executor: Executor, study: Study, masks: Sequence[Mask], *, options: Mapping[str, Any]
) -> Generator[tuple[int, int], None, dict[str, list[Outcomes]]]:
    """Return domain -> the outcomes of each mask; yields (done, total) evaluations.

    The study travels as a pickle from this process, so that PyTorch moves none of its tensors into shared memory.

    Args:
        executor: its workers, which need not be processes of this machine, can import this package.
        study: the network and its domains.
        masks: the filters to remove.
        options: split, batchnorm and images of `Study.outcomes`.

    Raises:
        DgpruneError: a study that cannot be pickled or made again by a worker; an executor that is shut down, breaks
            or cancels a part.
    """
    sent, token = pickle.dumps(study), f"{study.content} {study.layers}"
    order = sorted(range(len(masks)), key=lambda k: -masks[k].cost.macs)
    parts = max(1, min(len(masks), _PARTS * int(getattr(executor, "_max_workers", None) or cores())))
    pending: dict[Future[Any], list[int]] = {}
    found: dict[int, list[Outcomes]] = {}
    try:
        for part in (order[k::parts] for k in range(parts)):
            keeps = [{name: keep.numpy() for name, keep in masks[k].keep.items()} for k in part]
            pending[executor.submit(evaluated, token, sent, keeps, dict(options))] = part
        while pending:
            for future in wait(pending, timeout=_POLL, return_when=FIRST_COMPLETED).done:
                part, (numbers, notes) = pending[future], future.result()
                del pending[future]
                found |= zip(part, ([_outcomes(n) for n in listed] for listed in numbers), strict=True)
                for text in notes:
                    note(text)
            yield len(found) * len(study.domains), len(masks) * len(study.domains)
    except CancelledError:
        raise DgpruneError("executor: it has cancelled a part of the sweep; run the sweep again.") from None
    except (BrokenExecutor, RuntimeError) as error:
        raise DgpruneError(
            f"executor: {type(executor).__name__} cannot finish the sweep ({error}). A worker may have run out of "
            "memory: use fewer. A script that starts processes needs `if __name__ == '__main__':`. Without executor= "
            "the sweep runs in this process."
        ) from error
    finally:
        for future in pending:
            future.cancel()
    return {domain.name: [found[k][place] for k in range(len(masks))] for place, domain in enumerate(study.domains)}


def evaluated(
    token: str, sent: bytes, keeps: Sequence[Keep], options: Mapping[str, Any]
) -> tuple[list[list[Numbers]], list[str]]:
    """Return for each mask and domain the outcomes as arrays, and the notes; runs in a worker, with one thread.

    A worker keeps the last study, named by a token, for the next part.
    """
    torch.set_num_threads(1)  # before anything else: OpenMP may hang in a forked process that uses more
    notes: list[str] = []
    with collect_notes(notes.append):
        study = _received(token, sent)
        torch.set_num_threads(1)
        everything, numbers = Mask.by_hand(study.graph), []
        with study.assume_unchanged():
            for keep in keeps:
                mask = replace(everything, keep={name: torch.from_numpy(kept) for name, kept in keep.items()})
                outcomes = [study.outcomes(mask, domain=domain.name, **options) for domain in study.domains]
                numbers.append([_arrays(outcome) for outcome in outcomes])
    return numbers, list(dict.fromkeys(notes))


def _received(token: str, sent: bytes) -> Study:
    with _lock:
        if token not in _kept:
            _kept.clear()
            try:
                _kept[token] = pickle.loads(sent)
            except Exception as error:
                raise DgpruneError(
                    f"executor: a worker cannot make the study again ({type(error).__name__}: {error}). Classes of the "
                    "network and its data must stand in a module that workers can import, not in a notebook."
                ) from error
        return _kept[token]


def _arrays(outcomes: Outcomes) -> Numbers:
    values = {f.name: getattr(outcomes, f.name) for f in fields(outcomes)}
    return {name: None if value is None else value.numpy() for name, value in values.items()}


def _outcomes(numbers: Numbers) -> Outcomes:
    tensors: dict[str, Any] = {name: None if v is None else torch.from_numpy(v) for name, v in numbers.items()}
    return Outcomes(**tensors)
