"""Scorers of importance and of variance between sources, from the risk on each source and its gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from ..core import Need, Positive, note
from .contract import scorer
from .view import GroupView

Form = Literal["additive", "joint", "signed"]
Mode = Literal["additive", "joint", "signed", "oracle"]
Keep = Literal["high", "low"]
Effects = Mapping[str, Tensor]
SHARE = 0.01
_TINY = torch.finfo(torch.float64).tiny


def _gathers(*, mode: Mode = "additive", **_: object) -> tuple[Need, ...]:
    return ("risk",) if mode == "oracle" else ("gate", "risk")


def one_source(views: dict[str, GroupView], **_: object) -> str | None:
    """Return why sources cannot be compared if there is only one, else None."""
    sources = next(iter(views.values())).sources
    return None if len(sources) > 1 else "it compares at least two sources, and there is one."


@scorer(
    "risk_variance",
    needs=("gate", "risk", "removal"),
    reads={"source": "labels"},
    level="network",
    gathers=_gathers,
    refuses=one_source,
    label="Risk variance",
)
def risk_variance(views: dict[str, GroupView], *, mode: Mode = "additive", beta: float = 1.0) -> dict[str, Tensor]:
    """Effect of closing a gate on mean and variance of the source risks; small effects are removed first.

    R_e = mean cross-entropy on source e, g_e = dR_e/dz at z = 1, gbar their mean (equal weight per source, whatever its
    size), dVar/dz = (2/E) sum_e (R_e - Rbar) g_e. "additive": gbar^2 / mean(gbar^2) + beta (dVar)^2 / mean(dVar^2), the
    means over the whole network; "joint": (gbar + beta dVar)^2; "signed": |gbar| - beta dVar, so that a filter whose
    removal lowers the variance is removed; "oracle": as additive, by removing each filter, one network per filter
    (slow; the reference for the others, see `dgprune-lab gradients-against-removal`). beta = 0 is first-order Taylor,
    squared. Returns (C,) per layer. Source: Cai, Li, Kot 2022, Toward domain generalized pruning by scoring OOD
    importance, arXiv:2210.13810; the formulas are our reconstruction from its abstract.
    """
    return combined(*terms(views, removed=mode == "oracle"), mode="additive" if mode == "oracle" else mode, beta=beta)


def combined(mean: Effects, spread: Effects, *, mode: Form, beta: float) -> dict[str, Tensor]:
    """Return layer -> (C,) score from the two effects; issue a note if the variance term is negligible."""
    if mode == "additive":
        first, second = squared_over_mean(mean), squared_over_mean(spread)
        _note_if_negligible(first, second, beta=beta)
        return {name: first[name] + beta * second[name] for name in mean}
    _note_if_negligible(_squared(mean), _squared(spread), beta=beta**2)
    if mode == "joint":
        return {name: (mean[name] + beta * spread[name]).square() for name in mean}
    return {name: mean[name].abs() - beta * spread[name] for name in mean}


def terms(views: dict[str, GroupView], *, removed: bool) -> tuple[Effects, Effects]:
    """Return layer -> (C,) effects on the mean, and on the population variance, of the source risks.

    The effects are the derivatives with respect to the gate; if `removed`, they are minus the changes on removal of the
    filter, which the derivatives approximate.
    """
    first = next(iter(views.values()))
    risks = torch.tensor([first.risk(source) for source in first.sources], dtype=torch.float64)
    mean, spread = {}, {}
    for name, view in views.items():
        if removed:
            after = risks[:, None] + torch.stack([view.removal(source) for source in view.sources])
            mean[name] = risks.mean() - after.mean(0)
            spread[name] = risks.var(correction=0) - after.var(0, correction=0)
        else:
            gates = _gates(view)
            mean[name] = gates.mean(0)
            spread[name] = 2 * ((risks - risks.mean())[:, None] * gates).mean(0)
    return mean, spread


def share(first: Effects, second: Effects) -> float:
    """Return the share of the second term: the median over filters of second / (first + second), both >= 0.

    Filters for which both terms are 0 are left out: they are dead, however much the risks differ.
    """
    a, b = torch.cat(list(first.values())), torch.cat(list(second.values()))
    alive = a + b > 0
    return float((b[alive] / (a + b)[alive]).median()) if alive.any() else 0.0


def _note_if_negligible(first: Effects, second: Effects, *, beta: float) -> None:
    median = share(first, {name: beta * value for name, value in second.items()})
    if beta and median < SHARE:
        note(
            f"risk_variance: the variance term makes up {100 * median:.2g} % of the score of the median filter, so "
            "this is nearly plain Taylor. The risks of the sources are too similar or too near zero: score on held-out "
            "images (split='score'), use sources that differ, or raise beta."
        )


def _squared(effects: Effects) -> dict[str, Tensor]:
    return {name: value.square() for name, value in effects.items()}


def squared_over_mean(effects: Effects) -> dict[str, Tensor]:
    """Return layer -> the squares of the effects, divided by their mean over the whole network."""
    squares = _squared(effects)
    mean = max(float(torch.cat(list(squares.values())).mean()), _TINY)
    return {name: value / mean for name, value in squares.items()}


def _gates(view: GroupView) -> Tensor:
    """Return the (E, C) gradient with respect to each filter's gate on each source."""
    return torch.stack([view.gate(source) for source in view.sources])


@scorer(
    "gradient_agreement",
    needs=("gate",),
    reads={"source": "labels"},
    level="network",
    refuses=one_source,
    label="Gradient agreement",
)
def gradient_agreement(views: dict[str, GroupView]) -> dict[str, Tensor]:
    """Agreement of the sources on the sign of the gate gradient; filters without agreement are removed first.

    |mean_e sign g_e|, equal weight per source; ties (with two sources it is 0 or 1) are broken by adding |mean_e g_e|,
    scaled by its largest value in the network to less than one step. Returns (C,) in [0, 1 + 1/(2E)] per layer for E
    sources.
    Source: Parascandolo et al. 2021, Learning explanations that are hard to vary, ICLR, section 3 (AND-mask), where it
    masks gradients; as a filter score it is ours.
    """
    gates = {name: _gates(view) for name, view in views.items()}
    largest = max(max(float(g.mean(0).abs().max()) for g in gates.values()), _TINY)
    return {name: g.sign().mean(0).abs() + g.mean(0).abs() / (2 * len(g) * largest) for name, g in gates.items()}


@scorer(
    "gradient_snr", needs=("gate",), reads={"source": "labels"}, refuses=one_source, label="Gradient signal-to-noise"
)
def gradient_snr(view: GroupView, *, keep: Keep = "high", eps: Positive = 1e-12) -> Tensor:
    """Signal-to-noise ratio of the gate gradient over the sources; filters with a low ratio are removed first.

    (mean_e g_e)^2 / (Var_e g_e + eps), population variance, equal weight per source. The literature argues for both
    directions: `keep` "high" keeps filters with a high ratio, "low" those with a low ratio (the score is minus the
    ratio). Returns (C,). Source: after Liu et al. 2020, Understanding why neural networks generalize well through
    GSNR, ICLR, definition 1; over domains instead of samples it is ours.
    """
    gates = _gates(view)
    ratio = gates.mean(0).square() / (gates.var(0, correction=0) + eps)
    return ratio if keep == "high" else -ratio
