"""Names of files for pruned networks, which tell views apart."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from torch import nn

from ...models import save
from .choices import Choices, is_by_hand

_LONGEST = 150  # characters of a file name, without number and ending
_MOST = 99.9999  # percent: a ratio below 1 is never written as 100


def file_name(study: str, view: Choices) -> str:
    """Return a file name for the network of a view; it tells choices apart, in characters that are safe everywhere."""
    share, step = f"{min(100 * view['ratio'], _MOST):.6g}pct", view.get("step", 0)
    parts = [study, f"step{step}" * bool(step), view["scorer"], share, view["scope"], view["budget"], view["batchnorm"]]
    name = "-".join(filter(None, [*parts, "by_hand" * is_by_hand(view)]))
    return safe_name(name, most=_LONGEST)


def safe_name(text: str, *, most: int) -> str:
    """Return a text in characters that are safe in any file name; only the end of a long text is kept."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", text)[-most:].lstrip("._-")


def _unused(name: str) -> Path:
    """The path of this name, with a number added if such a file exists, so that nothing is overwritten."""
    numbered = (Path(name if k == 1 else f"{name}-{k}") for k in itertools.count(1))
    return next(p for p in numbered if not any(Path(f"{p}.{end}").exists() for end in ("safetensors", "json")))


def saved_text(network: nn.Module, *, study: str, view: Choices) -> str:
    """Save the network of a view in the working directory, and return in a sentence where."""
    path = save(network, _unused(file_name(study, view)))
    return f"Saved {path.name} and {path.stem}.json in the notebook's folder."
