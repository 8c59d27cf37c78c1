"""Mask -> a smaller network, a masked network; copies of a network."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..core import (
    BATCHNORM,
    CONV,
    TRANSPOSED,
    DgpruneError,
    FilterGraph,
    Mask,
    WeightMask,
    is_depthwise,
    provenance_of,
    set_provenance,
)

_SCRATCH_BYTES = 32 * 2**20
_thread = threading.local()


def prune(model: nn.Module, mask: Mask) -> nn.Module:
    """Return a new, physically smaller network without the removed filters; the argument is untouched.

    Every tensor that holds a filter is cut by one `index_select` per axis; the rest is copied, so nothing is shared.
    The provenance is copied too (`provenance_of`).

    Raises:
        DgpruneError: a mask of single weights, or one made for a network of other shapes.

    >>> import torch, dgprune_lab as dg
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3))
    >>> graph = dg.read_groups(net, torch.zeros(1, 1, 8, 8))
    >>> dg.prune(net, dg.Mask.by_hand(graph, removed={"0": [1, 2]}))[0].weight.shape
    torch.Size([2, 1, 3, 3])
    """
    if isinstance(mask, WeightMask):
        raise DgpruneError("a mask of single weights leaves no filter to remove; use masked(model, mask).")
    small = pruned_view(model, mask, share=False)
    set_provenance(small, provenance_of(model).adding("scorer", mask.reads))
    small.dgprune_masks = (*getattr(model, "dgprune_masks", ()), mask.to_json())  # type: ignore[assignment]
    return small


def pruned_view(model: nn.Module, mask: Mask, *, share: bool = True) -> nn.Module:
    """Return `prune`'s network for inference only: uncut parameters are shared with the argument, no provenance is set.

    Copying them is most of the work where they are large (the second linear layer of a VGG-16 has 17 million).
    Buffers are always copied, so BatchNorm statistics can be re-estimated.
    """
    graph = mask.graph
    vector = graph.vector(mask.keep)
    kept = [vector[ids].nonzero().flatten() for ids in graph.distinct]
    is_cut = [index.shape[0] < length for index, length in zip(kept, graph.lengths, strict=True)]
    blocks = _block_lengths(graph)
    cut_names: set[str] = set()

    def cut(name: str, tensor: Tensor) -> Tensor:
        axes = graph.cuts.get(name, ())
        if axes:
            _check_shape(name, tensor, expected=graph.shapes[name][0])
            cut_names.add(name)
            axes = [(axis, which) for axis, which in axes if is_cut[which]]
        # Axis 0 first: it copies whole rows, so the other axes gather less.
        for k, (axis, which) in enumerate(axes, start=1):
            tensor = _select(tensor, kept[which], axis=axis, block=blocks[which], last=k == len(axes))
        return tensor if axes or (share and name in graph.parameters) else tensor.clone()

    small = rebuild(model, cut)
    for name in graph.axes:
        if name not in cut_names:
            _check_shape(name, None, expected=graph.shapes[name][0])
    return small


def masked(model: nn.Module, mask: Mask | WeightMask) -> nn.Module:
    """Return a copy of the same shapes in which what the mask removes is exactly zero, and stays so in training.

    A removed filter's rows, biases, BatchNorm scale and shift, and its consumers' columns are zeroed by a
    parametrization, so the network computes with zeros whatever an optimiser writes.

    Raises:
        DgpruneError: a mask made for a network of other shapes.
    """
    twin = copy.deepcopy(model)
    parameters, buffers = dict(twin.named_parameters()), dict(twin.named_buffers())
    if isinstance(mask, Mask):
        shapes, tensors = {name: mask.graph.shapes[name][0] for name in mask.graph.axes}, {**parameters, **buffers}
        keeps = dict(_tensor_masks(mask))
    else:
        shapes, tensors = {name: tuple(keep.shape) for name, keep in mask.keep.items()}, parameters
        keeps = dict(mask.keep)
    for name, shape in shapes.items():
        _check_shape(name, tensors.get(name), expected=shape)
    for name, keep in keeps.items():
        owner, _, leaf = name.rpartition(".")
        if name in parameters:
            keep = keep.to(parameters[name].device).expand_as(parameters[name]).clone()
            parametrize.register_parametrization(twin.get_submodule(owner), leaf, _Keep(keep))
        elif leaf == "running_mean":
            buffers[name].mul_(keep.flatten().to(buffers[name].device))
    set_provenance(twin, provenance_of(model).adding("scorer", mask.reads))
    return twin


def zeroed(model: nn.Module, mask: Mask) -> nn.Module:
    """Return what `masked` computes as plain tensors: a copy in which the removed entries are zero."""
    keeps = dict(_tensor_masks(mask))

    def kept(name: str, tensor: Tensor) -> Tensor:
        return torch.where(keeps[name].to(tensor.device), tensor, 0) if name in keeps else tensor.clone()

    return rebuild(model, kept)


class _Keep(nn.Module):
    keep: Tensor

    def __init__(self, keep: Tensor) -> None:
        super().__init__()
        self.register_buffer("keep", keep)

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.keep, weight, 0)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


def _tensor_masks(mask: Mask) -> Iterator[tuple[str, Tensor]]:
    """(tensor name, bool that broadcasts to it) of every tensor that holds a filter; variances are left alone."""
    graph, vector = mask.graph, mask.graph.vector(mask.keep)
    for name, axes in graph.axes.items():
        if name.endswith("running_var"):
            continue
        shape, _ = graph.shapes[name]
        keep = torch.ones((1,) * len(shape), dtype=torch.bool)
        for axis, ids in axes.items():
            keep = keep & vector[ids].view([-1 if k == axis else 1 for k in range(len(shape))])
        yield name, keep


def _check_shape(name: str, tensor: Tensor | None, *, expected: tuple[int, ...]) -> None:
    """Refuse a tensor that is missing or has another shape than the mask was made for."""
    if tensor is None:
        raise DgpruneError(
            f"the mask was made for another network: this one has no {name}. "
            "A network that is masked already takes no second mask; compose them with mask.then, on the original."
        )
    if tuple(tensor.shape) != expected:
        raise DgpruneError(
            f"the mask was made for another network: {name} should have shape {expected}, got {tuple(tensor.shape)}."
        )


def _block_lengths(graph: FilterGraph) -> list[int]:
    """Per distinct map, the length of its runs of equal ids (7 x 7 positions of a flattened filter); 1 = none."""
    if "_blocks" not in graph.__dict__:
        graph.__dict__["_blocks"] = [_block_length(ids) for ids in graph.distinct]
    return graph.__dict__["_blocks"]


def _block_length(ids: Tensor) -> int:
    change = (ids.diff() != 0).nonzero().flatten()
    first = int(change[0]) + 1 if len(change) else len(ids)
    fits = len(ids) % first == 0 and bool((ids.view(-1, first) == ids.view(-1, first)[:, :1]).all())
    return first if fits and first < len(ids) else 1


def _select(tensor: Tensor, index: Tensor, *, axis: int, block: int, last: bool) -> Tensor:
    index = index if index.device == tensor.device else index.to(tensor.device)
    if block > 1:
        blocks = tensor.unflatten(axis, (-1, block)).index_select(axis, index[::block] // block)
        return blocks.flatten(axis, axis + 1)
    if last or tensor.device.type != "cpu":
        return tensor.index_select(axis, index)
    shape = [index.shape[0] if k == axis else size for k, size in enumerate(tensor.shape)]
    return torch.index_select(tensor, axis, index, out=_scratch(shape, tensor.dtype))


def _scratch(shape: list[int], dtype: torch.dtype) -> Tensor:
    """A tensor of this thread that the next call overwrites: fresh memory costs more than the copy into it."""
    count = math.prod(shape)
    buffer: Tensor | None = getattr(_thread, "scratch", None)
    if buffer is None or buffer.dtype != dtype or buffer.shape[0] < count:
        with torch.inference_mode(False):  # one made in inference mode could not be written outside it
            buffer = torch.empty(count, dtype=dtype)
        if buffer.nbytes <= _SCRATCH_BYTES:
            _thread.scratch = buffer
    return buffer[:count].view(shape)


def rebuild(model: nn.Module, tensor: Callable[[str, Tensor], Tensor]) -> nn.Module:
    """Return a copy of a module tree with every parameter and buffer replaced by `tensor(name, old)`, without hooks.

    Nothing is initialised and no weight is copied twice, so this takes well under a millisecond for a ResNet-18.
    Shared modules and shared tensors stay shared. Sizes such as `out_channels` follow the new tensors.
    """
    with torch.no_grad():
        return _Copier(tensor).module(model, "")


def deep_copy(model: nn.Module) -> nn.Module:
    """Return a copy with its own weights and no hooks, in the modes of the argument."""
    return rebuild(model, lambda _, tensor: tensor.clone())


def shared_copy(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode that shares the weights, without hooks or gradients."""
    return rebuild(model, lambda _, tensor: tensor.detach()).eval().requires_grad_(False)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a network's parameters."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


