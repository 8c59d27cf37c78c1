"""The words and their explanations. A fact that a scorer's docstring states is taken from there."""

from __future__ import annotations

from ...core import DIAMOND
from ...scorers import SCORERS
from .entry import Entry


def _of_scorer(name: str, *, word: str, text: str) -> Entry:
    """Return the entry of a scorer: the first sentence of its docstring, then what a beginner must know besides."""
    lead = (SCORERS[name].function.__doc__ or "").partition("\n")[0]
    return Entry(word=word, text=f"{lead} {text}", where=f'dg.SCORERS["{name}"]')


def entries() -> tuple[Entry, ...]:
    """Return all words, in the order in which a lesson needs them."""
    return (*_DATA, *_PRUNING, *_MEASURING, *_TRAINING, *_INSIDE, *_scorers())


_DATA = (
    Entry(
        word="domain",
        text="A collection of images of one kind. Scanned digits and digits on photographs have the same classes and "
        "look different: they are two domains.",
        where="dg.Domain, dg.demo",
    ),
    Entry(
        word="source",
        text="A domain on whose images and labels the network was trained. Fine-tuning and every choice may look at "
        "sources only.",
        where="dg.Study(sources=...)",
    ),
    Entry(
        word="target",
        text="A domain on which the network was not trained. Its accuracy is reported, and nothing is chosen by it. "
        "How much of it remains is the question of domain generalisation.",
        where="dg.Study(targets=...)",
    ),
    Entry(
        word="split",
        text="A part of a domain's images with one use: networks train on the split train, scorers read score, tables "
        "report report. So a scorer is not judged on the images that it has read.",
        where="dg.Domain.from_arrays(splits=...)",
    ),
)

_PRUNING = (
    Entry(
        word="filter",
        text="One output channel of a convolution: a few weights that slide over the image and give one map. Pruning "
        "removes whole filters, so the network becomes smaller and needs fewer operations.",
        where="dg.read_groups",
    ),
    Entry(
        word="group of filters",
        text="Filters that can only be removed together. Where a network adds two maps channel by channel, channel 3 "
        "of the one leaves with channel 3 of the other.",
        where="dg.read_groups, dg.FilterGroup",
    ),
    Entry(
        word="mask",
        text="The list of the filters that stay. The network itself is not changed by it; dg.prune makes the smaller "
        "network.",
        where="dg.allocate, dg.prune, dg.Mask",
    ),
    Entry(
        word="ratio",
        text="The share that is removed, so 0.5 is half. It counts filters unless another budget is chosen: half of "
        "the filters is seldom half of the parameters or of the operations.",
        formula="ratio = removed / all",
        where="dg.allocate(ratio=...)",
    ),
    Entry(
        word="scorer",
        text="A rule that gives every filter one number. Higher means keep: the filters with the lowest numbers are "
        "removed first.",
        where="dg.SCORERS, dg.Study.score",
    ),
    Entry(
        word="control",
        text="A simple choice that a good one must beat: filters drawn at random, or the reversed order of a scorer. "
        "Without it nobody can say whether the scorer did anything.",
        where='dg.SCORERS["random"], dg.reverse, dg.diagnostics.compare_scorers',
    ),
    Entry(
        word="target-aware",
        text=f"What has looked at a target before it is tested on it, marked {DIAMOND}. Its accuracy on this target "
        "does not measure generalisation.",
        where="dg.diagnostics.data_access",
    ),
    Entry(
        word="provenance",
        text="The record of what has read which images and labels: the training, the scorer, the fine-tuning and the "
        "selection. Every row of a table carries it.",
        where="dg.provenance_of, dg.Provenance",
    ),
    Entry(
        word="BatchNorm recalibration",
        text="BatchNorm layers subtract a mean and divide by a spread that were collected in training. After a removal "
        "they no longer fit. Recalibration collects them again on source images; no weight changes, no label is read.",
        formula="y = γ · (x − mean) / √(variance + ε) + β",
        where="dg.recalibrate",
    ),
)

