"""Mask -> a smaller model; masking for training; BatchNorm statistics re-estimated."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .types.errors import DgpruneError
from .types.filters import Mask, WeightMask
from .types.graph import FilterGraph
from .types.layers import BATCHNORM, CONV, TRANSPOSED
from .types.record import record_of, set_record


def prune(model: nn.Module, mask: Mask) -> nn.Module:
    """A new, physically smaller network without the removed filters; the argument is untouched.

    Every tensor that holds a filter is cut by one `index_select` per axis; the rest is copied, so nothing is shared.
    The record of what was read travels along (`record_of`).

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
    set_record(small, record_of(model).adding("scorer", mask.reads))
    small.dgprune_masks = (*getattr(model, "dgprune_masks", ()), mask.to_json())  # type: ignore[assignment]
    return small


def pruned_view(model: nn.Module, mask: Mask, *, share: bool = True) -> nn.Module:
    """`prune` for a network that is only run: parameters that are not cut are the argument's own; no record is kept.

    Copying them is most of the work where they are large (the second linear layer of a VGG-16 has 17 million).
    Buffers are always copied, so BatchNorm statistics can be re-estimated.
    """
    graph = mask.graph
    _check_fits(model, graph)
    vector = graph.vector(mask.keep)
    kept = [vector[ids].nonzero().flatten() for ids in graph.distinct]
    blocks = graph_blocks(graph)

    def cut(name: str, tensor: Tensor) -> Tensor:
        axes = [(axis, graph.maps[name, axis]) for axis in sorted(graph.axes.get(name, ()))]
        axes = [(axis, which) for axis, which in axes if len(kept[which]) < len(graph.distinct[which])]
        for axis, which in axes:  # axis 0 first: whole rows are copied, so the other axis has less to gather
            tensor = _select(tensor, axis, kept[which], blocks[which])
        shared = share and name in graph.parameters
        return tensor if axes or shared else tensor.clone()

    return rebuild(model, cut)


def masked(model: nn.Module, mask: Mask | WeightMask) -> nn.Module:
    """A copy of the same shapes in which what the mask removes is exactly zero, and stays so in training.

    A removed filter's rows, biases, BatchNorm scale and shift, and its consumers' columns are zeroed by a
    parametrization, so whatever an optimiser writes below it, the network sees zero.

    Raises:
        DgpruneError: a mask made for a network of other shapes.
    """
    twin = copy.deepcopy(model)
    if isinstance(mask, Mask):
        _check_fits(model, mask.graph)
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
    set_record(twin, record_of(model).adding("scorer", mask.reads))
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


def _select(tensor: Tensor, axis: int, index: Tensor, block: int) -> Tensor:
    where = index.to(tensor.device)
    if block == 1:
        return tensor.index_select(axis, where)
    rows = where[::block] // block
    blocks = tensor.unflatten(axis, (-1, block)).index_select(axis, rows)
    return blocks.flatten(axis, axis + 1)


def rebuild(model: nn.Module, tensor: Callable[[str, Tensor], Tensor]) -> nn.Module:
    """A copy of a module tree with every parameter and buffer replaced by `tensor(name, old)`; hooks are not copied.

    Nothing is initialised and no weight is copied twice, so this takes well under a millisecond for a ResNet-18.
    Shared modules and shared tensors stay shared. Sizes such as `out_channels` follow the new tensors.
    """
    made: dict[int, Tensor] = {}
    with torch.no_grad():
        for name, old in model.named_parameters():
            made[id(old)] = nn.Parameter(tensor(name, old.detach()), requires_grad=old.requires_grad)
        for name, old in model.named_buffers():
            made[id(old)] = tensor(name, old)
    return _copy_tree(model, made, {})


_HOOKS = tuple(name for name in nn.Module().__dict__ if "hooks" in name)


def _copy_tree(module: nn.Module, made: dict[int, Tensor], seen: dict[int, nn.Module]) -> nn.Module:
    if id(module) in seen:
        return seen[id(module)]
    twin = module.__class__.__new__(module.__class__)
    seen[id(module)] = twin
    state: dict[str, Any] = dict(module.__dict__)
    for name in _HOOKS:
        if isinstance(state.get(name), dict):
            state[name] = type(state[name])()
    state["_parameters"] = {key: None if p is None else made[id(p)] for key, p in module._parameters.items()}
    state["_buffers"] = {key: None if b is None else made[id(b)] for key, b in module._buffers.items()}
    state["_modules"] = {
        key: None if child is None else _copy_tree(child, made, seen) for key, child in module._modules.items()
    }
    twin.__dict__.update(state)
    _follow_sizes(twin)
    return twin


def _follow_sizes(module: nn.Module) -> None:
    if isinstance(module, CONV):
        first, second = module.weight.shape[:2]
        if module.groups > 1 and module.groups == module.in_channels == module.out_channels:
            module.in_channels = module.out_channels = module.groups = first
        elif isinstance(module, TRANSPOSED):
            module.in_channels, module.out_channels = first, second * module.groups
        else:
            module.out_channels, module.in_channels = first, second * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, BATCHNORM):
        held = module.weight if module.weight is not None else module.running_mean
        module.num_features = module.num_features if held is None else len(held)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.numel()


def _check_fits(model: nn.Module, graph: FilterGraph) -> None:
    tensors = {name: tuple(t.shape) for name, t in [*model.named_parameters(), *model.named_buffers()]}
    for name in graph.axes:
        want, got = graph.shapes[name][0], tensors.get(name)
        if got is None:
            raise DgpruneError(
                f"the mask was made for another network: this one has no {name}. "
                "A network that is masked already takes no second mask; compose them with mask.then, on the original."
            )
        if want != got:
            raise DgpruneError(
                f"the mask was made for another network: {name} should have shape {want}, this one has {got}."
            )
