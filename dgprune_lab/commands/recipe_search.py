"""`dgprune-lab recipe-search`: choose a demo's recipe again, using only its sources, by training every candidate.

The target is never loaded here. The rules were fixed before the candidates of a search were trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from torch import nn

from ..core import Domain, unknown
from ..data import BUILTIN, SHIFTS
from ..diagnostics import sweep
from ..measurement import measure
from ..study import Study
from ..training import event_bar, finish, train
from .recipes import RECIPES
from .train import untrained

COPIES = ("invert", "colour")  # the shifts that the augmentation imitates, so that its share decides about them
AIM = 0.60  # accuracy on the copies: a visible shift, yet room for pruning to lose some
MARGIN, DRAWS = 0.20, 3

Candidate = tuple[tuple[int, ...], float]
"""(widths, gamma_l1) of a candidate network."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The candidates of a demo's recipe.

    Attributes:
        shares: shares of augmented images, from which rule 1 chooses one.
        widths: filter counts of all convolutions, from which rule 2 chooses one set.
        gammas: sparsities, from which rule 2 chooses one.
        first: width and sparsity of the networks that rule 1 compares.
        least: the accuracy that rule 2 requires of a halved network on each source.
    """

    shares: tuple[float, ...] = (0.0, 0.003, 0.01, 0.03, 0.1)
    widths: tuple[tuple[int, ...], ...] = ((16, 32, 32, 64, 64), (24, 32, 48, 64, 64), (32, 48, 64, 96, 96))
    gammas: tuple[float, ...] = (0.0, 0.0025, 0.005)
    first: Candidate = ((24, 32, 48, 64, 64), 0.005)
    least: float


PLANS: dict[str, Plan] = {
    "digits": Plan(least=0.95),
    "fashion": Plan(
        shares=(0.003, 0.01, 0.03),
        widths=((16, 32, 32, 64, 64), (24, 32, 48, 64, 64), (32, 40, 56, 72, 72)),
        gammas=(0.005, 0.01),
        least=0.80,
    ),
}


def sources(demo: str) -> list[Domain]:
    """Return the domains on which a demo is trained; the choice of the recipe uses no other data."""
    return [BUILTIN[name]() for name in RECIPES[demo].sources]


def trained(demo: str, *, share: float, widths: tuple[int, ...], gamma_l1: float) -> nn.Module:
    """Train a demo's network by its recipe, with another augmentation share, width and sparsity."""
    recipe, domains = RECIPES[demo], sources(demo)
    options = replace(recipe.training, augmented_share=share, gamma_l1=gamma_l1)
    model = untrained(recipe, domains, widths=list(widths))
    with event_bar(f"{share:g}, {_join(widths)}, {gamma_l1:g}") as show:
        return finish(train(model, sources=domains, options=options), show)


def on_copies(model: nn.Module, domains: Sequence[Domain]) -> pd.DataFrame:
    """Return the table for rule 1: accuracy on inverted and on coloured copies of the domains' score splits."""
    shifted = [SHIFTS[name](domain) for domain in domains for name in COPIES]
    copies = [replace(domain, splits={"score": domain.rows("score")}) for domain in shifted]
    return measure(model, copies, split="score", latency=False).query("metric == 'accuracy'")


def when_halved(model: nn.Module, domains: Sequence[Domain]) -> pd.DataFrame:
    """Return the table for rule 2: accuracy on the domains' score splits, and MACs, at the ratios 0 and 0.5."""
    study, scorers = Study(model, sources=domains), ["bn_scale", "random"]
    frame = sweep(study, scorers=scorers, ratios=[0, 0.5], seeds=DRAWS, batchnorm="recalibrate", split="score")
    return frame.query("metric in ('accuracy', 'macs')")


def choose_share(tables: dict[float, pd.DataFrame]) -> float:
    """Apply rule 1: choose the share whose mean accuracy over the copies is nearest to 60 %; the smaller if tied."""
    return min(sorted(tables), key=lambda share: round(abs(tables[share].value.mean() - AIM), 9))


