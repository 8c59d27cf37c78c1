"""The zoo: one process per architecture with limits that hold, a comparison that can fail, and rows that are kept."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import zoo_networks
from torch import nn
from typer.testing import CliRunner

import dgprune_lab as dg
from dgprune_lab.commands import cli, zoo
from dgprune_lab.commands.zoo import Architecture, Limits, Row
from dgprune_lab.commands.zoo.architectures import architectures
from dgprune_lab.commands.zoo.examine import TOLERANCE, compare, examine, prepared, prune_by_torch_pruning, state_of
from dgprune_lab.commands.zoo.limits import Ending, run_limited
from dgprune_lab.commands.zoo.rows import families, markdown, read_rows, row_of, short, totals, write_rows


def named(name: str, build: Callable[[], nn.Module] = zoo_networks.good, *, size: int = 12) -> Architecture:
    return Architecture(name=name, family="tests", source="here", build=build, sizes=(size,))


def row(name: str, outcome: str = "full", **values: Any) -> Row:
    given = {"family": "tests", "source": "here", "convolutional": True, **values}
    return Row(name=name, outcome=outcome, **given)


def children() -> set[int]:
    """The processes that a task runs in: those that the server of forks, or this process, has started."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.mark.parametrize(
    ("task", "argument", "limits", "kind"),
    [
        (zoo_networks.hang, None, Limits(waiting=1.0), "timeout"),
        (zoo_networks.spin, None, Limits(seconds=0.3), "timeout"),
        (zoo_networks.grow, 10**6, Limits(bytes=64 * 2**20), "memory"),
    ],
)
def test_a_child_that_hits_a_limit_is_ended(task: Any, argument: Any, limits: Limits, kind: str) -> None:
    run_limited(zoo_networks.grow, 0, limits=Limits())  # starts the server of forks
    before, started = children(), time.monotonic()
    ending = run_limited(task, argument, limits=limits)
    assert (ending.kind, ending.result) == (kind, {})
    assert ending.stage == "read" or (limits.waiting == 1.0 and ending.stage == "start"), "it may still be starting"
    assert children() <= before and time.monotonic() - started < 300
    if kind == "memory":
        assert 64 * 2**20 < ending.peaks["read"] < 256 * 2**20


def test_a_child_that_raises_or_dies_says_how() -> None:
    raised = run_limited(zoo_networks.fail, "layer3", limits=Limits())
    assert (raised.kind, raised.error) == ("error", "KeyError: 'layer3'")
    died = run_limited(zoo_networks.die, None, limits=Limits())
    assert (died.kind, died.error) == ("died", "the process ended with code 3")


