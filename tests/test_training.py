"""The training loop: reproducible to the bit, and nothing but its own copy is changed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dgprune_lab.commands import train as recipes
from dgprune_lab.commands.train import accuracy_by_split
from dgprune_lab.core.domain import Domain
from dgprune_lab.core.errors import DgpruneError
from dgprune_lab.core.provenance import Provenance
from dgprune_lab.models.networks import digits_net
from dgprune_lab.models.saving import load
from dgprune_lab.pruning.surgery import provenance_of
from dgprune_lab.training import event_bar, finish, train
from dgprune_lab.training.events import BatchEvent, EpochEvent
from dgprune_lab.training.loop import learning_rate
from dgprune_lab.training.options import TrainingOptions

SMALL = TrainingOptions(epochs=1, batch_size=16, lr=0.05, augmentation="invert_colour", seed=4)


def domain(name: str, *, images: int = 60, seed: int = 0) -> Domain:
    generator = torch.Generator().manual_seed(seed)
    pixels, labels = torch.rand(images, 3, 28, 28, generator=generator), torch.arange(images) % 10
    parts = {"train": list(range(images // 2)), "report": list(range(images // 2, images))}
    return Domain.from_arrays(name, images=pixels, labels=labels, splits=parts)


def network() -> nn.Sequential:
    """A small digits_net with dropout, which draws from the global generator."""
    model = digits_net(widths=(4, 4, 6, 6, 8))
    head = model.get_submodule("head")
    model.head = nn.Sequential(nn.Dropout(0.3), head)
    return model


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_seed_reproduces_a_training_to_the_bit() -> None:
    sources = [domain("a"), domain("b", images=40, seed=1)]
    torch.manual_seed(1)
    first = state(finish(train(network(), sources=sources, options=SMALL)))
    torch.manual_seed(2)
    torch.rand(3)
    assert same(first, state(finish(train(network(), sources=sources, options=SMALL))))
    other = finish(train(network(), sources=sources, options=replace(SMALL, seed=5)))
    assert not same(first, state(other))


def test_argument_and_global_random_state_are_unchanged() -> None:
    model = network().eval()
    model[1].train()
    modes, before = [m.training for m in model.modules()], state(model)
    torch.manual_seed(7)
    random = torch.get_rng_state()
    for event in train(model, sources=[domain("a")], options=SMALL):
        assert torch.equal(torch.get_rng_state(), random)
        assert not isinstance(event, EpochEvent) or event.model is not model
    assert same(before, state(model))
    assert modes == [m.training for m in model.modules()]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert provenance_of(model) == Provenance(training={})


def test_a_consumer_that_draws_or_evaluates_changes_nothing() -> None:
    quiet = state(finish(train(network(), sources=[domain("a")], options=replace(SMALL, epochs=2))))
    model: nn.Module | None = None
    for event in train(network(), sources=[domain("a")], options=replace(SMALL, epochs=2)):
        torch.rand(5)
        if isinstance(event, EpochEvent):
            accuracy_by_split(event.model, [domain("a")])
            model = event.model
    assert model is not None
    assert same(quiet, state(model))


class Elsewhere(nn.Module):
    """Seeds the global generator in its third pass: what a cell does while the training runs in a thread beside it."""

    passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Elsewhere.passes += 1
        if Elsewhere.passes == 3:
            torch.manual_seed(77)
        return x


def test_seeding_in_another_cell_meanwhile_is_kept() -> None:
    model = nn.Sequential(digits_net(widths=(4, 4, 6, 6, 8)), Elsewhere())
    events = train(model, sources=[domain("a", images=120)], options=SMALL)
    torch.manual_seed(1)
    finish(events)
    wanted = torch.Generator().manual_seed(77)
    assert Elsewhere.passes == 4 and torch.equal(torch.rand(3), torch.rand(3, generator=wanted))


def test_events_count_batches_and_epochs() -> None:
    options = replace(SMALL, epochs=2, batch_size=16, schedule="constant")
    events = list(train(network(), sources=[domain("a"), domain("b", images=38, seed=1)], options=options))
    batches = [event for event in events if isinstance(event, BatchEvent)]
    epochs = [event for event in events if isinstance(event, EpochEvent)]
    # 30 + 19 train images: 16 + 16 + 16, and one image that no BatchNorm can take alone
    assert [event.images for event in batches] == [16, 16, 16] * 2
    assert [(event.epoch, event.batch, event.batches) for event in batches][-1] == (2, 3, 3)
    assert [event.epoch for event in epochs] == [1, 2]
    assert epochs[0].loss == pytest.approx(sum(event.loss for event in batches[:3]) / 3)
    assert epochs[1].seconds >= epochs[0].seconds > 0
    assert not epochs[1].model.training
    assert {event.lr for event in batches} == {options.lr}
    *uneven, epoch = train(network(), sources=[domain("a")], options=replace(options, epochs=1))  # 16 and 14 images
    losses = [event.loss for event in uneven if isinstance(event, BatchEvent)]
    assert epoch.loss == pytest.approx((16 * losses[0] + 14 * losses[1]) / 30), "the mean over images"


def test_the_provenance_names_the_train_splits() -> None:
    trained = finish(train(network(), sources=[domain("a"), domain("b")], options=SMALL))
    assert provenance_of(trained) == Provenance(training={"a/train": "labels", "b/train": "labels"})
    tuned = finish(train(trained, sources=[domain("c")], options=SMALL, stage="finetuning"))
    assert provenance_of(tuned).seen("training", "c", "train") == "none"
    assert provenance_of(tuned).seen("finetuning", "c", "train") == "labels"
    bare = network()
    del bare.dgprune_provenance
    after = provenance_of(finish(train(bare, sources=[domain("a")], options=SMALL)))
    assert after.seen("training", "a", "train") == "labels"
    assert after.seen("training", "c", "train") == "unknown", "what came before is not known, and stays so"


def test_learning_rates() -> None:
    dss = TrainingOptions(lr=0.01, schedule="dss")
    assert learning_rate(dss, progress=0.0) == 0.01
    assert learning_rate(dss, progress=0.2) == pytest.approx(0.0044, abs=5e-5)
    assert learning_rate(dss, progress=1.0) == pytest.approx(0.01 / 11**0.75)
    cosine = TrainingOptions(lr=0.2, schedule="cosine")
    assert [learning_rate(cosine, progress=p) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.2, 0.1, 0.0])
    steps = TrainingOptions(lr=1.0, schedule="steps", milestones=(2, 3), epochs=4)
    passed = [learning_rate(steps, progress=done / 4) for done in (0, 1.9, 2, 2.9, 3, 4)]
    assert passed == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    # the DSS code fine-tunes 20 epochs but divides by 100
    options = replace(SMALL, lr=0.01, schedule="dss", epochs=2, schedule_epochs=10)
    rates = [event.lr for event in train(network(), sources=[domain("a")], options=options)]
    assert rates[0] == 0.01
    assert rates[-1] == pytest.approx(0.01 / (1 + 10 * 0.15) ** 0.75)  # 1.5 of 10 epochs


def test_gamma_l1_shrinks_the_batchnorm_scales() -> None:
    def scales(gamma_l1: float) -> float:
        options = replace(SMALL, epochs=20, schedule="constant", gamma_l1=gamma_l1)
        model = finish(train(network(), sources=[domain("a")], options=options))
        return sum(float(m.weight.detach().abs().sum()) for m in model.modules() if isinstance(m, nn.BatchNorm2d))

    assert scales(0.05) < 0.5 * scales(0.0)


def test_gamma_l1_is_the_subgradient_added_once() -> None:
    """One SGD step from the same state: the scales differ by lr * gamma_l1 * sign(gamma), the rest not at all."""
    model = digits_net(widths=(4, 4, 6, 6, 8))
    options = replace(SMALL, epochs=1, batch_size=30, schedule="constant", momentum=0.0)
    plain = state(finish(train(model, sources=[domain("a")], options=options)))
    sparse = state(finish(train(model, sources=[domain("a")], options=replace(options, gamma_l1=0.1))))
    for key, value in plain.items():
        step = 0.05 * 0.1 * model.state_dict()[key].sign() if key.startswith("bn") and key.endswith("weight") else 0
        torch.testing.assert_close(sparse[key], value - step if value.is_floating_point() else value)


def test_double_softmax_is_in_the_loss_only() -> None:
    model = digits_net(widths=(4, 4, 6, 6, 8))
    source = domain("a")
    options = TrainingOptions(epochs=1, batch_size=30, double_softmax=True)
    event = next(train(model, sources=[source], options=options))
    assert isinstance(event, BatchEvent)
    batch = source.take(source.rows("train"))
    assert batch.labels is not None
    once = model.train()(batch.images).softmax(1)
    assert event.loss == pytest.approx(nn.functional.nll_loss(once.log_softmax(1), batch.labels).item(), rel=1e-5)


def test_augmented_share_leaves_the_rest_alone() -> None:
    none = state(finish(train(network(), sources=[domain("a")], options=replace(SMALL, augmentation="none"))))
    zero = state(finish(train(network(), sources=[domain("a")], options=replace(SMALL, augmented_share=0.0))))
    half = state(finish(train(network(), sources=[domain("a")], options=replace(SMALL, augmented_share=0.5))))
    assert same(none, zero)
    assert not same(none, half)


def test_adam_trains_and_options_survive_json() -> None:
    options = replace(SMALL, optimiser="adam", lr=0.01, epochs=8, augmentation="none", schedule="constant")
    losses = [e.loss for e in train(digits_net(), sources=[domain("a")], options=options) if isinstance(e, EpochEvent)]
    assert losses[-1] < 0.7 * losses[0]
    assert TrainingOptions.from_json(options.to_json()) == options


def test_accuracy_by_split_counts_images_and_keeps_the_modes() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.eye(10)[3])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bias.expand(len(x), 10)

    model = Constant().train()
    unlabelled = Domain.from_arrays("u", images=torch.rand(4, 3, 28, 28), splits={"report": [0, 1]})
    table = accuracy_by_split(model, [domain("a"), unlabelled])
    assert table == {"a": {part: {"images": 30, "correct": 3, "accuracy": 0.1} for part in ("train", "report")}}
    assert model.training


def test_the_bar_shows_every_event(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []
    events = list(train(network(), sources=[domain("a")], options=SMALL))
    with event_bar("tiny") as show:
        steps = train(network(), sources=[domain("a")], options=SMALL)
        assert isinstance(finish(steps, lambda event: (seen.append(event), show(event))), nn.Sequential)
    assert list(map(type, seen)) == list(map(type, events))
    shown = capsys.readouterr().err
    assert "tiny: 100%" in shown and "2/2" in shown and "epoch 1/1, loss" in shown


def test_make_trains_and_writes_a_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny = replace(
        recipes.RECIPES["digits"],
        training=replace(recipes.RECIPES["digits"].training, epochs=1),
        options={"widths": [2, 2, 2, 2, 2]},
    )
    monkeypatch.setattr(recipes, "RECIPES", {"tiny": tiny})
    path = recipes.make("tiny", progress=False, folder=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny.json", "tiny.safetensors"]
    card, model = json.loads(path.with_suffix(".json").read_text()), load(path)
    assert card["accuracy"]["mnist"]["train"]["images"] == 3200
    assert card["provenance"]["training"] == {"mnist/train": "labels", "uci_digits/train": "labels"}
    assert torch.equal(model.get_buffer("normalise.mean"), torch.tensor(card["options"]["mean"]))


def unlabelled() -> Domain:
    return Domain.from_arrays("u", images=torch.rand(4, 3, 28, 28), splits={"train": [0, 1]})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TrainingOptions(optimiser="adm"), "optimiser must be one of 'sgd', 'adam'; got 'adm'"),  # type: ignore
        (lambda: TrainingOptions(schedule="linear"), "schedule must be one of"),  # type: ignore[arg-type]
        (lambda: TrainingOptions(epochs=0), "epochs must be at least 1; got 0"),
        (lambda: TrainingOptions(batch_size=1), "batch_size must be at least 2"),
        (lambda: TrainingOptions(augmented_share=1.5), "augmented_share must lie in 0 to 1"),
        (lambda: TrainingOptions(lr=math.nan), "lr must be at least 0; got nan"),
        (lambda: TrainingOptions.from_json({"epoch": 3}), "unknown training option 'epoch'.*Did you mean 'epochs'"),
        (lambda: train(network(), sources=[]), "at least one source domain"),
        (lambda: train(network(), sources=[unlabelled()]), "'u' has no labels"),
        (lambda: train(network(), sources=[domain("a"), domain("b").padded(32)]), "bring them to one size"),
        (lambda: train(nn.Flatten(), sources=[domain("a")]), "no parameter that can be trained"),
        (lambda: TrainingOptions(augmentation="invert"), "unknown augmentation 'invert'.*invert_colour"),
        (lambda: finish(train(digits_net(classes=4), sources=[domain("a")])), "at least .* classes"),
        (
            lambda: finish(train(network(), sources=[domain("a")], options=TrainingOptions(lr=1e30))),
            "the loss is .* try an lr below",
        ),
    ],
)
def test_bad_input_is_refused_with_a_reason(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(DgpruneError, match=message):
        call()
