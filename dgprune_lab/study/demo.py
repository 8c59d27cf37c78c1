"""The built-in studies."""

from __future__ import annotations

from typing import Literal

import torch

from .. import data
from ..core import device as default_device
from ..core import public, unknown
from ..models import shipped
from .study import Study

DEMO_DOMAINS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "digits": (("mnist", "uci_digits"), ("mnist_m",)),
    "fashion": (("fashion", "fashion_colour"), ("fashion_photo",)),
    "paper": (("mnist",), ("mnist_m",)),
}
"""Built-in study -> names of its source domains and of its target domains."""
_SEEDS = {"digits": "lenet_two_sources", "fashion": "fashion_lenet"}


@public
def demo(name: Literal["digits", "fashion", "paper"] = "digits", *, device: torch.device | str | None = None) -> Study:
    """Return a study of a trained network, ready to prune, with its domains; nothing is downloaded.

    Args:
        name: "digits": five convolutions with BatchNorm, trained on `mnist` and `uci_digits`, target `mnist_m`.
            "fashion": the same kind of network, trained on `fashion` and `fashion_colour`, target `fashion_photo`.
            "paper": the LeNet of Sun 2023 (arXiv:2306.13237), trained on `mnist` as the paper trains it, target
            `mnist_m`.
        device: where evaluation runs; None for a CUDA GPU if there is one, otherwise the CPU. The numbers on both
            agree to about 1e-4.

    Raises:
        DgpruneError: an unknown name; a device that this machine does not have.

    >>> import dgprune_lab as dg
    >>> [domain.name for domain in dg.demo().domains]
    ['mnist', 'uci_digits', 'mnist_m']
    """
    if name not in DEMO_DOMAINS:
        raise unknown("demo", name, DEMO_DOMAINS)
    checkpoint = "lenet_paper" if name == "paper" else name
    origin = "dg.demo()" if name == "digits" else f"dg.demo({name!r})"
    return _study(checkpoint, demo=name, origin=origin, device=device)


@public
def training_seeds(
    name: Literal["digits", "fashion"] = "digits", *, device: torch.device | str | None = None
) -> list[Study]:
    """Return three studies of one LeNet trained with different seeds (initial weights, order of the images).

    Args:
        name: the built-in study whose domains they use.
        device: as in `demo`.

    Raises:
        DgpruneError: an unknown name; a device that this machine does not have.

    >>> import dgprune_lab as dg
    >>> [study.name for study in dg.training_seeds()]
    ['lenet_two_sources_0', 'lenet_two_sources_1', 'lenet_two_sources_2']
    """
    if name not in _SEEDS:
        raise unknown("demo with several training seeds", name, _SEEDS)
    origin = "dg.training_seeds()" if name == "digits" else f"dg.training_seeds({name!r})"
    seeds = [(f"{_SEEDS[name]}_{k}", f"{origin}[{k}]") for k in range(3)]
    return [_study(checkpoint, demo=name, origin=code, device=device) for checkpoint, code in seeds]


def _study(checkpoint: str, *, demo: str, origin: str, device: torch.device | str | None) -> Study:
    sources, targets = ([data.load(name) for name in names] for names in DEMO_DOMAINS[demo])
    place = default_device() if device is None else device
    return Study(shipped(checkpoint), sources=sources, targets=targets, name=checkpoint, device=place, origin=origin)