@pytest.mark.slow
def test_a_child_ends_when_its_parent_is_killed() -> None:
    script = (
        "import sys, zoo_networks; from dgprune_lab.commands.zoo.limits import Limits, run_limited; "
        "run_limited(zoo_networks.spin_and_say, None, limits=Limits())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
        child.wait(timeout=30)


def test_an_answer_counts_that_was_sent_just_before_the_child_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(psutil.Process):
        def memory_info(self) -> Any:
            self.wait(timeout=60)
            raise psutil.NoSuchProcess(self.pid)

    monkeypatch.setattr(sys.modules[run_limited.__module__].psutil, "Process", Gone)
    ending = run_limited(zoo_networks.grow, 1, limits=Limits())
    assert (ending.kind, ending.result) == ("done", {"blocks": 1})


def test_memory_counts_from_the_first_stage() -> None:
    ending = run_limited(zoo_networks.grow, 20, limits=Limits())
    assert ending.result == {"blocks": 20} and 40e6 < ending.peaks["read"] < 200e6


@pytest.mark.slow
def test_one_that_hangs_and_one_that_cannot_be_built_do_not_stop_the_others() -> None:
    hanging = [named("slow", zoo_networks.Slow), named("broken", zoo_networks.unbuildable)]
    first, second = zoo.try_all(hanging, limits=Limits(seconds=1.0), peer=False)
    assert (first.name, first.outcome, second.name) == ("slow", "timeout", "broken")
    chosen = [named("broken", zoo_networks.unbuildable), named("good"), named("tied", zoo_networks.Normalised)]
    rows = {each.name: each for each in zoo.try_all(chosen)}
    assert {name: each.outcome for name, each in rows.items()} == {
        "broken": "not built",
        "good": "full",
        "tied": "refused",
    }
    assert rows["broken"].reason == "KeyError: 'no such weights'" and "norm" in rows["tied"].reason
    assert (rows["tied"].seconds or 0) > 0 and rows["tied"].peak > 0
    assert rows["broken"].torch_pruning == "not built: KeyError: 'no such weights'"
    good = rows["good"]
    assert (good.groups, good.prunable, good.filters, good.size, good.layers) == (2, 14, 14, 12, "conv")
    assert good.difference is not None and good.difference < 1e-9 and (good.effect or 0) > 1e-2
    assert good.unchanged and 0.4 < (good.parameters_removed or 0) < 0.9
    assert good.torch_pruning == f"works, {good.parameters_removed:.0%} of parameters"


def test_a_traceback_is_an_outcome_with_its_last_line() -> None:
    ending = Ending(kind="error", error="KeyError: 'bn'", stage="read", peaks={"read": 5})
    found = row_of(named("odd"), ending, peer=Ending(kind="timeout", stage="read"))
    assert (found.outcome, found.reason, found.peak, found.torch_pruning) == (
        "traceback",
        "KeyError: 'bn'",
        5,
        "timeout",
    )
    killed = row_of(named("odd"), Ending(kind="died", error="the process ended with code -9", stage="check"))
    assert (killed.outcome, killed.torch_pruning) == ("traceback", "")


def examined(monkeypatch: pytest.MonkeyPatch | None = None, **replaced: Any) -> dict[str, Any]:
    for name, value in replaced.items():
        assert monkeypatch is not None
        monkeypatch.setattr(sys.modules[examine.__module__], name, value)
    return examine(named("good"), lambda stage: None)


def test_a_pruned_network_that_is_not_the_masked_one_is_called_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert examined()["outcome"] == "full"

    def swapped(model: nn.Module, mask: dg.Mask) -> nn.Module:
        small = dg.prune(model, mask)
        weight = small.get_submodule("3").weight
        assert isinstance(weight, torch.Tensor)
        weight.data = weight.data.flip(1)
        return small

    found = examined(monkeypatch, prune=swapped)
    assert found["outcome"] == "wrong" and found["difference"] > 10 * TOLERANCE


def test_a_network_that_was_changed_is_called_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def moving(model: nn.Module, mask: dg.Mask) -> nn.Module:
        small = dg.prune(model, mask)
        model.get_submodule("1").running_mean.add_(1e-6)  # type: ignore[operator, union-attr]
        return small

    assert examined(monkeypatch, prune=moving)["outcome"] == "wrong"


def test_a_pruned_network_that_is_the_dense_one_is_called_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examined(monkeypatch, prune=lambda model, mask: model)
    assert found["outcome"] == "wrong" and found["parameters_removed"] == 0


def test_the_comparison_knows_which_filters_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = prepared(named("good"))
    graph = dg.read_groups(model, images)
    first, other = (dg.Mask.by_hand(graph, removed={"0": chosen}) for chosen in ([0, 1, 2], [0, 1, 3]))
    state = state_of(model)
    assert compare(model, first, images=images)["difference"] < 1e-9
    assert state_of(model) == state
    monkeypatch.setattr(sys.modules[examine.__module__], "prune", lambda exact, mask: dg.prune(exact, other))
    assert compare(model, first, images=images)["difference"] > 10 * TOLERANCE


def test_nothing_is_neutral_in_a_prepared_network_and_it_is_in_eval_mode() -> None:
    model, images = prepared(named("good"))
    norm = model.get_submodule("4")
    assert isinstance(norm, nn.BatchNorm2d) and not any(module.training for module in model.modules())
    assert norm.weight.abs().min() > 0 and norm.weight.std() > 0 and norm.momentum == nn.BatchNorm2d(1).momentum
    assert isinstance(norm.running_var, torch.Tensor) and norm.running_var.std() > 0
    again, _ = prepared(named("good"))
    assert state_of(model) == state_of(again) and images.shape == (4, 3, 12, 12)


def test_the_state_covers_values_modes_hooks_and_gradients() -> None:
    model, _ = prepared(named("good"))
    state = state_of(model)
    handle = model.register_forward_hook(lambda *_: None)
    assert state_of(model) != state
    handle.remove()
    assert state_of(model) == state
    model.get_submodule("1").train()
    assert state_of(model) != state
    model.eval()
    next(model.parameters()).requires_grad_(False)
    assert state_of(model) != state


def test_the_first_size_that_the_network_takes_is_used() -> None:
    several = Architecture(name="good", family="tests", source="here", build=zoo_networks.good, sizes=(4, 8, 16))
    assert prepared(several)[1].shape[-1] == 8
    with pytest.raises(RuntimeError, match=r"[Kk]ernel"):
        prepared(named("good", size=4))


def test_torch_pruning_keeps_the_outputs() -> None:
    assert prune_by_torch_pruning(named("good"), lambda stage: None)["outcome"].startswith("works, ")


def test_a_run_that_was_stopped_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[str] = []

    def some(chosen: Sequence[Architecture], *, jobs: int) -> Iterator[Row]:
        for each in chosen:
            if len(tried) == 1 and each.name == "b":
                raise KeyboardInterrupt
            tried.append(each.name)
            yield row(each.name, size=12)

    monkeypatch.setattr(zoo, "architectures", lambda **_: tuple(named(name) for name in "abc"))
    monkeypatch.setattr(zoo, "try_all", some)
    out = tmp_path / "rows.json"
    with pytest.raises(KeyboardInterrupt):
        zoo.main(out=out)
    assert [each.name for each in read_rows(out)] == ["a"]
    tried.append("stopped")
    assert [each.name for each in zoo.main(out=out)] == ["a", "b", "c"]
    assert tried == ["a", "stopped", "b", "c"] and "1 of 3 are in" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


def test_a_file_that_holds_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "notes.json"
    for text in ("my notes", '{"kind": "zoo", "format": 2, "rows": [{"name": 1, "colour": 2}]}', '{"kind": "run"}'):
        other.write_text(text)
        result = CliRunner().invoke(cli.app, ["zoo", "--names", "lenet", "--out", str(other)])
        assert result.exit_code == 2 and "notes.json" in result.stderr and "Traceback" not in result.stderr
        assert other.read_text() == text


def test_the_command_tries_what_matches_and_writes_it(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    result = CliRunner().invoke(cli.app, ["zoo", "--names", "lenet", "--out", str(out)])
    assert result.exit_code == 0, result.output
    (found,) = read_rows(out)
    assert (found.key, found.outcome, found.groups) == ("dgprune_lab/lenet", "full", 2)
    assert "[1/1, about 0 min left] lenet (networks): full, 2 groups, 80 of 80 filters" in result.stdout
    assert "| dgprune_lab lenet | 28 | 2 | 80 / 80 | full |" in result.stdout
    assert json.loads(out.read_text())["kind"] == "zoo"


def test_what_cannot_be_tried_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(dg.DgpruneError, match=r"no architecture matches 'no_such_net'.*add --timm"):
        architectures(names=["no_such_net"])
    with pytest.raises(dg.DgpruneError, match="jobs must be 1 or more"):
        zoo.main(jobs=0)
    with pytest.raises(dg.DgpruneError, match="size from 8 to 1024"):
        zoo.main(size=4)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "timm" else find(name, *rest))
    with pytest.raises(dg.DgpruneError, match="timm is not installed"):
        architectures(timm=True)


def test_without_patterns_each_family_of_torchvision_is_tried() -> None:
    from torchvision import models

    chosen = architectures(size=96)
    every = {models.get_model_builder(name).__module__.rpartition(".")[2] for name in models.list_models(module=models)}
    assert {each.family for each in chosen} == every | {"networks"}
    assert {each.sizes for each in chosen} == {(96,)} and len({each.key for each in chosen}) == len(chosen)
    assert not next(each for each in chosen if each.name == "swin_t").convolutional
    assert {each.name for each in architectures(names=["resnet*"])} >= {"resnet20", "resnet18", "resnet152"}


def test_the_tables_count() -> None:
    rows = [
        row("a", difference=2e-7, seconds=1.0, peak=10**6, groups=3, prunable=5, filters=9, torch_pruning="works, 50%"),
        row("b", "partial", seconds=21.0, peak=2 * 10**9, torch_pruning="fails: KeyError: a|b", reason="x | y"),
        row("c", "traceback", family="odd", reason="KeyError: 'z'"),
        row("d", "not built", family="odd"),
        row("e", "refused", convolutional=False),
    ]
    first, second = totals(rows)
    assert first.startswith(
        "2 of 3 convolutional classifiers (67%) work, 1 in full and 1 in part; refused 0, traceback 1"
    )
    assert "Over 20 s: 1; over 1 GB: 1. Torch-Pruning alone: 1." in first and second.startswith("0 of 1 other")
    assert families(rows)[2] == "| here tests | 3 | 1 | 1 | 1 |  |  |  |  | 1 |"
    assert families(rows)[3] == "| here odd | 2 |  |  |  | 1 |  |  |  |  |"
    lines = markdown(rows).splitlines()
    assert {line.count("|") for line in lines if "| here a |" in line or "| here b |" in line} == {11}
    assert len(short("word " * 100)) <= 110 and short("two\nlines") == "two lines"


def test_rows_are_what_was_written(tmp_path: Path) -> None:
    rows = [row("a", difference=1e-7), row("b", "wrong", difference=None)]
    write_rows(tmp_path / "rows.json", rows)
    assert read_rows(tmp_path / "rows.json") == rows and read_rows(tmp_path / "none.json") == []
