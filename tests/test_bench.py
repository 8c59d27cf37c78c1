"""The benchmark runs, writes its rows, and refuses to time different work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dgprune_lab.commands import bench
from dgprune_lab.commands.bench import PARTS, live, main, peer
from dgprune_lab.commands.bench.cases import case, network, random_scores
from dgprune_lab.commands.bench.panels import check_totals
from dgprune_lab.commands.bench.passes import AWARE, check_risks, check_scores, needs
from dgprune_lab.commands.bench.prunability import check_losses
from dgprune_lab.commands.bench.sweeps import check_accuracies
from dgprune_lab.commands.bench.ticks import check_same
from dgprune_lab.commands.bench.timing import Row, heading, line, race
from dgprune_lab.core.errors import DgpruneError
from dgprune_lab.pruning.allocate import allocate
from dgprune_lab.pruning.surgery import prune, pruned_view
from dgprune_lab.pruning.verify import read_groups
from dgprune_lab.scorers import SCORERS

KEYS = {"name", "ours", "peer", "ratio", "unit", "repeats", "device", "aim", "note"}


@pytest.fixture(scope="module")
def lenet():
    return case("lenet", pixels=28, device=torch.device("cpu"))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_quick_rows_of_folders_processes_and_estimates_have_a_peer() -> None:
    rows = main(quick=True, device="cpu", parts=("folder", "processes", "estimate"))
    assert [row.name.partition(",")[0].replace("exact numbers", "estimate") for row in rows] == [
        "folder: first pass",
        "folder: a later pass",
        "sweep in two processes",
        "estimate after a move",
    ]
    assert all(row.ratio is not None and row.ratio > 0 for row in rows)


@pytest.mark.slow
def test_main_writes_the_rows_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.json"
    rows = main(json=file, quick=True, parts=("live", "mask", "sweep", "statistics", "prunability", "panels"))
    held = json.loads(file.read_text())
    assert [entry["name"] for entry in held] == [row.name for row in rows]
    for name in (
        "slider, demo",
        "sweep, lenet",
        "one pass, lenet",
        "domain-aware scorers, lenet",
        "prunability, lenet",
        "sensitivity, lenet",
        "tick, panel",
    ):
        assert any(entry["name"].startswith(name) for entry in held)
    for entry in held:
        assert set(entry) == KEYS
        assert entry["ours"] > 0 and entry["repeats"] >= 1 and entry["unit"] in ("ms", "s")
        if entry["peer"] is None:
            assert entry["ratio"] is None
        else:
            assert entry["ratio"] == pytest.approx(entry["peer"] / entry["ours"])
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 100
    assert sum("median of" in text or "once" in text for text in printed) >= len(rows)


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(DgpruneError, match="Did you mean 'sweep'"):
        main(parts=("sweeps",))


def test_a_part_that_fails_is_named_after_the_others_have_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(device: torch.device, quick: bool) -> Iterator[Row]:
        yield Row(name="begun", ours=1.0, device=device.type)
        raise RuntimeError("no memory")

    monkeypatch.setattr(bench, "PARTS", {"tick": broken, "mask": lambda device, quick: [Row(name="done", ours=2.0)]})
    file = tmp_path / "rows.json"
    with pytest.raises(DgpruneError, match=r"these parts of the benchmark failed, see above: tick \(cpu\)"):
        main(json=file, quick=True, device="cpu", parts=("tick", "mask"))
    assert [row["name"] for row in json.loads(file.read_text())] == ["begun", "done"]
    assert "no memory" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DgpruneError, match="device 'cuda' was requested, but"):
        main(device="cuda", parts=("mask",))


def test_numbers_of_one_demo_are_equal_to_themselves_and_the_rows_say_by_how_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = {"losses": (torch.tensor([1.0, 2.0]), torch.ones(())), "sums": (torch.ones(2), torch.full((2,), 4.0))}
    other = {"losses": (torch.tensor([1.0, 2.5]), torch.ones(())), "sums": (torch.tensor([1.0, 2.0]), torch.ones(2))}
    monkeypatch.setattr(live, "demo", lambda device: torch.device(device).type)
    monkeypatch.setattr(live, "_numbers", lambda place, quick: numbers if place == "cpu" else other)
    assert [row.ours for row in live.equality_rows(torch.device("cuda"), True)] == [0.5, 0.25]
    assert list(live.equality_rows(torch.device("cpu"), True)) == []


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.95])
def test_every_way_of_the_peer_cuts_the_same_network(lenet, ratio: float) -> None:
    scores = random_scores(lenet.graph)
    small = prune(lenet.model, allocate(scores, ratio=ratio))
    removed = peer.lowest(scores.values, ratio)
    reused, stepwise = (
        peer.Reused(lenet.model, lenet.example),
        peer.Stepwise(lenet.model, lenet.example, layers=lenet.layers),
    )
    reused(peer.lowest(scores.values, 0.7))  # is put back
    stepwise(peer.lowest(scores.values, ratio / 2))  # goes further from here
    for other in (peer.prune_a_copy(lenet.model, lenet.example, removed), reused(removed), stepwise(removed)):
        check_same(small, other, lenet.example)
        assert [p.shape for p in small.parameters()] == [p.shape for p in other.parameters()]


def test_the_cached_removal_order_cannot_go_stale(lenet) -> None:
    scores = random_scores(lenet.graph)
    first = allocate(scores, ratio=0.5)
    for values in scores.values.values():
        values.neg_()  # a copy: scores do not change
    assert allocate(scores, ratio=0.5).key == allocate(replace(scores), ratio=0.5).key == first.key
    turned = replace(scores, values={name: -values for name, values in scores.values.items()})
    assert allocate(turned, ratio=0.5).key != first.key
    assert allocate(scores, ratio=0.5, scope="global").key == allocate(replace(scores), ratio=0.5, scope="global").key


@pytest.mark.parametrize("ratio", [0.0, 0.4])
def test_a_pruned_view_is_the_pruned_network_and_shares_only_whole_parameters(ratio: float) -> None:
    model = network("resnet18")
    graph = read_groups(model, torch.zeros(1, 3, 32, 32))
    mask = allocate(random_scores(graph), ratio=ratio)
    small, view = prune(model, mask), pruned_view(model, mask)
    mine = {tensor.data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    for (name, a), (same, b) in zip(small.state_dict().items(), view.state_dict().items(), strict=True):
        assert name == same and torch.equal(a, b)
        assert a.data_ptr() not in mine
        whole = name in graph.parameters and a.shape == model.state_dict()[name].shape
        assert (b.data_ptr() in mine) == whole


def test_different_work_is_not_timed(lenet) -> None:
    scores = random_scores(lenet.graph)
    small = prune(lenet.model, allocate(scores, ratio=0.5))
    other = prune(lenet.model, allocate(random_scores(lenet.graph, seed=1), ratio=0.5))
    with pytest.raises(RuntimeError, match="different shapes"):
        check_same(small, lenet.model, lenet.example)
    with pytest.raises(RuntimeError, match="different logits"):
        check_same(small, other, lenet.example)
    with pytest.raises(RuntimeError, match="different accuracies"):
        check_accuracies({(0, 0.5, 0): 0.5}, {(0, 0.5, 0): 0.51}, images=100, exact=True)
    with pytest.raises(RuntimeError, match="different losses"):
        check_losses([0.1, 0.2], [0.1, 0.21])
    with pytest.raises(RuntimeError, match="different risks"):
        check_risks(2.3, 2.301)
    with pytest.raises(RuntimeError, match="different scores"):
        check_scores([scores], [random_scores(lenet.graph, seed=1)])
    with pytest.raises(RuntimeError, match="different scores"):
        check_scores([scores], [replace(scores, scorer="other")])
    with pytest.raises(RuntimeError, match="different attributions"):
        check_totals(10.0, 10.1)
    check_totals(10.0, 10.001)
    check_risks(2.3, 2.3001)
    check_scores([scores], [random_scores(lenet.graph)])


def test_the_timed_pass_gathers_what_domain_aware_scorers_need() -> None:
    assert set(needs()) == {"activation_map", "class_map", "moments", "gate", "risk", "class_co_moments"}
    assert len(AWARE) == len(set(AWARE)) and set(AWARE) <= set(SCORERS)


def test_sides_take_turns_and_the_warm_up_is_not_counted() -> None:
    seen: list[str] = []
    first, second = iter([9.0, 1.0, 2.0, 3.0]), iter([9.0, 6.0, 5.0, 4.0])

    def side(name: str, values) -> float:
        seen.append(name)
        return next(values)

    found = race({"a": lambda: side("a", first), "b": lambda: side("b", second)}, repeats=3)
    assert found == {"a": 2.0, "b": 5.0} and seen == ["a", "b"] * 4


def test_long_names_and_no_peer_fit_the_table() -> None:
    name = "a comparison with a name that is a good deal longer than its column"
    row = Row(name=name, ours=0.01234, device="cuda", aim="< 1 s", note="x " * 90)
    text = line(row)
    assert "none" in text and "once" in text and max(map(len, text.splitlines())) <= 100
    assert max(map(len, heading("1 thread", True).splitlines())) <= 100


def test_every_part_is_listed() -> None:
    assert {
        "live",
        "equality",
        "mask",
        "tick",
        "sweep",
        "statistics",
        "fpgm",
        "import",
        "browser",
        "prunability",
        "panels",
        "folder",
        "processes",
        "estimate",
    } == set(PARTS)
