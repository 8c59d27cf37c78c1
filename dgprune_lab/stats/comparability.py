"""Whether networks are comparable by prunability: equal training loss."""

from __future__ import annotations

from collections.abc import Mapping

ALIKE = 0.03
"""Training losses differ if they are further apart than this share of the smallest."""


def unlike(losses: Mapping[str, float]) -> str | None:
    """Return a sentence if the training losses of several networks differ, else None."""
    low, high = min(losses, key=losses.__getitem__), max(losses, key=losses.__getitem__)
    if losses[high] <= (1 + ALIKE) * losses[low]:
        return None
    return (
        f"the training losses differ: {losses[low]:.3g} ({low}) to {losses[high]:.3g} ({high}). Prunability compares "
        "only networks of equal training loss, so their order here means little."
    )
