"""Numbers as text, rounded as on the explorer's page, so that a number looks the same everywhere."""

from __future__ import annotations

import math


def rounded(value: float, decimals: int = 0) -> float:
    """Return a number rounded to this many decimals, halves away from zero.

    It is first rounded to 12 digits, because 100 * 0.285 is 28.499999999999996.

    >>> rounded(98.5), rounded(100 * 0.285), rounded(-0.25, 1), rounded(0.125, 2)
    (99.0, 29.0, -0.3, 0.13)
    """
    if not math.isfinite(value):
        return value
    scale = 10**decimals
    return math.copysign(math.floor(float(f"{abs(value) * scale:.12g}") + 0.5) / scale, value) + 0.0


def whole_percent(share: float) -> str:
    """Return a share in percent without decimals and without the % sign.

    >>> whole_percent(0.985), whole_percent(0.925)
    ('99', '93')
    """
    return f"{rounded(100 * share):.0f}"


def percent(share: float, *, decimals: int = 2) -> str:
    """Return a share in percent, as the explorer's slider shows it: rounded to `decimals`, without trailing zeros.

    >>> percent(0.5), percent(0.12345), percent(0.985, decimals=0)
    ('50 %', '12.35 %', '99 %')
    """
    return f"{rounded(100 * share, decimals):g} %"
