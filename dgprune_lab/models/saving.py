"""Saving and loading of networks, pruned or not: one safetensors file that holds the card too, never a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core import DgpruneError, Mask, Provenance, at_home, provenance_of, public, read_card, set_provenance, write_file
from ..pruning import deep_copy, prune, read_groups, refuse_uncopyable, unregistered
from .container import pack, tensors_key, unpack
from .foreign import refuse_foreign
from .layer_settings import layer_difference, layer_settings
from .networks import build
from .weight_names import first_few

_RESERVED = ("kind", "format", "versions", "builder", "options", "masks", "provenance", "layers", "sha256")
_MAX_IMAGE_SIZE = 10_000


@public
def save(model: nn.Module, path: str | Path, *, card: Mapping[str, Any] | None = None) -> Path:
    """Write a network, pruned or not, as PATH.safetensors: every parameter and buffer, and the card.

    The card holds the builder's name and options if a builder of `dg.models` made the network, every mask it was pruned
    by (with original filter indices), its provenance, the kinds and settings of its layers, and a SHA-256 of all of
    this and the weights. Card and weights are written at once, so a card never describes other weights. PATH.json is a
    copy of the card for people; `load` does not need it.

    Args:
        model: the network; it stays unchanged.
        path: path of the file, with or without the suffix .safetensors or .json.
        card: further entries of the card, as plain values.

    Returns:
        The path of the file.

    Raises:
        DgpruneError: a masked network, whose parametrized weights only its own code can rebuild; an entry that JSON
            cannot hold or that `save` writes itself; a folder that cannot be written to.
    """
    state = _checked_state(model)
    if reserved := [name for name in card or {} if name in _RESERVED]:
        raise DgpruneError(f"card: save writes {', '.join(reserved)} itself; choose other names for your own entries.")
    builder, options = getattr(model, "dgprune_builder", (None, {}))
    values = {
        "builder": builder,
        "options": options,
        "masks": list(getattr(model, "dgprune_masks", ())),
        "provenance": provenance_of(model).to_json(),
        "layers": layer_settings(model),
        **(card or {}),
    }
    data, text = pack(state, values)
    weights, card_path = _file_paths(path)
    try:
        card_path.unlink(missing_ok=True)  # first, so that an old card is never left beside new weights
        write_file(weights, data)
        write_file(card_path, text)
    except OSError as error:
        raise DgpruneError(
            f"{weights} cannot be written ({error.strerror or error}); name a file in a folder that can be written to."
        ) from error
    return weights


def _checked_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the network's tensors by name, checked for saving."""
    refuse_uncopyable(model)
    if where := unregistered(model):
        raise DgpruneError(f"a saved file would lack layers of this network: {where}")
    state = model.state_dict()
    if any("parametrizations" in name for name in state):
        raise DgpruneError(
            "a masked network cannot be saved as it is; save dg.prune(model, mask), which computes the same. Zeros of "
            "single weights are written into the layers by torch.nn.utils.parametrize.remove_parametrizations."
        )
    if unsupported := [name for name, value in state.items() if not isinstance(value, Tensor) or value.is_sparse]:
        raise DgpruneError(
            f"the network's state holds {', '.join(unsupported[:4])}, which are not dense tensors, so it cannot be "
            "saved; dg.save writes parameters and buffers only."
        )
    return state


@public
def load(path: str | Path, *, model: nn.Module | None = None) -> nn.Module:
    """Load the network that `save` wrote, in eval mode, on the CPU, with its provenance.

    Args:
        path: path of the file, with or without the suffix .safetensors or .json.
        model: a fresh, unpruned network of the same class and settings, needed if no builder of `dg.models` made the
            saved one; it stays unchanged.

    Raises:
        DgpruneError: a file that is missing, was changed, has another format or was written by something else (the
            message says what it is and what to do); a JSON file beside it with another card; a `model` with other
            layers, names or shapes, or layers with other settings (stride, padding, eps, ...).
    """
    weights, card_path = _file_paths(path)
    data = _read_saved(Path(path), weights, card_path)
    card_copy = read_card(card_path, kind="network") if card_path.is_file() else None
    try:
        tensors, card = unpack(data, weights.name)
    except DgpruneError as error:
        if card_copy is None:
            raise
        raise DgpruneError(f"{weights.name} is not the file its card describes: {error}") from None
    if card_copy not in (None, card):
        raise DgpruneError(
            f"{weights.name} is not the file its card describes: {card_path.name} is a copy of the card inside, for "
            "people, and says something else. Delete it to load the file as it was saved, or copy both again."
        )
    return network_of(tensors, card, name=weights.name, model=model)


def network_of(
    tensors: Mapping[str, Tensor], card: Mapping[str, Any], *, name: str, model: nn.Module | None = None
) -> nn.Module:
    """Build the network that a card describes and fill it with these tensors; see `load`."""
    builder = _read_entry(card, "builder", (str, type(None)), name=name)
    if model is None and builder is None:
        raise DgpruneError(f"the card of {name} names no builder; pass a fresh network: load(path, model=...).")
    try:
        if model is not None:
            refuse_uncopyable(model)
            network = deep_copy(model).cpu()
        else:
            network = build(builder, **_read_entry(card, "options", dict, name=name))
        for value in _read_entry(card, "masks", list, name=name):
            network = _apply_mask(network, value, name=name)
    except DgpruneError:
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise DgpruneError(f"the card of {name} describes no network that can be built ({cause}).") from error
    return _load_into(network, tensors, card=card, name=name)


