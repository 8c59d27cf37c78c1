"""The settings of the DSS paper, whole: loss, schedule, rounds, scored images, normalisation, what differs."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch
from pruning_runs import QUICK as SCHEDULED
from pruning_runs import steps, trained

import dgprune_lab as dg
from dgprune_lab.commands.recipes import RECIPES
from dgprune_lab.training.events import BatchEvent
from dgprune_lab.training.loop import learning_rate
from dgprune_lab.training.prune_and_tune import prune_and_tune

LEAST = 1.4611  # of a cross-entropy behind two softmaxes over ten classes: -log(e / (e + 9)) = 1.46115
QUICK = {"epochs": 1, "epochs_per_round": 1, "images": 60}


@pytest.fixture(scope="module")
def quick() -> Any:
    return dg.presets.dss_mnist_m(**QUICK)


@pytest.fixture(scope="module")
def study(quick: Any) -> dg.Study:
    return quick.study()


def test_the_schedule_of_training_and_of_fine_tuning() -> None:
    preset = dg.presets.dss_mnist_m()
    for options, epochs in ((preset.training, 100), (preset.finetuning, 20)):
        assert (options.epochs, options.batch_size, options.momentum, options.optimiser) == (epochs, 32, 0.9, "sgd")
        assert options.double_softmax and options.weight_decay == 0 and options.augmentation == "none"
        for epoch in (0, 20, 99):
            rate = learning_rate(options, progress=epoch / (options.schedule_epochs or options.epochs))
            assert rate == pytest.approx(0.01 / (1 + 10 * epoch / 100) ** 0.75)
    assert preset.ratios == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9) and preset.scorers == ("dss", "l1", None)
    assert (preset.split, preset.score_split) == ("report", "report")
    with pytest.raises(FrozenInstanceError):
        preset.split = "score"  # type: ignore[misc]


def test_with_all_epochs_and_images_the_network_is_the_shipped_one_which_was_trained_so() -> None:
    preset = dg.presets.dss_mnist_m()
    study, card = preset.study(), dg.models.checkpoints.shipped_card("lenet_paper")
    shipped = dg.models.shipped("lenet_paper").state_dict()
    assert all(torch.equal(value, shipped[name]) for name, value in study.model.state_dict().items())
    trained, wanted = dg.TrainingOptions.from_json(card["training"]), RECIPES["lenet_paper"].training
    assert trained == wanted and trained.double_softmax
    assert {**trained.to_json(), "schedule_epochs": 100} == preset.training.to_json()
    assert card["epochs"] == 100 and study.training_seed == 0


def test_every_domain_is_normalised_by_its_own_constants(study: dg.Study) -> None:
    constants = {"mnist": ([0.2973] * 3, [0.3278] * 3), "mnist_m": ([0.2973, 0.2992, 0.2754], [0.3278, 0.3229, 0.3206])}
    for name, (mean, std) in constants.items():
        raw = dg.data.load(name)
        pixels = raw.take(raw.rows("report")[:60]).images
        expected = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        domain = study.domain(name)
        got = study.model.normalise(domain.take(domain.rows("report")).images)  # type: ignore[operator]
        assert torch.allclose(got, expected, atol=1e-5), name


def test_the_loss_has_two_softmaxes_in_training_and_fine_tuning_and_the_network_none(quick: Any) -> None:
    """A confident network has a small plain loss; with a second softmax it cannot fall below 1.461."""
    whole = dg.presets.dss_mnist_m(epochs_per_round=1, images=60)
    study = dg.Study(dg.models.shipped("lenet_paper"), sources=quick.study().sources, targets=quick.study().targets)
    steps = prune_and_tune.steps(study, None, ratio=0.5, epochs=1, options=whole.finetuning)
    losses = [event.loss for event in steps if isinstance(event, BatchEvent)]
    assert len(losses) == 4 and all(LEAST < loss < 1.6 for loss in losses)
    plain = prune_and_tune.steps(study, None, ratio=0.5, epochs=1)
    assert next(event.loss for event in plain if isinstance(event, BatchEvent)) < 1
    source = study.sources[0]
    with torch.no_grad():
        logits = study.model(source.take(source.rows("train")).images)
    assert float(logits.abs().max()) > 2, "plain logits, no probabilities"


def test_the_table_holds_scorer_baseline_and_a_dense_control_with_as_many_epochs(quick: Any, study: dg.Study) -> None:
    with pytest.warns(dg.DgpruneNote, match="at chance"):  # one epoch on 60 images trains nothing
        frame = quick.table(study, ratios=[0.6, 0.7])
    ends = frame[frame.metric == "accuracy"].set_index(["scorer", "ratio_requested", "domain"]).sort_index()
    assert {(name, ratio): (int(row["round"]), int(row.epoch)) for (name, ratio, _), row in ends.iterrows()} == {
        (name, ratio): (rounds, rounds) for name in ("dss", "l1", "dense") for ratio, rounds in ((0.6, 2), (0.7, 3))
    }
    parameters = frame[frame.metric == "filters"].set_index(["scorer", "ratio_requested"]).value
    assert [parameters["dss", ratio] for ratio in (0.6, 0.7)] == [80 - 18 - 28, 80 - 21 - 32]
    assert [parameters["l1", ratio] for ratio in (0.6, 0.7)] == [80 - 18 - 28, 80 - 21 - 32]
    assert [parameters["dense", ratio] for ratio in (0.6, 0.7)] == [80, 80]
    on_target = frame[frame.domain == "mnist_m"]
    assert on_target.target_aware.all(), "of dense and l1 too: the target's constants normalise it"
    assert set(on_target[on_target.scorer == "dss"].seen_by_scorer) == {"images"}
    assert set(on_target[on_target.scorer != "dss"].seen_by_scorer) == {"none"}
    assert set(frame[frame.scorer == "dss"].score_split) == {"report"}
    assert study.provenance.selection == {"mnist_m/normalisation": "images"}


def test_scores_are_those_of_the_reported_images_in_every_round(quick: Any, study: dg.Study) -> None:
    with pytest.warns(dg.DgpruneNote, match="at chance"):
        found = quick.prune(study, "dss", ratio=0.5, measure="end")
    masks: Any = found.network.dgprune_masks
    first = dg.allocate(study.score("dss", split="report"), ratio=1 - 0.5**0.5)
    assert len(masks) == 2 and dg.Mask.from_json(masks[0], graph=study.graph).key == first.key
    assert found.mask.reads == {"mnist/report": "images", "mnist_m/report": "images"}
    assert found.card["finetuning"]["double_softmax"] and found.card["score_split"] == "report"


def test_what_differs_is_listed_and_shown(quick: Any) -> None:
    whole, words = dg.presets.dss_mnist_m(), repr(dg.presets.dss_mnist_m())
    assert all(difference in words for difference in whole.differences)
    assert "p = epochs done / 100" in words
    assert "3,200 MNIST digits" in whole.differences[0] and "1,000 of the same digits" in whole.differences[1]
    assert "epochs: 100, then 20 after each round" in words and "target-aware" in words
    assert not any("Epochs" in difference for difference in whole.differences)
    added = quick.differences[len(whole.differences) :]
    assert added == ("Epochs of training: 1; the paper's: 100.", "Epochs after each round: 1; the paper's: 20.")
    assert "60 MNIST digits to train on" in quick.differences[0]
    with pytest.raises(dg.DgpruneError, match="epochs"):
        dg.presets.dss_mnist_m(epochs=0)


def test_another_seed_is_another_network_and_another_order(quick: Any) -> None:
    one, two, again = (quick.study(seed=seed) for seed in (1, 2, 1))
    assert one.content != two.content and one.content == again.content and one.training_seed == 1


def test_the_same_loss_trains_while_filters_are_pruned() -> None:
    """Over four classes a second softmax keeps the loss above -log(e / (e + 3)); a plain one falls below it."""
    least = 0.7437
    losses = {}
    for twice in (False, True):
        options = dg.TrainingOptions(**{**SCHEDULED.to_json(), "epochs": 24, "double_softmax": twice})
        events = steps(options=options)
        losses[twice] = [event.loss for event in events if isinstance(event, BatchEvent)]
    assert min(losses[True]) > least > min(losses[False])
    run = trained(options=dg.TrainingOptions(**{**SCHEDULED.to_json(), "double_softmax": True}))
    assert run.settings["options"]["double_softmax"] is True
