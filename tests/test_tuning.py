"""Pruning in rounds with fine-tuning: the counts, what stays gone, what is read, what the table says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from material import DepthwiseNet, ResidualNet, domain, fingerprint, grouped_net, images, norm_net, plain_net, randomise
from torch import nn
from tuned_study import QUICK, same, study, tuned

import dgprune_lab as dg
from dgprune_lab.core.random import seed as seeded
from dgprune_lab.pruning.verify import read_groups
from dgprune_lab.scorers import GroupView
from dgprune_lab.training import finish, train
from dgprune_lab.training.events import BatchEvent, EpochEvent, PruneEvent, StageEvent
from dgprune_lab.training.prune_and_tune import FINETUNING, rounds_of


def masks_of(found: dg.Tuned) -> Any:
    """The mask of every round, as the network carries them."""
    return found.network.dgprune_masks


PRUNED = {
    10: (2, 4),
    20: (6, 9),
    30: (9, 13),
    40: (12, 18),
    50: (15, 23),
    60: (18, 28),
    70: (21, 32),
    80: (24, 38),
    90: (28, 42),
}


@pytest.fixture(scope="module")
def lenet() -> dg.Study:
    return dg.Study(dg.models.networks.lenet(), sources=[domain("a", shape=(3, 28, 28), classes=10)])


@pytest.mark.parametrize("percent", PRUNED)
def test_filter_counts_of_the_paper(lenet: dg.Study, percent: int) -> None:
    found = dg.prune_and_tune(lenet, "l1", ratio=percent / 100, epochs=0, measure="end")
    assert tuple(n - len(found.mask.kept(f"conv{k}")) for k, n in ((1, 32), (2, 48))) == PRUNED[percent]
    assert len(found.network.state_dict()["conv1.weight"]) == 32 - PRUNED[percent][0]
    assert len(masks_of(found)) == (2 if percent <= 60 else 3)


def test_learning_rates_and_rounds_of_the_paper() -> None:
    assert [rounds_of(ratio) for ratio in (0.0, 3 * 0.2, 0.61, 0.9)] == [2, 2, 3, 3]
    default = FINETUNING
    assert (default.epochs, default.schedule, default.schedule_epochs, default.lr) == (20, "dss", 100, 0.01)
    assert (default.momentum, default.batch_size, default.double_softmax) == (0.9, 32, False)
    given = study()
    steps = dg.prune_and_tune.steps(given, "l1", ratio=0.5, epochs=2, images=3)
    batches = [event for event in steps if isinstance(event, BatchEvent)]
    rates = [event.lr for event in batches]
    done = [event.epoch - 1 + (event.batch - 1) / event.batches for event in batches]
    assert rates == pytest.approx([0.01 / (1 + 10 * p / 100) ** 0.75 for p in done]), "it falls with every batch"
    assert rates[0] == rates[len(rates) // 2] == 0.01, "the schedule starts anew in each round"
    assert min(rates) == rates[-1] == pytest.approx(0.01 / (1 + 10 * 0.015) ** 0.75), "1.5 of 100 epochs"


def by_hand(
    given: dg.Study, scorer: str, *, batchnorm: Any = "as_is", scope: Any = "layer", budget: Any = "filters"
) -> Any:
    """Two rounds to a half, the long way: a study, scores, a mask, a network, a training; again."""
    network: nn.Module = given.model
    for number in (1, 2):
        now = dg.Study(network, sources=given.sources, targets=given.targets)
        mask = dg.allocate(now.score(scorer, seed=0), ratio=1 - 0.5**0.5, scope=scope, budget=budget)
        network = dg.prune(network, mask)
        if batchnorm == "recalibrate":
            network = dg.recalibrate(network, given.sources)
        options = dg.TrainingOptions(**{**QUICK.to_json(), "seed": seeded("tuning", 0, 0, number)})
        network = finish(train(network, sources=given.sources, options=options, stage="finetuning"))
        if batchnorm == "recalibrate":
            network = dg.recalibrate(network, given.sources)
    return network


@pytest.mark.parametrize(
    ("net", "changed"),
    [
        (plain_net, {}),
        (plain_net, {"scope": "global", "budget": "parameters"}),
        (norm_net, {"batchnorm": "recalibrate", "budget": "macs"}),
        (ResidualNet, {"scope": "global"}),
        (DepthwiseNet, {}),
    ],
)
def test_rounds_equal_pruning_and_training_by_hand(net: Any, changed: dict[str, Any]) -> None:
    given = study(randomise(net(), dtype=torch.float32))
    found = tuned(given, "taylor", **changed)
    assert same(found.network, by_hand(given, "taylor", **changed))
    assert 0.2 < found.mask.ratio_achieved <= 0.5 + 1e-9
    sizes = {group.name: group.filters for group in read_groups(found.network, images(2, 3, 12, 12)).groups}
    kept = {group.name: len(found.mask.kept(group.name)) for group in given.graph.groups}
    assert {**dict.fromkeys(kept, 1), **sizes} == kept, "a layer with one filter left is no group any more"
    parameters = sum(p.numel() for p in found.network.parameters())
    assert found.mask.cost.parameters == parameters
    left = found.table[(found.table.metric == "parameters") & (found.table.stage == "tuned")].value
    assert left.tolist()[-1] == parameters


def test_a_scorer_that_draws_gets_another_seed_in_each_round() -> None:
    drawn: list[int] = []

    @dg.scorer("drawn", draws=True)
    def by_chance(view: GroupView, *, seed: int = 0) -> torch.Tensor:
        """Random. Source: ours."""
        drawn.append(seed)
        return torch.rand(view.filters, generator=view.generator(seed), dtype=torch.float64)

    dg.prune_and_tune(study(), by_chance, ratio=0.5, rounds=3, epochs=0, seed=7, measure="end")
    assert drawn[0] == 7 and len(set(drawn)) == 3


def test_filters_of_one_unit_are_removed_together() -> None:
    given = study(randomise(grouped_net(), dtype=torch.float32))
    kept = tuned(given, ratio=0.6).mask.kept("0")
    assert len(kept) == 4 and {f % 4 for f in kept if f < 4} == {f % 4 for f in kept if f >= 4}


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_what_was_removed_stays_removed(optimiser: str) -> None:
    """Under momentum and weight decay, which bring masked weights back to life."""
    given = study()
    options = dg.TrainingOptions(**{**QUICK.to_json(), "optimiser": optimiser, "lr": 0.01})
    found = tuned(given, "random", options=options, rounds=3, ratio=0.6)
    first, *later = masks_of(found)
    network, mask = dg.prune(given.model, found.mask), dg.Mask.from_json(first, graph=given.graph)
    assert [tuple(p.shape) for p in network.parameters()] == [tuple(p.shape) for p in found.network.parameters()]
    for value in later:
        inner = read_groups(dg.prune(given.model, mask), images(2, 3, 12, 12))
        mask = mask.then(dg.Mask.from_json(value, graph=inner))
    assert (
        mask.key == found.mask.key
        and mask.ratio_requested == pytest.approx(found.mask.ratio_requested)
        and found.mask.ratio_requested == 0.6
    )


def test_the_mask_names_the_original_filters() -> None:
    given = study()
    found = tuned(given, "random", rounds=3, ratio=0.7, epochs=0)
    kept = found.mask.kept("0")
    assert torch.equal(found.network[0].weight, given.model[0].weight[kept])  # type: ignore[index]
    assert same(found.network, dg.prune(given.model, found.mask))
    once = tuned(given, "random", rounds=1, epochs=0, seed=4)
    assert once.mask.key == dg.allocate(given.score("random", seed=4), ratio=0.5).key


def test_the_dense_control_is_fine_tuned_alike_and_loses_nothing() -> None:
    given = study()
    found = tuned(given, None)
    network: nn.Module = given.model
    for number in (1, 2):
        options = dg.TrainingOptions(**{**QUICK.to_json(), "seed": seeded("tuning", 0, 0, number)})
        network = finish(train(network, sources=given.sources, options=options, stage="finetuning"))
    assert same(found.network, network) and found.mask.ratio_achieved == 0 and found.mask.reads == {}
    assert set(found.table.scorer) == {"dense"} and set(found.table.ratio_achieved) == {0.0}
    pruned = tuned(given)
    columns = ["ratio_requested", "round", "epoch", "stage", "domain", "metric"]
    assert found.table[columns].equals(pruned.table[columns]), "row for row"


def test_the_table_equals_measure() -> None:
    given = study(randomise(norm_net(), dtype=torch.float32))
    found = tuned(given, batchnorm="recalibrate", images=15)
    table: Any = found.table
    stages = list(dict.fromkeys(zip(table["round"], table.epoch, table.stage, strict=True)))
    assert stages == [(0, 0, "full"), (1, 0, "cut"), (1, 2, "tuned"), (2, 2, "cut"), (2, 4, "tuned")]
    shares = table.drop_duplicates(["round", "stage"])
    assert shares.ratio_requested.round(4).tolist() == [0, 0.2929, 0.2929, 0.5, 0.5]
    assert shares.batchnorm.tolist() == ["as_is", *["recalibrate"] * 4]
    for network, stage, number in ((given.model, "full", 0), (found.network, "tuned", 2)):
        said: Any = dg.measure(network, given.domains, images=15, latency=False)
        mine = table[(table.stage == stage) & (table["round"] == number)]
        for metric in ("accuracy", "loss"):
            columns = ["domain", "role", "split", "images", "value", "low", "high", "interval", "unit"]
            one, other = (frame[frame.metric == metric][columns].reset_index(drop=True) for frame in (mine, said))
            assert one.equals(other)
        for metric in ("parameters", "macs", "bytes"):
            assert mine[mine.metric == metric].value.item() == said[said.metric == metric].value.item()


@dg.scorer("peeks", needs=("moments",), reads={"source": "images", "target": "images"})
def peeks(view: Any) -> Any:
    """Mean response, on the target too."""
    return sum(view.moments(name).mean for name in (*view.sources, *view.targets))


def test_the_network_carries_its_provenance_and_can_be_saved(tmp_path: Path) -> None:
    given = study()
    found = tuned(given, peeks)
    record = dg.provenance_of(found.network)
    assert (record.seen("scorer", "t", "score"), record.seen("finetuning", "a", "train")) == ("images", "labels")
    assert record.seen("finetuning", "t", "train") == "none" and record.training is None, "a network from elsewhere"
    rows = found.table[(found.table.domain == "t") & (found.table.metric == "accuracy")]
    assert rows.target_aware.tolist() == [False, True, True, True, True] and set(rows.seen_by_training) == {"unknown"}
    assert found.mask.reads == {"a/score": "images", "b/score": "images", "t/score": "images"}
    dg.save(found.network, tmp_path / "net")
    loaded = dg.load(tmp_path / "net", model=plain_net())
    assert same(loaded, found.network) and dg.provenance_of(loaded) == record and not found.network.training


def test_events_are_in_order() -> None:
    given = study()
    steps = dg.prune_and_tune.steps(given, "l1", ratio=0.5, epochs=2, options=QUICK, measure="epochs")
    events = [event for event in steps if event is not None]
    told = [
        event.stage if isinstance(event, StageEvent) else "prune" if isinstance(event, PruneEvent) else event.epoch
        for event in events
        if not isinstance(event, BatchEvent)
    ]
    assert told == ["full", *["prune", 1, "tuned", 2, "tuned"] * 2]
    prunes = [event for event in events if isinstance(event, PruneEvent)]
    gone = [filter for event in prunes for filter in event.removed["3"]]
    assert sorted(gone) == sorted(set(range(8)) - set(prunes[1].so_far.mask.kept("3"))) and len(gone) == 3
    assert [row["stage"] for row in prunes[0].rows if row["metric"] == "accuracy"] == ["cut"] * 3
    rows = [row for event in events if isinstance(event, PruneEvent | StageEvent) for row in event.rows]
    assert dg.tidy(rows, extra=("round", "epoch", "stage", "score_split")).equals(tuned(given, measure="epochs").table)
    assert isinstance(events[-2], EpochEvent) and events[-2].epochs == 2


def test_measure_end_measures_the_last_network_only() -> None:
    given = study()
    for epochs, stage in ((2, "tuned"), (0, "cut")):
        table = tuned(given, measure="end", epochs=epochs).table
        assert set(table.stage) == {stage} and set(table["round"]) == {2}
        assert table[table.metric == "accuracy"].domain.tolist() == ["a", "b", "t"]


def test_argument_and_global_random_state_are_unchanged() -> None:
    net = randomise(plain_net(), dtype=torch.float32)
    net.register_forward_hook(lambda *_: None)
    before, given = fingerprint(net), study(net)
    torch.manual_seed(3)
    random = torch.get_rng_state()
    first = tuned(given, "random", seed=1)
    assert fingerprint(net) == before and torch.equal(torch.get_rng_state(), random)
    assert same(first.network, tuned(given, "random", seed=1).network)
    assert not same(first.network, tuned(given, "random", seed=2).network)
    assert set(first.table.seed) == {1} and tuned(given).table.seed.isna().all()


def test_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    tuned(study(), progress=True)
    said = capsys.readouterr().err
    assert "20/20" in said and "l1 50 %, round 2 of 2, tuned, epoch 2/2, loss" in said


def test_it_can_score_the_images_that_it_reports(tmp_path: Path) -> None:
    given = study()
    network = given.model
    for _ in range(2):
        now = dg.Study(network, sources=given.sources, targets=given.targets)
        network = dg.prune(network, dg.allocate(now.score("dss", split="report"), ratio=1 - 0.5**0.5))
    found = dg.prune_and_tune(given, "dss", ratio=0.5, epochs=0, score_split="report")
    assert same(found.network, network), "scored anew in each round, on the reported images"
    assert not same(found.network, dg.prune_and_tune(given, "dss", ratio=0.5, epochs=0).network)
    record = dg.provenance_of(found.network)
    assert (record.seen("scorer", "t", "report"), record.seen("scorer", "t", "score")) == ("images", "none")
    rows = found.table[(found.table.stage == "cut") & (found.table.metric == "accuracy")]
    assert set(rows.score_split) == {"report"} and set(rows.seen_by_scorer) == {"images"}
    assert rows.set_index("domain").target_aware.groupby(level=0).all().to_dict() == {"a": True, "b": True, "t": True}
    for scorer in ("l1", None):  # which read no image
        assert (
            dg.prune_and_tune(given, scorer, ratio=0.5, epochs=0, score_split="report").table.score_split.isna().all()
        )
    dg.save(found.network, tmp_path / "net", card=found.card)
    with pytest.raises(dg.DgpruneError, match="'dss' cannot run on this study: domain 'a' has no image in its split"):
        dg.prune_and_tune(given, "dss", ratio=0.5, score_split="scored")


def test_the_card_of_a_run_holds_its_options() -> None:
    options = dg.TrainingOptions(**{**QUICK.to_json(), "double_softmax": True})
    found = tuned(study(), "taylor", options=options, score_split="report")
    assert dg.TrainingOptions.from_json(found.card["finetuning"]) == options and options.double_softmax
    assert (found.card["scorer"], found.card["score_split"], found.card["rounds"]) == ("taylor", "report", 2)
    assert not same(found.network, tuned(study(), "taylor", score_split="report").network)


@pytest.mark.gpu
def test_it_runs_where_the_study_is_evaluated() -> None:
    found = tuned(study().on("cuda"), "taylor")
    assert found.finished and {p.device.type for p in found.network.parameters()} == {"cuda"}
    assert found.mask.keep["0"].device.type == "cpu"