def fill(network: nn.Module, data: bytes, *, name: str) -> nn.Module:
    """Fill a network of the right shapes, in place, with the content of a file that `save` wrote, and return it.

    Its tensors, provenance and masks become those of the file.

    Raises:
        DgpruneError: a file that was changed, or that holds a network of other layers or shapes; `name` begins the
            message.
    """
    tensors, card = unpack(data, name)
    network = _load_into(network, tensors, card=card, name=name)
    network.dgprune_masks = tuple(_read_entry(card, "masks", list, name=name))  # type: ignore[assignment]
    return network


def network_key(model: nn.Module) -> str:
    """Return a SHA-256 of a network's parameters and buffers: names, types, shapes and values."""
    return tensors_key(_checked_state(model))


def _load_into(network: nn.Module, tensors: Mapping[str, Tensor], *, card: Mapping[str, Any], name: str) -> nn.Module:
    types = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    network = network.to(types.pop()) if len(types) == 1 else network
    fit_state(network, tensors)
    if difference := layer_difference(_read_entry(card, "layers", dict, name=name), layer_settings(network)):
        raise DgpruneError(  # its tensors fit, but its outputs would differ
            f"the network in {name} had other layers than this one: {difference}. Pass a fresh network like the one "
            "that was saved: load(path, model=...)."
        )
    set_provenance(network, Provenance.from_json(_read_entry(card, "provenance", dict, name=name)))
    return network.eval()


def _apply_mask(network: nn.Module, value: Any, *, name: str) -> nn.Module:
    """Return the network pruned by a mask from a card."""
    if not isinstance(value, dict):
        raise DgpruneError(f"the card of {name} lists something else than masks.")
    shape, layers = _read_entry(value, "input_shape", list, name=name), _read_entry(value, "layers", str, name=name)
    if len(shape) != 3 or not all(isinstance(size, int) and 1 <= size <= _MAX_IMAGE_SIZE for size in shape):
        raise DgpruneError(f"the card of {name} has a mask for images of {shape!r}; wanted channels, height and width.")
    graph = read_groups(network, torch.zeros(1, *shape), layers=layers)  # type: ignore[arg-type]
    return prune(network, Mask.from_json(value, graph=graph))


def _read_entry(card: Mapping[str, Any], key: str, kinds: type | tuple[type, ...], *, name: str) -> Any:
    """Return an entry of a card; refuse a card in which it is missing or of another type."""
    if key not in card:
        raise DgpruneError(f"the card of {name} lacks {key!r}; save the network again.")
    if not isinstance(card[key], kinds):
        raise DgpruneError(f"the card of {name} has {type(card[key]).__name__} under {key!r}; save the network again.")
    return card[key]


def fit_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load tensors into a model in place, after checking that every name, shape and type agrees.

    Raises:
        DgpruneError: names that are missing or unexpected, shapes or types that differ; the model is then unchanged.
    """
    own = model.state_dict()
    missing, extra = [name for name in own if name not in state], [name for name in state if name not in own]
    different = [
        f"{name} is {_shape(state[name])} in the file, {_shape(tensor)} in the network"
        for name, tensor in own.items()
        if name in state and _shape(state[name]) != _shape(tensor)
    ]
    reasons = [f"the file lacks {first_few(missing)}"] * bool(missing)
    reasons += [f"the file has {first_few(extra)}, which the network does not"] * bool(extra)
    reasons += [first_few(different)] * bool(different)
    if reasons:
        raise DgpruneError(
            f"the tensors do not fit this network: {'; '.join(reasons)}. Build the network with the options it was "
            "saved with (the card names them), or pass a fresh one like it: load(path, model=...)."
        )
    model.load_state_dict(dict(state))


def _read_saved(path: Path, weights: Path, card_path: Path) -> bytes:
    """Return the content of the file to load; if it is missing, raise an error that names what is there instead."""
    if weights.is_file():
        return _read(weights)
    if path.is_dir() or weights.is_dir():
        folder = path if path.is_dir() else weights
        saved = sorted(file.name for file in folder.glob("*.safetensors"))
        inside = f"name a file in it, such as {saved[0]}" if saved else "it holds no .safetensors file"
        raise DgpruneError(f"{folder} is a folder: {inside}.")
    if path.is_file() and path != card_path:
        refuse_foreign(_read(path), path.name)
    if card_path.is_file():
        raise DgpruneError(
            f"no network at {weights.with_suffix('')}: {card_path.name} is a card, {weights.name} is missing."
        )
    raise DgpruneError(f"no network at {weights.with_suffix('')}: there is no file {weights.name}; check the path.")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DgpruneError(f"{path} cannot be read: {error.strerror or error}.") from error


def _file_paths(path: str | Path) -> tuple[Path, Path]:
    """Return NAME.safetensors and NAME.json for a path with either suffix or none."""
    path = at_home(path)
    if path.name in ("", ".."):
        raise DgpruneError(f"path must end in the name of a file; got {str(path)!r}.")
    base = path.with_suffix("") if path.suffix in (".safetensors", ".json") else path
    return base.with_name(base.name + ".safetensors"), base.with_name(base.name + ".json")


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
