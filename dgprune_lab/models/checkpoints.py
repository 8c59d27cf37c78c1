"""Safe checkpoints: the tensors in a safetensors file, everything else in a JSON card beside it. Never a pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from ..core import DgpruneError, Provenance, unknown
from .networks import build

SHIPPED = (
    "digits",
    "lenet_paper",
    "lenet_two_sources_0",
    "lenet_two_sources_1",
    "lenet_two_sources_2",
    "digits_pair_a",
    "digits_pair_b",
)
"""Names of the built-in checkpoints; `dgprune_lab.commands.train.RECIPES` says how each was made."""


def save_checkpoint(model: nn.Module, path: str | Path, *, card: Mapping[str, Any]) -> Path:
    """Writes PATH.safetensors (every parameter and buffer) and PATH.json (the card) and returns the first path.

    The card must say how the network is rebuilt: "builder" (a name in `BUILDERS`) and "options" (its keywords). The
    model's own record is written as "record" and the SHA-256 of the weights as "weights_sha256".

    Raises:
        DgpruneError: a card without "builder" or "options", or one that JSON cannot hold.
    """
    for key in ("builder", "options"):
        if key not in card:
            raise DgpruneError(f"a card needs {key!r} to rebuild the network; it has: {', '.join(card) or 'nothing'}.")
    weights, beside = checkpoint_paths(path)
    data = tensors_to_bytes(model.state_dict())
    record: Provenance = getattr(model, "dgprune_record", Provenance())
    whole = {**card, "record": record.to_json(), "weights_sha256": hashlib.sha256(data).hexdigest()}
    try:
        text = json.dumps(whole, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DgpruneError(f"the card cannot be written as JSON ({error}); use plain values.") from error
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.write_bytes(data)
    beside.write_text(text + "\n", encoding="utf-8")
    return weights


def load_checkpoint(path: str | Path) -> nn.Module:
    """The network of a checkpoint, in eval mode, on the CPU, with its record as `model.dgprune_record`.

    Raises:
        DgpruneError: a file that is missing, is not safetensors or JSON, belongs to another card, or holds tensors
            of other names or shapes than the network that the card names.
    """
    weights, _ = checkpoint_paths(path)
    card = read_card(path)
    if not weights.is_file():
        raise DgpruneError(f"no weights at {weights}; a checkpoint is NAME.safetensors and NAME.json in one folder.")
    return _rebuilt(weights.read_bytes(), card, weights.name)


def read_card(path: str | Path) -> dict[str, Any]:
    """The card of a checkpoint.

    Raises:
        DgpruneError: there is none, or it is no JSON object with "builder" and "options".
    """
    _, beside = checkpoint_paths(path)
    if not beside.is_file():
        raise DgpruneError(f"no card at {beside}; a checkpoint is NAME.safetensors and NAME.json in one folder.")
    try:
        card = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DgpruneError(f"{beside.name} is not JSON ({error}); save the checkpoint again.") from error
    if not isinstance(card, dict) or "builder" not in card or "options" not in card:
        raise DgpruneError(f"{beside.name} is not a checkpoint's card: it must name a 'builder' and its 'options'.")
    return card


def shipped(name: str) -> nn.Module:
    """A built-in checkpoint by its name in `SHIPPED`, in eval mode, with its record.

    Raises:
        DgpruneError: an unknown name.

    >>> shipped("digits").dgprune_record.seen("training", "mnist", "train")
    'labels'
    """
    return _rebuilt(_resource(name, "safetensors").read_bytes(), shipped_card(name), f"{name}.safetensors")


def pair(name: str = "digits") -> tuple[nn.Module, nn.Module]:
    """Two shipped networks of one architecture, equal training loss and unlike generalisation; their cards say how.

    "digits": two small LeNets trained on `mnist` and `uci_digits` to a cross-entropy of 0.02.

    Raises:
        DgpruneError: another name.

    >>> first, second = pair("digits")
    >>> [sum(p.numel() for p in network.parameters()) for network in (first, second)]
    [56474, 56474]
    """
    pairs = sorted({known[: -len("_pair_a")] for known in SHIPPED if known.endswith("_pair_a")})
    if name not in pairs:
        raise unknown("pair", name, pairs)
    return shipped(f"{name}_pair_a"), shipped(f"{name}_pair_b")


def shipped_card(name: str) -> dict[str, Any]:
    """The card of a built-in checkpoint: data, seed, epochs, accuracy per domain and split, and why it is as it is."""
    return json.loads(_resource(name, "json").read_text(encoding="utf-8"))


def checkpoint_paths(path: str | Path) -> tuple[Path, Path]:
    """NAME.safetensors and NAME.json for a path given with either ending or none."""
    given = Path(path)
    stem = given.with_suffix("") if given.suffix in (".safetensors", ".json") else given
    return stem.with_name(stem.name + ".safetensors"), stem.with_name(stem.name + ".json")


def tensors_to_bytes(state: Mapping[str, Tensor]) -> bytes:
    """A safetensors file of these tensors: on the CPU, contiguous, each with memory of its own, in sorted order."""
    return save_bytes({name: state[name].detach().cpu().contiguous().clone() for name in sorted(state)})


def tensors_from_bytes(data: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file; `name` is what a message calls it.

    Raises:
        DgpruneError: the bytes are no safetensors file.
    """
    try:
        return load_bytes(data)
    except SafetensorError as error:
        raise DgpruneError(
            f"{name} is not a safetensors file ({error}); pickled checkpoints (.pt, .pth) are never read: "
            "load one with torch yourself and save it with save_checkpoint."
        ) from error


def fit_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Puts tensors into a model in place, after every name, shape and type was found to agree.

    Raises:
        DgpruneError: which names are missing, which are too many, which shapes or types differ; nothing was changed.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    extra = [name for name in state if name not in own]
    other = [
        f"{name} is {_shape(state[name])} in the file, {_shape(own[name])} in the network"
        for name in own
        if name in state and (own[name].shape != state[name].shape or own[name].dtype != state[name].dtype)
    ]
    said = []
    if missing:
        said.append(f"the file lacks {_some(missing)}")
    if extra:
        said.append(f"the file has {_some(extra)}, which the network does not")
    if other:
        said.append(_some(other))
    if said:
        raise DgpruneError(
            f"the tensors do not fit this network: {'; '.join(said)}. Build the network with the options it was saved "
            "with (the card names them)."
        )
    model.load_state_dict(dict(state))


def _rebuilt(data: bytes, card: Mapping[str, Any], name: str) -> nn.Module:
    """The network that a card describes, with the tensors of a safetensors file and the card's record."""
    wanted = card.get("weights_sha256")
    if wanted is not None and hashlib.sha256(data).hexdigest() != wanted:
        raise DgpruneError(
            f"{name} is not the file its card describes (another SHA-256); copy NAME.safetensors and NAME.json "
            "together, or save the checkpoint again."
        )
    model = build(card["builder"], **card["options"])
    fit_state(model, tensors_from_bytes(data, name))
    model.dgprune_record = Provenance.from_json(card.get("record"))  # type: ignore[assignment]
    return model.eval()


def _resource(name: str, ending: str) -> Any:
    """The file of a built-in checkpoint inside the package."""
    if name not in SHIPPED:
        raise unknown("built-in checkpoint", name, SHIPPED)
    return files("dgprune_lab.models") / "shipped" / f"{name}.{ending}"


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _some(items: list[str], *, most: int = 4) -> str:
    """The first few of a list, and how many more there are."""
    listed = ", ".join(items[:most])
    return listed if len(items) <= most else f"{listed} and {len(items) - most} more"
