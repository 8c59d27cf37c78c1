"""Networks on disk, pruned ones too: tensors in a safetensors file, everything else in a JSON card. Never a pickle."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from ..core import (
    DgpruneError,
    Mask,
    Provenance,
    card_text,
    provenance_of,
    public,
    read_card,
    set_provenance,
    write_file,
)
from ..pruning import prune, read_groups
from .networks import build


@public
def save(model: nn.Module, path: str | Path, *, card: Mapping[str, Any] | None = None) -> Path:
    """Write a network, pruned or not, as PATH.safetensors (every parameter and buffer) and PATH.json (the card).

    The card holds the builder's name and options where the network came from one, every mask it was pruned by (with
    original filter indices), its provenance and the SHA-256 of the weights.

    Args:
        model: untouched.
        path: with either ending or none.
        card: further entries, as plain values.

    Returns:
        The path of the weights.

    Raises:
        DgpruneError: a masked network, whose parametrized weights only its own code can rebuild; an entry that JSON
            cannot hold.
    """
    state = model.state_dict()
    if any("parametrizations" in name for name in state):
        raise DgpruneError(
            "a masked network cannot be saved as it is; save dg.prune(model, mask), which computes the same. Zeros of "
            "single weights are written into the layers by torch.nn.utils.parametrize.remove_parametrizations."
        )
    weights, beside = _paths(path)
    data = tensors_to_bytes(state)
    builder, options = getattr(model, "dgprune_builder", (None, None))
    values = {
        "builder": builder,
        "options": options,
        "masks": list(getattr(model, "dgprune_masks", ())),
        "provenance": provenance_of(model).to_json(),
        "weights_sha256": hashlib.sha256(data).hexdigest(),
    }
    text = card_text({**values, **(card or {})}, kind="network")
    write_file(weights, data)
    write_file(beside, text)
    return weights


@public
def load(path: str | Path, *, model: nn.Module | None = None) -> nn.Module:
    """Load the network that `save` wrote, in eval mode, on the CPU, with its provenance.

    Args:
        path: with either ending or none.
        model: a fresh, unpruned network of the same class, where the saved one did not come from a builder of
            `dg.models`; untouched.

    Raises:
        DgpruneError: a file that is missing, is not safetensors or JSON, has another format or belongs to another
            card, or a network of other names or shapes.
    """
    weights, beside = _paths(path)
    if not weights.is_file() or not beside.is_file():
        raise DgpruneError(f"no network at {weights.with_suffix('')}: NAME.safetensors and NAME.json belong together.")
    return rebuild(weights.read_bytes(), read_card(beside, kind="network"), name=weights.name, model=model)


def rebuild(data: bytes, card: Mapping[str, Any], *, name: str, model: nn.Module | None = None) -> nn.Module:
    """Build the network that a card describes and fill it with the tensors of a safetensors file; see `load`."""
    if hashlib.sha256(data).hexdigest() != card["weights_sha256"]:
        raise DgpruneError(
            f"{name} is not the file its card describes (another SHA-256); copy NAME.safetensors and NAME.json "
            "together, or save the network again."
        )
    if model is None and card["builder"] is None:
        raise DgpruneError(f"the card of {name} names no builder; pass a fresh network: load(path, model=...).")
    network = copy.deepcopy(model) if model is not None else build(card["builder"], **card["options"])
    for value in card["masks"]:
        graph = read_groups(network, torch.zeros(1, *value["input_shape"]), layers=value["layers"])
        network = prune(network, Mask.from_json(value, graph=graph))
    fit_state(network, tensors_from_bytes(data, name))
    set_provenance(network, Provenance.from_json(card["provenance"]))
    return network.eval()


def tensors_to_bytes(state: Mapping[str, Tensor]) -> bytes:
    """Return a safetensors file of these tensors: on the CPU, contiguous, memory of their own, in sorted order."""
    return save_bytes({name: state[name].detach().cpu().contiguous().clone() for name in sorted(state)})


def tensors_from_bytes(data: bytes, name: str) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; `name` begins the message.

    Raises:
        DgpruneError: the bytes are no safetensors file.
    """
    try:
        return load_bytes(data)
    except SafetensorError as error:
        raise DgpruneError(
            f"{name} is not a safetensors file ({error}); pickled checkpoints (.pt, .pth) are never read: "
            "load one with torch yourself and save it with dg.save."
        ) from error


def fit_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load tensors into a model in place, after checking that every name, shape and type agrees.

    Raises:
        DgpruneError: which names are missing or unexpected, which shapes or types differ; nothing was changed.
    """
    own = model.state_dict()
    missing, extra = [name for name in own if name not in state], [name for name in state if name not in own]
    different = [
        f"{name} is {_shape(state[name])} in the file, {_shape(tensor)} in the network"
        for name, tensor in own.items()
        if name in state and _shape(state[name]) != _shape(tensor)
    ]
    reasons = [f"the file lacks {_some(missing)}"] * bool(missing)
    reasons += [f"the file has {_some(extra)}, which the network does not"] * bool(extra)
    reasons += [_some(different)] * bool(different)
    if reasons:
        raise DgpruneError(
            f"the tensors do not fit this network: {'; '.join(reasons)}. Build the network with the options it was "
            "saved with (the card names them)."
        )
    model.load_state_dict(dict(state))


def _paths(path: str | Path) -> tuple[Path, Path]:
    """NAME.safetensors and NAME.json for a path with either ending or none."""
    path = Path(path)
    base = path.with_suffix("") if path.suffix in (".safetensors", ".json") else path
    return base.with_name(base.name + ".safetensors"), base.with_name(base.name + ".json")


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _some(items: list[str], *, most: int = 4) -> str:
    """The first few of a list, and how many more there are."""
    listed = ", ".join(items[:most])
    return listed if len(items) <= most else f"{listed} and {len(items) - most} more"
