"""The studies that ship: each tests the claims of a paper on real data, with controls, seeds and intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from ..experiment import Experiment
from .double_descent import double_descent
from .gc_net import gc_net
from .instability import instability
from .mnist_m import mnist_m
from .pacs import pacs
from .prunability import prunability
from .several_sources import several_sources

STUDIES: Mapping[str, Callable[..., Experiment]] = {
    "double_descent": double_descent,
    "gc_net": gc_net,
    "instability": instability,
    "instability_paper": partial(instability, protocol="paper"),
    "mnist_m": mnist_m,
    "mnist_m_paper": partial(mnist_m, protocol="paper"),
    "pacs": pacs,
    "pacs_paper": partial(pacs, protocol="paper"),
    "prunability": prunability,
    "several_sources": several_sources,
}
"""Name -> function of (quick, seeds) that returns the experiment."""
