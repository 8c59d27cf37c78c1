"""How the demo's recipe is chosen, from its sources alone: `dgprune-lab select` trains every candidate again.

The target is never loaded here. The rules stand in the constants and were fixed before the candidates were trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
from torch import nn

from ..core import Domain
from ..data import BUILTIN, SHIFTS
from ..diagnostics import sweep
from ..measurement import measure
from ..models.networks import build
from ..study import Study
from ..training import finish, train, with_progress
from .train import RECIPES, source_statistics

SHARES = (0.0, 0.003, 0.01, 0.03, 0.1)
WIDTHS = ((16, 32, 32, 64, 64), (24, 32, 48, 64, 64), (32, 48, 64, 96, 96))
GAMMAS = (0.0, 0.0025, 0.005)
COPIES = ("invert", "colour")  # what the augmentation does: the shift that its share decides about
AIM = 0.60  # accuracy on the copies: high enough to be worth losing, low enough that the copies look different
READ, MARGIN, DRAWS = 0.95, 0.20, 3
_FIRST = (24, 32, 48, 64, 64), 0.005  # width and sparsity of the networks that rule 1 compares

Candidate = tuple[tuple[int, ...], float]
"""Widths and gamma_l1."""


def sources() -> list[Domain]:
    """The domains the demo is trained on: everything that the choice reads."""
    return [BUILTIN[name]() for name in RECIPES["digits"].sources]


def trained(*, share: float, widths: tuple[int, ...], gamma_l1: float) -> nn.Module:
    """The demo's network by its recipe, with another augmentation share, width and sparsity."""
    recipe, domains = RECIPES["digits"], sources()
    mean, std = source_statistics(domains)
    options = replace(recipe.training, augmented_share=share, gamma_l1=gamma_l1)
    model = build(recipe.builder, widths=list(widths), mean=mean, std=std, seed=options.seed)
    label = f"{share:g}, {_words(widths)}, {gamma_l1:g}"
    return finish(with_progress(train(model, sources=domains, options=options), label=label))


def on_copies(model: nn.Module) -> pd.DataFrame:
    """What rule 1 looks at: accuracy on inverted and on coloured copies of the sources' score parts, a tidy table."""
    shifted = [SHIFTS[name](domain) for domain in sources() for name in COPIES]
    copies = [replace(domain, splits={"score": domain.rows("score")}) for domain in shifted]
    frame = measure(model, copies, split="score", latency=False)
    return frame.query("metric == 'accuracy'")


def when_halved(model: nn.Module) -> pd.DataFrame:
    """What rule 2 looks at: the sources' score parts with half of every layer gone, by BatchNorm scale and by chance.

    A tidy table of accuracy, BatchNorm re-estimated, ratios 0 and 0.5; multiply-accumulates at both.
    """
    frame = sweep(
        Study(model, sources=sources()),
        scorers=["bn_scale", "random"],
        ratios=[0, 0.5],
        seeds=DRAWS,
        batchnorm="recalibrate",
        split="score",
    )
    return frame.query("metric in ('accuracy', 'macs')")


def choose_share(tables: dict[float, pd.DataFrame]) -> float:
    """Rule 1: the share whose mean accuracy over the copies is nearest to 60 %; of two, the smaller."""
    return min(sorted(tables), key=lambda share: round(abs(tables[share].value.mean() - AIM), 9))


def choose_network(tables: dict[Candidate, pd.DataFrame]) -> Candidate | None:
    """Rule 2: the fewest multiply-accumulates (of two, less sparsity) among those that `fits`; None if none does."""
    fitting = [candidate for candidate, table in tables.items() if fits(table)]
    return min(fitting, key=lambda candidate: (full_macs(tables[candidate]), candidate[1]), default=None)


def fits(table: pd.DataFrame) -> bool:
    """Whether both sources are read at 95 % or more by BatchNorm scale and 20 points worse by chance, mean of 3."""
    read = halved(table)
    return bool((read.bn_scale >= READ - 1e-9).all() and (read.bn_scale - read.random >= MARGIN - 1e-9).all())


def halved(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy with half gone: a row per domain, a column per scorer, the mean over its draws."""
    accuracy = table.query("metric == 'accuracy' and ratio_requested == 0.5")
    return accuracy.pivot_table(index="domain", columns="scorer", values="value", sort=False)


def full_macs(table: pd.DataFrame) -> int:
    """Multiply-accumulates of one image through the whole network."""
    return int(table.query("metric == 'macs' and ratio_requested == 0").value.iloc[0])


def select() -> Iterator[str]:
    """Trains all candidates, applies both rules, and yields the tables and the choice as text, line by line.

    Rule 1: of `SHARES`, the augmentation share whose mean accuracy on the inverted and coloured copies of both
    sources' score parts is nearest to 60 %. Rule 2: of `WIDTHS` and `GAMMAS`, with that share, the network of fewest
    multiply-accumulates that, with half of every layer gone by BatchNorm scale and BatchNorm re-estimated, reads both
    sources' score parts at 95 % or more, and by chance (mean of 3 draws) 20 points worse or more.

    Returns:
        Lines to print, as they become known: 14 trainings of about half a minute each.

    Source: ours.
    """
    widths, gamma_l1 = _FIRST
    shares = {}
    yield f"1. Augmentation share ({_words(widths)} filters, gamma_l1 {gamma_l1:g}): accuracy on shifted score parts, %"
    for share in SHARES:
        shares[share] = on_copies(trained(share=share, widths=widths, gamma_l1=gamma_l1))
        each = ", ".join(f"{row.domain} {100 * row.value:.1f}" for row in shares[share].itertuples())
        yield f"  {share:<6g} mean {100 * shares[share].value.mean():.1f}: {each}"
    share = choose_share(shares)
    yield f"  nearest to {100 * AIM:g}: {share:g}"
    yield f"2. Width and sparsity (share {share:g}): accuracy on score parts with half of every layer gone, %"
    networks: dict[Candidate, pd.DataFrame] = {}
    for widths in WIDTHS:
        for gamma_l1 in GAMMAS:
            table = networks[widths, gamma_l1] = when_halved(trained(share=share, widths=widths, gamma_l1=gamma_l1))
            by_scale, by_chance = (halved(table)[name] for name in ("bn_scale", "random"))
            each = ", ".join(f"{d} {100 * by_scale[d]:.1f} (chance {100 * by_chance[d]:.1f})" for d in by_scale.index)
            said = "fits" if fits(table) else "does not fit"
            yield f"  {_words(widths)}, gamma_l1 {gamma_l1:<6g} {full_macs(table):>9,} MACs: {each}: {said}"
    chosen = choose_network(networks)
    yield (
        "  no network fits" if chosen is None else f"  smallest that fits: {_words(chosen[0])}, gamma_l1 {chosen[1]:g}"
    )


def _words(widths: tuple[int, ...]) -> str:
    return "-".join(map(str, widths))
