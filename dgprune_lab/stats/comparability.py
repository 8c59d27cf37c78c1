"""Whether networks can be compared by prunability: their training losses must be equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

ALIKE = 0.03
"""Training losses differ if the largest exceeds the smallest by more than this fraction of the smallest."""


def alike(losses: Iterable[float]) -> bool:
    """Return whether training losses are equal, within `ALIKE`: then the order of the losses means nothing."""
    losses = list(losses)
    return max(losses) <= (1 + ALIKE) * min(losses)


def unlike(losses: Mapping[str, float]) -> str | None:
    """Return a sentence if the training losses of several networks differ, else None."""
    low, high = min(losses, key=losses.__getitem__), max(losses, key=losses.__getitem__)
    if alike(losses.values()):
        return None
    return (
        f"the training losses differ: {losses[low]:.3g} ({low}) to {losses[high]:.3g} ({high}). Prunability compares "
        "only networks of equal training loss, so their order here means little."
    )
