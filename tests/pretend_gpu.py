"""A pretended GPU: tensors that hold values on the CPU, and obey the rules of another device.

Their device is "meta", on which torch runs backward passes without a GPU. They mix with tensors on the CPU only where a
GPU would allow it, and every transfer is counted.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
_READS = {
    "_local_scalar_dense",
    "nonzero",
    "is_nonzero",
    "equal",
    "bincount",
    "unique_dim",
    "_unique2",
    "masked_select",
}
_MIXED = {"copy_", "index", "index_put_", "_index_put_impl_", "lift_fresh"}


class There(Tensor):
    """A tensor on the pretended GPU; `here` holds its values."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> There:
        options: Any = {"strides": here.stride(), "storage_offset": here.storage_offset(), "dtype": here.dtype}
        made = Tensor._make_wrapper_subclass(cls, here.shape, device=DEVICE, **options)  # type: ignore[attr-defined]
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on the pretended GPU outside of PretendGpu")

    @property
    def is_meta(self) -> bool:
        return False

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        return self.here.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.here.untyped_storage()


class PretendGpu(TorchDispatchMode):
    """Within the block, "meta" is a GPU; `reads` counts transfers to the CPU by operation, `writes` those from it."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.writes = Counter[str](), Counter[str]()

    def __enter__(self) -> PretendGpu:
        # In inference mode torch takes no tensors of Python classes that were made outside of it.
        self._patch = patch.object(
            torch, "inference_mode", lambda mode=True: torch.no_grad() if mode else nullcontext()
        )
        self._patch.start()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        self._patch.stop()
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), func.overloadpacket.__name__
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        there = [value for value in tensors if isinstance(value, There)]
        device = kwargs.get("device")
        stays = bool(there) if device is None else torch.device(device).type == DEVICE.type
        if name == "_to_copy" and stays != bool(there):
            (self.writes if stays else self.reads)[name] += 1
        elif name == "copy_" and isinstance(args[0], There) != isinstance(args[1], There):
            (self.writes if isinstance(args[0], There) else self.reads)[name] += 1
        elif there and name in _READS:
            self.reads[name] += 1
        elif there and "index" in name and isinstance(args[1], list | tuple):
            indices = [value for value in args[1] if value is not None]
            if any(value.dtype == torch.bool for value in indices):
                self.reads[name] += 1
            if not all(isinstance(value, There) for value in indices):
                self.writes[name] += 1
        if there and len(there) < len(tensors) and name not in _MIXED:
            mixed = [value for value in tensors if not isinstance(value, There) and value.ndim]
            if mixed:
                raise RuntimeError(f"{func}: tensors on two devices, {[tuple(t.shape) for t in tensors]}")
        if device is not None and stays:
            kwargs["device"] = torch.device("cpu")
        back = {id(value.here): value for value in there}
        plain = tree_map(lambda value: value.here if isinstance(value, There) else value, (args, kwargs))
        result = func(*plain[0], **plain[1])
        if name == "copy_":
            return args[0]
        if not stays or name == "_local_scalar_dense":
            return result

        def moved(value: Any) -> Any:
            return back[id(value)] if id(value) in back else There(value) if isinstance(value, Tensor) else value

        return tree_map(moved, result)
