"""How many filters of a network can be pruned, out of how many, and why not the others."""

from __future__ import annotations

from torch import nn

from ..core import CONV, FilterGraph


def prunable(model: nn.Module, graph: FilterGraph) -> tuple[int, int]:
    """Return how many filters can be pruned, and how many there are: output channels of all convolutions that run.

    The last layer is left out, as its outputs are classes. Of a residual stream this counts every convolution that
    writes it, so a ratio, which is a share of the groups' filters, may be another share of these. Hidden units of
    linear layers count where groups hold them.
    """
    reached: dict[str, set[int]] = {}
    for member in (member for group in graph.groups for member in group.members if member.side == "out"):
        reached.setdefault(member.tensor, set()).update(member.positions.tolist())
    logits, can, every = list(graph.uses)[-1], 0, 0
    for name, module in model.named_modules():
        weight = f"{name}.weight"
        counts = weight in reached or (isinstance(module, CONV) and weight != logits)
        if counts and weight in graph.uses:
            every += int(getattr(module, "out_channels", 0) or getattr(module, "out_features", 0))
            can += len(reached.get(weight, ()))
    return can, every


def prunable_words(model: nn.Module, graph: FilterGraph) -> str:
    """Return how many filters can be pruned, and why not the others; nothing where all can be."""
    (can, every), refused = prunable(model, graph), list(graph.refused.items())
    if can == every:
        return ""
    words = f"{can:,} of {every:,} filters of all convolutions can be pruned"
    if refused:
        layer, why = refused[0]
        others = f"; {len(refused) - 1} more in graph.refused" if len(refused) > 1 else ""
        words += f" (refused: {layer}: {why.rstrip('.')}{others})"
    return words
