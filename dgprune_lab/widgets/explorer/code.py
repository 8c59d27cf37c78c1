"""The current view as code."""

from __future__ import annotations

import keyword
from importlib.metadata import version
from types import SimpleNamespace

import torch

from ...core import Scores
from ...scorers import SCORERS, Scorer, hybrid, reverse
from ...study import Study
from .frames import CALIBRATION
from .measurements import Choices


def as_code(study: Study, view: Choices, *, scorer: Scorer | Scores, images: int | None, calibration: int) -> str:
    """Return the code of a notebook cell that rebuilds a view: study, scores, mask, pruned network and table.

    It names the versions and the hash of the data. A study or scorer of the user's own is not in the code; a comment
    says what to supply.
    """
    variable, written = _scorer(view["scorer"], scorer)
    own_study = "# Supply `study`: dg.Study(model, sources=[...], targets=[...]), as in this view.\n"
    supply = "" if study.origin else own_study
    if written is None:
        kind = "the Scorer" if isinstance(scorer, Scorer) else "the Scores"
        supply += f"# Supply `{variable}`: {kind} of this view, named {view['scorer']!r}.\n"
    assigned = f"study = {study.origin}\n" if study.origin else ""
    value = variable if written is None else written
    named = f"scorer = {value}\n" if value != "scorer" else ""
    options = f"ratio={view['ratio']!r}, scope={view['scope']!r}, budget={view['budget']!r}"
    made, batchnorm = "dg.prune(study.model, mask)", view["batchnorm"]
    if batchnorm == "recalibrate" and calibration != CALIBRATION:
        made, batchnorm = f"dg.recalibrate({made}, study.sources, images={calibration})", "as_is"
    first = "" if images is None else f", images={images}"
    return f"""\
# dgprune_lab {version("dgprune-lab")}, torch {torch.__version__}, data {study.key}
{supply}import dgprune_lab as dg

{assigned}assert study.key == "{study.key}", "these are other data"
{named}mask = dg.allocate(study.score(scorer), {options})
small = {made}
dg.measure(small, study.domains{first}, batchnorm={batchnorm!r})"""


def _scorer(name: str, item: Scorer | Scores) -> tuple[str, str | None]:
    """Return a variable name for a scorer, and the expression that makes it; None for a scorer of the user's own."""
    if not isinstance(item, Scorer):
        return "scorer", None
    if name in SCORERS and item is SCORERS[name]:
        return "scorer", repr(name)
    if item.code and _is_complete(item):
        return "scorer", item.code
    own = getattr(item.function, "__name__", "")
    return (own if own.isidentifier() and not keyword.iskeyword(own) else "scorer"), None


def _is_complete(item: Scorer) -> bool:
    """Return whether a scorer's expression is enough to make it: not if it uses a scorer of the user's own."""
    dg = SimpleNamespace(SCORERS=SCORERS, reverse=reverse, hybrid=hybrid)
    try:
        return eval(item.code, {"__builtins__": {}, "dg": dg}).name == item.name  # the text is made by this package
    except Exception:
        return False