_MEASURING = (
    Entry(
        word="accuracy change",
        text="What removal does at once: the accuracy after it minus that of the full network, on the same images. "
        "Negative where removal hurts. Nothing was trained in between, so it says nothing yet about generalisation.",
        formula="change = accuracy after − accuracy before",
        where="dg.diagnostics.drop",
    ),
    Entry(
        word="interval",
        text="The range of values that agree with the measurement; other images or other training seeds would have "
        "given another number. At 95 %, about 19 of 20 such ranges hold the true value. If the interval of a "
        "difference covers 0, the measurement does not show a difference.",
        where="dg.summary",
    ),
    Entry(
        word="paired difference",
        text="A difference between two networks on the same images, or between two methods with the same training "
        "seed. What is hard for both cancels, so the interval is usually narrower than from two separate measurements.",
        where="dg.diagnostics.compare_networks, dg.diagnostics.compare_scorers",
    ),
)

_TRAINING = (
    Entry(
        word="fine-tuning",
        text="Training goes on after a removal, on the sources, so that the remaining filters can adapt.",
        where="dg.prune_and_tune",
    ),
    Entry(
        word="training seed",
        text="The number from which a training draws its first weights and the order of its images. Another seed gives "
        "another network, so a claim about a method needs several.",
        where="dg.training_seeds, dg.train_with_pruning",
    ),
    Entry(
        word="instability",
        text="The share of the accuracy that is lost at the moment when filters are removed during a training.",
        formula="instability = (accuracy before − accuracy after) / accuracy before",
        where="dg.diagnostics.pruning_events",
    ),
    Entry(
        word="mean stability",
        text="How little a training loses at its removals, on average: 100 % for one that loses nothing.",
        formula="mean stability = 100 % · (1 − mean instability)",
        where="dg.diagnostics.instability",
    ),
    Entry(
        word="prunability",
        text="The smallest share of the weights that is enough: the others are set to zero, the smallest first, as "
        "long as the training loss stays within a tolerance. Lower is predicted to generalise better. Compare only "
        "networks of equal training loss. Our reconstruction from the paper's abstract.",
        formula="smallest a with L(a kept) ≤ (1 + tolerance) · L(all kept)",
        where="dg.diagnostics.prunability",
    ),
    Entry(
        word="flatness",
        text="How slowly the training loss rises around the trained weights. In a wide valley a small change of the "
        "weights costs little. The largest eigenvalues of the Hessian measure the curvature: small is flat.",
        where="dg.diagnostics.flatness",
    ),
)

_INSIDE = (
    Entry(
        word="sensitivity",
        text="How differently a filter contributes to the true class on two domains, always compared among images of "
        "the same class: the mean of the effect sizes of the classes. A sensitive filter responds to the domain; only "
        "removing it shows whether it does harm.",
        where="dg.diagnostics.sensitivity",
    ),
    Entry(
        word="effect size",
        text="A difference in units of the spread: at d = 1 the means lie one standard deviation apart. Unlike "
        "significance, it does not grow with the number of images. For sensitivity, d is computed within each class, "
        "then averaged over the classes.",
        formula="d = (mean on one domain − mean on the other) / standard deviation",
        where="dg.diagnostics.sensitivity",
    ),
    Entry(
        word="feature shift",
        text="How far apart two domains lie in the features, which are the outputs of a layer's filters.",
        where="dg.diagnostics.feature_shift",
    ),
    Entry(
        word="MMD",
        text="Maximum mean discrepancy: a distance between two clouds of features. Near 0 the clouds do not differ. "
        "The kernel k is near 1 for features that lie close together. Tables hold the square.",
        formula="MMD² = mean k(x, x′) + mean k(y, y′) − 2 · mean k(x, y)",
        where="dg.diagnostics.feature_shift",
    ),
    Entry(
        word="UMAP",
        text="A map on which close features tend to be close. The distances between clouds and their sizes have no "
        "meaning: rely on the numbers with their intervals.",
        where='dg.diagnostics.feature_shift(embedding="umap")',
    ),
)


def _scorers() -> tuple[Entry, ...]:
    """The words of scorers; a function, because their docstrings are read."""
    map_words = (
        "A mean map is the average of the filter's output over many images. It looks at the target: target-aware."
    )
    return (
        _of_scorer("dss", word="DSS", text=map_words),
        _of_scorer(
            "risk_variance",
            word="risk variance",
            text="A risk is the mean loss on one source, and closing a gate sets a filter's output to 0. The formula "
            "is our reconstruction from the paper's abstract.",
        ),
        _of_scorer(
            "gc_net",
            word="GC-Net",
            text="The correlations themselves form a second network, one number per link. The score of whole filters "
            "is our reconstruction from the paper's abstract.",
        ),
    )
