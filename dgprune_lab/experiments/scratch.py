"""Inputs of a run besides its settings: the device, and networks that are made once per folder."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch
from torch import nn

from ..core import DgpruneError, public, read_card, reproducible
from ..models import load, save
from .settings import Settings, key_of
from .store import exclusive


@public
class Scratch:
    """Inputs of a run besides its settings.

    Attributes:
        folder: the results folder.
        device: the device on which the run computes.
    """

    def __init__(self, folder: Path, *, device: torch.device) -> None:
        self.folder, self.device = folder, device

    def network(
        self, key: Settings, make: Callable[[], nn.Module], *, fresh: Callable[[], nn.Module] | None = None
    ) -> nn.Module:
        """Return the network that `make` trains, made once per folder and read from it afterwards.

        Of two processes that need the same network at once, the second waits for the first. If the folder cannot be
        written to, each run makes the networks it needs. The global random generators are seeded by the key while the
        network is made, and restored afterwards.

        Args:
            key: everything that determines the network, as plain values.
            make: function that trains it.
            fresh: function that returns an untrained network of the same layers; needed if no builder of `dg.models`
                makes the network.

        Returns:
            The network in eval mode on `device`, with the provenance of its training. It is read from the file even the
            first time, so that all runs get the same network.

        Raises:
            DgpruneError: a key that is not plain; a network without a builder where `fresh` is None.
        """
        path = self.folder.absolute() / "networks" / key_of(key)
        with reproducible(key_of(key)):
            network = _load_saved(path, fresh)
            if network is None:
                with _hold_lock(path.with_suffix(".lock")):
                    network = _load_saved(path, fresh) or _make_and_save(path, make, fresh=fresh)
        return network.to(self.device).eval()


@contextmanager
def _hold_lock(path: Path) -> Iterator[None]:
    """Lock a file within the block, waiting for other processes; do nothing where files cannot be locked."""
    with closing(exclusive(path)) as attempts:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while not next(attempts):
                pass
        except (OSError, sqlite3.Error):
            pass
        yield


def _load_saved(path: Path, fresh: Callable[[], nn.Module] | None) -> nn.Module | None:
    """Return the network in a file; None if the file is missing, damaged, or saved under another key."""
    try:
        if read_card(path.with_suffix(".json"), kind="network").get("scratch") != path.name:
            return None
        return load(path, model=None if fresh is None else fresh())
    except DgpruneError:
        return None


def _make_and_save(path: Path, make: Callable[[], nn.Module], *, fresh: Callable[[], nn.Module] | None) -> nn.Module:
    made = make()
    if fresh is None and getattr(made, "dgprune_builder", None) is None:
        raise DgpruneError(
            "pass fresh=, a function that returns an untrained network of the same layers: no builder of dg.models "
            "made this network, so its file alone is not enough to load it."
        )
    try:
        save(made, path, card={"scratch": path.name})
    except DgpruneError as error:
        if isinstance(error.__cause__, OSError):  # a full disk, or one that is read-only on this machine
            return made
        raise
    return load(path, model=None if fresh is None else fresh())
