"""Domains: built in, from folders and data sets; distribution shifts; augmentation."""

from __future__ import annotations

from collections.abc import Callable

from ..core import Domain, public, unknown
from . import external
from .augment import AUGMENTATIONS
from .digits import mnist, mnist_m, uci_digits
from .external import available
from .folders import from_folder, to_folder
from .garments import fashion, fashion_colour, fashion_photo
from .shifts import SHIFTS, blur, colour, contrast, halves, invert, noise, pixelate, rotate

BUILTIN: dict[str, Callable[[], Domain]] = {
    domain.__name__: domain for domain in (mnist, mnist_m, uci_digits, fashion, fashion_colour, fashion_photo)
}
"""Domains that need nothing but the installed packages."""

__all__ = ["AUGMENTATIONS", "BUILTIN", "SHIFTS", "available", "from_folder", "halves", "load"]
__all__ += ["blur", "colour", "contrast", "invert", "noise", "pixelate", "rotate", "to_folder"]
__all__ += ["fashion", "fashion_colour", "fashion_photo", "mnist", "mnist_m", "uci_digits"]


@public
def load(name: str) -> Domain:
    """Load a domain by its name: one of `BUILTIN` or one in the folder that the variable DGPRUNE_DATA names.

    Raises:
        DgpruneError: an unknown name; a data set that is not there (the message says how to get it).

    >>> load("uci_digits").shape
    (3, 28, 28)
    """
    if name in BUILTIN:
        return BUILTIN[name]()
    if name in external.NAMES:
        return external.load(name)
    raise unknown("domain", name, (*BUILTIN, *external.NAMES))
