"""The built-in studies."""

from __future__ import annotations

from typing import Literal

from .. import data
from ..core import public, unknown
from ..models import SHIPPED, shipped
from .study import Study

_DEMOS = {"digits": ("digits", ("mnist", "uci_digits")), "paper": ("lenet_paper", ("mnist",))}


@public
def demo(name: Literal["digits", "paper"] = "digits") -> Study:
    """Return a study of a trained network with its domains, ready to prune; nothing is downloaded.

    Args:
        name: "digits": five convolutions with BatchNorm, trained on `mnist` and `uci_digits`; "paper": the LeNet of
            Sun 2023 (arXiv:2306.13237), trained on `mnist` as the paper trains it. The target of both is `mnist_m`.

    Raises:
        DgpruneError: another name.

    >>> import dgprune_lab as dg
    >>> [domain.name for domain in dg.demo().domains]
    ['mnist', 'uci_digits', 'mnist_m']
    """
    if name not in _DEMOS:
        raise unknown("demo", name, _DEMOS)
    checkpoint, sources = _DEMOS[name]
    return Study(
        shipped(checkpoint),
        sources=[data.load(source) for source in sources],
        targets=[data.mnist_m()],
        name=checkpoint,
        origin="dg.demo()" if name == "digits" else f"dg.demo({name!r})",
    )


@public
def training_seeds() -> list[Study]:
    """Return three studies of one LeNet trained with different seeds (initial weights, order of the images).

    Sources `mnist` and `uci_digits`, target `mnist_m`.

    >>> import dgprune_lab as dg
    >>> [study.name for study in dg.training_seeds()]
    ['lenet_two_sources_0', 'lenet_two_sources_1', 'lenet_two_sources_2']
    """
    sources, targets = [data.load("mnist"), data.load("uci_digits")], [data.mnist_m()]
    names = [name for name in SHIPPED if name.startswith("lenet_two_sources_")]
    return [
        Study(shipped(name), sources=sources, targets=targets, name=name, origin=f"dg.training_seeds()[{k}]")
        for k, name in enumerate(names)
    ]
