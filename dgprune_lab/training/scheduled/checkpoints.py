"""The state of a run on disk: safetensors and JSON in one folder, always complete, even after an interruption."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...core import DgpruneError, card_text, read_card, write_file, written
from ...models import tensors_from_bytes, tensors_to_bytes

_CARD = "run.json"


def save_state(folder: Path, *, epoch: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write FOLDER/epoch_NUMBER.safetensors, then FOLDER/run.json, which names it; then delete older tensors.

    Until run.json is written, the folder holds the previous state.

    Raises:
        DgpruneError: the files cannot be written, for example because the disk is full.
    """
    data = tensors_to_bytes(tensors)
    with written(folder):
        path = write_file(folder / f"epoch_{epoch:05d}.safetensors", data)
        card = {**values, "tensors": path.name, "sha256": hashlib.sha256(data).hexdigest()}
        write_file(folder / _CARD, card_text(card, kind="run"))
    for old in folder.glob("epoch_*.safetensors"):
        if old != path:
            old.unlink()


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the tensors and values that `save_state` wrote into a folder; None if it holds no run.

    Raises:
        DgpruneError: the folder holds other files, or a file that was changed.
    """
    if not (folder / _CARD).is_file():
        return None
    card = read_card(folder / _CARD, kind="run")
    path = folder / str(card["tensors"])
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != card["sha256"]:
        raise DgpruneError(f"{path} is not the file that its card describes; start in another folder.")
    return tensors_from_bytes(data, path.name), card
