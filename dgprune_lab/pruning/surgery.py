"""Mask -> a smaller model; masking for training."""

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
    provenance_of,
    set_provenance,
)

_SCRATCH_BYTES = 32 * 2**20


def prune(model: nn.Module, mask: Mask) -> nn.Module:
    """A new, physically smaller network without the removed filters; the argument is untouched.

    Every tensor that holds a filter is cut by one `index_select` per axis; the rest is copied, so nothing is shared.
    The record of what was read travels along (`provenance_of`).

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
    """`prune` for a network that is only run: parameters that are not cut are the argument's own; no record is kept.

    Copying them is most of the work where they are large (the second linear layer of a VGG-16 has 17 million).
    Buffers are always copied, so BatchNorm statistics can be re-estimated.
    """
    graph = mask.graph
    vector = graph.vector(mask.keep)
    kept = [vector[ids].nonzero().flatten() for ids in graph.distinct]
    cut_here = [index.shape[0] < length for index, length in zip(kept, graph.lengths, strict=True)]
    blocks = graph_blocks(graph)
    there: set[str] = set()

    def cut(name: str, tensor: Tensor) -> Tensor:
        axes = graph.cuts.get(name, ())
        if axes:
            _check_fits(name, tuple(tensor.shape), graph)
            there.add(name)
            axes = [(axis, which) for axis, which in axes if cut_here[which]]
        for k, (axis, which) in enumerate(axes, start=1):  # axis 0 first: whole rows are copied, the other gathers less
            tensor = _select(tensor, axis, kept[which], blocks[which], last=k == len(axes))
        shared = share and name in graph.parameters
        return tensor if axes or shared else tensor.clone()

    small = rebuild(model, cut)
    for name in graph.axes:
        if name not in there:
            _check_fits(name, None, graph)
    return small


def masked(model: nn.Module, mask: Mask | WeightMask) -> nn.Module:
    """A copy of the same shapes in which what the mask removes is exactly zero, and stays so in training.

    A removed filter's rows, biases, BatchNorm scale and shift, and its consumers' columns are zeroed by a
    parametrization, so whatever an optimiser writes below it, the network sees zero.

    Raises:
        DgpruneError: a mask made for a network of other shapes.
    """
    twin = copy.deepcopy(model)
    if isinstance(mask, Mask):
        tensors = dict([*model.named_parameters(), *model.named_buffers()])
        for name in mask.graph.axes:
            _check_fits(name, tuple(tensors[name].shape) if name in tensors else None, mask.graph)
        keeps = dict(_tensor_masks(mask))
    else:
        keeps = dict(mask.keep)
    parameters, buffers = dict(twin.named_parameters()), dict(twin.named_buffers())
    if isinstance(mask, WeightMask):
        for name, keep in keeps.items():
            got = tuple(parameters[name].shape) if name in parameters else "no such parameter"
            if got != tuple(keep.shape):
                want = tuple(keep.shape)
                raise DgpruneError(
                    f"the mask was made for another network: {name} should have shape {want}, got {got}."
                )
    for name, keep in keeps.items():
        owner, _, leaf = name.rpartition(".")
        module = twin.get_submodule(owner)
        if name in parameters:
            keep = keep.to(parameters[name].device)
            parametrize.register_parametrization(module, leaf, _Keep(keep.expand_as(parameters[name]).clone()))
        elif leaf == "running_mean":
            buffers[name].mul_(keep.flatten().to(buffers[name].device))
    set_provenance(twin, provenance_of(model).adding("scorer", mask.reads))
    return twin


def zeroed(model: nn.Module, mask: Mask) -> nn.Module:
    """What `masked` computes, as plain tensors: a copy in which the removed places hold zeros."""
    keeps = dict(_tensor_masks(mask))
    return rebuild(model, lambda name, tensor: torch.where(keeps[name], tensor, 0) if name in keeps else tensor.clone())


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


def graph_blocks(graph: FilterGraph) -> list[int]:
    """Per distinct map, the length of its runs of equal ids (7 x 7 places of a flattened filter); 1 = none."""
    found = graph.__dict__.get("_blocks")
    if found is None:
        found = [_block(ids) for ids in graph.distinct]
        graph.__dict__["_blocks"] = found
    return found


def _block(ids: Tensor) -> int:
    change = (ids.diff() != 0).nonzero().flatten()
    first = int(change[0]) + 1 if len(change) else len(ids)
    fits = len(ids) % first == 0 and bool((ids.view(-1, first) == ids.view(-1, first)[:, :1]).all())
    return first if fits and first < len(ids) else 1


def _select(tensor: Tensor, axis: int, index: Tensor, block: int, *, last: bool) -> Tensor:
    where = index if index.device == tensor.device else index.to(tensor.device)
    if block > 1:
        blocks = tensor.unflatten(axis, (-1, block)).index_select(axis, where[::block] // block)
        return blocks.flatten(axis, axis + 1)
    if last or tensor.device.type != "cpu":
        return tensor.index_select(axis, where)
    shape = [where.shape[0] if k == axis else size for k, size in enumerate(tensor.shape)]
    return torch.index_select(tensor, axis, where, out=_scratch(shape, tensor.dtype))


_here = threading.local()


def _scratch(shape: list[int], dtype: torch.dtype) -> Tensor:
    """A tensor of this thread's own that the next call overwrites: fresh memory costs more than the copy into it."""
    count = math.prod(shape)
    held: Tensor | None = getattr(_here, "scratch", None)
    if held is None or held.dtype != dtype or held.shape[0] < count:
        with torch.inference_mode(False):  # one made in inference mode could not be written outside it
            held = torch.empty(count, dtype=dtype)
        if held.nbytes <= _SCRATCH_BYTES:
            _here.scratch = held
    return held[:count].view(shape)


