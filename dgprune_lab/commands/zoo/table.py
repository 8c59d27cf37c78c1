"""The rows as Markdown: counts per family, totals, and one line per architecture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from .rows import OUTCOMES, WORKING, Row

SECONDS, BYTES = 20, 10**9  # the aim: no architecture takes longer, or more memory beyond its weights
_LONGEST = 110  # characters of a reason


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
    """Return the sentences with the totals, the table of families and the table of architectures."""
    known = sorted(rows, key=lambda row: (not row.convolutional, row.source, row.family, row.name))
    parts = [*totals(known), "", *families(known), "", *_lines(known)]
    return "\n".join(parts)


def totals(rows: Sequence[Row]) -> list[str]:
    """Return a sentence on the convolutional classifiers and one on the others."""
    found = []
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
        found.append(
            f"{working} of {len(group)} {kind} classifiers ({working / len(group):.0%}) work, {count['full']} in full "
            f"and {count['partial']} in part; {others}. Over {SECONDS} s: {slow}; over 1 GB: {large}. Torch-Pruning "
            f"alone: {peer}."
        )
    return found


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


def _lines(rows: Sequence[Row]) -> list[str]:
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
