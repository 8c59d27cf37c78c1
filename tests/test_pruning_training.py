"""Pruning during training: removed filters stay exactly zero, temporary treatments end, and every number is right."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from material import DepthwiseNet, ResidualNet, fingerprint, grouped_net, images, norm_net, plain_net
from pruning_runs import EVERY, QUICK, fresh, shades, steps, trained
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.pruning.verify import read_groups
from dgprune_lab.training import finish, train
from dgprune_lab.training.events import BatchEvent, EpochEvent, PruneEvent, StageEvent
from dgprune_lab.training.scheduled.producers import find_producers
from dgprune_lab.training.scheduled.treatments import Treatment


def outputs(network: nn.Module, names: tuple[str, ...], x: Tensor) -> dict[str, Tensor]:
    """What these modules give in eval mode."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _m, _i, out: found.update({name: out.clone()})

    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    with torch.no_grad():
        network.eval()(x)
    for handle in handles:
        handle.remove()
    return found


def test_removed_filters_stay_exactly_zero_under_momentum_and_weight_decay() -> None:
    removed: dict[str, set[int]] = {}
    model: Any = None
    for event in steps(options=dg.TrainingOptions(**{**QUICK.to_json(), "optimiser": "adam", "lr": 0.01})):
        if isinstance(event, EpochEvent):
            model = event.model
        if isinstance(event, PruneEvent):
            for layer, gone in event.removed.items():
                assert not removed.setdefault(layer, set()) & set(gone), "a filter is removed once"
                removed[layer] |= set(gone)
        if isinstance(event, BatchEvent) and model is not None and removed:
            for conv, norm in (("0", "1"), ("4", "5")):
                gone = sorted(removed.get(conv, ()))
                held = [*model.get_submodule(conv).parameters(), *model.get_submodule(norm).parameters()]
                assert all(float(p.detach()[gone].abs().max()) == 0 for p in held if gone), "after every step"
                kept = [k for k in range(len(held[0])) if k not in gone]
                assert all(float(held[0].detach()[k].abs().max()) > 0 for k in kept)
    assert {layer: len(gone) for layer, gone in removed.items()} == {"0": 3, "4": 4}
    assert model is not None
    found = outputs(model, ("1", "5"), images(4, 3, 12, 12))
    assert all(float(found[n][:, sorted(removed[c])].abs().max()) == 0 for c, n in (("0", "1"), ("4", "5")))


@pytest.mark.parametrize("net", [plain_net, norm_net, ResidualNet, DepthwiseNet, grouped_net])
def test_trained_masked_and_pruned_networks_agree(net: Any) -> None:
    """Three ways to one network: zeros in place, `masked`, and physically smaller where all producers are removed."""
    network = fresh(net)
    before = fingerprint(network)
    found = trained(network)
    assert fingerprint(network) == before and found.finished and not found.network.training
    x = images(6, 3, 12, 12)
    small = found.pruned()
    with torch.no_grad():
        logits = found.network(x)
        torch.testing.assert_close(small.eval()(x), logits)
        assert torch.equal(dg.masked(found.network, found.mask).eval()(x), logits)
    gone = sum(int((~part).sum()) for part in found.filters.keep.values())
    fewer = sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in network.parameters())
    assert fewer == (gone > 0)


def test_one_producer_of_a_residual_stream_is_pruned_alone_and_consumers_ignore_it() -> None:
    """The stem writes the same stream: its filter stays, but consumers behind the block no longer see it."""
    network = fresh(ResidualNet)
    found = trained(network, schedule=dg.PruneSchedule({"outer": (1, 3, 1, 0.5)}))
    state = found.network.state_dict()
    gone = (state["outer.weight"].flatten(1).abs().sum(1) == 0).nonzero().flatten().tolist()
    assert len(gone) == 3 and all(part.all() for part in found.filters.keep.values()), "the stem still writes them"
    assert float(state["outer_norm.weight"][gone].abs().max()) == float(state["outer_norm.bias"][gone].abs().max()) == 0
    assert float(state["last.weight"][:, gone].abs().max()) == float(state["shortcut.weight"][:, gone].abs().max()) == 0
    assert float(state["stem.weight"][gone].abs().min()) > 0 and float(state["inner.weight"][:, gone].abs().min()) > 0
    assert found.pruned().state_dict()["stem.weight"].shape == (6, 3, 3, 3)
    assert set(found.mask.keep) == {
        "outer.weight",
        "outer_norm.weight",
        "outer_norm.bias",
        "last.weight",
        "shortcut.weight",
    }