def rebuild(model: nn.Module, tensor: Callable[[str, Tensor], Tensor]) -> nn.Module:
    """A copy of a module tree with every parameter and buffer replaced by `tensor(name, old)`; hooks are not copied.

    Nothing is initialised and no weight is copied twice, so this takes well under a millisecond for a ResNet-18.
    Shared modules and shared tensors stay shared. Sizes such as `out_channels` follow the new tensors.
    """
    with torch.no_grad():
        return _copy_tree(model, "", tensor, {}, {})


_HOOKS = tuple(name for name in nn.Module().__dict__ if "hooks" in name)


def _copy_tree(
    module: nn.Module,
    prefix: str,
    tensor: Callable[[str, Tensor], Tensor],
    made: dict[int, Tensor],
    seen: dict[int, nn.Module],
) -> nn.Module:
    """One module and what is below it; `made` and `seen` hold what stands in the tree already, by identity."""
    if id(module) in seen:
        return seen[id(module)]
    kind = module.__class__
    twin = kind.__new__(kind)
    seen[id(module)] = twin
    state: dict[str, Any] = dict(module.__dict__)
    for name in _HOOKS:
        if isinstance(state.get(name), dict):
            state[name] = type(state[name])()
    parameters, buffers = {}, {}
    for key, old in module._parameters.items():
        if old is not None and id(old) not in made:
            made[id(old)] = nn.Parameter(tensor(prefix + key, old.detach()), requires_grad=old.requires_grad)
        parameters[key] = None if old is None else made[id(old)]
    for key, old in module._buffers.items():
        if old is not None and id(old) not in made:
            made[id(old)] = tensor(prefix + key, old)
        buffers[key] = None if old is None else made[id(old)]
    state["_parameters"], state["_buffers"] = parameters, buffers
    state["_modules"] = {
        key: None if child is None else _copy_tree(child, f"{prefix}{key}.", tensor, made, seen)
        for key, child in module._modules.items()
    }
    twin.__dict__.update(state)
    if parameters or buffers:
        _follow_sizes(twin)
    return twin


def _follow_sizes(module: nn.Module) -> None:
    """Make a layer's numbers say what its tensors are; plain assignments would take torch's slow way."""
    own = module.__dict__
    if isinstance(module, CONV):
        first, second = module.weight.shape[:2]
        if module.groups > 1 and module.groups == module.in_channels == module.out_channels:
            own.update(in_channels=first, out_channels=first, groups=first)
        elif isinstance(module, TRANSPOSED):
            own.update(in_channels=first, out_channels=second * module.groups)
        else:
            own.update(out_channels=first, in_channels=second * module.groups)
    elif isinstance(module, nn.Linear):
        own.update(out_features=module.weight.shape[0], in_features=module.weight.shape[1])
    elif isinstance(module, BATCHNORM):
        held = module.weight if module.weight is not None else module.running_mean
        own.update(num_features=module.num_features if held is None else held.shape[0])
    elif isinstance(module, nn.PReLU):
        own.update(num_parameters=module.weight.numel())


def _check_fits(name: str, got: tuple[int, ...] | None, graph: FilterGraph) -> None:
    """Refuse a tensor that the mask's groups know with another shape, or that is not there."""
    if got is None:
        raise DgpruneError(
            f"the mask was made for another network: this one has no {name}. "
            "A network that is masked already takes no second mask; compose them with mask.then, on the original."
        )
    want, _ = graph.shapes[name]
    if want != got:
        raise DgpruneError(
            f"the mask was made for another network: {name} should have shape {want}, this one has {got}."
        )


def private(model: nn.Module) -> nn.Module:
    """A copy in eval mode that shares the weights and none of the hooks: the model never notices."""
    return rebuild(model, lambda _, tensor: tensor.detach()).eval().requires_grad_(False)


def device_of(model: nn.Module) -> torch.device:
    """Where a network's parameters are."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))
