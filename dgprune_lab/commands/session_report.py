"""`dgprune-lab report FOLDER`: a saved session of the explorer as one HTML page that works offline."""

from __future__ import annotations

import base64
import html
import io
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from ..core import DgpruneError, check_writable_file, write_file, written
from ..widgets.explorer.session_folder import CHARTS, CODE, PINS, STEPS, Opened, open_session
from ..widgets.page.static import FOLDER
from ..widgets.report_sections import section, table

# No script runs, and nothing is loaded: pictures are in the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p class="lead">{lead}</p>
{parts}
</body>
</html>
"""
_READING = (
    "Each step is a network: the full one, one from which filters were removed, or one that was fine-tuned on the "
    "source domains. Removed and left are shares of the full network. Accuracies are from the reported images of each "
    "domain, in percent, with 95 % intervals over images in parentheses; a pin's differences are those from the last "
    "view, in points, paired by image. ◇ marks numbers of a domain that a score, a choice or training has looked at "
    "(target-aware): they do not measure generalisation. Choices that were made while looking at these numbers have "
    "seen the reported images."
)


def write_session_report(path: str | Path, session: str | Path) -> Path:
    """Write a saved session as one HTML page: its steps, trade-off, pins, last view and the code that reproduces it.

    Args:
        path: the file to write.
        session: a folder that `explorer.save` wrote, or a zip file that Download wrote.

    Raises:
        DgpruneError: a file that cannot be written; no session, or one in which a file is missing or was changed.
    """
    path = check_writable_file(path, argument="the page")
    opened = open_session(session)
    study = _as_dict(opened.card.get("study"))
    name = str(study.get("name", ""))
    parts = [
        section("How to read this page", f"<p>{html.escape(_READING)}</p>"),
        section("Steps", _step_lines(opened.card.get("steps")) + _table(opened, STEPS)),
        section("Trade-off", _picture(opened, "trade_off", "Accuracy against size, one point per network and domain")),
        section("Pinned views", _table(opened, PINS)),
        section("The last view", "".join(_picture(opened, key, alt) for key, alt in _VIEW.items())),
        section("The code that repeats it", f"<pre>{html.escape(_read_text(opened, CODE))}</pre>"),
    ]
    text = _PAGE.format(
        policy=html.escape(_POLICY),
        style="".join((FOLDER / f"{name}.css").read_text("utf-8") for name in ("standalone", "session", "print")),
        title=html.escape(f"Pruning session: {name}"),
        lead=html.escape(_lead_text(opened, study)),
        parts="\n".join(filter(None, parts)),
    )
    with written(path):
        return write_file(path, text)


_VIEW = {
    "filters_kept": "Which filters of the full network are kept",
    "accuracy": "Accuracy of each domain against the share that is removed",
    "accuracy_change": "Accuracy change of each domain",
    "size_and_cost": "What is left of filters, parameters, multiply-accumulates and bytes",
}


def _as_dict(value: Any) -> dict[str, Any]:
    """Return a part of the card if it is a dict, else {}; a card may hold anything."""
    return value if isinstance(value, dict) else {}


def _lead_text(opened: Opened, study: dict[str, Any]) -> str:
    """Return the domains, the date and the versions as one line."""
    roles = {"source": [], "target": []}
    for domain, entry in _as_dict(study.get("domains")).items():
        roles.setdefault(str(_as_dict(entry).get("role", "")), []).append(domain)
    named = [f"{role} {', '.join(names)}" for role, names in roles.items() if names]
    versions = _as_dict(opened.card.get("versions"))
    by = f"dgprune-lab {versions.get('dgprune-lab')}, torch {versions.get('torch')}" if versions else ""
    return f"{'; '.join(named)}. Saved {_date_text(opened.card.get('saved'))} by {by}."


def _date_text(text: Any) -> str:
    try:
        date = datetime.fromisoformat(str(text))
        return f"on {date.day} {date:%B %Y, %H:%M}"
    except ValueError:
        return "at an unknown time"


def _step_lines(steps: Any) -> str:
    """Return the steps as HTML, left to right: each step follows the one it was made from, or begins a new line."""
    valid = [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
    lines: list[list[dict[str, Any]]] = []
    for step in valid:
        line = next((line for line in lines if line[-1].get("number") == step.get("parent")), None)
        if line is None:
            lines.append([step])
        else:
            line.append(step)
    rows = []
    for line in lines:
        parent = line[0].get("parent")
        start = "" if parent is None else f"<li><i>from step {html.escape(str(parent))}</i></li>"
        cells = (
            f"<li><b>{html.escape(str(step.get('number')))}</b> {html.escape(str(step.get('label')))}</li>"
            for step in line
        )
        rows.append(f'<ol class="chain">{start}{"".join(cells)}</ol>')
    return "".join(rows) if len(valid) > 1 else ""


def _read_text(opened: Opened, name: str) -> str:
    return opened.read(name).decode(errors="replace") if name in opened.card["files"] else ""


def _table(opened: Opened, name: str) -> str:
    """Return a saved table as HTML; "" if it has no rows."""
    text = _read_text(opened, name)
    if not text.strip():
        return ""
    try:
        frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except ValueError as error:
        raise DgpruneError(f"{opened.name}: {name} is not a table ({error}); save the session again.") from error
    return table([*map(str, frame.columns)], frame.to_numpy().tolist()) if len(frame) else ""


def _picture(opened: Opened, name: str, alt: str) -> str:
    """Return a chart as an image, so that no script in it runs; "" if there is no chart."""
    file = CHARTS.format(name)
    if file not in opened.card["files"]:
        return ""
    data = base64.b64encode(opened.read(file)).decode()
    picture = f'<img alt="{html.escape(alt, quote=True)}" src="data:image/svg+xml;base64,{data}">'
    return f'<div class="wide" tabindex="0">{picture}</div>'