def test_a_stream_is_cut_where_all_producers_lost_the_filter() -> None:
    both = dg.PruneSchedule({"outer": (1, 1, 1, 0.7), "stem": (1, 1, 1, 0.7)})
    found = trained(fresh(ResidualNet), schedule=both, remove="random", seed=3)
    state = found.network.state_dict()
    lost = [
        set((state[f"{n}.weight"].flatten(1).abs().sum(1) == 0).nonzero().flatten().tolist()) for n in ("stem", "outer")
    ]
    assert len(lost[0]) == len(lost[1]) == 4
    assert set((~found.filters.keep["stem"]).nonzero().flatten().tolist()) == lost[0] & lost[1] != set()


def test_the_projection_on_the_shortcut_is_pruned_with_the_block() -> None:
    network = fresh(ResidualNet)
    for name in ("last", "shortcut"):
        found = trained(network, schedule=dg.PruneSchedule({name: (2, 2, 1, 0.5)}))
        state = found.network.state_dict()
        zero = [(state[f"{n}.weight"].flatten(1).abs().sum(1) == 0).tolist() for n in ("last", "shortcut")]
        assert zero[0] == zero[1] and sum(zero[0]) == 3
        out = outputs(found.network, ("last_norm", "shortcut_norm"), images(3, 3, 12, 12))
        assert all(float(part[:, torch.tensor(zero[0])].abs().max()) == 0 for part in out.values())
    with pytest.raises(dg.DgpruneError, match="'last' and 'shortcut' are added together"):
        trained(network, schedule=dg.PruneSchedule({"last": (1, 1, 1, 0.5), "shortcut": (2, 2, 1, 0.5)}))


@pytest.mark.parametrize(
    ("remove", "scorer"),
    [("smallest", "l2"), ("largest", "l2"), ("smallest", "l1"), ("smallest", "taylor"), ("largest", "activation_l1")],
)
def test_filters_are_removed_by_the_scores_of_the_current_network(remove: Any, scorer: str) -> None:
    """At the first event, against a study of the network that the same training gives without any event."""
    once = dg.PruneSchedule.everywhere(start=2, end=2, every=1, ratio=0.5)
    event = next(e for e in steps(schedule=once, remove=remove, scorer=scorer) if isinstance(e, PruneEvent))
    plain = finish(
        train(fresh(), sources=[shades("a")], options=dg.TrainingOptions(**{**QUICK.to_json(), "epochs": 2}))
    )
    scores = dg.Study(plain, sources=[shades("a")], targets=[shades("t", noise=0.4, seed=1)]).score(scorer)
    for layer, gone in event.removed.items():
        order = scores.values[layer].sort(stable=True, descending=remove == "largest").indices
        assert sorted(order[: len(gone)].tolist()) == gone
    reads = dg.provenance_of(event.so_far.network).scorer
    assert reads == ({} if scorer in ("l1", "l2") else scores.reads)


def test_random_removal_is_seeded_and_runs_no_scorer() -> None:
    one, same, other = (trained(remove="random", scorer="dss", targets=[], seed=seed) for seed in (1, 1, 2))
    assert one.filters.key == same.filters.key != other.filters.key
    assert set(one.events.scorer) == {"random"} and set(one.events.seed) == {1}


def treated(how: Any, batches: int) -> tuple[Any, Any, Treatment]:
    network = fresh().requires_grad_(False)
    model: Any = copy.deepcopy(network)
    x = images(2, 3, 12, 12)
    producers = find_producers(model, read_groups(model, x), example=x)
    treatment = Treatment(model, producers=producers, how=how, batches=batches, seed=0)
    treatment.begin({"0": torch.tensor([1, 4])})
    return network, model, treatment


