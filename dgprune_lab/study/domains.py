"""The domains of a study, checked to fit together, with their roles; the device of a study in words."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..core import DgpruneError, Domain, Role, check_domains, threads


def in_roles(
    sources: Sequence[Domain], targets: Sequence[Domain], *, device: torch.device
) -> tuple[tuple[Domain, ...], tuple[Domain, ...]]:
    """Return sources and targets with their roles set, on a device.

    Raises:
        DgpruneError: no source, two domains with one name, images of several sizes, classes numbered differently.
    """
    if not sources:
        raise DgpruneError("a study needs at least one source, a domain the network was trained on.")
    listed = [*sources, *targets]
    if len({domain.shape for domain in listed}) > 1:
        sizes = ", ".join(f"{d.name} {' x '.join(map(str, d.shape))}" for d in listed)
        raise DgpruneError(f"all domains of a study need images of one size; got {sizes}.")
    check_domains(listed)
    parts: list[tuple[Role, Sequence[Domain]]] = [("source", sources), ("target", targets)]
    placed = [tuple(domain.as_role(role).to(device) for domain in part) for role, part in parts]
    return placed[0], placed[1]


def place_of(device: torch.device) -> str:
    """Return a device in words: "CPU, 1 thread" or the name of the GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type.upper()
    return f"CPU, {threads().count} thread{'s' if threads().count > 1 else ''}"
