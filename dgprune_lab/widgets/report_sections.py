"""HTML around a report's explorer: images of each domain, how to read the page, numbers, and which data were read."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import torch

from ..core import DIAMOND, MORE, Domain, drain, merged, versions
from ..study import Study, prunable_words
from .explorer.choices import Choices
from .explorer.frames import SPLIT, full_table
from .explorer.measurements import Measurements
from .explorer.pins import accuracy_cells, share_words
from .explorer.saved_session import study_values
from .panels.domains import styles_of, thumbnails
from .panels.menu_scores import label

_IMAGES = 10
_RATIOS = (0.25, 0.5, 0.75)
_MARKS = {"circle": "●", "square": "■", "triangle-up": "▲", "triangle-down": "▼", "triangle-right": "▶", "cross": "✚"}
_PACKAGES = ("dgprune-lab", "torch")
_STAGES = {"training": "Training", "finetuning": "Fine-tuning", "selection": "Choice of the network"}


def html_above(study: Study) -> str:
    """Return the HTML above the explorer: what was measured, when and with what, and images of each domain."""
    refused = prunable_words(study.graph)
    filters = f"{study.graph.free} filters in {len(study.graph.groups)} layers{'; ' * bool(refused)}{refused}"
    today = date.today()
    packages = " with ".join(f"{name} {version}" for name, version in versions().items() if name in _PACKAGES)
    summary = f"Measured on {today.day} {today:%B %Y} by {packages} on {study.place}. {filters}."
    lead = "Move the slider: filters are removed from the network, and its accuracy on each domain follows."
    styles = styles_of(study)
    figures = []
    for domain in study.domains:
        style = styles[domain.name]
        mark = f'<span style="color:{style.colour}" aria-hidden="true">{_MARKS[style.shape]}</span>'
        detail = f"{domain.role}, {len(domain.rows(SPLIT)):,} reported images"
        caption = f"{mark} <b>{html.escape(domain.name)}</b> ({detail})"
        figures.append(f"<figure><figcaption>{caption}</figcaption>{''.join(_image_tags(domain))}</figure>")
    return f'<p class="lead">{html.escape(lead)}</p><p class="soft">{html.escape(summary)}</p>' + section(
        "Domains", f'<div class="domains">{"".join(figures)}</div>'
    )


def html_below(measured: Measurements, views: Sequence[Choices]) -> str:
    """Return the HTML below the explorer; `views` holds one view per scorer, all with the same BatchNorm setting."""
    study, aware = measured.study, any(DIAMOND in _scorer_label(measured, view) for view in views)
    recalibrated = study.has_batchnorm and views[0]["batchnorm"] == "recalibrate"
    setting = "BatchNorm re-estimated on source images. " * recalibrated
    scope = "The same share is removed from every layer, without fine-tuning."
    metrics = "Accuracy or agreement" if _has_unlabelled(study) else "Accuracy"
    note = f"{metrics} in percent, with 95 % intervals over images in parentheses. {setting}{scope}"
    values = study_values(study)
    data = ", ".join(f"{name} {facts['data'][:12]}" for name, facts in values["domains"].items())
    origin = f"SHA-256 of the network: {values['network'][:12]}; of the data: {data}."
    return "".join(
        [
            section("How to read this page", _make_list(_explain_page(study, aware=aware))),
            section("In numbers", f"<p>{html.escape(note)}</p>{table(*_accuracy_rows(measured, views))}"),
            section("Which data were read", f"{table(*_data_rows(measured, views))}<p>{html.escape(origin)}</p>"),
        ]
    )


def section(heading: str, content: str) -> str:
    """Return a section with this HTML content; "" if there is no content."""
    return f"<section><h2>{html.escape(heading)}</h2>{content}</section>" if content else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return an HTML table of plain-text cells, scrolling sideways if too wide; a row's first cell is its header."""
    columns = "".join(f'<th scope="col">{html.escape(name)}</th>' if name else "<td></td>" for name in head)
    body = ""
    for first, *rest in rows:
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in rest)
        body += f'<tr><th scope="row">{html.escape(first)}</th>{cells}</tr>'
    return f'<div class="wide" tabindex="0"><table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>'


def _make_list(texts: Iterable[tuple[str, str]]) -> str:
    return f"<ul>{''.join(f'<li><b>{html.escape(name)}</b> {html.escape(text)}</li>' for name, text in texts)}</ul>"


