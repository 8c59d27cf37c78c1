"""What each scorer wins or loses against the baseline once pruned and fine-tuned: a panel per domain, 0 in the middle.

Named data, per panel k: `gaps_k` (label, change, low, high in points of accuracy; text, smallest, p, colour, fill,
shape, looked).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from ..core import DgpruneError, exposure_label, exposure_of, is_missing, scorer_exposure, with_scorer_exposure
from .theme import beside, domain_styles_of, interval_of, layered, mark_of, named, percent, records, shortened

DIFFERENCE = "difference"
ROW = 26
_SPANS = (1, 2, 5, 10, 25, 50, 100)
_LETTERS = 34


def after_finetuning(frame: pd.DataFrame, *, width: int = 210) -> alt.HConcatChart:
    """Draw the differences to the baseline as dots with intervals over training seeds, in points, a panel per domain.

    To the right of 0 is better than the baseline. Under each panel stands the smallest difference that these seeds
    could have told from none. A scorer that looked at a target is a hollow diamond, and said behind its name.

    Args:
        frame: a table of `diagnostics.after_finetuning`.
        width: of one panel, in pixels.

    Raises:
        DgpruneError: the table has no differences.
    """
    used = records(frame, metric=DIFFERENCE)
    if not used:
        raise DgpruneError(
            "the table has no differences between scorers to draw; they need two or more studies and a scorer beside "
            "the baseline: diagnostics.after_finetuning(dg.training_seeds(), scorers=[...])."
        )
    domains = dict.fromkeys(str(row["domain"]) for row in used)
    baseline = _baseline(frame, used)
    panels = [_panel(tuned_rows(frame, domain=name), k, baseline, width) for k, name in enumerate(domains)]
    domain_styles = domain_styles_of(frame)
    return beside(
        *(
            panel.properties(
                title=alt.Title(
                    text=f"{shortened(name, most=20)} ({domain_styles[name].words})"
                    if domain_styles[name].words
                    else shortened(name, most=30),
                    color=domain_styles[name].colour,
                )
            )
            for name, panel in zip(domains, panels, strict=True)
        )
    )


def tuned_rows(frame: pd.DataFrame, *, domain: str) -> list[dict[str, Any]]:
    """The rows of one panel in points, in the order of the table."""
    used = [row for row in records(frame, metric=DIFFERENCE) if str(row["domain"]) == domain]
    look = domain_styles_of(frame)[domain]
    several = len({row["ratio_requested"] for row in used}) > 1
    rows = []
    for row in used:
        change, low, high = interval_of(row)
        words = exposure_label(with_scorer_exposure(exposure_of(row), scorer_exposure([row])))
        ratio = f", {100 * row['ratio_requested']:g} %" if several else ""
        mark = mark_of(look, exposure=exposure_of(row))
        rows.append(
            {
                "label": shortened(str(row["scorer"]), most=max(8, _LETTERS - len(words + ratio))) + ratio + words,
                "scorer": str(row["scorer"]),
                "change": change,
                "low": low,
                "high": high,
                "text": f"{change:+.1f}".replace("-", "\N{MINUS SIGN}") if abs(change) >= 0.05 else "0.0",
                "smallest": percent(row["smallest_effect"], row["unit"]),
                "p": None if is_missing(row["p_holm"]) else row["p_holm"],
                "seeds": str(row["seeds"]),
                **{key: mark[key] for key in ("colour", "fill", "shape", "looked")},
            }
        )
    return rows


def smallest_words(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What these seeds could have shown, in words, for under a panel.

    >>> smallest_words([{"scorer": "l2", "smallest": 0.61, "seeds": "0, 1, 2"}])
    ['Smallest that 3 training seeds can show:', '0.6 points']
    """
    ordered = sorted(rows, key=lambda row: row["smallest"])
    least, most = ordered[0], ordered[-1]
    seeds = [len(row["seeds"].split(", ")) for row in rows]
    count = f"{min(seeds)}" if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
    start = f"Smallest that {count} training seeds can show:"
    first, last = f"{least['smallest']:.1f}", f"{most['smallest']:.1f}"
    if first == last:
        return [start, f"{first} points"]
    names = [shortened(row["scorer"], most=14) for row in (least, most)]
    return [start, f"{first} ({names[0]}) to {last} points ({names[1]})"]


def _baseline(frame: pd.DataFrame, used: Sequence[dict[str, Any]]) -> str:
    """The scorer that was run and is compared with no other."""
    compared = {str(row["scorer"]) for row in used}
    rest = [str(row["scorer"]) for row in records(frame) if str(row["scorer"]) not in compared]
    return shortened(rest[0], most=18) if rest else "the baseline"


def _panel(rows: list[dict[str, Any]], place: int, baseline: str, width: int) -> alt.LayerChart:
    """Zero, intervals, dots and numbers of one domain; the scorers' names stand left of the first."""
    reach = max(max(abs(row[key]) for key in ("change", "low", "high")) for row in rows)
    end = next((span for span in _SPANS if reach <= span), _SPANS[-1])
    axis = alt.Axis(tickCount=5, labelExpr="datum.value > 0 ? '+' + datum.label : datum.label")
    title = [f"Points of accuracy against {baseline}", *smallest_words(rows)]
    scale = alt.Scale(domain=[-end, end], nice=False, clamp=True)
    change, low = (alt.X(f"{field}:Q", scale=scale, title=title, axis=axis) for field in ("change", "low"))
    names = alt.Axis(title=None, labelLimit=240, ticks=False, domain=False) if not place else None
    scorer = alt.Y("label:N", sort=None, axis=names)
    colour, fill = alt.Stroke("colour:N", scale=None), alt.Fill("fill:N", scale=None)
    base = alt.Chart(alt.NamedData(name=f"gaps_{place}"))
    tips = [
        alt.Tooltip("label:N", title="Scorer"),
        alt.Tooltip("change:Q", title="Difference, points", format="+.2f"),
        alt.Tooltip("low:Q", title="from", format="+.2f"),
        alt.Tooltip("high:Q", title="to", format="+.2f"),
        alt.Tooltip("smallest:Q", title="could have shown, from", format=".2f"),
        alt.Tooltip("p:Q", title="p (Holm)", format=".3f"),
        alt.Tooltip("seeds:N", title="Training seeds"),
        alt.Tooltip("looked:N", title="Looked at before"),
    ]
    return layered(
        alt.Chart(named(f"gaps_{place}", rows))
        .mark_rule(strokeWidth=2.2)
        .encode(x=low, x2="high:Q", y=scorer, stroke=colour),
        base.mark_rule(style="ink", strokeWidth=1, opacity=0.6).encode(x=alt.datum(0, scale=scale)),
        base.mark_point(size=62, strokeWidth=1.8, opacity=1).encode(
            x=change, y=scorer, stroke=colour, fill=fill, shape=alt.Shape("shape:N", scale=None), tooltip=tips
        ),
        base.mark_text(style="strong", align="left", dx=8, fontWeight=600).encode(
            x=alt.value("width"), y=scorer, text="text:N"
        ),
    ).properties(width=width, height=alt.Step(ROW))
