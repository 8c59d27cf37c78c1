"""What a run is given besides its settings: the device, and networks that are made once per folder."""

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
    """What a run is given besides its settings.

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

        Of two processes that ask for the same network at once, the second waits for the first. Where the folder cannot
        be written, the network is made by each run that needs it. The global random generators are seeded by the key
        while the network is made, and are left as they were.

        Args:
            key: all that determines the network, as plain values.
            make: function that trains it.
            fresh: function that returns an untrained network of the same layers, for one that no builder of
                `dg.models` makes.

        Returns:
            The network in eval mode on `device`, with the provenance of its training. It is read from the file the
            first time too, so that all runs get the same.

        Raises:
            DgpruneError: a key that is not plain; a network of no builder without `fresh`.
        """
        path = self.folder.absolute() / "networks" / key_of(key)
        with reproducible(key_of(key)):
            found = _saved(path, fresh)
            if found is None:
                with _alone(path.with_suffix(".lock")):
                    found = _saved(path, fresh) or _made(path, make, fresh=fresh)
        return found.to(self.device).eval()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process is within the same block; where files cannot be locked, do not wait."""
    with closing(exclusive(path)) as attempts:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while not next(attempts):
                pass
        except (OSError, sqlite3.Error):
            pass
        yield


def _saved(path: Path, fresh: Callable[[], nn.Module] | None) -> nn.Module | None:
    """The network that a file holds; None if there is none, or it is torn, or that of another key."""
    try:
        if read_card(path.with_suffix(".json"), kind="network").get("scratch") != path.name:
            return None
        return load(path, model=None if fresh is None else fresh())
    except DgpruneError:
        return None


def _made(path: Path, make: Callable[[], nn.Module], *, fresh: Callable[[], nn.Module] | None) -> nn.Module:
    made = make()
    if fresh is None and getattr(made, "dgprune_builder", None) is None:
        raise DgpruneError(
            "pass fresh=, a function that returns an untrained network of the same layers: no builder of dg.models "
            "made this network, so its file alone is not enough to load it."
        )
    try:
        save(made, path, card={"scratch": path.name})
    except DgpruneError as error:
        if isinstance(error.__cause__, OSError):  # a full disk, or one that only other machines write to
            return made
        raise
    return load(path, model=None if fresh is None else fresh())
