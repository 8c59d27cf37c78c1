"""Atomic file writes, and JSON cards that record which version of this package wrote them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

from .errors import DgpruneError

FORMAT = 2
"""Format of every saved network, mask and training run."""


def write_file(path: Path, content: str | bytes) -> Path:
    """Write a file so that a reader, or an interruption, finds either the old file or the whole new one.

    Missing folders are made. The content goes to a temporary file in the same folder, which then takes the name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def card_text(values: Mapping[str, Any], *, kind: str) -> str:
    """Return a JSON card with its kind ("network", "run"), the format and the versions it was written by.

    Raises:
        DgpruneError: values that JSON cannot hold.
    """
    try:
        card = {"kind": kind, "format": FORMAT, "versions": _versions(), **values}
        return json.dumps(card, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise DgpruneError(f"the card cannot be written as JSON ({error}); use plain values.") from error


def read_card(path: Path, *, kind: str) -> dict[str, Any]:
    """Return the values of a card that `card_text` made.

    Raises:
        DgpruneError: no JSON, another kind of card, or one of another format.
    """
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DgpruneError(f"{path.name} is not JSON ({error}); save it again.") from error
    is_card = isinstance(card, dict) and ("builder" in card or str(card.get("form")).startswith("dgprune_lab"))
    if not is_card and not (isinstance(card, dict) and card.get("kind") == kind):
        raise DgpruneError(f"{path.name} is not the card of a {kind} that dgprune_lab saved.")
    check_format(card, name=path.name)
    return card


def check_format(card: Mapping[str, Any], *, name: str) -> None:
    """Refuse a card of another format; `name` begins the sentence.

    Raises:
        DgpruneError: which version wrote it, and what to do.
    """
    number = card.get("format", 1)
    if number != FORMAT:
        writer = (card.get("versions") or {}).get("dgprune-lab", "0.1.0")
        raise DgpruneError(
            f"{name} has format {number}, written by dgprune-lab {writer}; this version reads format {FORMAT}. Load it "
            "with the version that wrote it, and save it again with this one."
        )


def _versions() -> dict[str, str]:
    named = {"python": platform.python_version()}
    for package in ("dgprune-lab", "torch"):
        try:
            named[package] = version(package)
        except PackageNotFoundError:
            named[package] = "not installed"
    return named
