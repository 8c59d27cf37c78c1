"""Modes of PyTorch's dispatcher, which see every operation of a pass."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_ATEN = torch.ops.aten
_FORMULAS = {**flop_registry}
_FORMULAS[_ATEN._scaled_dot_product_flash_attention_for_cpu] = flop_registry[_ATEN._scaled_dot_product_flash_attention]


class Observer(TorchDispatchMode):
    """A dispatch mode left visible to PyTorch's compiler; hiding it would import the compiler (about 1 s, 60 MB)."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class MacCounter(Observer):
    """A counter of multiply-accumulates: half of the operations that PyTorch's `FlopCounterMode` counts.

    Fused attention on a CPU, which `FlopCounterMode` leaves out, counts as on a GPU. While this counter is active,
    PyTorch's transformer layers run operation by operation, as in training, because their fast path is not counted.

    Attributes:
        total: multiply-accumulates counted so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self._operations = 0
        self._fast_path: list[bool] = []

    def __enter__(self) -> MacCounter:
        self._fast_path.append(torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.backends.mha.set_fastpath_enabled(self._fast_path.pop())

    @property
    def total(self) -> int:
        return self._operations // 2

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula: Any = _FORMULAS.get(func._overloadpacket)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:
                output = func.decompose(*args, **kwargs)  # a composite operation
            if output is not NotImplemented:
                return output
        output = func(*args, **kwargs)
        if formula is not None:
            self._operations += formula(*args, **kwargs, out_val=output)
        return output