def choose_network(tables: dict[Candidate, pd.DataFrame], *, least: float) -> Candidate | None:
    """Apply rule 2: choose the fitting candidate with the fewest MACs (if tied, the smaller gamma_l1), or None."""
    fitting = [candidate for candidate, table in tables.items() if fits(table, least=least)]
    return min(fitting, key=lambda candidate: (full_macs(tables[candidate]), candidate[1]), default=None)


def fits(table: pd.DataFrame, *, least: float) -> bool:
    """Return whether a candidate meets the requirements of rule 2, see `search`."""
    accuracy = halved(table)
    margin = accuracy.bn_scale - accuracy.random
    return bool((accuracy.bn_scale >= least - 1e-9).all() and (margin >= MARGIN - 1e-9).all())


def halved(table: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy at ratio 0.5, averaged over draws: a row per domain, a column per scorer."""
    accuracy = table.query("metric == 'accuracy' and ratio_requested == 0.5")
    return accuracy.pivot_table(index="domain", columns="scorer", values="value", sort=False)


def full_macs(table: pd.DataFrame) -> int:
    """Return the multiply-accumulates of the full network for one image."""
    return int(table.query("metric == 'macs' and ratio_requested == 0").value.iloc[0])


def search(demo: str = "digits") -> Iterator[str]:
    """Train all candidates, apply both rules, and yield the tables and the choice as lines of text.

    Rule 1 chooses the plan's augmentation share whose mean accuracy on the inverted and coloured copies of both
    sources' score splits is nearest to 60 %. Rule 2 chooses, at that share, among the plan's widths and sparsities the
    network with the fewest multiply-accumulates that meets two requirements on both sources' score splits: with half
    of every layer removed by BatchNorm scale and BatchNorm recalibrated, accuracy is `least` or more (digits 95 %,
    fashion 80 %); with a random half removed (mean of 3 draws) it is at least 20 percentage points lower.

    Args:
        demo: name of a plan in `PLANS`.

    Returns:
        The lines one by one, as soon as they are known. For digits 14 networks are trained, for fashion 9, about half a
        minute each.

    Raises:
        DgpruneError: an unknown name.

    Source: ours.
    """
    if demo not in PLANS:
        raise unknown("demo with a recipe search", demo, PLANS)
    plan, domains = PLANS[demo], sources(demo)
    widths, gamma_l1 = plan.first
    shares = {}
    yield f"1. Augmentation share ({_join(widths)} filters, gamma_l1 {gamma_l1:g}): accuracy on shifted copies, %"
    for share in plan.shares:
        shares[share] = on_copies(trained(demo, share=share, widths=widths, gamma_l1=gamma_l1), domains)
        accuracies = ", ".join(f"{row.domain} {100 * row.value:.1f}" for row in shares[share].itertuples())
        yield f"  {share:<6g} mean {100 * shares[share].value.mean():.1f}: {accuracies}"
    share = choose_share(shares)
    yield f"  nearest to {100 * AIM:g}: {share:g}"
    yield f"2. Width and sparsity (share {share:g}): accuracy on score splits with half of every layer removed, %"
    networks: dict[Candidate, pd.DataFrame] = {}
    for widths in plan.widths:
        for gamma_l1 in plan.gammas:
            model = trained(demo, share=share, widths=widths, gamma_l1=gamma_l1)
            table = networks[widths, gamma_l1] = when_halved(model, domains)
            rows = (100 * halved(table)).iterrows()
            accuracies = ", ".join(f"{domain} {row.bn_scale:.1f} (random {row.random:.1f})" for domain, row in rows)
            verdict = "fits" if fits(table, least=plan.least) else "does not fit"
            yield f"  {_join(widths)}, gamma_l1 {gamma_l1:<6g} {full_macs(table):>9,} MACs: {accuracies}: {verdict}"
    chosen = choose_network(networks, least=plan.least)
    text = "no network fits" if chosen is None else f"smallest that fits: {_join(chosen[0])}, gamma_l1 {chosen[1]:g}"
    yield f"  {text}"


def _join(widths: tuple[int, ...]) -> str:
    return "-".join(map(str, widths))
