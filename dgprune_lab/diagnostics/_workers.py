"""Outcomes of many masks, shared out among the workers of an executor."""

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
_own: dict[str, Study] = {}  # the studies that this process shares out; a worker that is forked then has them too
_received: dict[str, Study] = {}


def shared_out(
    executor: Executor, study: Study, masks: Sequence[Mask], *, options: Mapping[str, Any]
) -> Generator[tuple[int, int], None, dict[str, list[Outcomes]]]:
    """Return domain -> the outcomes of each mask; yields (done, total) evaluations.

    Args:
        executor: its workers, which need not be processes of this machine, can import this package.
        study: the network and its domains.
        masks: the filters to remove.
        options: split, batchnorm and images of `Study.outcomes`.

    Raises:
        DgpruneError: a study that cannot be pickled or made again by a worker; an executor that is shut down, breaks
            or cancels a part.
    """
    token = f"{study.content} {study.layers} {study.device} {len(study.sources)}"
    workers = int(getattr(executor, "_max_workers", None) or cores())
    order = sorted(range(len(masks)), key=lambda k: -masks[k].cost.macs)
    found: dict[int, list[Outcomes]] = {}
    _own[token] = study
    try:
        # A forked worker has the study from the start, and gets many parts, so that none waits long for the slowest.
        # Another one gets it with its work, pickled here, so that PyTorch moves no tensor into shared memory.
        for pieces in (8 * workers, workers):
            left = [k for k in order if k not in found]
            sent = pickle.dumps(study) if left and pieces == workers else None
            parts = [left[k::pieces] for k in range(min(len(left), pieces))]
            for part, numbers in _answers(executor, token, sent, parts=parts, masks=masks, options=options):
                found |= zip(part, ([_outcomes(n) for n in listed] for listed in numbers), strict=True)
                yield len(found) * len(study.domains), len(masks) * len(study.domains)
    except CancelledError:
        raise DgpruneError("executor: it has cancelled a part of the sweep; run the sweep again.") from None
    except (BrokenExecutor, RuntimeError, OSError) as error:
        raise DgpruneError(
            f"executor: {type(executor).__name__} cannot finish the sweep ({error}). A worker may have run out of "
            "memory: use fewer. A script that starts processes needs `if __name__ == '__main__':`. Without executor= "
            "the sweep runs in this process."
        ) from error
    finally:
        _own.pop(token, None)
    return {domain.name: [found[k][place] for k in range(len(masks))] for place, domain in enumerate(study.domains)}


def _answers(
    executor: Executor,
    token: str,
    sent: bytes | None,
    *,
    parts: Sequence[Sequence[int]],
    masks: Sequence[Mask],
    options: Mapping[str, Any],
) -> Iterator[tuple[Sequence[int], list[list[Numbers]]]]:
    """Yield each part with what its worker found; nothing for a part whose worker did not get the study.

    While it waits, it yields an empty part, so that the caller may cancel.
    """
    pending: dict[Future[Any], Sequence[int]] = {}
    try:
        for part in parts:
            keeps = [{name: keep.numpy() for name, keep in masks[k].keep.items()} for k in part]
            pending[executor.submit(evaluated, token, sent, keeps, dict(options))] = part
        while pending:
            for future in wait(pending, timeout=_POLL, return_when=FIRST_COMPLETED).done:
                part, answer = pending.pop(future), future.result()
                if answer is not None:
                    yield part, answer[0]
                    for text in answer[1]:
                        note(text)
            yield (), []
    finally:
        for future in pending:
            future.cancel()


def evaluated(
    token: str, sent: bytes | None, keeps: Sequence[Keep], options: Mapping[str, Any]
) -> tuple[list[list[Numbers]], list[str]] | None:
    """Return for each mask and domain the outcomes as arrays, and the notes; runs in a worker, with one thread.

    A worker keeps the last study, named by a token, for the next part. None: it has not got the study.
    """
    torch.set_num_threads(1)  # before anything else: OpenMP may hang in a forked process that uses more
    notes: list[str] = []
    with collect_notes(notes.append):
        study = _study(token, sent)
        if study is None:
            return None
        torch.set_num_threads(1)
        everything, numbers = Mask.by_hand(study.graph), []
        with study.assume_unchanged():
            for keep in keeps:
                mask = replace(everything, keep={name: torch.from_numpy(kept) for name, kept in keep.items()})
                outcomes = [study.outcomes(mask, domain=domain.name, **options) for domain in study.domains]
                numbers.append([_arrays(outcome) for outcome in outcomes])
    return numbers, list(dict.fromkeys(notes))


def _study(token: str, sent: bytes | None) -> Study | None:
    with _lock:
        study = _own.get(token) or _received.get(token)
        if study is None and sent is not None:
            try:
                study = pickle.loads(sent)
            except Exception as error:
                raise DgpruneError(
                    f"executor: a worker cannot make the study again ({type(error).__name__}: {error}). Classes of the "
                    "network and its data must stand in a module that workers can import, not in a notebook."
                ) from error
            _received.clear()
            _received[token] = study
        return study


def _arrays(outcomes: Outcomes) -> Numbers:
    values = {f.name: getattr(outcomes, f.name) for f in fields(outcomes)}
    return {name: None if value is None else value.numpy() for name, value in values.items()}


def _outcomes(numbers: Numbers) -> Outcomes:
    tensors: dict[str, Any] = {name: None if v is None else torch.from_numpy(v) for name, v in numbers.items()}
    return Outcomes(**tensors)
