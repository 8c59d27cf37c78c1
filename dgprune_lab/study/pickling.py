"""Pickling and deep-copying studies: their arguments are copied, locks and cached results are not."""

from __future__ import annotations

import copyreg
import io
import pickle
from typing import Any

import numpy as np
from torch import Tensor

from ..core import DgpruneError
from .study import Study


class _TrialPickler(pickle.Pickler):
    """A pickler that leaves out arrays and tensors, to find out cheaply whether everything else can be pickled."""

    def persistent_id(self, obj: Any) -> str | None:
        return "numbers" if isinstance(obj, Tensor | np.ndarray) else None


def _reduce_study(study: Study) -> tuple[Any, tuple[Any, dict[str, Any]]]:
    for what, value in (("network", study.model), *((f"domain {d.name!r}", d) for d in study.domains)):
        try:
            _TrialPickler(io.BytesIO()).dump(value)
        except Exception as error:  # objects of the user may raise anything
            raise DgpruneError(
                f"study {study.name!r} can be neither pickled nor copied: its {what} cannot ({error}). Use classes and "
                "functions from the top level of a module, not lambdas; or build the study again where it is needed."
            ) from error
    options = {"sources": study.sources, "targets": study.targets, "name": study.name, "layers": study.layers}
    return _rebuild_study, (study.model, {**options, "device": study.device, "origin": study.origin})


def _rebuild_study(model: Any, options: dict[str, Any]) -> Study:
    return Study(model, **options)


copyreg.pickle(Study, _reduce_study)