def moved(model: nn.Module, by: float = 1.0) -> None:
    """What a step does: every parameter changes."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(by)


def test_zeroed_filters_are_free_after_their_batches() -> None:
    before, model, treatment = treated("zero", 3)
    conv, norm = model.get_submodule("0"), model.get_submodule("1")
    for step in range(1, 6):
        assert float(conv.weight[[1, 4]].abs().max()) == (0 if step <= 3 else step - 3)
        moved(model)
        treatment.after_step()
    assert torch.equal(norm.weight, before.get_submodule("1").weight + 5), "its BatchNorm is left alone"
    torch.testing.assert_close(conv.weight[0], before.get_submodule("0").weight[0] + 5)


def test_restored_filters_return_with_their_batchnorm() -> None:
    before, model, treatment = treated("restore", 2)
    conv, norm, was = model.get_submodule("0"), model.get_submodule("1"), before.get_submodule("0").weight
    for _ in range(2):
        held = (conv.weight, norm.weight, norm.bias)
        assert all(float(p[[1, 4]].abs().max()) == 0 for p in held)
        moved(model)
        norm.running_mean += 7
        treatment.after_step()
    old = before.get_submodule("1")
    assert torch.equal(conv.weight[[1, 4]], was[[1, 4]]) and torch.equal(norm.weight[[1, 4]], old.weight[[1, 4]])
    assert torch.equal(norm.running_mean[[1, 4]], old.running_mean[[1, 4]]) and float(norm.running_mean[0]) == 14


def test_noise_has_the_spread_of_the_remaining_weights() -> None:
    before, model, treatment = treated("noise", 2)
    was, conv = before.get_submodule("0").weight, model.get_submodule("0")
    first = (conv.weight - was).detach()
    assert float(first[[0, 2, 3, 5]].abs().max()) == 0 and float(first[[1, 4]].abs().min()) > 0
    spread = float(was[[0, 2, 3, 5]].std())
    assert float(first[[1, 4]].std()) == pytest.approx(spread, rel=0.3), "54 draws"
    treatment.after_step()
    second = (conv.weight - was).detach()
    assert not torch.equal(second, first)
    treatment.after_step()
    assert torch.equal((conv.weight - was).detach(), second), "two batches, two draws"


@pytest.mark.parametrize(("how", "batches"), [("zero", 1), ("noise", 5), ("restore", 100)])
def test_temporary_treatments_remove_nothing(how: Any, batches: int) -> None:
    found = trained(how=how, batches=batches)
    assert found.mask.keep == {} and all(part.all() for part in found.filters.keep.values())
    assert set(found.events.event) == {1, 2, 3} and set(found.end.ratio_achieved) == {0.0}
    assert len(found.pruned().state_dict()["0.weight"]) == 6


def test_event_rows_equal_evaluations_before_and_after() -> None:
    networks: list[Any] = []
    for event in steps():
        if isinstance(event, EpochEvent):
            networks.append(copy.deepcopy(event.model).eval())
        if isinstance(event, PruneEvent | StageEvent):
            found = event.so_far
            if isinstance(event, PruneEvent):
                networks.append(found.network)
    for number in (1, 2, 3):
        was, now = networks[2 * number - 2], networks[2 * number - 1]
        for domain in (shades("a"), shades("t", noise=0.4, seed=1)):
            a, b = (dg.evaluate(one, domain, "score").accuracy for one in (was, now))
            rows = found.events[(found.events.event == number) & (found.events.domain == domain.name)]
            values = dict(zip(rows.metric, rows.value, strict=True))
            assert (values["accuracy_before"], values["accuracy_after"]) == (a, b)
            assert values["accuracy_change"] == b - a
            low = rows[rows.metric == "accuracy_before"].low.item()
            expected = (a - b) / a if low > 0.25 else math.nan
            assert values["relative_drop"] == pytest.approx(expected, nan_ok=True)
            assert set(rows.split) == {"score"} and set(rows.epoch) == {number}
    assert found.events.layers.iloc[0] == "0 (1 filter), 4 (1 filter)" and found.events.filters.iloc[0] == 2


def test_mean_stability_and_end_rows() -> None:
    late = dg.PruneSchedule.everywhere(start=6, end=9, every=1, ratio=0.7)
    longer = dg.TrainingOptions(**{**QUICK.to_json(), "epochs": 12})
    found = trained(options=longer, schedule=late, remove="largest")
    drops = found.events[(found.events.metric == "relative_drop") & (found.events.domain == "a")].value
    assert len(drops) == 4 and drops.notna().any() and drops.abs().max() > 0
    assert found.stability("a") == found.stability() == pytest.approx(100 * (1 - drops.mean()))
    end = found.end.set_index(["stage", "metric", "domain", "split"]).value
    report = dg.evaluate(found.network, shades("a"), "report").accuracy
    train_part = dg.evaluate(found.network, shades("a"), "train").accuracy
    assert end["last", "accuracy", "a", "report"] == report
    assert end["last", "generalization_gap", "a", "report"] == pytest.approx(train_part - report)
    after = {
        (r["epoch"]): r["value"]
        for r in found.table.to_dict("records")
        if r["metric"] == "accuracy" and r["domain"] == "a" and r["split"] == "score"
    }
    best: Any = found.end[found.end.stage == "selected on score"]
    assert set(best.epoch) == {max(after, key=lambda epoch: after[epoch])}, "the first of the best"
    assert set(best[best.split == "report"].seen_by_selection) == {"none"}, "chosen on other images"
    assert end.xs("mean_stability", level="metric").notna().all()


def test_the_selected_epoch_may_be_one_before_any_removal_and_its_rows_say_which() -> None:
    longer = dg.TrainingOptions(**{**QUICK.to_json(), "epochs": 8})
    late = dg.PruneSchedule.everywhere(start=8, end=8, every=1, ratio=0.9)
    found = trained(options=longer, schedule=late, remove="largest")
    selected: Any = found.end[(found.end.stage == "selected on score") & (found.end.metric == "accuracy")]
    (epoch,) = set(selected.epoch)
    assert epoch < 8 and set(found.events.epoch) == {8} and selected.ratio_achieved.gt(0.8).all()
    whole = trained(options=dg.TrainingOptions(**{**longer.to_json(), "epochs": int(epoch)}), schedule=None).network
    for row in selected.to_dict("records"):
        assert row["value"] == dg.evaluate(whole, domain_named(row["domain"]), row["split"]).accuracy, "nothing removed"
    assert "may come before the last event or before any" in " ".join(str(dg.PruningRun.__doc__).split())


def domain_named(name: str) -> Any:
    return shades("a") if name == "a" else shades("t", noise=0.4, seed=1)


def test_the_control_without_removal_equals_plain_training() -> None:
    found = trained(schedule=None)
    plain = finish(train(fresh(), sources=[shades("a")], options=QUICK))
    one, other = found.network.state_dict(), plain.state_dict()
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert found.stability() == 100 and len(found.events) == 0
    losses = found.table[found.table.metric == "training_loss"]
    assert len(losses) == 4 and losses.epoch.tolist() == [1, 2, 3, 4]


def test_the_control_from_scratch_is_pruned_before_the_first_epoch() -> None:
    found = trained(schedule=EVERY.before_training(), remove="random")
    assert set(found.events.epoch) == {0} and found.events.filters.iloc[0] == 7 and found.stability() == 100
    assert sum(int((~part).sum()) for part in found.filters.keep.values()) == 7


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"how": "zero"}, 'batches says how many batches "zero", "noise" or "restore" last, at least 1'),
        ({"how": "zero", "batches": 0}, "batches must be at least 1; got 0"),
        ({"batches": 5}, "how='remove', batches=5"),
        ({"how": "melt"}, "how must be one of 'remove', 'zero', 'noise', 'restore'"),
        ({"remove": "middle"}, "remove must be one of"),
        ({"scorer": "l22"}, "unknown scorer 'l22'"),
        ({"scorer": "dss", "targets": []}, "'dss' cannot run on this network: the study has no target"),
        ({"split": "tset"}, "tset"),
        ({"sources": []}, "at least one source domain"),
        ({"schedule": dg.PruneSchedule({"conv": (1, 2, 1, 0.5)})}, "unknown layer 'conv'; known: 0, 4"),
        ({"schedule": dg.PruneSchedule({"0": (1, 9, 4, 0.5)})}, "an event at epoch 9, and the training has 4"),
        ({"options": dg.TrainingOptions(dropout=0.2)}, "this one has none"),
    ],
)
def test_bad_input_is_refused_before_any_work(changed: dict[str, Any], message: str) -> None:
    call: Callable[[], Any] = lambda: steps(**changed)  # noqa: E731
    with pytest.raises(dg.DgpruneError, match=message):
        call()


def test_a_layer_that_cannot_be_pruned_is_named_with_the_reason() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.GroupNorm(2, 6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    with pytest.raises(dg.DgpruneError, match=r"filters of layer '0' cannot be pruned: .*GroupNorm"):
        steps(network, schedule=dg.PruneSchedule({"0": (1, 1, 1, 0.5)}))
    assert set(trained(network).settings["filters"]) == {"3"}
