"""One file per question: a study in, a tidy table out."""

from .drop import drop

__all__ = ["drop"]
