"""`dgprune-lab train NAME`: the recipes of the shipped networks, and training by them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..core import DgpruneError, Domain, Seen, check_writable_folder, provenance_of, set_provenance, unknown
from ..data import BUILTIN
from ..measurement import evaluate
from ..models import save
from ..models.networks import build
from ..training import EpochEvent, Events, TrainingOptions, event_bar, presets, train

_CLOSE = 0.005


@dataclass(frozen=True)
class Relabelled:
    """A first phase of training on shuffled labels; it ends when an epoch's mean cross-entropy is at most `until`."""

    training: TrainingOptions
    until: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The recipe of a shipped network: its architecture, its training data and options, and the reasons.

    Attributes:
        builder: a name in `BUILDERS`.
        sources: names of the built-in domains on whose train splits the network is trained.
        targets: names of built-in domains not seen in training; the card gives the accuracy on them.
        training: the options of training; their seed is also that of the initial weights.
        why: sentences on the reasons, for the card.
        options: the builder's keyword arguments, without seed, mean and std.
        normalise: mean and std of the first module; None for those of the sources' train splits.
        selected_on: what the choice of the recipe has read, {"mnist/score": "labels"}; the provenance records it.
        until: the mean cross-entropy on all train splits (eval mode) at which training ends, to half a percent; None
            trains for all epochs.
        first: a first phase of training on shuffled labels, if any.
    """

    builder: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    training: TrainingOptions
    why: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    normalise: tuple[float, float] | None = None
    selected_on: Mapping[str, Seen] = field(default_factory=dict)
    until: float | None = None
    first: Relabelled | None = None


def _one_of_a_pair(first: Relabelled | None, *why: str) -> Recipe:
    """Return the recipe of one of two small LeNets with equal training loss; the two differ only in `first`."""
    return Recipe(
        builder="lenet",
        sources=("mnist", "uci_digits"),
        targets=("mnist_m",),
        training=TrainingOptions(epochs=80, batch_size=64, optimiser="adam", lr=3e-4, schedule="constant"),
        options={"widths": (8, 16), "hidden": (64, 32)},
        until=0.02,
        first=first,
        why=(
            "One of two networks with equal training loss and different accuracy on unseen digits, for measures that "
            "claim to predict which of two networks generalises better.",
            *why,
            "Both are then trained alike on the true labels, without weight decay or augmentation, until the mean "
            "cross-entropy on all train images (eval mode) is 0.02 to within half a percent.",
            "The recipe was kept because the accuracies of the two differ on the score and report splits of mnist and "
            "uci_digits; mnist_m was not used.",
        ),
        selected_on={f"{name}/{split}": "labels" for name in ("mnist", "uci_digits") for split in ("score", "report")},
    )


def _two_sources(seed: int) -> Recipe:
    """Return the recipe of the paper's LeNet on two sources; only the seed differs between the three."""
    return Recipe(
        builder="lenet",
        sources=("mnist", "uci_digits"),
        targets=("mnist_m",),
        training=TrainingOptions(epochs=12, batch_size=32, lr=0.01, schedule="dss", seed=seed),
        why=(
            "One of three trainings that differ only in the seed (initial weights and order of the images), for "
            "comparisons over training seeds.",
            "Two sources, so that scorers that compare domains work without the target.",
            "The network, the optimiser and the learning-rate rule of the DSS paper, 12 epochs instead of 100, the "
            "plain cross-entropy and no augmentation.",
        ),
    )


