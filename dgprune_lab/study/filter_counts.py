"""How many filters of a network can be pruned, and why not the others, in words."""

from __future__ import annotations

from ..core import FilterGraph


def prunable_words(graph: FilterGraph) -> str:
    """Return how many of all filters can be pruned, and why not the others, as text; "" if all can be pruned.

    A filter of a residual stream counts once, see `FilterGraph.share`.
    """
    refused = list(graph.refused.items())
    if not refused and graph.free >= graph.total:
        return ""
    words = graph.share
    if refused:
        layer, why = refused[0]
        others = f"; {len(refused) - 1} more in graph.refused" if len(refused) > 1 else ""
        words += f" (refused: {layer}: {why.rstrip('.')}{others})"
    return words
