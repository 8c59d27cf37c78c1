"""What a diagnostic promises: a documented function from a study to a tidy table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ..core import COLUMNS, DgpruneError


@dataclass(frozen=True)
class Diagnostic:
    """A function from a study to a tidy table, with the key columns it adds."""

    name: str
    function: Callable[..., pd.DataFrame] = field(repr=False)
    extra: tuple[str, ...]
    cite: str

    def __call__(self, study: Any, **options: Any) -> pd.DataFrame:
        frame = self.function(study, **options)
        missing = [column for column in (*COLUMNS, *self.extra) if column not in frame.columns]
        if missing:
            raise DgpruneError(
                f"diagnostic {self.name!r} must return a table from tidy(); it lacks {', '.join(missing)}."
            )
        return frame


def diagnostic(
    name: str, *, extra: tuple[str, ...] = (), cite: str = ""
) -> Callable[[Callable[..., pd.DataFrame]], Diagnostic]:
    """Make a plain function a Diagnostic, which answers one question about a study with a tidy table.

    Args:
        name: of the question; `charts.<name>` draws it and `widgets` shows it.
        extra: key columns beyond the shared ones (group, class, event, epoch).
        cite: the source.

    Raises:
        DgpruneError: no docstring.
    """

    def decorate(function: Callable[..., pd.DataFrame]) -> Diagnostic:
        if not (function.__doc__ or "").strip():
            raise DgpruneError(f"diagnostic {name!r} needs a docstring.")
        made = Diagnostic(name, function, extra, cite)
        made.__dict__["__doc__"] = function.__doc__
        return made

    return decorate
