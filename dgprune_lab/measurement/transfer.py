"""The results of a pass, copied from a GPU together."""

from __future__ import annotations

from collections import defaultdict
from typing import TypeVar

import torch
from torch import Tensor

from ..core import mapped

Value = TypeVar("Value")


def on_cpu(value: Value) -> Value:
    """Return a value (a tensor, or tensors in containers) with every tensor on the CPU.

    The tensors of one type are joined on the GPU and copied at once, since each copy waits for all earlier work.
    """
    found: dict[tuple[torch.device, torch.dtype], dict[int, Tensor]] = defaultdict(dict)

    def find(tensor: Tensor) -> Tensor:
        if tensor.device.type != "cpu":
            found[tensor.device, tensor.dtype][id(tensor)] = tensor
        return tensor

    mapped(value, find)
    copies: dict[int, Tensor] = {}
    for tensors in found.values():
        joined = torch.cat([tensor.detach().flatten() for tensor in tensors.values()]).cpu()
        parts = joined.split([tensor.numel() for tensor in tensors.values()])
        for (key, tensor), part in zip(tensors.items(), parts, strict=True):
            copies[key] = part.view(tensor.shape).clone()  # a view would keep all the others in memory
    return mapped(value, lambda tensor: copies.get(id(tensor), tensor))
