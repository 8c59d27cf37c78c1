"""A resumed training gives the same numbers; what prevents that is noted or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from material import norm_net
from pruning_runs import QUICK, fresh, same_runs, shades, steps, trained
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.training import finish, train
from dgprune_lab.training.events import BatchEvent, EpochEvent, PruneEvent, StageEvent
from dgprune_lab.training.random_streams import draw_from
from dgprune_lab.training.scheduled import checkpoints


def dropping(classes: int = 4) -> nn.Sequential:
    """Two kinds of dropout, BatchNorm and no in-place layer."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout2d(0.2),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(8, classes),
    )


class Functional(nn.Module):
    """Dropout as a function, in training or always."""

    def __init__(self, *, always: bool) -> None:
        super().__init__()
        self.body, self.always = norm_net(), always

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.body(x), 0.3, training=self.training or self.always)


SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adam": {"options": dg.TrainingOptions(**{**QUICK.to_json(), "optimiser": "adam", "lr": 0.01})},
    "augmented": {"options": dg.TrainingOptions(**{**QUICK.to_json(), "augmentation": "invert_colour"})},
    "random": {"remove": "random", "seed": 5},
    "taylor": {"scorer": "taylor"},
    "zero": {"how": "zero", "batches": 4},
    "noise": {"how": "noise", "batches": 4},
    "restore": {"how": "restore", "batches": 4},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_resumed_run_equals_an_uninterrupted_one(name: str, tmp_path: Path) -> None:
    """Three batches an epoch, so what lasts four of them is under way when it is interrupted."""
    changed = SETTINGS[name]
    straight = trained(fresh(dropping), **changed)
    run = steps(fresh(dropping), checkpoint=tmp_path / "run", **changed)
    for event in run:
        if isinstance(event, BatchEvent) and (event.epoch, event.batch) == (3, 2):
            break  # in the middle of the third epoch
    run.close()
    torch.rand(7)  # whatever a new process draws before it goes on
    again = trained(fresh(dropping), checkpoint=tmp_path / "run", **changed)
    assert same_runs(straight, again)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["epoch_00004.safetensors", "run.json"]
    assert same_runs(again, trained(fresh(dropping), checkpoint=tmp_path / "run", **changed)), (
        "a complete run is only read"
    )


