"""The steps of an explorer: a tree of networks, each pruned or fine-tuned from its parent."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import weakref
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ...charts.theme import domain_styles_of, records
from ...core import DgpruneError, Lock, Mask, exposure_of, note
from ...pruning import deep_copy
from ...scorers import SCORERS
from ...study import scoring
from ...training import with_network
from ..panels.protocol import Row
from .choices import Choices
from .frames import AGREEMENT, CALIBRATION, Origin, full_table
from .measurements import Measurements
from .saved_session import SavedStep, StepKind

KEPT = 500_000_000
"""Bytes of weights that steps keep in memory, besides the full network and the present step."""


@dataclass(eq=False, kw_only=True)
class Step(SavedStep):
    """One network of the tree.

    Attributes:
        network: the network; its weights may be in `file` instead of memory, so use `Steps.network`.
        file: where its weights are, once they were written.
        away: whether the weights are in `file` only.
        used: when the step was last used, as a count.
    """

    network: nn.Module = field(repr=False)
    _rows: tuple[pd.DataFrame, list[Row]] | None = field(default=None, repr=False)
    file: Path | None = None
    away: bool = False
    used: int = 0

    @property
    def accuracy(self) -> list[Row]:
        """What `accuracy_rows` returns of the table; [] if there is none yet."""
        if self.table is None:
            return []
        if self._rows is None or self._rows[0] is not self.table:
            self._rows = self.table, accuracy_rows(self.table)
        return self._rows[1]


class Steps:
    """All steps of an explorer, and the measurements of the present one.

    Weights beyond `KEPT` bytes are written into a temporary folder, those used longest ago first, and read again when
    they are needed; `close` removes the folder. Only one step besides the full network has a study, with its cache.

    Attributes:
        full: the measurements of the full network.
    """

    def __init__(self, full: Measurements) -> None:
        study, self.full = full.study, full
        mask = replace(Mask.by_hand(study.graph, reads={}), scorer="")
        first = Step(number=0, parent=None, kind="full", label="full network", mask=mask, network=study.model)
        self._listed = [first]
        self._later: tuple[int, Measurements] | None = None
        self._folder: Path | None = None
        self._content: str | None = None
        self._clock, self._lock = itertools.count(1), Lock()

    def __iter__(self) -> Iterator[Step]:
        return iter(list(self._listed))

    def __getitem__(self, number: int) -> Step:
        return self._listed[number]

    def __len__(self) -> int:
        return len(self._listed)

    def add(
        self, network: nn.Module, mask: Mask, *, parent: int, kind: StepKind, label: str, made: Mapping[str, Any]
    ) -> Step:
        """Add a step; `mask` holds which filters of the full network are left."""
        with self._lock:
            about: Any = {"parent": parent, "kind": kind, "label": label, "made": made}
            step = Step(number=len(self), mask=mask, network=network, used=next(self._clock), **about)
            self._listed.append(step)
            self._make_room()
            return step

    def network(self, number: int) -> nn.Module:
        """Return a copy of a step's network."""
        with self._lock:
            if number == 0:
                return self.full.study.network(None)
            network = deep_copy(self._loaded(number).network)
            self._make_room()
            return network

    def ready(self, number: int) -> Measurements | None:
        """Return the measurements of a step if its network was examined already."""
        later = self._later
        if number == 0:
            return self.full
        return later[1] if later is not None and later[0] == number else None

    def at(self, number: int) -> Measurements:
        """Return the measurements of a step; drop those of any other later step, with all that its study caches.

        The first call for a step examines its network, which takes as long as `Study`.
        """
        with self._lock:
            known = self.ready(number)
            if known is None:
                step, self._later = self._loaded(number), None
                study = with_network(self.full.study, step.network)
                known = self.full.at(study, origin=Origin(self.full.study, step.mask))
                self._later = number, known
                self._make_room()
            return known

    def label(self, before: int, after: int) -> str:
        """Return what leads from one step to another, in words."""
        return self[after].label if self[after].parent == before else f"go to step {after}, {self[after].label}"

    def describe(self, measured: Measurements, view: Choices) -> Generator[object, None, bool]:
        """Note what was measured of the full network, and of the step of a view that removes nothing.

        The numbers are those of the networks as they were made: if the view treats BatchNorm differently, the step is
        measured once more. Returns whether the full network was changed in place; what was noted before is then
        dropped. Yields between batches.
        """
        content, number, batchnorm = self.full.study.content, view.get("step", 0), view["batchnorm"]
        changed = self._content not in (None, content)
        if changed:
            for step in self:
                step.table = None
        first, step = self[0], self[number]
        if first.table is None:
            first.table = yield from full_table(self.full.study, first.mask, images=measured.load.images)
        self._content = content
        frame = measured.exact(view)
        if frame is None or step.table is not None or frame.mask is None or frame.mask.key != step.mask.key:
            return changed
        calibrated = step.kind == "prune" or measured.load.calibration == CALIBRATION
        same = batchnorm == step.made.get("batchnorm") and calibrated
        if not same and batchnorm == "recalibrate" and measured.study.has_batchnorm:
            view = {**view, "batchnorm": "as_is"}
            if measured.exact(view) is None:
                yield from measured.measure(view)
            frame = measured.exact(view)
        step.table = None if frame is None else frame.table
        return changed

    def apart(self, number: int) -> Measurements:
        """Return the measurements of a step without making it the present one: with a study of their own if need be."""
        if (known := self.ready(number)) is not None:
            return known
        study, mask = self.full.study, self[number].mask
        return self.full.at(with_network(study, self.network(number)), origin=Origin(study, mask))

    def silent(self, number: int) -> Generator[object, None, dict[str, list[int]]]:
        """Return layer -> the filters of a step whose activation is 0 on every source image of the split `score`.

        Filters are numbered as in the full network. Yields between batches. A study without images to score has none.
        """
        study, taken, scorer = self.at(number).study, self[number].mask, SCORERS["activation_l1"]
        if study.unavailable(scorer) is not None:
            return {}
        yield from scoring(study, scorer)  # reads the statistics in pieces; below they come from the cache
        passes = [study.statistics(source.name, needs=("moments",), split="score").moments for source in study.sources]
        filters = {}
        for name in study.graph.names:
            silent, left = torch.stack([moments[name].mean_abs == 0 for moments in passes]).all(0), taken.kept(name)
            filters[name] = [left[place] for place in silent.nonzero().flatten().tolist()]
        return {name: indices for name, indices in filters.items() if indices}

    def rows(self) -> list[Row]:
        """Return the steps as plain values, with their accuracy, for the page."""
        return [
            {
                **{name: getattr(step, name) for name in ("number", "parent", "kind", "label")},
                "removed": 1 - step.mask.cost.filters / step.mask.graph.full.filters,
                "accuracy": step.accuracy,
                "stored": "disk" if step.away else "memory",
            }
            for step in self
        ]

    def close(self) -> None:
        """Remove the temporary folder."""
        with self._lock:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    def _loaded(self, number: int) -> Step:
        """A step with its weights in memory."""
        step = self._listed[number]
        step.used = next(self._clock)
        if step.away and step.file is not None:
            try:
                tensors = load_file(step.file)
            except (OSError, SafetensorError) as error:
                raise DgpruneError(
                    f"the weights of step {number} ({step.label}) cannot be read from {step.file}: {error}. Go to its "
                    f"parent, step {step.parent}, and make it again."
                ) from error
            for name, tensor in _tensors(step.network).items():
                tensor.data = tensors[name].to(tensor.device)
            step.away = False
        return step

    def _make_room(self) -> None:
        """Write the weights that were used longest ago into files, until the others fit."""
        present = self._later[0] if self._later is not None else 0
        newest = max(self._listed, key=lambda step: step.used)
        candidates = [
            step for step in self._listed[1:] if not step.away and step is not newest and step.number != present
        ]
        size = sum(_size(step.network) for step in candidates)
        for step in sorted(candidates, key=lambda step: step.used):
            if size <= KEPT:
                return
            size -= _size(step.network)
            try:
                self._put_away(step)
            except (OSError, SafetensorError) as error:
                note(f"step {step.number} stays in memory: its weights cannot be written ({error}).")
                return

    def _put_away(self, step: Step) -> None:
        tensors = _tensors(step.network)
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="dgprune-steps-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        if step.file is None:
            file = self._folder / f"step_{step.number}.safetensors"
            save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, file)
            step.file = file
        for tensor in tensors.values():
            tensor.data = tensor.data.new_empty(0)
        step.away = True


def accuracy_rows(table: pd.DataFrame) -> list[Row]:
    """Return the accuracy of each domain, as plain values; without labels, the agreement with the full network.

    `metric` says which of the two it is.
    """
    styles, columns = domain_styles_of(table), ("domain", "role", "metric", "value", "low", "high")
    return [
        {
            **{name: row[name] for name in columns},
            "colour": styles[str(row["domain"])].colour,
            "target_aware": exposure_of(row).startswith("target"),
        }
        for row in records(table)
        if row["metric"] in ("accuracy", AGREEMENT)
    ]


def _tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer; a shared one comes once."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _size(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in _tensors(network).values())
