"""Networks of an experiment as files beside its table, so that its numbers can be recomputed from the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core import Count, DgpruneError, check_writable_folder, public
from ..models import load, network_key, save
from .results import Results


@public
def export_networks(results: Results | str | Path, folder: str | Path, *, count: Count = 12) -> list[Path]:
    """Copy some networks out of the results folder of an experiment, and return the paths of the weights.

    The choice does not depend on their results: of the N finished runs that converged, in the order of the grid, it
    takes those at floor((k + 1/2) N / count) for k = 0, ..., count - 1. Each is saved as NNN.safetensors with its card
    NNN.json; NNN is the column `run` of the table that `export` writes.

    For the study `prunability`, after all runs are done:
    `python -c "from dgprune_lab import experiments as e; e.export_networks('experiments/prunability',
    'notebooks/results/networks/prunability')"`

    Args:
        results: results of all runs or of some, or their folder.
        folder: where to write; made if it is missing.
        count: number of networks; all where there are fewer.

    Raises:
        DgpruneError: no finished run; a network that the results folder does not hold; a folder that cannot be written.
    """
    results = results if isinstance(results, Results) else Results(results)
    target = check_writable_folder(folder, argument="folder")
    frame, runs = results.table(), results.runs()
    done: Any = runs[runs["state"] == "done"].reset_index(drop=True)
    failed = set(frame.loc[frame["converged"].eq(False), "run"]) if "converged" in frame else set()
    pool = [index for index, key in enumerate(done["key"]) if key not in failed]
    if not pool:
        raise DgpruneError(f"{results.folder} holds no finished run of {results.name} that converged; run it first.")
    chosen = pool if len(pool) <= count else [pool[(2 * k + 1) * len(pool) // (2 * count)] for k in range(count)]
    networks = {network_key(net): net for net in map(load, sorted(results.folder.glob("networks/*.safetensors")))}
    for index in chosen:
        if done["weights"][index] not in networks:
            raise DgpruneError(
                f"{results.folder / 'networks'} lacks the network of run {index}; copy it from the machine on which it "
                "was trained, or run the experiment again."
            )
    card = {"experiment": results.name}
    return [
        save(networks[done["weights"][index]], target / f"{index:03}", card={**card, "run": index}) for index in chosen
    ]
