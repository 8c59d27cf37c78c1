"""BibTeX of the methods and libraries behind a table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from importlib.resources import files

from ..core import Claims, Tidy, public
from .menu import SCORERS

_ALWAYS = ("paszke2019", "harris2020", "mckinney2010")
_CITED_FOR = {
    ("interval", "images"): "Efron, Tibshirani 1993",
    ("interval", "seeds"): "Virtanen et al. 2020",
    ("metric", "calibration_error"): "Guo et al. 2017",
    ("metric", "proxy_a_distance"): "Pedregosa et al. 2011",
    ("metric", "relative_drop"): "Bartoldson et al. 2020",
    ("metric", "mean_stability"): "Bartoldson et al. 2020",
    ("metric", "sam_sharpness"): "Foret et al. 2021",
    ("metric", "hessian_trace"): "Hutchinson 1989; Dangel et al. 2025",
    ("metric", "hessian_eigenvalue"): "Dangel et al. 2025; Virtanen et al. 2020",
    ("metric", "mean_accuracy"): "Gulrajani, Lopez-Paz 2021",
    **{("domain", name): "LeCun et al. 1998" for name in ("mnist", "mnist_full")},
    ("domain", "uci_digits"): "Alpaydin, Kaynak 1998",
    **{("domain", name): "LeCun et al. 1998; Ganin, Lempitsky 2015" for name in ("mnist_m", "mnist_m_published")},
    ("domain", "usps"): "Hull 1994",
    **{("domain", f"fashion{name}"): "Xiao et al. 2017" for name in ("", "_colour", "_photo", "_mnist")},
    ("domain", "cifar10"): "Krizhevsky 2009",
}
"""(column, value) -> what to cite for that value, besides the sources of the scorers and of the diagnostic."""
_SOFTWARE = """@misc{{dgprune_lab,
  key = {{dgprune_lab}},
  title = {{dgprune\\_lab, version {version}}},
}}"""  # plain BibTeX has no @software


@public
def cite(frame: Tidy | Claims) -> str:
    """Return BibTeX for a table: sources of its scorers, diagnostic or study, intervals and data sets, and libraries.

    The entries are in `scorers/references.bib`; those of a scorer, diagnostic or study are found through its source,
    such as `dg.SCORERS["l1"].cite`. The package's data sets are recognised by their domain names. What has no entry
    is named in a comment.

    Args:
        frame: a tidy table of this package, or a table of claims (`experiments.claims_table`), whose papers are cited.

    >>> import dgprune_lab as dg
    >>> table = dg.tidy([{"scorer": "l1", "metric": "accuracy", "domain": "mnist", "value": 0.9}])
    >>> [line for line in dg.cite(table).splitlines() if "Pruning" in line]
    ['  title = {Pruning Filters for Efficient {ConvNets}},']
    """
    chosen, missing = dict.fromkeys(_ALWAYS), []
    for name, source in _sources(frame):
        keys = _cited(source)
        chosen |= dict.fromkeys(keys)
        if not keys:
            missing.append(f"% {name}: {source or 'no source is known here'}")
    entries = [entry for key, entry in _entries().items() if key in chosen]
    return "\n\n".join([*missing, _SOFTWARE.format(version=version("dgprune-lab")), *entries]) + "\n"


def _sources(frame: Tidy) -> Iterator[tuple[str, str]]:
    """Yield (name, source) of everything that a table is based on."""
    for name in frame["scorer"].dropna().unique() if "scorer" in frame else ():
        # A name may hold several: "hybrid(l1, dss, by rank)", "taylor, by hand".
        scorers = [SCORERS[word] for word in re.findall(r"\w+", name) if word in SCORERS]
        yield from ((f"scorer {scorer.name!r}", scorer.cite) for scorer in scorers)
        if not scorers:  # those of Torch-Pruning have the names of its classes
            yield f"scorer {name!r}", "Fang et al. 2023" if "Importance" in name else ""
    if frame.attrs.get("cite"):
        yield "study" if "run" in frame else "diagnostic", frame.attrs["cite"]
    for paper in frame["paper"].dropna().unique() if "claim" in frame else ():
        yield "claim", paper
    for (column, value), source in _CITED_FOR.items():  # a cell may name several domains: "mnist, uci_digits"
        if column in frame and value in ", ".join(frame[column].dropna().unique()).split(", "):
            yield value, source


def _cited(source: str) -> list[str]:
    """Return the keys of the entries whose first author and year a source names, as in "Sun, Saenko 2016".

    If several entries share author and year and the source names the title or arXiv number of some, only these count.
    """
    matches: dict[tuple[str, str], dict[str, bool]] = {}
    for key, entry in _entries().items():
        fields = dict(re.findall(r"^  (\w+) = {(.*)},$", entry, re.MULTILINE))
        author, year = fields["author"].split(",")[0], fields["year"]
        if re.search(rf"\b{author}\b[^;\d]*\b{year}\b", source):
            names = (re.sub("[{}]", "", fields["title"]), fields.get("eprint", fields["title"]))
            matches.setdefault((author, year), {})[key] = any(name in source for name in names)
    return [key for keys in matches.values() for key, named in keys.items() if named or not any(keys.values())]


@cache
def _entries() -> dict[str, str]:
    text = files(__package__ or "").joinpath("references.bib").read_text(encoding="utf-8")
    return {re.findall(r"{(\w+),", entry)[0]: entry for entry in text.strip().split("\n\n")}
