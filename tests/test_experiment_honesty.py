"""Shipped tables are what their cards say, and one run of each is computed again from its settings."""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_up_study
import numpy as np
import pandas as pd
import pytest
from made_up_study import NAME, made_up

import dgprune_lab as dg
from dgprune_lab import experiments
from dgprune_lab.core import code_key, is_target_aware, machine_description
from dgprune_lab.experiments import STUDIES, tables
from dgprune_lab.experiments.settings import key_of

RESULTS = Path(__file__).parents[1] / "notebooks" / "results"
SHIPPED = experiments.shipped_names()
QUICK = [name for name in SHIPPED if name.endswith("_quick")]
MOST_TOLERATED = 0.1  # of a few hundred images, after training on another machine with such a processor
OTHER_PROCESSOR = 0.2  # it rounds sums of float32 in another way, and training enlarges the difference


def apart(name: str, run: int, *, events: bool = True) -> float:
    """How far the accuracies, other shares and correlations of a run computed again are from those of the table.

    Without `events` it leaves out the rows of pruning events: on another processor they can cost more or less, and be
    fewer.
    """
    table: Any = experiments.shipped(name)
    found: Any = experiments.recompute(name, run=run)
    shipped = table[table["run"] == run]
    rows = ["domain", "metric", "scorer", "ratio_requested", "training_seed"]
    if not events:
        found, shipped = (
            frame[~frame["metric"].str.fullmatch("mean_.*(stability|drop)")] for frame in (found, shipped)
        )
    keys = [frame[rows].map(str).agg(" ".join, axis=1).tolist() for frame in (found, shipped)]
    assert keys[0] == keys[1] and len(keys[0])
    bounded = found["unit"].isin(("share", "correlation")).to_numpy()
    assert bounded.any()
    return float(np.abs(found["value"].to_numpy() - shipped["value"].to_numpy())[bounded].max())


def is_computed_again(name: str, run: int) -> bool:
    """Whether a run gives the numbers of its table, as nearly as this machine allows."""
    card = experiments.shipped_card(name)
    processor = machine_description().split(", ")[0]
    if any(words.split(", ")[0] == processor for words in card["machines"]):
        return apart(name, run) <= card["tolerance"]
    return apart(name, run, events=False) <= OTHER_PROCESSOR


def test_tables_that_ship_are_few_and_small() -> None:
    sizes = {path.name: path.stat().st_size for path in RESULTS.iterdir() if path.suffix in (".csv", ".gz", ".json")}
    assert {name.split(".")[0] for name in sizes} == set(SHIPPED), "each table has a card, and each card a table"
    assert len(sizes) == 2 * len(SHIPPED) and max(sizes.values()) <= tables._PLAIN and sum(sizes.values()) < 2_000_000
    full = set(SHIPPED) - set(QUICK)
    assert {f"{name.removesuffix('_paper')}_quick" for name in full} <= set(QUICK), "a quick twin of each"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_card_matches_its_table(name: str) -> None:
    card, table = experiments.shipped_card(name), experiments.shipped(name)  # which compares the hashes
    assert card["name"] == name and len(table) == card["rows"] and card["tolerance"] <= MOST_TOLERATED
    assert set(table["run"]) == set(range(card["done"])) and card["done"] + len(card["failed"]) <= card["total"]
    study = experiments.study_named(name)
    assert json.loads(json.dumps(study.protocol)) == card["protocol"], "the protocol of the code"
    for run in card["runs"]:
        assert key_of({"experiment": name, **card["protocol"], **run["settings"]}) == run["key"]
    assert sorted(table["training_seed"].dropna().unique()) == card["seeds"]
    assert all(card[what] for what in ("differences", "machines", "data", "code", "packages", "command", "date"))
    assert not re.search(r"(?<![\w.])/(?:home|tmp|root|work|mnt|data)\b", json.dumps(card)), "no folder of a machine"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_table_says_who_looked_at_the_target(name: str) -> None:
    table: Any = experiments.shipped(name)
    for row in table.to_dict("records"):
        assert not pd.isna(row["target_aware"]) or row["role"] != "target"
        assert is_target_aware(row) == (row["role"] == "target" and bool(row["target_aware"]))
    assert table["value"].notna().all()


@pytest.mark.parametrize("name", QUICK)
def test_a_run_of_a_quick_table_is_computed_again(name: str) -> None:
    assert is_computed_again(name, 2), "the first run after the controls"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(SHIPPED) - set(QUICK)))
