"""Whether networks are comparable: equal training loss."""

from __future__ import annotations

from collections.abc import Mapping

ALIKE = 0.03
"""Training losses further apart than this share of the smallest are said to differ."""


def unlike(losses: Mapping[str, float]) -> str | None:
    """A sentence where the training losses of several networks differ, which prunability cannot compare."""
    low, high = min(losses, key=losses.__getitem__), max(losses, key=losses.__getitem__)
    if losses[high] <= (1 + ALIKE) * losses[low]:
        return None
    return (
        f"the training losses differ: {losses[low]:.3g} ({low}) to {losses[high]:.3g} ({high}). Prunability compares "
        "only networks of equal training loss, so their order here means little."
    )
