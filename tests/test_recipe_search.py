"""The demo's recipe is chosen by rules that read the sources alone; the target is never loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from dgprune_lab.commands import cli, recipe_search
from dgprune_lab.commands.recipe_search import PLANS
from dgprune_lab.commands.recipes import RECIPES
from dgprune_lab.commands.train import make
from dgprune_lab.core.domain import Domain
from dgprune_lab.data import BUILTIN
from dgprune_lab.models import load, shipped, shipped_card
from dgprune_lab.models.networks import digits_net


def copies(*accuracy: float) -> pd.DataFrame:
    return pd.DataFrame({"value": accuracy})


def network(macs: int, *, scale: tuple[float, float] = (0.95, 0.95), chance: tuple[float, float] = (0.7, 0.7)) -> Any:
    """What `when_halved` gives for a network of so many multiply-accumulates; chance differs between its draws."""
    rows = [{"metric": "macs", "ratio_requested": 0.0, "value": macs, "scorer": "bn_scale"}]
    for k, name in enumerate(("a", "b")):
        for ratio, scorer, value in [(0.0, "bn_scale", 1.0), (0.5, "bn_scale", scale[k])]:
            rows.append(
                {"domain": name, "metric": "accuracy", "ratio_requested": ratio, "scorer": scorer, "value": value}
            )
        for draw in (-0.1, 0.0, 0.1):
            value = chance[k] + draw
            rows.append(
                {"domain": name, "metric": "accuracy", "ratio_requested": 0.5, "scorer": "random", "value": value}
            )
    return pd.DataFrame(rows)


def test_the_share_nearest_to_sixty_percent_is_taken_by_the_mean_over_all_copies() -> None:
    assert recipe_search.choose_share({0.0: copies(0.2, 0.2), 0.1: copies(1.0, 0.3), 0.01: copies(0.5, 0.5)}) == 0.1
    assert recipe_search.choose_share({0.1: copies(0.7), 0.01: copies(0.5)}) == 0.01, "of two as near, the smaller"


def test_a_network_fits_where_a_good_half_reads_both_sources_and_chance_does_not() -> None:
    assert recipe_search.fits(network(1, scale=(0.95, 0.99), chance=(0.75, 0.79)), least=0.95), (
        "the limits themselves fit"
    )
    assert not recipe_search.fits(network(1, scale=(0.949, 0.99)), least=0.95)
    assert not recipe_search.fits(network(1, scale=(0.99, 0.949)), least=0.95)
    assert not recipe_search.fits(network(1, scale=(0.95, 0.99), chance=(0.751, 0.7)), least=0.95)
    assert not recipe_search.fits(network(1, scale=(0.95, 0.99), chance=(0.7, 0.791)), least=0.95)


def test_the_smallest_network_that_fits_is_taken_and_less_sparsity_of_two() -> None:
    small, wide = (8, 8), (16, 16)
    bad = network(10, scale=(0.9, 0.99))
    tables = {(small, 0.0): bad, (wide, 0.1): network(20), (wide, 0.01): network(20), ((32,), 0.0): network(30)}
    assert recipe_search.choose_network(tables, least=0.95) == (wide, 0.01)
    assert recipe_search.choose_network({**tables, (small, 0.2): network(10)}, least=0.95) == (small, 0.2)
    assert recipe_search.choose_network({(small, 0.0): bad}, least=0.95) is None


def test_the_search_uses_score_splits_of_sources_and_their_shifted_copies_and_no_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: set[tuple[str, str]] = set()
    rows = Domain.rows

    def spy(self: Domain, split: str, images: int | None = None) -> torch.Tensor:
        read.add((self.name, split))
        return rows(self, split, images)

    def refuse() -> Domain:
        raise AssertionError("the target was loaded")

    monkeypatch.setattr(Domain, "rows", spy)
    monkeypatch.setitem(BUILTIN, "mnist_m", refuse)
    few = replace(PLANS["digits"], shares=(0.0, 0.1), widths=((4, 4, 4, 4, 4), (4, 4, 6, 6, 6)), gammas=(0.0,))
    monkeypatch.setitem(PLANS, "digits", few)  # type: ignore[arg-type]
    asked: list[dict[str, Any]] = []

    def untrained(demo: str, **how: Any) -> torch.nn.Module:
        asked.append(how)
        return digits_net(widths=how["widths"])

    monkeypatch.setattr(recipe_search, "trained", untrained)
    lines = list(recipe_search.search())
    assert lines[0].startswith("1. Augmentation share") and lines[-1] == "  no network fits"
    assert len(lines) == 1 + 2 + 1 + 1 + 2 + 1
    sources = ("mnist", "uci_digits")
    shifted = {(f"{source} {how}", "score") for source in sources for how in ("inverted", "coloured")}
    refreshed = {(source, "train") for source in sources}  # BatchNorm is re-estimated on images of the train parts
    assert read == shifted | refreshed | {(source, "score") for source in sources}
    first = {"widths": (24, 32, 48, 64, 64), "gamma_l1": 0.005}
    assert asked[:2] == [{"share": 0.0, **first}, {"share": 0.1, **first}]
    chosen = float(lines[3].rsplit(" ", 1)[1])
    assert [(how["share"], how["widths"]) for how in asked[2:]] == [(chosen, w) for w in few.widths]


@pytest.mark.slow
def test_a_candidate_is_trained_as_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = RECIPES["digits"]
    short = replace(recipe, training=replace(recipe.training, epochs=1, batch_size=500))
    monkeypatch.setitem(RECIPES, "digits", short)  # type: ignore[arg-type]
    made = load(make("digits", progress=False, folder=tmp_path)).state_dict()
    how = {"share": recipe.training.augmented_share, "gamma_l1": recipe.training.gamma_l1}
    same = recipe_search.trained("digits", **how, widths=recipe.options["widths"]).state_dict()
    assert made.keys() == same.keys()
    assert all(torch.equal(made[key], same[key]) for key in made)
    other = recipe_search.trained("digits", **{**how, "share": 0.5}, widths=recipe.options["widths"]).state_dict()
    assert not all(torch.equal(made[key], other[key]) for key in made)


@pytest.mark.parametrize(
    ("demo", "halved", "random", "shares", "copies"),
    [
        ("digits", [98.5, 99.3], [33.5, 35.8], "18, 31, 51, 77 and 93 %", 51),
        ("fashion", [80.2, 82.7], [26.8, 29.0], "34, 52 and 60 %", 59.8),
    ],
)
def test_a_shipped_demo_fits_and_its_card_has_the_numbers(
    demo: str, halved: list[float], random: list[float], shares: str, copies: float
) -> None:
    recipe, plan, why = RECIPES[demo], PLANS[demo], " ".join(shipped_card(demo)["why"])
    assert recipe.training.augmented_share in plan.shares and recipe.training.gamma_l1 in plan.gammas
    assert recipe.options["widths"] in plan.widths
    model, domains = shipped(demo), recipe_search.sources(demo)
    table = recipe_search.when_halved(model, domains)
    assert recipe_search.fits(table, least=plan.least)
    accuracy = 100 * recipe_search.halved(table)
    assert f"{halved[0]} / {halved[1]} %, with a random half {random[0]} / {random[1]} %" in why
    assert accuracy.bn_scale.tolist() == pytest.approx(halved, abs=0.4)  # one image of 300 is a third of a point
    assert accuracy.random.tolist() == pytest.approx(random, abs=0.4)
    assert f"They gave {shares}" in why
    assert 100 * recipe_search.on_copies(model, domains).value.mean() == pytest.approx(copies, abs=0.6)


def test_the_command_prints_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_search, "search", lambda demo: iter([f"a table of {demo}", "the choice"]))
    for words, demo in ((["recipe-search"], "digits"), (["recipe-search", "fashion"], "fashion")):
        shown = CliRunner().invoke(cli.app, words)
        assert shown.exit_code == 0
        assert shown.output.splitlines()[-2:] == [f"a table of {demo}", "the choice"]