@pytest.mark.parametrize("where", ["card", "tensors"])
def test_a_crash_between_event_and_save(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event has happened in memory and the folder is half written: the next run continues from before it."""
    straight = trained()
    write, calls = checkpoints.write_file, []

    def breaking(path: Path, data: Any) -> Path:
        calls.append(path.name)
        if len(calls) == (6 if where == "card" else 5):  # two files an epoch from epoch 0 on: this is epoch 2
            raise KeyboardInterrupt if where == "card" else OSError("disk full")
        return write(path, data)

    monkeypatch.setattr(checkpoints, "write_file", breaking)
    if where == "card":
        with pytest.warns(dg.DgpruneNote, match="stopped early; .*epoch 2 of 4"):
            assert not trained(checkpoint=tmp_path).finished
    else:
        with pytest.raises(dg.DgpruneError, match="cannot be written: disk full"):
            trained(checkpoint=tmp_path)
    monkeypatch.undo()
    assert json.loads((tmp_path / "run.json").read_text())["loop"]["done"] == 1
    assert same_runs(straight, trained(checkpoint=tmp_path))


def test_a_checkpoint_of_another_run_or_a_changed_file_is_refused(tmp_path: Path) -> None:
    trained(checkpoint=tmp_path)
    with pytest.raises(dg.DgpruneError, match="holds another run: remove, options differ"):
        trained(checkpoint=tmp_path, remove="largest", options=dg.TrainingOptions(**{**QUICK.to_json(), "lr": 0.1}))
    with pytest.raises(dg.DgpruneError, match="holds another run: network differ"):
        trained(fresh(seed=1), checkpoint=tmp_path)
    tensors = next(tmp_path.glob("*.safetensors"))
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(dg.DgpruneError, match="not the file that its card describes"):
        trained(checkpoint=tmp_path)
    for text, said in (("{", "is not JSON"), ("{}", "is not the card of a run")):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(dg.DgpruneError, match=said):
            trained(checkpoint=tmp_path)
    with pytest.raises(dg.DgpruneError, match="must be a folder"):
        trained(checkpoint=tensors)


def test_stopping_returns_the_last_complete_epoch() -> None:
    run, seen = steps(), []
    for event in run:
        if isinstance(event, PruneEvent | StageEvent):
            seen.append(event)
        if isinstance(event, BatchEvent) and event.epoch == 3:
            break
    with pytest.raises(StopIteration) as stop:
        run.throw(KeyboardInterrupt)
    found = stop.value.value
    assert not found.finished and found.reached == "epoch 2 of 4" and set(found.table.epoch) == {0, 1, 2}
    assert found.table.equals(seen[-1].so_far.table) and found.network is seen[-1].so_far.network and not len(found.end)
    assert [type(event).__name__ for event in seen] == ["StageEvent", "PruneEvent", "PruneEvent"]


@pytest.mark.parametrize("options", [{"lr": 1e30}, {"lr": 1e20, "batch_size": 64}])
def test_divergence_is_noted_and_keeps_the_tables(options: dict[str, Any]) -> None:
    """In a step, or (one step an epoch) when the network is measured."""
    with pytest.warns(dg.DgpruneNote, match="the training diverged: .*last complete epoch"):
        found = trained(options=dg.TrainingOptions(**{**QUICK.to_json(), **options}))
    assert not found.finished and found.reached.startswith("diverged in epoch") and len(found.table)
    assert all(bool(torch.isfinite(t).all()) for t in found.network.state_dict().values())
    with pytest.warns(dg.DgpruneNote), pytest.raises(dg.DgpruneError, match="needs a finished run"):
        dg.diagnostics.instability(found)


def test_dropout_is_independent_of_draws_in_other_cells() -> None:
    """Another cell draws in the middle of every step, where a stream of the global generator would be disturbed."""
    quiet = trained(fresh(dropping))
    network: Any = fresh(dropping)
    loud = trained(network)
    assert same_runs(quiet, loud)
    drawn: list[Tensor] = []
    original = nn.Conv2d.forward

    def drawing(self: nn.Conv2d, x: Tensor) -> Tensor:
        drawn.append(torch.rand(3))
        return original(self, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Conv2d, "forward", drawing)
        disturbed = trained(fresh(dropping))
    assert drawn and same_runs(quiet, disturbed)


def test_seeded_dropout_matches_its_probability_and_restores_the_layers() -> None:
    layer, maps, x = nn.Dropout(0.4), nn.Dropout2d(0.5), torch.ones(200, 6, 5, 5)
    generator = torch.Generator().manual_seed(0)
    state = torch.get_rng_state()
    with draw_from(generator, [layer, maps]):
        single, whole = layer(x), maps(x)
    assert torch.equal(state, torch.get_rng_state())
    assert set(single.unique().tolist()) == {0.0, torch.tensor(1 / 0.6).item()}
    assert float((single == 0).float().mean()) == pytest.approx(0.4, abs=0.02)
    per_map = whole.flatten(2)
    assert bool((per_map == per_map[..., :1]).all()) and set(whole.unique().tolist()) == {0.0, 2.0}
    assert layer.training and maps.training and not layer._forward_pre_hooks
    layer.eval()
    with draw_from(generator, [layer]):
        assert torch.equal(layer(x), x)


def test_the_dropout_option_sets_the_layers_of_the_copy() -> None:
    network = fresh(dropping)
    options = dg.TrainingOptions(**{**QUICK.to_json(), "dropout": 0.6})
    model = next(e.model for e in train(network, sources=[shades("a")], options=options) if isinstance(e, EpochEvent))
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)] == [0.6, 0.6]
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)] == [0.2, 0.3]
    with pytest.raises(dg.DgpruneError, match="dropout must lie in 0 to below 1"):
        dg.TrainingOptions(dropout=1.0)


def test_functional_dropout_is_noted_or_refused() -> None:
    named = dg.PruneSchedule.everywhere(start=1, end=1, every=1, ratio=0.5)
    with pytest.warns(dg.DgpruneNote, match="outside nn.Dropout layers"):
        steps(Functional(always=False), schedule=named)
    with pytest.raises(dg.DgpruneError, match=r"in eval mode.*nn\.Dropout layers"):
        steps(Functional(always=True), schedule=named)
    steps(fresh(dropping))  # layers give no note


def test_learning_rates_in_steps() -> None:
    options = dg.TrainingOptions(**{**QUICK.to_json(), "schedule": "steps", "milestones": [1, 3], "lr": 0.5})
    rates = [e.lr for e in train(fresh(), sources=[shades("a")], options=options) if isinstance(e, EpochEvent)]
    assert rates == pytest.approx([0.5, 0.05, 0.05, 0.005])
    assert dg.TrainingOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
    for wrong in ({"schedule": "steps"}, {"milestones": (3,)}, {"schedule": "steps", "milestones": (3, 1)}):
        with pytest.raises(dg.DgpruneError, match="takes milestones, ascending epochs"):
            dg.TrainingOptions(**{"schedule": "constant", **wrong})
    finish(train(fresh(), sources=[shades("a")], options=options))