def _image_tags(domain: Domain) -> list[str]:
    """Return an <img> of the first reported image of each class, or of the first images if there are no labels."""
    rows, names = domain.rows(SPLIT), [""] * _IMAGES
    if domain.labels is not None:
        labels = domain.labels.cpu()[rows.cpu()].tolist()
        first = {label: place for place, label in reversed(list(enumerate(labels)))}
        rows = rows[torch.tensor([first[label] for label in sorted(first)], dtype=torch.long)]
        names = [f"class {domain.class_label(label)}" for label in sorted(first)]
    return [
        f'<img src="{url}" alt="{html.escape(", ".join(filter(None, (domain.name, name))), quote=True)}">'
        for url, name in zip(thumbnails(domain, rows[:_IMAGES]), names, strict=False)
    ]


def _explain_page(study: Study, *, aware: bool) -> list[tuple[str, str]]:
    texts = [
        (
            "Slider.",
            "The share of the filters that is removed; with the keyboard: Tab to it, then the arrow keys. Every ratio "
            "was measured before, on all reported images; nothing is computed in this page.",
        ),
        (
            "A, Accuracy.",
            "A solid line is a source domain, from which training may take images; a dashed line is a target, a "
            "shifted domain. Bands are 95 % intervals over images, grey dashes the full network, dots chance level.",
        ),
        ("B, Filters kept.", "A disc is a filter that is kept, a ring one that is removed."),
        ("C, Size and cost.", "What is left of filters, parameters, multiply-accumulates (MACs) and file size."),
        ("D, Accuracy change.", "Points of accuracy that were lost or gained, with 95 % intervals, paired by image."),
        ("Scorer.", "Decides which filters are removed first; removing at random is the control."),
    ]
    if _has_unlabelled(study):
        text = (
            "The share of images to which the pruned network gives the same class as the full network; the only number "
            "of a domain without labels. It says nothing about whether the class is right."
        )
        texts.append(("Agreement.", text))
    if study.has_batchnorm:
        text = "Its running statistics are estimated again on source images after removal, unless the box is unticked."
        texts.append(("BatchNorm.", text))
    if aware:
        text = (
            "Target-aware: the scorer has looked at data of a target domain. Such a number does not measure "
            "generalisation."
        )
        texts.append((DIAMOND, text))
    return texts


def _has_unlabelled(study: Study) -> bool:
    return any(domain.labels is None for domain in study.domains)


def _accuracy_rows(measured: Measurements, views: Sequence[Choices]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows: the full network, then each scorer at a few ratios."""
    study, graph = measured.study, measured.study.graph
    full = accuracy_cells(drain(full_table(study, measured.mask({**views[0], "ratio": 0.0}), images=None)))
    suffixes = {"accuracy": "", "agreement": ", agreement with the full network"}
    head = ["Scorer", "Filters removed", "Parameters left"]
    head += [f"{cell['domain']} ({cell['role']}{suffixes[cell['metric']]})" for cell in full]
    rows = [["full network", "0 %", "100 %", *(cell["text"] for cell in full)]]
    for ratio in _RATIOS:
        for view in views:
            frame = measured.exact({**view, "ratio": ratio})
            if frame is None or frame.mask is None:
                continue
            cost = frame.mask.cost
            cells = [cell["text"] + f" {DIAMOND}" * cell["target_aware"] for cell in accuracy_cells(frame.table)]
            removed, left = 1 - cost.filters / graph.full.filters, cost.parameters / graph.full.parameters
            rows.append([_scorer_label(measured, view), share_words(removed), share_words(left), *cells])
    return head, rows


def _data_rows(measured: Measurements, views: Sequence[Choices]) -> tuple[list[str], list[list[str]]]:
    provenance = measured.study.provenance
    stages = {title: getattr(provenance, stage) for stage, title in _STAGES.items()}
    if provenance.is_from_elsewhere:  # `trained_on=` declares only training
        stages = {title: reads if title == "Training" else merged(reads, None) for title, reads in stages.items()}
    rows = [[title, _list_reads(reads)] for title, reads in stages.items()]
    rows += [[f"Scorer {_scorer_label(measured, view)}", _list_reads(measured.scores(view).reads)] for view in views]
    return ["", "has read"], rows


def _scorer_label(measured: Measurements, view: Choices) -> str:
    return label(measured.study, measured.menu[view["scorer"]]).removesuffix(" target-aware")


def _list_reads(reads: Mapping[str, Any] | None) -> str:
    """Return, as text, what was read: "labels of mnist (train), uci_digits (train)"."""
    if reads is None:
        return "not recorded"
    parts: dict[str, list[str]] = {}
    for key, use in reads.items():
        domain, _, split = key.rpartition("/")
        data = "further data" if key == MORE else f"{domain} ({'any split' if split == MORE else split})"
        parts.setdefault(use, []).append(data)
    phrases = [f"{'unknown parts' if use == 'unknown' else use} of {', '.join(data)}" for use, data in parts.items()]
    return "; ".join(phrases) or "nothing"
