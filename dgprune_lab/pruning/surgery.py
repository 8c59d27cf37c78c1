"""Pruning and masking: a mask -> a smaller network, or one with zeros."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..core import DgpruneError, FilterGraph, Mask, WeightMask, provenance_of, public, set_provenance
from .copies import deep_copy, device_of, is_large, rebuild
from .proof import prove_copies_if_suspect

_thread = threading.local()


@public
def prune(model: nn.Module, mask: Mask) -> nn.Module:
    """Return a new, physically smaller network without the removed filters; `model` stays unchanged.

    Every tensor that carries filters is cut by one `index_select` per axis; all others are copied, so nothing is
    shared. The provenance is copied too (`provenance_of`).

    Raises:
        DgpruneError: a mask of single weights, or a mask made for a network of other shapes.

    >>> import torch, dgprune_lab as dg
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3))
    >>> graph = dg.read_groups(net, torch.zeros(1, 1, 8, 8))
    >>> dg.prune(net, dg.Mask.by_hand(graph, removed={"0": [1, 2]}))[0].weight.shape
    torch.Size([2, 1, 3, 3])
    """
    if isinstance(mask, WeightMask):
        raise DgpruneError("a mask of single weights leaves no filter to remove; use masked(model, mask).")
    prove_copies_if_suspect(model, _random_image(mask))
    small = pruned_view(model, mask, share=False)
    set_provenance(small, provenance_of(model).adding("scorer", mask.reads).adding("selection", mask.selection))
    small.dgprune_masks = (*getattr(model, "dgprune_masks", ()), mask.to_json())  # type: ignore[assignment]
    return small


def _random_image(mask: Mask) -> Tensor:
    """Return an image of random pixels: on a black one, ReLUs may hide what a hook changes."""
    return torch.rand(1, *mask.graph.input_shape, generator=torch.Generator().manual_seed(0))


def pruned_view(model: nn.Module, mask: Mask, *, share: bool = True) -> nn.Module:
    """Return the network that `prune` would return, for inference only: without a record of how it was pruned.

    Parameters that lose nothing share their memory with `model`, and so do large ones that lose only their first or
    last filters; with `share=False` all are copied. Copying would be most of the work (the second linear layer of a
    VGG-16 has 17 million parameters). Buffers are always copied, so BatchNorm statistics can be re-estimated.
    """
    graph = mask.graph
    vector = graph.vector(mask.keep)
    kept = [vector[ids].nonzero().flatten() for ids in graph.distinct]
    on_cpu = kept
    if kept and (device := device_of(model)).type != "cpu":
        packed = torch.cat(kept).to(device, non_blocking=True)
        kept = list(packed.split([len(index) for index in kept]))
    is_cut = [index.shape[0] < length for index, length in zip(kept, graph.lengths, strict=True)]
    blocks = _block_lengths(graph)
    cut_names: set[str] = set()

    def cut_tensor(name: str, tensor: Tensor) -> Tensor:
        axes = graph.cuts.get(name, ())
        if axes:
            _check_shape(name, tensor, expected=graph.shapes[name][0], model=model)
            cut_names.add(name)
            axes = [(axis, slot) for axis, slot in axes if is_cut[slot]]
        if is_large(tensor):
            if share and name in graph.parameters and all(_is_run(on_cpu[slot]) for _, slot in axes):
                for axis, slot in axes:  # only ends are cut: a view, no copy
                    tensor = tensor.narrow(axis, int(on_cpu[slot][0]), len(kept[slot]))
                return tensor
            if [axis for axis, _ in axes] == [0, 1]:
                rows, columns = (slot for _, slot in axes)
                return _select_both(tensor, kept[rows], kept[columns], block=blocks[columns])
        # Axis 0 first: it copies whole rows, so the other axes gather less.
        for k, (axis, slot) in enumerate(axes, start=1):
            tensor = _select(tensor, kept[slot], axis=axis, block=blocks[slot], last=k == len(axes))
        return tensor if axes or (share and name in graph.parameters) else tensor.clone()

    small = rebuild(model, cut_tensor)
    for name in graph.axes:
        if name not in cut_names:
            _check_shape(name, None, expected=graph.shapes[name][0], model=model)
    return small


@public
def masked(model: nn.Module, mask: Mask | WeightMask) -> nn.Module:
    """Return a copy with the same shapes in which the removed filters or weights are exactly zero, even in training.

    A removed filter's rows, biases, BatchNorm scale and shift, and its consumers' columns are set to zero by a
    parametrization, so the network computes with zeros whatever values an optimiser writes.

    Raises:
        DgpruneError: a mask made for a network of other shapes.
    """
    prove_copies_if_suspect(model, _random_image(mask) if isinstance(mask, Mask) else None)
    twin = deep_copy(model)
    parameters, buffers = dict(twin.named_parameters()), dict(twin.named_buffers())
    if isinstance(mask, Mask):
        shapes, tensors = {name: mask.graph.shapes[name][0] for name in mask.graph.axes}, {**parameters, **buffers}
        keeps = dict(_tensor_masks(mask))
    else:
        shapes, tensors = {name: tuple(keep.shape) for name, keep in mask.keep.items()}, parameters
        keeps = dict(mask.keep)
    for name, shape in shapes.items():
        _check_shape(name, tensors.get(name), expected=shape, model=model)
    for name, keep in keeps.items():
        owner, _, leaf = name.rpartition(".")
        if name in parameters:
            keep = keep.to(parameters[name].device).expand_as(parameters[name]).clone()
            parametrize.register_parametrization(twin.get_submodule(owner), leaf, _Keep(keep))
        elif leaf == "running_mean":
            buffers[name].mul_(keep.flatten().to(buffers[name].device))
    provenance = provenance_of(model).adding("scorer", mask.reads)
    set_provenance(twin, provenance.adding("selection", mask.selection) if isinstance(mask, Mask) else provenance)
    return twin


@contextmanager
def zeroing(model: nn.Module, mask: Mask, *, renew: Callable[[Tensor], object] | None = None) -> Iterator[None]:
    """Zero the same entries as `masked`, but in the network itself and only within the block; then restore them.

    With `renew`, large parts of weights are not restored; `renew` fills these weights with new values instead.
    """
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    vector = mask.graph.vector(mask.keep)
    saved: list[tuple[Tensor, int, Tensor, Tensor]] = []
    unsaved: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, axes in mask.graph.axes.items():
            for axis, ids in () if name.endswith("running_var") else axes.items():
                tensor, removed = tensors[name], (~vector[ids]).nonzero().flatten().to(tensors[name].device)
                if renew is None or not is_large(tensor.narrow(axis, 0, len(removed))):
                    saved.append((tensor, axis, removed, tensor.index_select(axis, removed)))
                else:
                    unsaved[name] = tensor
                tensor.index_fill_(axis, removed, 0)
        try:
            yield
        finally:
            for tensor, axis, removed, values in reversed(saved):
                tensor.index_copy_(axis, removed, values)
            if renew is not None:
                for tensor in unsaved.values():
                    renew(tensor)


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
    """Yield (tensor name, bool that broadcasts to it) for each tensor that carries filters, except variances."""
    graph, vector = mask.graph, mask.graph.vector(mask.keep)
    for name, axes in graph.axes.items():
        if name.endswith("running_var"):
            continue
        shape, _ = graph.shapes[name]
        keep = torch.ones((1,) * len(shape), dtype=torch.bool)
        for axis, ids in axes.items():
            keep = keep & vector[ids].view([-1 if k == axis else 1 for k in range(len(shape))])
        yield name, keep


def _check_shape(name: str, tensor: Tensor | None, *, expected: tuple[int, ...], model: nn.Module) -> None:
    """Refuse a tensor that is missing or has another shape than the mask was made for."""
    if tensor is None:
        names = [key for key, _ in model.named_parameters()]
        advice = "Make a mask for it: dg.allocate(study.score(...), ratio=...), with a study of this network."
        if any("parametrizations." in key for key in names):
            advice = (
                "A network that is masked already takes no second mask; compose them with mask.then, on the original."
            )
        elif wrapped := next((key for key in names if key.endswith(f".{name}")), ""):
            advice = (
                f"It has {wrapped}: pass the network inside, its submodule {wrapped.removesuffix(name).rstrip('.')!r}."
            )
        raise DgpruneError(f"the mask was made for another network: this one has no {name}. {advice}")
    if tuple(tensor.shape) != expected:
        raise DgpruneError(
            f"the mask was made for another network: {name} should have shape {expected}, got {tuple(tensor.shape)}."
        )


def _block_lengths(graph: FilterGraph) -> list[int]:
    """Return the length of runs of equal ids in each of `graph.distinct`: 49 for flattened 7 x 7 maps, 1 if no runs."""
    if "_blocks" not in graph.__dict__:
        graph.__dict__["_blocks"] = [_block_length(ids) for ids in graph.distinct]
    return graph.__dict__["_blocks"]


def _block_length(ids: Tensor) -> int:
    change = (ids.diff() != 0).nonzero().flatten()
    first = int(change[0]) + 1 if len(change) else len(ids)
    fits = len(ids) % first == 0 and bool((ids.view(-1, first) == ids.view(-1, first)[:, :1]).all())
    return first if fits and first < len(ids) else 1


def _is_run(index: Tensor) -> bool:
    return int(index[-1] - index[0]) < len(index)


def _select(tensor: Tensor, index: Tensor, *, axis: int, block: int, last: bool) -> Tensor:
    index = index if index.device == tensor.device else index.to(tensor.device)
    if block > 1:
        blocks = tensor.unflatten(axis, (-1, block)).index_select(axis, index[::block] // block)
        return blocks.flatten(axis, axis + 1)
    if last or tensor.device.type != "cpu" or is_large(tensor):
        return tensor.index_select(axis, index)
    shape = [index.shape[0] if k == axis else size for k, size in enumerate(tensor.shape)]
    return torch.index_select(tensor, axis, index, out=_scratch(shape, tensor.dtype))


def _select_both(tensor: Tensor, rows: Tensor, columns: Tensor, *, block: int) -> Tensor:
    """Select positions on the first two axes at once, so that only the result is allocated."""
    blocks = tensor.unflatten(1, (-1, block))
    rows, columns = rows.to(tensor.device), (columns[::block] // block).to(tensor.device)
    return blocks[rows[:, None], columns].flatten(1, 2)


def _scratch(shape: list[int], dtype: torch.dtype) -> Tensor:
    """Return a buffer that the thread's next call overwrites: allocating memory costs more than copying into it."""
    count = math.prod(shape)
    buffer: Tensor | None = getattr(_thread, "scratch", None)
    if buffer is None or buffer.dtype != dtype or buffer.shape[0] < count:
        with torch.inference_mode(False):  # a tensor made in inference mode cannot be written outside it
            buffer = torch.empty(count, dtype=dtype)
        _thread.scratch = buffer
    return buffer[:count].view(shape)
