"""Fine-tuning of a step's network on the sources, in pieces."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from torch import nn

from ...core import BatchNorm, duration
from ...core import seed as seeded
from ...data import AUGMENTATIONS
from ...measurement import recalibrate
from ...study import Study
from ...training import FINETUNING, BatchEvent, TrainingOptions, train

Progress = dict[str, Any]
_FEW = 4  # batches before the time left is announced


def defaults() -> dict[str, Any]:
    """Return what the page offers: the number of epochs and the learning rate at the start, and all augmentations."""
    return {"epochs": 1, "lr": FINETUNING.lr, "augmentations": ["none", *(n for n in AUGMENTATIONS if n != "none")]}


def tuning_steps(
    network: nn.Module, study: Study, *, epochs: int, options: TrainingOptions, batchnorm: BatchNorm
) -> Generator[Progress, None, nn.Module]:
    """Fine-tune a network on the `train` splits of the sources and return the result; the argument stays unchanged.

    Weights and random numbers are those of `dg.prune_and_tune(study of this network, None, ratio=0.0, rounds=1,
    epochs=epochs, options=options, batchnorm=batchnorm)`. Yields {words, done, total} after each batch.
    """
    again = batchnorm == "recalibrate" and study.has_batchnorm
    settled = replace(options, epochs=epochs, seed=seeded("tuning", 0, options.seed, 1))
    network = recalibrate(network, study.sources) if again else network
    events = train(network.to(study.device), sources=study.sources, options=settled, stage="finetuning")
    spent = 0.0
    while True:
        start = time.perf_counter()
        try:
            event = next(events)
        except StopIteration as end:
            return recalibrate(end.value, study.sources) if again else end.value
        spent += time.perf_counter() - start
        if isinstance(event, BatchEvent):
            done, total = (event.epoch - 1) * event.batches + event.batch, event.epochs * event.batches
            words = f"Fine-tuning: epoch {event.epoch} of {event.epochs}, batch {event.batch} of {event.batches}"
            if done >= _FEW:
                words += f", about {duration(spent / done * (total - done))} of work left"
            yield {"words": words, "done": done, "total": total}
