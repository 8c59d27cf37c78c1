"""Networks on disk, pruned ones too: safetensors and a JSON card with the masks and the record; never a pickle."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core import DgpruneError, Mask, Provenance, provenance_of, set_provenance
from ..pruning import prune, read_groups
from .checkpoints import checkpoint_paths, fit_state, tensors_from_bytes, tensors_to_bytes
from .networks import build

_FORM = "dgprune_lab network 1"


def save(model: nn.Module, path: str | Path) -> Path:
    """Write a network, pruned or not, as PATH.safetensors and PATH.json.

    The card holds the builder's name and options where the network came from one, every mask it was pruned by (with
    original filter indices), and the record of what was read.

    Returns:
        The path of the weights.

    Raises:
        DgpruneError: a masked network, whose parametrized weights only its own code can rebuild.
    """
    state = model.state_dict()
    if any("parametrizations" in name for name in state):
        raise DgpruneError(
            "a masked network cannot be saved as it is; save dg.prune(model, mask), which computes the same. Zeros of "
            "single weights are written into the layers by torch.nn.utils.parametrize.remove_parametrizations."
        )
    weights, card = checkpoint_paths(path)
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.write_bytes(tensors_to_bytes(state))
    builder = getattr(model, "dgprune_builder", None)
    words = {
        "form": _FORM,
        "builder": builder and builder[0],
        "options": builder and dict(builder[1]),
        "masks": list(getattr(model, "dgprune_masks", ())),
        "record": provenance_of(model).to_json(),
        "torch": torch.__version__,
    }
    card.write_text(json.dumps(words, indent=1) + "\n", encoding="utf-8")
    return weights


def load(path: str | Path, *, model: nn.Module | None = None) -> nn.Module:
    """The network that `save` wrote, in eval mode, with its record.

    Args:
        path: with either ending or none.
        model: a fresh, unpruned network of the same class, where the saved one did not come from a builder of
            `dg.models`; untouched.

    Raises:
        DgpruneError: a missing or foreign file, or a network of other names or shapes.
    """
    weights, beside = checkpoint_paths(path)
    if not weights.is_file() or not beside.is_file():
        raise DgpruneError(f"no network at {weights.with_suffix('')}: NAME.safetensors and NAME.json belong together.")
    card = _card(beside)
    if model is None and card["builder"] is None:
        raise DgpruneError(
            f"{beside.name} names no builder; pass a fresh network of the same class: load(path, model=...)."
        )
    network = copy.deepcopy(model) if model is not None else build(card["builder"], **card["options"])
    for value in card["masks"]:
        graph = read_groups(network, torch.zeros(1, *value["input_shape"]), layers=value["layers"])
        network = prune(network, Mask.from_json(value, graph=graph))
    fit_state(network, tensors_from_bytes(weights.read_bytes(), weights.name))
    set_provenance(network, Provenance.from_json(card["record"]))
    return network.eval()


def _card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DgpruneError(f"{path.name} is not JSON ({error}); save the network again.") from error
    if not isinstance(card, dict) or card.get("form") != _FORM:
        raise DgpruneError(f"{path.name} is not a card of this form ({_FORM!r}); it was not written by dg.save.")
    return card
