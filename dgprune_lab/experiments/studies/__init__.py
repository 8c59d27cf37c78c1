"""The studies that ship: each tests the claims of a paper on real data, with controls, seeds and intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..experiment import Experiment
from .mnist_m import mnist_m
from .several_sources import several_sources

STUDIES: Mapping[str, Callable[..., Experiment]] = {"mnist_m": mnist_m, "several_sources": several_sources}
"""Name -> function of (quick, seeds) that returns the experiment."""
