"""Where a run is, on disk: safetensors and JSON in one folder, written so that an interruption leaves a whole one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...core import DgpruneError
from ...models.checkpoints import tensors_from_bytes, tensors_to_bytes

_FORM = "dgprune_lab run 1"
_CARD = "run.json"


def save_position(folder: Path, *, number: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write FOLDER/position_NUMBER.safetensors, then FOLDER/run.json, which names it; then the older tensors go.

    Each file is written under another name and renamed: until the card is in place, the folder holds what it held.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = tensors_to_bytes(tensors)
    name = f"position_{number:05d}.safetensors"
    _put(folder / name, data)
    card = {**values, "form": _FORM, "tensors": name, "sha256": hashlib.sha256(data).hexdigest()}
    _put(folder / _CARD, (json.dumps(card) + "\n").encode())
    for old in folder.glob("position_*.safetensors"):
        if old.name != name:
            old.unlink()


def load_position(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and values of the folder; None where it holds no run.

    Raises:
        DgpruneError: the folder holds something else, or a file that was changed.
    """
    card_path = folder / _CARD
    if folder.exists() and not folder.is_dir():
        raise DgpruneError(f"checkpoint must be a folder, and {folder} is a file; name a folder for this run.")
    if not card_path.is_file():
        return None
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DgpruneError(f"{card_path} is not JSON ({error}); start anew in another folder.") from error
    if not isinstance(card, dict) or card.get("form") != _FORM:
        raise DgpruneError(f"{card_path} is not the card of a run ({_FORM!r}); name another folder.")
    tensors = folder / str(card["tensors"])
    data = tensors.read_bytes() if tensors.is_file() else b""
    if hashlib.sha256(data).hexdigest() != card["sha256"]:
        raise DgpruneError(f"{tensors} is not the file its card describes; start anew in another folder.")
    return tensors_from_bytes(data, tensors.name), card


def _put(path: Path, data: bytes) -> None:
    """Write and rename: a reader sees the old file or the new one, and a power cut leaves one of them."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
