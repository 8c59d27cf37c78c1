"""Check the domains of a study and set their roles; describe its device and its prunable filters as text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..core import DgpruneError, Domain, FilterGraph, Role, check_domains, note, threads


def in_roles(
    sources: Sequence[Domain], targets: Sequence[Domain], *, device: torch.device
) -> tuple[tuple[Domain, ...], tuple[Domain, ...]]:
    """Return sources and targets with their roles set, on a device.

    Raises:
        DgpruneError: no source, two domains of one name, images of different sizes, classes numbered differently.
    """
    if not sources:
        raise DgpruneError("a study needs at least one source, a domain the network was trained on.")
    domains = [*sources, *targets]
    if len({domain.shape for domain in domains}) > 1:
        sizes = ", ".join(f"{d.name} {' x '.join(map(str, d.shape))}" for d in domains)
        raise DgpruneError(f"all domains of a study need images of one size; got {sizes}.")
    check_domains(domains)
    _note_shared_images(sources, targets)
    parts: list[tuple[Role, Sequence[Domain]]] = [("source", sources), ("target", targets)]
    placed = [tuple(domain.as_role(role).to(device) for domain in part) for role, part in parts]
    return placed[0], placed[1]


def _note_shared_images(sources: Sequence[Domain], targets: Sequence[Domain]) -> None:
    """Emit a note on target images that are also source images; targets that already have a role were compared before.

    Images in memory are compared at 64 positions, and completely if these agree. Blank images are ignored.
    """
    new = [d for d in targets if d.role is None and isinstance(d.images, Tensor)]
    loaded = [d for d in sources if new and isinstance(d.images, Tensor)]
    index = {d.name: {excerpt: k for k, excerpt in enumerate(_excerpts(d.images)) if excerpt} for d in loaded}
    for target in new:
        excerpts = _excerpts(target.images)
        for source in (d for d in loaded if d.images.dtype == target.images.dtype):
            rows = index[source.name]
            alike = [(k, rows[excerpt]) for k, excerpt in enumerate(excerpts) if excerpt in rows]
            count = sum(torch.equal(target.images[k], source.images[j].to(target.images.device)) for k, j in alike)
            if count:
                note(
                    f"{count:,} of the {len(target):,} images of target {target.name!r} are images of source "
                    f"{source.name!r} too: accuracy on them does not show how the network does on unseen images."
                )


def _excerpts(images: Tensor) -> list[bytes | None]:
    """Return each image's values at 64 positions of every channel as bytes; None for an image where all are equal."""
    rows, columns = (torch.linspace(size // 6, size - 1 - size // 6, 8).long() for size in images.shape[-2:])
    values = images[:, :, rows.to(images.device)][..., columns.to(images.device)].flatten(1).cpu()
    blank = (values == values[:, :1]).all(1).tolist()
    array = np.ascontiguousarray(values.numpy())
    return [None if empty else row.tobytes() for empty, row in zip(blank, array, strict=True)]


def place_of(device: torch.device) -> str:
    """Return a device as text: "CPU, 1 thread" or the name of the GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type.upper()
    return f"CPU, {threads().count} thread{'s' if threads().count > 1 else ''}"


def prunable_words(graph: FilterGraph) -> str:
    """Return as text how many of all filters can be pruned and why the others cannot; "" if all can be pruned.

    A filter of a residual stream counts once, see `FilterGraph.share`.
    """
    refused = list(graph.refused.items())
    if not refused and graph.free >= graph.total:
        return ""
    text = graph.share
    if refused:
        layer, why = refused[0]
        others = f"; {len(refused) - 1} more in graph.refused" if len(refused) > 1 else ""
        text += f" (refused: {layer}: {why.rstrip('.')}{others})"
    return text
