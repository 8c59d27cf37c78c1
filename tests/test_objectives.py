"""Training objectives against closed forms, by hand, resumed, refused, and on planted truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from material import ResidualNet, norm_net, plain_net
from pruning_runs import QUICK, fresh, same_runs, shades, steps, trained
from torch import Tensor, nn
from tuned_study import study

import dgprune_lab as dg
from dgprune_lab.core.provenance import Provenance, provenance_of, set_provenance
from dgprune_lab.models.container import tensors_from_bytes, tensors_to_bytes
from dgprune_lab.pruning import deep_copy
from dgprune_lab.training import finish, train
from dgprune_lab.training.block_outputs import blocks_of, layers_that_run
from dgprune_lab.training.events import BatchEvent
from dgprune_lab.training.loop import TrainingLoop
from dgprune_lab.training.objectives import OBJECTIVES, Miro, Vrex, coral, group_dro, miro, vrex
from dgprune_lab.training.options import ObjectiveName
from dgprune_lab.training.pool import Pool

SOURCES = [shades("a", count=96), shades("b", count=36, noise=0.6, seed=3)]  # 32 and 12 images to train on
BASE = replace(QUICK, epochs=2, batch_size=16, annealing=1, balanced=True)
OTHERS = [name for name in OBJECTIVES if name != "erm"]


def pretrained(kind: Any = norm_net, *, seed: int = 0) -> Any:
    """A network whose record says that something has trained it."""
    network = fresh(kind, seed=seed)
    set_provenance(network, Provenance(training={"elsewhere/train": "labels"}))
    return network


def content(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def run(
    network: nn.Module, options: dg.TrainingOptions, sources: Any = SOURCES
) -> tuple[dict[str, Tensor], list[float]]:
    losses: list[float] = []
    events = train(network, sources=sources, options=options)
    return content(finish(events, lambda e: losses.append(e.loss) if isinstance(e, BatchEvent) else None)), losses


# The formulas


def test_group_dro_weights_follow_the_sequence_computed_by_hand() -> None:
    sequence = torch.rand(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4
    q, wanted = torch.full((3,), 1 / 3, dtype=torch.float64), np.full(3, 1 / 3)
    for risks in sequence:
        risks.requires_grad_()
        loss, q = group_dro(risks, q=q, eta=0.7)
        wanted = wanted * np.exp(0.7 * risks.detach().numpy())
        wanted /= wanted.sum()
        np.testing.assert_allclose(q.numpy(), wanted, rtol=1e-12)
        assert loss.item() == pytest.approx(float(wanted @ risks.detach().numpy()), rel=1e-12)
        (gradient,) = torch.autograd.grad(loss, risks)
        torch.testing.assert_close(gradient, q)  # the weights themselves are no function of the network
    high, q = group_dro(torch.tensor([1.0, 900.0]), q=torch.tensor([0.5, 0.5]), eta=100.0)
    assert high == 900 and q.tolist() == [0, 1], "no overflow"


def test_vrex_adds_the_population_variance() -> None:
    risks = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64, requires_grad=True)
    assert vrex(risks, weight=10.0).item() == pytest.approx(3 + 10 * (4 + 1 + 9) / 3)
    assert vrex(risks, weight=0.0).item() == 3
    assert torch.autograd.gradcheck(lambda r: vrex(r, weight=10.0), (risks,))  # finite differences


def test_coral_equals_the_covariances_of_numpy() -> None:
    features = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    arrays = features.detach().numpy()
    terms = [
        ((arrays[i].mean(0) - arrays[j].mean(0)) ** 2).mean()
        + ((np.cov(arrays[i].T, ddof=1) - np.cov(arrays[j].T, ddof=1)) ** 2).mean()
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert coral(features).item() == pytest.approx(np.mean(terms), rel=1e-12)
    assert torch.autograd.gradcheck(coral, (features,))
    assert coral(features[:1].expand(2, -1, -1)) == 0


def test_miro_equals_the_formula_in_numpy() -> None:
    draw = torch.Generator().manual_seed(2)
    z, oracle = (torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=draw) for _ in range(2))
    b = torch.randn(3, dtype=torch.float64, generator=draw, requires_grad=True)
    variance = (np.log1p(np.exp(b.detach().numpy())) + 1e-5)[None, :, None, None]
    wanted = ((z.numpy() - oracle.numpy()) ** 2 / variance + np.log(variance)).mean() / 2
    assert miro(z, oracle, b=b).item() == pytest.approx(wanted, rel=1e-12)
    assert torch.autograd.gradcheck(lambda z, b: miro(z, oracle, b=b), (z.requires_grad_(), b))
    assert miro(z[..., 0, 0], oracle[..., 0, 0], b=b).ndim == 0, "outputs without places"


# Equal batches


def test_each_step_holds_equally_many_images_of_every_source() -> None:
    pool, options = Pool(SOURCES), replace(BASE, batch_size=11)
    first, second, again = (pool.batches(options, g) for g in _streams(0, 0, 1))
    assert len(first) == 4 == pool.steps(options) == len(pool.batches(replace(options, balanced=False), _streams(0)[0]))
    assert all((pool.source[index] == torch.arange(2).repeat_interleave(5)).all() for index in first), "5 of 11 each"
    seen = torch.cat(first).bincount(minlength=44)
    assert seen[:32].sum() == 20 and seen[:32].max() == 1, "no image of the large source twice"
    assert seen[32:].sum() == 20 and set(seen[32:].tolist()) == {1, 2}, "12 images of the small one, then 8 again"
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], again[0])
    stream = _streams(0)[0]
    assert not torch.equal(pool.batches(options, stream)[0], pool.batches(options, stream)[0]), "each epoch anew"
    tiny = Pool([shades("tiny", count=9), SOURCES[0]])  # 3 images, of which a step takes 8
    assert {len(index) for index in tiny.batches(BASE, _streams(0)[0])} == {16}


def _streams(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_erm_is_the_pooled_training_to_the_bit() -> None:
    """A loop written out: one permutation of all images per epoch, mean cross-entropy, SGD."""
    options = replace(QUICK, epochs=2)
    found, losses = run(pretrained(), options)
    network, wanted, stream = pretrained().train(), [], torch.Generator().manual_seed(options.seed)
    descent = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    batches = [source.take(source.rows("train")) for source in SOURCES]
    images, labels = torch.cat([b.images for b in batches]), torch.cat([b.labels for b in batches])  # type: ignore[misc]
    for index in [index for _ in range(2) for index in torch.randperm(44, generator=stream).split(16)]:
        grouped = index[(index >= 32).int().sort(stable=True).indices]
        loss = F.cross_entropy(network(images[grouped]), labels[grouped])
        descent.zero_grad()
        loss.backward()
        descent.step()
        wanted.append(loss.item())
    assert same(found, content(network)) and losses == wanted


@pytest.mark.parametrize("objective", ["vrex", "coral", "miro"])
def test_without_weight_an_objective_is_balanced_erm_to_the_bit(objective: Any) -> None:
    plain = run(pretrained(), replace(BASE, epochs=1))
    other = run(pretrained(), replace(BASE, epochs=1, objective=objective, weight=0.0, annealing=0, balanced=False))
    assert same(plain[0], other[0]) and plain[1] == other[1]


# One step by hand


def by_hand(
    name: str, risks: Tensor, z: list[Tensor], oracle: list[Tensor], b: list[Tensor], features: Tensor
) -> Tensor:
    """The loss of the first step, written out again."""
    mean = (risks[0] + risks[1]) / 2
    if name == "group_dro":
        q = torch.exp(0.01 * risks.detach())
        return (q * risks).sum() / q.sum()
    if name == "vrex":
        return mean + ((risks[0] - risks[1]) / 2) ** 2  # the weight is 1 before `annealing`
    if name == "coral":
        mine, others = features[:8], features[8:]
        return mean + ((mine.mean(0) - others.mean(0)) ** 2).mean() + ((mine.T.cov() - others.T.cov()) ** 2).mean()
    variances = [torch.log1p(torch.exp(item))[:, None, None] + 1e-5 for item in b]
    return mean + 0.1 * sum(
        0.5 * ((one - other) ** 2 / variance + torch.log(variance) * torch.ones_like(one)).mean()
        for one, other, variance in zip(z, oracle, variances, strict=True)
    )


@pytest.mark.parametrize(("name", "double"), [*product(OTHERS, [False]), ("vrex", True)])
def test_the_first_step_by_hand(name: Any, double: bool) -> None:
    options = replace(BASE, objective=name, double_softmax=double, momentum=0.0, weight_decay=0.0)
    loop = TrainingLoop(deep_copy(pretrained()), sources=SOURCES, options=options)
    event = next(loop.epoch())
    twin, oracle = pretrained().train(), pretrained().eval()
    index = Pool(SOURCES).batches(options, torch.Generator().manual_seed(options.seed))[0]
    x, y = Pool(SOURCES).take(index, torch.device("cpu"))
    b = [torch.full((n,), float(np.log(np.expm1(0.1 - 1e-5))), requires_grad=True) for n in (6, 8)]
    z = [twin[0](x)]  # a norm_net: two convolutions
    z.append(twin[4](twin[1:4](z[0])))
    features = twin[5:-1](z[1])
    logits = twin[-1](features)
    z0 = [oracle[0](x), oracle[:5](x)]
    each = F.nll_loss((logits.softmax(1) if double else logits).log_softmax(1), y, reduction="none")
    risks = torch.stack([each[:8].mean(), each[8:].mean()])
    loss = by_hand(name, risks, z, [value.detach() for value in z0], b, features)
    trained_here = [*twin.parameters(), *(b if name == "miro" else [])]
    gradients = torch.autograd.grad(loss, trained_here)
    lr = options.lr
    for parameter, gradient, found in zip(twin.parameters(), gradients, loop.model.parameters(), strict=False):
        torch.testing.assert_close(found, parameter - lr * gradient, atol=2e-6, rtol=1e-4)
    assert isinstance(event, BatchEvent) and event.images == 16
    assert event.loss == pytest.approx(risks.mean().item(), rel=1e-5), "the mean cross-entropy, not the objective"
    if name == "miro":
        for value, gradient, found in zip(b, gradients[-2:], loop.objective.state.values(), strict=True):
            torch.testing.assert_close(found, value - 10 * lr * gradient, atol=2e-6, rtol=1e-4)
            assert not torch.equal(found, value)


# V-REx and MIRO over several steps


def test_vrex_anneals_and_renews_the_optimiser() -> None:
    options = replace(BASE, objective="vrex", annealing=2, optimiser="adam", lr=0.01)
    objective = Vrex(nn.Linear(1, 1), pool=Pool(SOURCES), options=options)
    risks = torch.tensor([1.0, 3.0])
    found = [(objective.loss(risks).item(), objective.renewing) for _ in range(4)]
    assert found == [(3.0, False), (3.0, False), (12.0, True), (12.0, False)]  # 2 + weight * 1
    loop, ages = TrainingLoop(deep_copy(pretrained()), sources=SOURCES, options=options), []
    loop.after_step = lambda: ages.append(int(next(iter(loop.optimiser.state.values()))["step"]))
    for _ in range(options.epochs):
        list(loop.epoch())
    assert ages == [1, 2, 1, 2, 3, 4]
    with pytest.warns(dg.DgpruneNote, match="6 steps of training are not more than annealing=6.*never becomes 10"):
        train(pretrained(), sources=SOURCES, options=replace(options, annealing=6))


def test_the_oracle_stays_and_the_variances_are_learnt() -> None:
    given = pretrained(ResidualNet)
    loop = TrainingLoop(deep_copy(given), sources=SOURCES, options=replace(BASE, objective="miro"))
    assert isinstance(loop.objective, Miro)
    start = content(loop.objective.oracle)
    assert same(start, content(given))
    list(loop.epoch())
    assert same(start, content(loop.objective.oracle)) and not same(start, content(loop.model))
    assert not any(module.training for module in loop.objective.oracle.modules())
    assert not any(p.requires_grad or p.grad is not None for p in loop.objective.oracle.parameters())
    names = ["stem", "inner", "outer", "last", "shortcut"]
    assert [*loop.objective.state] == names and [len(b) for b in loop.objective.state.values()] == [6, 5, 6, 7, 7]
    assert all(len(b.unique()) > 1 for b in loop.objective.state.values()), "each channel has a variance of its own"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in loop.model.modules())


def test_a_block_is_compared_before_an_in_place_layer_overwrites_its_output() -> None:
    network = pretrained(plain_net)
    objective = Miro(network, pool=Pool(SOURCES), options=replace(BASE, objective="miro"))
    with torch.no_grad():
        network[0].weight.add_(0.1)
    x = SOURCES[0].take(torch.arange(4)).images
    with objective.watching(network, x):
        network(x)
    wanted = miro(network[0](x), objective.oracle[0](x), b=objective.state["0"])  # type: ignore[index]
    assert torch.equal(objective.terms["0"], wanted)


class Listed(nn.Module):
    """Blocks in a list, behind a normalisation, and a convolution as the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList([nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)), nn.Conv2d(4, 5, 3)])
        self.head = nn.Sequential(nn.Conv2d(5, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        for block in self.body:
            x = block(x)
        return self.head(x)


def test_blocks_are_the_outermost_modules_with_convolutions() -> None:
    assert blocks_of(norm_net()) == ["0", "4"]
    wrapped = nn.Sequential(nn.Identity(), Listed())
    assert blocks_of(wrapped) == ["1.body.0", "1.body.1", "1.head"]
    last, outputs = layers_that_run(wrapped, Pool(SOURCES))
    assert last == "1.head.0" and {name: y.shape[1] for name, y in outputs.items()} == {
        "1.body.0": 4,
        "1.body.1": 5,
        "1.head": 4,
    }
    set_provenance(wrapped, Provenance(training={"elsewhere/train": "labels"}))
    loop = TrainingLoop(wrapped, sources=SOURCES, options=replace(BASE, objective="miro"))
    assert [*loop.objective.state] == ["1.body.0", "1.body.1"], "the block of the classifier is left out"


# State


@pytest.mark.parametrize(("name", "optimiser"), [*zip(OTHERS, ["sgd", "adam"] * 2, strict=True)])
def test_a_resumed_loop_equals_an_uninterrupted_one(name: Any, optimiser: Any) -> None:
    options = replace(BASE, objective=name, optimiser=optimiser, annealing=4, lr=0.01)
    straight, broken, again = (TrainingLoop(deep_copy(pretrained()), sources=SOURCES, options=options) for _ in "abc")
    for loop in (straight, straight, broken):
        list(loop.epoch())
    tensors, values = broken.state()
    saved = tensors_from_bytes(tensors_to_bytes({**tensors, **broken.model.state_dict()}), "saved")
    again.model.load_state_dict({key: saved[key] for key in again.model.state_dict()})
    again.resume({key: saved[key] for key in tensors}, json.loads(json.dumps(values)))
    list(again.epoch())
    assert same(content(straight.model), content(again.model))
    assert same(straight.objective.state, again.objective.state)
    assert again.objective.state.keys() == {key.removeprefix("objective.") for key in tensors if key[:3] == "obj"}


def test_a_resumed_run_has_the_oracle_that_it_began_with(tmp_path: Path) -> None:
    changed: dict[str, Any] = {"options": replace(BASE, objective="miro"), "sources": SOURCES, "schedule": None}
    straight = trained(pretrained(), **changed)
    events = steps(pretrained(), checkpoint=tmp_path, **changed)
    for event in events:
        if isinstance(event, BatchEvent) and event.epoch == 2:
            break
    events.close()
    assert same_runs(straight, trained(pretrained(), checkpoint=tmp_path, **changed))


def test_cards_and_checkpoints_from_before_load(tmp_path: Path) -> None:
    new = ("objective", "weight", "annealing", "balanced")
    old = {key: value for key, value in QUICK.to_json().items() if key not in new}
    assert get_args(ObjectiveName) == tuple(OBJECTIVES)
    assert dg.TrainingOptions.from_json(old) == QUICK and QUICK.objective == "erm" and not QUICK.equal_batches
    options = replace(BASE, objective="miro", weight=0.3)
    assert dg.TrainingOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
    options = {"options": replace(QUICK, epochs=1), "schedule": None}
    found = trained(checkpoint=tmp_path, **options)
    card = json.loads((tmp_path / "run.json").read_text())
    for name in new:
        del card["settings"]["options"][name]
    (tmp_path / "run.json").write_text(json.dumps(card))
    assert same_runs(found, trained(checkpoint=tmp_path, **options))


@pytest.mark.parametrize("objective", OTHERS)
def test_the_network_and_the_random_state_stay(objective: Any) -> None:
    network = pretrained().eval()
    network[1].train()
    before, modes = content(network), [module.training for module in network.modules()]
    torch.manual_seed(7)
    random = torch.get_rng_state()
    first, _ = run(network, replace(BASE, epochs=1, objective=objective))
    assert torch.equal(random, torch.get_rng_state()) and same(before, content(network)) and not same(before, first)
    assert modes == [module.training for module in network.modules()]
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    torch.manual_seed(8)
    assert same(first, run(network, replace(BASE, epochs=1, objective=objective))[0]), "a seed repeats it"


# Where the options flow


@pytest.mark.parametrize("objective", ["coral", "miro"])
def test_fine_tuning_in_rounds(objective: Any) -> None:
    options = replace(BASE, objective=objective, epochs=1)
    given = study(pretrained(norm_net), trained_on={"elsewhere": ["train"]})
    tuned = dg.prune_and_tune(given, "l1", ratio=0.5, rounds=2, epochs=1, options=options, measure="end")
    assert tuned.finished and tuned.card["finetuning"]["objective"] == objective
    assert [layer.out_channels for layer in tuned.network if isinstance(layer, nn.Conv2d)] == [4, 5]
    assert provenance_of(tuned.network).seen("training", "elsewhere", "train") == "labels"


def test_leaving_one_out_with_an_objective() -> None:
    domains = [*SOURCES, shades("c", count=36, seed=5)]
    options = replace(BASE, objective="group_dro", epochs=1)
    table = dg.leave_one_out(domains, train=options, network=lambda seed: fresh(seed=seed))
    assert len(table[table.metric == "accuracy"]) == 3
    with pytest.raises(dg.DgpruneError, match=r'objective="group_dro" compares sources, .* at least two; got 1'):
        dg.leave_one_out.steps(SOURCES, train=options, network=lambda seed: fresh(seed=seed))


# Refusals


def untrained() -> nn.Module:
    network = fresh()
    set_provenance(network, Provenance(training={}))
    return network


def starting(network: Callable[[], nn.Module], sources: Any = SOURCES, **options: Any) -> Callable[[], Any]:
    return lambda: train(network(), sources=sources, options=replace(BASE, **options))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (starting(pretrained, SOURCES[:1], objective="vrex"), 'objective="vrex" compares sources.*got 1. Add a source'),
        (starting(pretrained, SOURCES[:1], objective="group_dro"), "at least two"),
        (starting(pretrained, SOURCES[:1], objective="coral"), "at least two"),
        (starting(pretrained, batch_size=3), "at least two images of each source, and batch_size=3 gives 1 .* to 4"),
        (starting(untrained, objective="miro"), "this one is fresh: its record .*dg.load_weights"),
        (
            starting(
                lambda: pretrained(lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 4)), seed=0), objective="miro"
            ),
            "this network has none before its classifier",
        ),
        (starting(Listed, objective="coral"), "last layer of this network, 'head.0', is a Conv2d. Add a linear layer"),
        (lambda: dg.TrainingOptions(weight=0.1), 'objective="erm" adds nothing'),
        (lambda: dg.TrainingOptions(objective="irm"), "objective must be one of 'erm', 'group_dro'"),  # type: ignore
        (lambda: run(pretrained(), replace(BASE, objective="vrex", weight=1e39)), "loss is inf .*or a smaller weight"),
    ],
)
def test_what_an_objective_lacks_is_said_before_the_first_step(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(dg.DgpruneError, match=message):
        call()


def test_miro_says_what_it_assumes_of_a_foreign_network_and_takes_one_source() -> None:
    with pytest.warns(dg.DgpruneNote, match="MIRO: the record .* does not say .* it is taken to be pretrained"):
        events = train(fresh(), sources=SOURCES[:1], options=replace(BASE, objective="miro"))
    assert isinstance(next(events), BatchEvent)


# Planted truth


def coloured(name: str, agrees: int) -> Any:
    """80 images: the shape (channel 0) agrees with the class in 75 %, the colour (channel 1) in `agrees` of 10.

    Given the class, the two are independent: the numbers of images are exact.
    """
    rows = [
        (label, label if shape else 1 - label, label if colour else 1 - label)
        for label, shape, colour in product((0, 1), (True, False), (True, False))
        for _ in range((3 if shape else 1) * (agrees if colour else 10 - agrees))
    ]
    labels, shape, colour = (torch.tensor(column) for column in zip(*rows, strict=True))
    images = torch.stack([shape, colour, torch.zeros_like(shape)], 1).float()[..., None, None].expand(-1, -1, 4, 4)
    return dg.Domain.from_arrays(name, images=images, labels=labels, splits={"train": range(len(rows))}, classes=2)


def linear() -> nn.Module:
    return fresh(lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)))