_HOOKS = tuple(name for name in nn.Module().__dict__ if "hooks" in name)


class _Copier:
    """Copies one module tree; modules and tensors that occur twice are copied once."""

    def __init__(self, tensor: Callable[[str, Tensor], Tensor]) -> None:
        self._tensor = tensor
        self._tensors: dict[int, Tensor] = {}
        self._modules: dict[int, nn.Module] = {}

    def module(self, module: nn.Module, prefix: str) -> nn.Module:
        if id(module) in self._modules:
            return self._modules[id(module)]
        kind = module.__class__
        twin = self._modules[id(module)] = kind.__new__(kind)
        state: dict[str, Any] = dict(module.__dict__)
        for name in _HOOKS:
            if isinstance(state.get(name), dict):
                state[name] = type(state[name])()
        for table in ("_parameters", "_buffers"):
            state[table] = {key: self._copied(old, prefix + key) for key, old in state[table].items()}
        state["_modules"] = {
            key: None if child is None else self.module(child, f"{prefix}{key}.")
            for key, child in module._modules.items()
        }
        twin.__dict__.update(state)
        if state["_parameters"] or state["_buffers"]:
            _follow_sizes(twin)
        return twin

    def _copied(self, old: Tensor | None, name: str) -> Tensor | None:
        if old is not None and id(old) not in self._tensors:
            new = self._tensor(name, old.detach())
            is_parameter = isinstance(old, nn.Parameter)
            self._tensors[id(old)] = nn.Parameter(new, requires_grad=old.requires_grad) if is_parameter else new
        return None if old is None else self._tensors[id(old)]


def _follow_sizes(module: nn.Module) -> None:
    """Make a layer's sizes match its tensors; plain assignments would take torch's slow path."""
    own = module.__dict__
    if isinstance(module, CONV):
        first, second = module.weight.shape[:2]
        if is_depthwise(module):
            own.update(in_channels=first, out_channels=first, groups=first)
        elif isinstance(module, TRANSPOSED):
            own.update(in_channels=first, out_channels=second * module.groups)
        else:
            own.update(out_channels=first, in_channels=second * module.groups)
    elif isinstance(module, nn.Linear):
        own.update(out_features=module.weight.shape[0], in_features=module.weight.shape[1])
    elif isinstance(module, BATCHNORM):
        tensor = module.weight if module.weight is not None else module.running_mean
        own.update(num_features=module.num_features if tensor is None else tensor.shape[0])
    elif isinstance(module, nn.PReLU):
        own.update(num_parameters=module.weight.numel())
