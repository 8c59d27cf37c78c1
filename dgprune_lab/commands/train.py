"""`dgprune-lab train NAME`: train a shipped network by its recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core import DgpruneError, Domain, MacCounter, check_writable_folder, provenance_of, set_provenance, unknown
from ..data import BUILTIN
from ..measurement import evaluate
from ..models import save
from ..models.networks import build
from ..training import EpochEvent, Events, event_bar, train
from .recipes import RECIPES, Recipe

_CLOSE = 0.005


def make(name: str, *, progress: bool = True, folder: str | Path = ".") -> Path:
    """Train a shipped network by its recipe and write NAME.safetensors and NAME.json.

    Returns:
        The path of the weights; `dg.load` reads both files from it.

    Raises:
        DgpruneError: an unknown name; a folder that cannot be written to (checked before training); a network that does
            not reach the training loss of its recipe.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    folder = check_writable_folder(folder, argument="folder")
    recipe = RECIPES[name]
    domains = {domain: BUILTIN[domain]() for domain in (*recipe.sources, *recipe.targets)}
    sources = [domains[source] for source in recipe.sources]
    network = untrained(recipe, sources)
    if recipe.first is not None:
        relabelled = shuffled(sources, seed=recipe.first.training.seed)
        events = train(network, sources=relabelled, options=recipe.first.training)
        label = f"{name}, shuffled labels" if progress else None
        network = _run_until(events, label, until=recipe.first.until).model
    events = train(network, sources=sources, options=recipe.training)
    last = _run_until(events, name if progress else None, until=recipe.until, sources=sources if recipe.until else ())
    set_provenance(last.model, provenance_of(last.model).adding("selection", recipe.selected_on))
    return save(last.model, folder / name, card={"name": name, **_card_entries(recipe, last, domains)})


def untrained(recipe: Recipe, sources: Sequence[Domain], **options: Any) -> nn.Module:
    """Return the initial network of a recipe; `options` override the builder's keyword arguments."""
    mean, std = source_statistics(sources) if recipe.normalise is None else ([value] * 3 for value in recipe.normalise)
    lists = {key: list(value) if isinstance(value, tuple) else value for key, value in recipe.options.items()}
    return build(recipe.builder, **{**lists, "mean": mean, "std": std, "seed": recipe.training.seed, **options})


def shuffled(sources: Sequence[Domain], *, seed: int) -> list[Domain]:
    """Return the domains with permuted labels in each train split: the class frequencies stay the same."""
    relabelled = []
    for number, source in enumerate(sources):
        assert source.labels is not None
        rows, labels = source.rows("train"), source.labels.clone()
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed + number))
        labels[rows] = labels[rows[order]]
        relabelled.append(replace(source, labels=labels))
    return relabelled


def _run_until(events: Events, label: str | None, *, until: float | None, sources: Sequence[Domain] = ()) -> EpochEvent:
    """Run training to its end, or until the loss (an epoch's mean or, if given, that on `sources`) reaches `until`.

    The loss on the train splits of `sources` is measured after every epoch, and after every second batch when it is
    close to `until`.
    """
    last: EpochEvent | None = None
    loss = torch.inf
    with event_bar(label or "", progress=label is not None) as show:
        for event in events:
            show(event)
            if isinstance(event, EpochEvent):
                last, loss = event, event.loss
                due = True
            else:
                due = until is not None and loss < 1.5 * until and event.batch % 2 == 0
            if sources and last is not None and due:
                loss = float(torch.cat([evaluate(last.model, source, "train").loss for source in sources]).mean())
            if last is None or until is None:
                continue
            if abs(loss / until - 1) < _CLOSE if sources else loss <= until:
                break
        else:
            if until is not None:
                raise DgpruneError(f"training ended at a loss of {loss:.4g}; it should have reached {until:g}.")
    events.close()
    assert last is not None  # a training has at least one epoch
    return replace(last, loss=loss, model=last.model.eval())


def accuracy_by_split(model: nn.Module, domains: Iterable[Domain]) -> dict[str, dict[str, dict[str, float]]]:
    """Return domain -> split -> {images, correct, accuracy (0 to 1)}, for domains with labels."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for domain in (domain for domain in domains if domain.labels is not None):
        for split in domain.splits:
            outcomes = evaluate(model, domain, split)
            assert outcomes.correct is not None
            images, correct = len(outcomes), int(outcomes.correct.sum())
            row = {"images": images, "correct": correct, "accuracy": correct / images}
            table.setdefault(domain.name, {})[split] = row
    return table


def source_statistics(sources: Sequence[Domain]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel over the sources' train splits, rounded to 4 decimals."""
    batches = [batch.images for source in sources for batch in source.batches("train", size=500)]
    pixels = torch.cat([images.transpose(0, 1).flatten(1) for images in batches], 1).double()
    std = pixels.var(1, correction=0).clamp_min(1e-12).sqrt()
    return [round(v, 4) for v in pixels.mean(1).tolist()], [round(v, 4) for v in std.tolist()]


def macs(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Return the multiply-accumulates for one image (C, H, W)."""
    with MacCounter() as counter, torch.no_grad():
        model(torch.zeros(1, *shape))
    return counter.total


def _card_entries(recipe: Recipe, last: EpochEvent, domains: Mapping[str, Domain]) -> dict[str, Any]:
    """Return the entries of the card beyond those of every saved network."""
    model = last.model
    return {
        "sources": list(recipe.sources),
        "targets": list(recipe.targets),
        "domains": {
            key: {"origin": domain.origin, "key": domain.key, "splits": {p: len(r) for p, r in domain.splits.items()}}
            for key, domain in domains.items()
        },
        "seed": recipe.training.seed,
        "epochs": recipe.training.epochs,
        "training": recipe.training.to_json(),
        "why": list(recipe.why),
        "loss": round(last.loss, 6),
        "seconds": round(last.seconds, 1),
        "threads": torch.get_num_threads(),
        "accuracy": accuracy_by_split(model, domains.values()),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "macs": macs(model, domains[recipe.sources[0]].shape),
        **({} if recipe.until is None else {"until": recipe.until, "epochs_taken": last.epoch}),
        **({} if recipe.first is None else {"first": asdict(recipe.first)}),
    }