def accuracy(network: nn.Module, data: Any) -> float:
    batch = data.take(data.rows("train"))
    return float((network(batch.images).argmax(1) == batch.labels).float().mean())


@pytest.mark.filterwarnings("ignore:.*is sorted by class:dgprune_lab.core.errors.DgpruneNote")
def test_vrex_leaves_a_spurious_colour_that_erm_uses() -> None:
    """The colour agrees with the class in 90 and 70 % of the sources' images and in 10 % of the target's.

    Only a network that ignores it has equal risks, and is right in 75 % of all images, those of the target too.
    """
    sources, target = [coloured("a", 9), coloured("b", 7)], coloured("t", 1)
    options = replace(BASE, epochs=60, batch_size=160, optimiser="adam", lr=0.2, weight_decay=0.0, annealing=20)
    erm = finish(train(linear(), sources=sources, options=options))
    rex = finish(train(linear(), sources=sources, options=replace(options, objective="vrex", weight=1000.0)))
    assert accuracy(erm, target) < 0.5 < 0.75 == accuracy(rex, target) == accuracy(rex, sources[0])
    assert accuracy(erm, sources[0]) > 0.75


@pytest.mark.filterwarnings("ignore:.*is sorted by class:dgprune_lab.core.errors.DgpruneNote")
def test_group_dro_lowers_the_risk_of_the_worst_source() -> None:
    """The colour agrees with the class in 90 % of one source and in 30 % of the other: no network serves both."""
    sources = [coloured("a", 9), coloured("b", 3)]
    options = replace(BASE, epochs=50, batch_size=160, optimiser="adam", lr=0.1, weight_decay=0.0)
    worst, spread = {}, {}
    for name in ("erm", "group_dro"):
        loop = TrainingLoop(linear(), sources=sources, options=replace(options, objective=name))
        loop.objective.weight = 0.2
        for _ in range(options.epochs):
            list(loop.epoch())
        batches = [source.take(source.rows("train")) for source in sources]
        risks = [F.cross_entropy(loop.model(b.images), b.labels).item() for b in batches]  # type: ignore[arg-type]
        worst[name], spread[name] = max(risks), max(risks) - min(risks)
    assert worst["group_dro"] < worst["erm"] - 0.02 and spread["group_dro"] < spread["erm"] / 2
    q = loop.objective.state["q"]
    assert q[1] > 0.6 and q.sum() == pytest.approx(1, abs=1e-6), "the source with the higher risk has more weight"