def test_a_run_of_a_full_table_is_computed_again(name: str, data_folder: Path) -> None:
    card = experiments.shipped_card(name)
    if set(card["devices"]) != {"cpu"}:
        pytest.skip("made on a GPU: its quick twin is computed again instead")
    assert is_computed_again(name, len(card["runs"]) - 1)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose tables ship, and the made-up study among the studies."""
    monkeypatch.setitem(STUDIES, NAME, made_up)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(tables, "notebook_folders", lambda: (tmp_path,))
    monkeypatch.setattr(made_up_study, "before_each", [])
    yield tmp_path / "results"


def made(folder: Path, *, name: str = NAME, shelf: Path) -> experiments.Results:
    results = experiments.run(experiments.study_named(name), folder=folder, device="cpu")
    experiments.export(results, shelf / name)
    return results


def test_a_table_that_ships_is_the_one_that_was_exported(shelf: Path, tmp_path: Path) -> None:
    results = made(tmp_path / "ran", shelf=shelf)
    table: Any = results.table()
    shipped: Any = experiments.shipped(NAME)
    places = {key: place for place, key in enumerate(results.runs()["key"])}
    wanted = table.assign(run=table["run"].map(places)).dropna(axis=1, how="all")
    assert shipped.drop(columns=wanted.columns).isna().all(axis=None)
    pd.testing.assert_frame_equal(shipped[wanted.columns], wanted, check_dtype=False, check_exact=True)
    card = experiments.shipped_card(NAME)
    text = (shelf / f"{NAME}.json").read_text() + (shelf / f"{NAME}.csv").read_text()
    assert platform.node() not in text and str(tmp_path) not in text
    assert card["command"] == "dgprune-lab experiment made_up" and card["code"] == {code_key(): 12}
    assert (card["seeds"], card["total"], card["done"], card["failed"]) == ([0, 1, 2], 12, 12, [])
    assert card["data"] == {"t": {"hashes": ["the images"], "reported": [100]}} and card["cpu_seconds"] >= 0
    assert list(card["machines"].values()) == [12] and card["differences"] == ["Nothing was published."]
    assert all(apart(NAME, run) == 0 for run in (0, 11))


def test_a_long_table_is_written_compressed(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, plain = made(tmp_path / "ran", shelf=shelf), experiments.shipped(NAME)
    monkeypatch.setattr(tables, "_PLAIN", 100)
    path, _ = experiments.export(results, shelf / NAME)
    first = path.read_bytes()
    assert sorted(file.name for file in shelf.iterdir()) == [f"{NAME}.csv.gz", f"{NAME}.json"]
    pd.testing.assert_frame_equal(experiments.shipped(NAME), plain)
    assert len(pd.read_csv(path)) == len(plain), "pandas reads it as it is"
    experiments.export(results, shelf / NAME)
    assert path.read_bytes() == first, "the file holds no date"
    path.write_bytes(first[:-20])
    with pytest.raises(dg.DgpruneError, match=r"made_up.csv.gz is not the table that made_up.json describes"):
        experiments.shipped(NAME)


def test_a_table_that_was_changed_is_found_out(shelf: Path, tmp_path: Path) -> None:
    made(tmp_path / "ran", shelf=shelf)
    (path, card_path), text = (shelf / f"{NAME}.csv", shelf / f"{NAME}.json"), (shelf / f"{NAME}.csv").read_text()
    value = repr(experiments.shipped(NAME)["value"].tolist()[3])
    path.write_text(text.replace(value, "0.99"))
    with pytest.raises(dg.DgpruneError, match=r"made_up.csv is not the table that made_up.json describes"):
        experiments.shipped(NAME)
    card = json.loads(card_path.read_text())
    card_path.write_text(json.dumps({**card, "csv": tables._hash(path.read_bytes())}))
    assert apart(NAME, 3) > experiments.shipped_card(NAME)["tolerance"]


def test_a_run_that_can_no_longer_be_computed_is_refused(shelf: Path, tmp_path: Path) -> None:
    made(tmp_path / "ran", shelf=shelf)
    path = shelf / f"{NAME}.json"
    text = path.read_text()
    path.write_text(text.replace("the images", "other images"))
    with pytest.raises(dg.DgpruneError, match="run 2 of made_up read other images of t than the table's"):
        experiments.recompute(NAME, run=2)
    path.write_text(text.replace('"noise": 0.001', '"noise": 0.01'))
    with pytest.raises(dg.DgpruneError, match="does not hold the settings of run 2 as they were"):
        experiments.recompute(NAME, run=2)
    path.write_text(text)
    with pytest.raises(dg.DgpruneError, match="run must be below 12"):
        experiments.recompute(NAME, run=12)
    for ask in (experiments.shipped, experiments.shipped_card):
        with pytest.raises(dg.DgpruneError, match=r"unknown table 'mad_up'; known: made_up. Did you mean 'made_up'\?"):
            ask("mad_up")
    with pytest.raises(dg.DgpruneError, match=r"unknown study 'mad_up'.*Did you mean 'made_up'"):
        experiments.study_named("mad_up")


@pytest.mark.filterwarnings("ignore:.* runs failed:dgprune_lab.core.errors.DgpruneNote")
def test_failures_stand_in_the_card_without_folders(shelf: Path, tmp_path: Path) -> None:
    def fail(settings: Any) -> None:
        if settings["training_seed"] == 1:
            raise dg.DgpruneError(f"{tmp_path / 'data' / 'mnist.gz'} cannot be read")

    made_up_study.before_each.append(fail)
    made(tmp_path / "ran", shelf=shelf)
    made_up_study.before_each.clear()
    card = experiments.shipped_card(NAME)
    assert (card["done"], card["total"], len(card["failed"]), len(card["runs"])) == (8, 12, 4, 8)
    assert {failure["error"] for failure in card["failed"]} == {"DgpruneError: mnist.gz cannot be read"}
    assert {failure["settings"]["training_seed"] for failure in card["failed"]} == {1} and card["seeds"] == [0, 2]
    assert apart(NAME, 7) == 0, "the numbers of runs are those of the finished ones"


def test_what_cannot_be_exported_is_refused(shelf: Path, tmp_path: Path) -> None:
    results = made(tmp_path / "ran", shelf=shelf)
    with pytest.raises(dg.DgpruneError, match="experiment must be that of the results, 'made_up'"):
        experiments.export(results, shelf / "x", experiment=made_up(quick=True))
    (tmp_path / "file").write_text("")
    with pytest.raises(dg.DgpruneError, match="path must lie in a folder"):
        experiments.export(results, tmp_path / "file" / "x")
    with pytest.raises(dg.DgpruneError):
        experiments.export(tmp_path / "nothing", shelf / "x")
    assert sys.modules["dgprune_lab.experiments.tables"] is tables