RECIPES: Mapping[str, Recipe] = {
    "digits": Recipe(
        builder="digits_net",
        sources=("mnist", "uci_digits"),
        targets=("mnist_m",),
        training=TrainingOptions(
            epochs=40,
            batch_size=64,
            lr=0.05,
            weight_decay=5e-4,
            schedule="cosine",
            augmentation="invert_colour",
            augmented_share=0.01,
            gamma_l1=5e-3,
        ),
        options={"widths": (24, 32, 48, 64, 64)},
        why=(
            "The network is made to be pruned by hand: with half of the filters of every convolution removed, "
            "BatchNorm recalibrated on 500 source images and no fine-tuning, a good choice of filters still classifies "
            "both sources and a random one does not. Augmentation, width and sparsity were chosen by two rules that "
            "were fixed first and use the score splits of the sources only: `dgprune-lab recipe-search` trains every "
            "candidate again.",
            "Augmentation: one image in a hundred is inverted or coloured (each with probability 1/2). Of 0, .003, "
            ".01, .03 and .1 it is the share whose mean accuracy on inverted and on coloured copies of both sources' "
            "score splits is nearest to 60 %. They gave 18, 31, 51, 77 and 93 %.",
            "Width and sparsity: of three widths and gamma_l1 (network slimming) 0, 0.0025 and 0.005, the network with "
            "the fewest multiply-accumulates that, with half of every layer removed by BatchNorm scale, classifies "
            "both score splits at 95 % or more, and with a random half at least 20 points worse. On mnist / uci_digits "
            "it reaches 98.5 / 99.3 %, with a random half 33.5 / 35.8 %. The same widths reach 85 / 97 % with half the "
            "sparsity and 84 / 86 % without any; 16-32-32-64-64 filters reach 90 / 94 % at best; 32-48-64-96-96 fit at "
            "1.9 times the cost.",
            "The 5 x 5 convolution has stride 2, so an image costs 1.95 million multiply-accumulates and 1,000 of them "
            "keep up with a moving slider.",
            "Neither rule used mnist_m, but their candidates are not independent of it: an earlier version of this "
            "network was chosen using mnist_m (augmentation on its score split, width and sparsity on another draw of "
            "the same digits and photographs), the ranges come from that time, and the accuracies of those shares of "
            "augmentation on its score split were known when the rules were written. The demo illustrates; it proves "
            "nothing.",
        ),
        selected_on={"mnist/score": "labels", "uci_digits/score": "labels"},
    ),
    "lenet_paper": Recipe(
        builder="lenet",
        sources=("mnist",),
        targets=("mnist_m",),
        training=presets.TRAINING,
        normalise=(0.2973, 0.3278),
        why=(
            "Trained as the DSS paper trains its MNIST network (Sun 2023, arXiv:2306.13237): 100 epochs, batches of "
            "32, SGD with momentum 0.9, learning rate 0.01 / (1 + 10 p)^0.75, no augmentation.",
            "As in the paper's code, the training loss applies a softmax before the cross-entropy; the network itself "
            "gives plain logits.",
            "Mean 0.2973 and standard deviation 0.3278 are the constants of the paper's code for MNIST. Here they "
            "serve every domain: normalising the target by its own statistics, as that code does, uses the target.",
            "The train split has 3,200 digits, not 60,000: accuracies here cannot be compared with the published ones.",
        ),
    ),
    "lenet_two_sources_0": _two_sources(0),
    "lenet_two_sources_1": _two_sources(1),
    "lenet_two_sources_2": _two_sources(2),
    "digits_pair_a": _one_of_a_pair(None, "This one starts from its initial weights."),
    "digits_pair_b": _one_of_a_pair(
        Relabelled(
            TrainingOptions(epochs=150, batch_size=64, optimiser="adam", lr=1e-3, schedule="constant"), until=0.05
        ),
        "This one is first trained to fit the same images with shuffled labels, a bad initialisation (Liu, "
        "Papailiopoulos and Achlioptas 2020, Bad Global Minima Exist and SGD Can Reach Them, arXiv:1906.02613).",
    ),
}


def make(name: str, *, progress: bool = True, folder: str | Path = ".") -> Path:
    """Train a shipped network by its recipe and write NAME.safetensors and NAME.json.

    Returns:
        The path of the weights; `dg.load` reads both files from it.

    Raises:
        DgpruneError: an unknown name; a folder that cannot be written to (tried before training); a network that does
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
        network = _run(events, label, until=recipe.first.until).model
    events = train(network, sources=sources, options=recipe.training)
    last = _run(events, name if progress else None, until=recipe.until, sources=sources if recipe.until else ())
    set_provenance(last.model, provenance_of(last.model).adding("selection", recipe.selected_on))
    return save(last.model, folder / name, card={"name": name, **_card(recipe, last, domains)})


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


def _run(events: Events, label: str | None, *, until: float | None, sources: Sequence[Domain] = ()) -> EpochEvent:
    """Run training to its end, or until its loss reaches `until`: the mean loss of an epoch, or that on `sources`.

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
                raise DgpruneError(f"the training ended at a loss of {loss:.4g} and was to reach {until:g}.")
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
    """Return the multiply-accumulates for one image (C, H, W): half of the count by PyTorch's counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *shape))
    return counter.get_total_flops() // 2


def _card(recipe: Recipe, last: EpochEvent, domains: Mapping[str, Domain]) -> dict[str, Any]:
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
