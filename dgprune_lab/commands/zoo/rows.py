"""The row of one architecture, and writing and reading rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ...core import DgpruneError, card_text, read_card, write_file
from .architectures import Architecture
from .limits import Ending

WORKING = ("full", "partial")
OUTCOMES = (*WORKING, "refused", "traceback", "wrong", "timeout", "memory", "not built")


@dataclass(frozen=True, kw_only=True)
class Row:
    """The result for one architecture.

    Attributes:
        name, family, source, convolutional: as in `Architecture`.
        outcome: "full" (all filters that the graph found), "partial" (some refused, by name), "refused" (in words),
            "traceback", "wrong" (removed is not masked, or the network changed), "timeout", "memory", "not built" (its
            own library's error).
        reason: what was refused and why, or the last line of the traceback, or the stage at which a limit was hit.
        size: height and width of the images in pixels.
        layers: "conv", or "all" where only hidden linear layers can be pruned.
        groups: number of groups.
        prunable, filters: number of filters that can be pruned, and of all, as in `FilterGraph.share`.
        difference: largest difference between the logits of the pruned and of the masked network, divided by the
            standard deviation of the latter's, in float64; None if it is not finite.
        effect: the same difference between the dense and the masked network, which shows that the mask does something.
        seconds: processor time to read the groups.
        peak: memory in bytes, above that of the built network, while the groups were read.
        parameters, parameters_removed: number of parameters, and the share of them that `measure` finds removed.
        torch_pruning: the outcome of Torch-Pruning for the same job.
    """

    name: str
    family: str
    source: str
    convolutional: bool
    outcome: str
    reason: str = ""
    size: int | None = None
    layers: str = "conv"
    groups: int = 0
    prunable: int = 0
    filters: int = 0
    difference: float | None = None
    effect: float | None = None
    seconds: float | None = None
    peak: int = 0
    parameters: int = 0
    parameters_removed: float | None = None
    unchanged: bool | None = None
    torch_pruning: str = ""

    @property
    def key(self) -> str:
        """Name with library, as `Architecture.key`."""
        return f"{self.source}/{self.name}"


def row_of(architecture: Architecture, ending: Ending, *, peer: Ending | None = None) -> Row:
    """Return the row made from how the child process ended, and the peer's child if there was one."""
    values: dict[str, Any] = dict(ending.result)
    if ending.kind in ("error", "died"):
        values |= {"outcome": "not built" if ending.stage == "start" else "traceback", "reason": ending.error}
    elif ending.kind != "done":
        values |= {"outcome": ending.kind, "reason": f"in the stage {ending.stage!r}"}
    values = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in values.items()}
    return Row(
        name=architecture.name,
        family=architecture.family,
        source=architecture.source,
        convolutional=architecture.convolutional,
        peak=ending.peaks.get("read", 0),
        torch_pruning="" if peer is None else _peer_words(peer),
        **values,
    )


def _peer_words(ending: Ending) -> str:
    if ending.kind == "done":
        return str(ending.result["outcome"])
    if ending.kind in ("error", "died"):
        return ("not built" if ending.stage == "start" else "fails") + f": {ending.error}"
    return ending.kind


def read_rows(path: Path) -> list[Row]:
    """Return the rows in a file; no rows if there is no file.

    Raises:
        DgpruneError: a file that `write_rows` did not write.
    """
    if not path.exists():
        return []
    known = {field.name for field in fields(Row)}
    found = read_card(path, kind="zoo").get("rows")
    if isinstance(found, list) and all(isinstance(each, Mapping) and set(each) <= known for each in found):
        try:
            return [Row(**each) for each in found]
        except TypeError:
            pass
    raise DgpruneError(f"out: {path} holds no rows of this version of the zoo; name another file.")


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write the rows as JSON, atomically: after an interruption the file holds either the old rows or all new ones."""
    write_file(path, card_text({"rows": [asdict(row) for row in rows]}, kind="zoo"))
