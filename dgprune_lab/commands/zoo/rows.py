"""The row of results for one architecture; write and read rows, and show them as Markdown.

The Markdown holds totals, counts per family, and one line per architecture.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ...core import DgpruneError, card_text, read_card, write_file
from .architectures import Architecture
from .limits import Ending

WORKING = ("full", "partial")
OUTCOMES = (*WORKING, "refused", "traceback", "wrong", "timeout", "memory", "not built")
SECONDS, BYTES = 20, 10**9  # the aim: no architecture takes longer, or more memory beyond its weights
_LONGEST = 110  # characters of a reason


@dataclass(frozen=True, kw_only=True)
class Row:
    """The result for one architecture.

    Attributes:
        name, family, source, convolutional: as in `Architecture`.
        outcome: "full" (all filters that the graph found), "partial" (some refused, by name), "refused" (in words),
            "traceback", "wrong" (pruned and masked differ, or the network changed), "timeout", "memory", "not built"
            (its own library's error).
        reason: what was refused and why, or the last line of the traceback, or the stage at which a limit was hit.
        size: height and width of the images in pixels.
        layers: "conv", or "all" where only hidden linear layers can be pruned.
        groups: number of groups.
        prunable, filters: number of filters that can be pruned, and of all filters, as in `FilterGraph.share`.
        difference: largest difference between the logits of the pruned and of the masked network, divided by the
            standard deviation of the latter's, in float64; None if it is not finite.
        effect: the same difference between the dense and the masked network, which shows that the mask does something.
        seconds: processor time to read the groups.
        peak: peak memory while the groups were read, in bytes in excess of that of the built network.
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
    """Return an architecture's row, given how its child process ended and, if there was one, how the peer's ended."""
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
        torch_pruning="" if peer is None else _peer_outcome(peer),
        **values,
    )


def _peer_outcome(ending: Ending) -> str:
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
    rows = read_card(path, kind="zoo").get("rows")
    if isinstance(rows, list) and all(isinstance(each, Mapping) and set(each) <= known for each in rows):
        try:
            return [Row(**each) for each in rows]
        except TypeError:
            pass
    raise DgpruneError(f"out: {path} holds no rows of this version of the zoo; name another file.")


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write the rows as JSON, atomically: an interrupted write leaves the old rows."""
    write_file(path, card_text({"rows": [asdict(row) for row in rows]}, kind="zoo"))


def line(row: Row) -> str:
    """Return one row as a line of text."""
    text = f"{row.name} ({row.family}): {row.outcome}"
    if row.outcome in WORKING:
        text += f", {row.groups} groups, {row.prunable:,} of {row.filters:,} filters"
    if row.difference is not None:
        text += f", removed = masked to {row.difference:.0e}"
    text += "" if row.seconds is None else f", {row.seconds:.1f} s, {row.peak / 1e6:.0f} MB"
    reason = f" [{short(row.reason)}]" if row.reason else ""
    return f"{text}{reason}; Torch-Pruning: {short(row.torch_pruning)}"


def markdown(rows: Iterable[Row]) -> str:
    """Return the sentences on totals, the table of families and the table of architectures as one Markdown text."""
    known = sorted(rows, key=lambda row: (not row.convolutional, row.source, row.family, row.name))
    parts = [*totals(known), "", *families(known), "", *_architecture_table(known)]
    return "\n".join(parts)


def totals(rows: Sequence[Row]) -> list[str]:
    """Return a sentence on the convolutional classifiers and one on the others."""
    sentences = []
    for kind, chosen in (("convolutional", True), ("other", False)):
        group = [row for row in rows if row.convolutional == chosen and row.outcome != "not built"]
        if not group:
            continue
        count = Counter(row.outcome for row in group)
        working = sum(count[name] for name in WORKING)
        others = ", ".join(f"{name} {count[name]}" for name in OUTCOMES[2:-1] if name != "not built")
        slow = sum((row.seconds or 0) > SECONDS or row.outcome == "timeout" for row in group)
        large = sum(row.peak > BYTES for row in group)
        peer = sum(row.torch_pruning.startswith("works") for row in group)
        sentences.append(
            f"{working} of {len(group)} {kind} classifiers ({working / len(group):.0%}) work, {count['full']} in full "
            f"and {count['partial']} in part; {others}. Over {SECONDS} s: {slow}; over 1 GB: {large}. Torch-Pruning "
            f"alone: {peer}."
        )
    return sentences


def families(rows: Sequence[Row]) -> list[str]:
    """Return the table of counts per family."""
    bad = ("traceback", "wrong", "timeout", "memory")
    table = [
        "| family | tried | in full | in part | refused in words | " + " | ".join(bad) + " | Torch-Pruning works |",
        "|---|---|---|---|---|" + "---|" * (len(bad) + 1),
    ]
    for source, family in dict.fromkeys((row.source, row.family) for row in rows):
        group = [row for row in rows if (row.source, row.family) == (source, family)]
        count = Counter(row.outcome for row in group)
        numbers = [len(group), *(count[name] for name in (*WORKING, "refused", *bad))]
        numbers.append(sum(row.torch_pruning.startswith("works") for row in group))
        table.append(f"| {source} {family} | " + " | ".join(str(n) if n else "" for n in numbers) + " |")
    return table


def _architecture_table(rows: Sequence[Row]) -> list[str]:
    table = [
        "| architecture | px | groups | filters | outcome | removed = masked | s | MB | Torch-Pruning | reason |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        filters = f"{row.prunable:,} / {row.filters:,}" if row.filters else ""
        layers = ", hidden units" if row.layers == "all" and row.outcome in WORKING else ""
        cells = [
            f"{row.source} {row.name}" if row.source != "timm" else row.name,
            str(row.size or ""),
            str(row.groups or ""),
            filters,
            row.outcome + layers,
            "" if row.difference is None else f"{row.difference:.0e}",
            "" if row.seconds is None else f"{row.seconds:.1f}",
            f"{row.peak / 1e6:.0f}" if row.peak else "",
            short(row.torch_pruning, length=60),
            short(row.reason),
        ]
        table.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return table


def short(text: str, *, length: int = _LONGEST) -> str:
    """Return the beginning of a text, in one line."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 4].rstrip() + " ..."
