"""What only a browser can time: the slider's answer, and the notebook's cold start."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .timing import Row


def browser_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Slider event to filter grid, to the estimate and to all images; notebook cold start to its first chart."""
    yield from ()
