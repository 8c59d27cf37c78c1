"""The file of a saved network: a safetensors file that holds the card too, with a SHA-256 of both.

The file is replaced as a whole, so weights and card always belong together, even if the process is killed. The JSON
file beside it is a copy for people; it is removed before the weights are replaced and written after them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from ..core import DgpruneError, card_text, parse_card, parse_json
from .foreign import KEY, header_of, refuse_foreign


def pack(state: Mapping[str, Tensor], values: Mapping[str, Any]) -> tuple[bytes, str]:
    """Return the bytes of a network's file with these tensors and card values, and the card as JSON text."""
    header, content = _serialize(state)
    card = parse_json(card_text(values, kind="network"), name="the card")
    text = card_text({**card, "sha256": _digest(card, header, content)}, kind="network")
    head = json.dumps({"__metadata__": {KEY: text}, **header}).encode()
    head += b" " * (-len(head) % 8)  # tensors begin at a multiple of 8 bytes
    return b"".join([len(head).to_bytes(8, "little"), head, content]), text


def unpack(data: bytes, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the card of a file that `pack` made; `name` begins the error message.

    Raises:
        DgpruneError: any other file (the message names its kind); a file that was changed; a card of another format.
    """
    header, content = header_of(data) or ({}, memoryview(b""))
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or KEY not in metadata:
        refuse_foreign(data, name)
    card = parse_card(metadata[KEY], name=f"the card in {name}", kind="network")
    unsigned = {key: value for key, value in card.items() if key != "sha256"}
    if card.get("sha256") != _digest(unsigned, header, content):
        raise DgpruneError(
            f"{name} was changed after it was saved (its SHA-256 differs from the card's): a damaged or edited copy. "
            "Copy the file again, or save the network again."
        )
    return tensors_from_bytes(data, name), card


def tensors_key(state: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 of tensors: their names, types, shapes and values."""
    return _digest({}, *_serialize(state))


def _serialize(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], memoryview]:
    """Return the header of a safetensors file of these tensors, and their bytes."""
    parts = header_of(tensors_to_bytes(state))
    assert parts is not None
    return parts


def tensors_to_bytes(state: Mapping[str, Tensor]) -> bytes:
    """Return a safetensors file of these tensors, which are moved to the CPU, made contiguous and sorted by name."""
    return save_bytes({name: state[name].detach().cpu().contiguous().clone() for name in sorted(state)})


def tensors_from_bytes(data: bytes, name: str) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; `name` begins the error message.

    Raises:
        DgpruneError: the bytes are not a safetensors file.
    """
    try:
        return load_bytes(data)
    except SafetensorError as error:
        raise DgpruneError(
            f"{name} is not a safetensors file ({error}); pickled checkpoints (.pt, .pth) are never read: "
            "load one with torch yourself and save it with dg.save."
        ) from error


def _digest(card: Mapping[str, Any], header: Mapping[str, Any], content: memoryview) -> str:
    """Return the SHA-256 of the card, of the names, types and shapes of the tensors, and of their bytes."""
    digest = hashlib.sha256(json.dumps([card, header], sort_keys=True).encode())
    digest.update(content)
    return digest.hexdigest()
