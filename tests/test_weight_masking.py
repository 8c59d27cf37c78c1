"""Weight masking without copies: equal to `masked`, BatchNorm folded exactly or refused, the model untouched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from material import DepthwiseNet, ResidualNet, domain, fingerprint, images, norm_net, plain_net, randomise
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core.steps import drain
from dgprune_lab.measurement.weight_masking import WeightMasking, prunable, weight_scores
from dgprune_lab.pruning.fold_batchnorm import folded

SOURCES = [domain("a"), domain("b", seed=1)]


def net_of(build: Any = norm_net) -> nn.Module:
    return randomise(build(), dtype=torch.float32)


def losses(twin: WeightMasking, fraction: float) -> Tensor:
    twin.zero(fraction)
    return drain(twin.losses(SOURCES, split="train"))


def slow(model: nn.Module) -> Tensor:
    return torch.cat([dg.evaluate(model, source, "train").loss for source in SOURCES])


@pytest.mark.parametrize("build", [plain_net, norm_net, ResidualNet, DepthwiseNet])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_losses_equal_those_of_the_masked_network(build: Any, scope: Any) -> None:
    model = net_of(build)
    twin = WeightMasking(model, domains=SOURCES, scope=scope)
    for fraction in (1.0, 0.07, 0.9, 0.31, 0.5, 1.0):
        mask = dg.allocate(weight_scores(model), ratio=1 - fraction, scope=scope)
        assert torch.equal(losses(twin, fraction), slow(dg.masked(model, mask)))
        assert twin.removed(fraction) == sum(int((~keep).sum()) for keep in mask.keep.values())
    mask = dg.allocate(weight_scores(model), ratio=0.6, scope=scope)
    removed = torch.cat([w.detach()[~mask.keep[name]] for name, w in prunable(model).items()])
    assert twin.removed_norm(0.4) == pytest.approx(float(removed.double().norm()))


def test_images_are_kept_for_one_split_and_number() -> None:
    model = net_of(plain_net)
    twin = WeightMasking(model, domains=SOURCES)
    for split, few in (("train", None), ("score", None), ("train", 5)):
        found = drain(twin.losses(SOURCES, split=split, images=few))
        assert torch.equal(found, torch.cat([dg.evaluate(model, source, split, images=few).loss for source in SOURCES]))


def test_ties_are_broken_as_in_allocate_and_random_is_seeded() -> None:
    model = net_of(plain_net)
    scores = dg.WeightScores("ties", {name: torch.ones_like(weight) for name, weight in prunable(model).items()})
    mask = dg.allocate(scores, ratio=0.5, scope="global")
    assert torch.equal(losses(WeightMasking(model, domains=SOURCES, scorer=scores), 0.5), slow(dg.masked(model, mask)))
    random = [losses(WeightMasking(model, domains=SOURCES, scorer="random", seed=seed), 0.5) for seed in (1, 1, 2)]
    assert torch.equal(random[0], random[1]) and not torch.equal(random[0], random[2])


def test_the_model_and_the_global_generator_are_untouched() -> None:
    model = net_of()
    model.train()
    before, state = fingerprint(model), torch.get_rng_state()
    for batchnorm in ("as_is", "fold", "recalibrate"):
        losses(WeightMasking(model, domains=SOURCES, batchnorm=batchnorm), 0.4)
    twin = WeightMasking(model, domains=SOURCES)
    twin.shift(twin.direction(3), by=0.1)
    assert fingerprint(model) == before and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("build", [norm_net, ResidualNet, DepthwiseNet])
def test_folding_changes_no_output(build: Any) -> None:
    model = randomise(build())  # float64
    x = images(5, 3, 12, 12, dtype=torch.float64)
    small = folded(model, x[:2])
    assert not any(isinstance(module, nn.BatchNorm2d) for module in small.modules())
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x), rtol=1e-10, atol=1e-10)
    single = net_of(build)
    fold, plain = (losses(WeightMasking(single, domains=SOURCES, batchnorm=how), 1.0) for how in ("fold", "as_is"))
    torch.testing.assert_close(fold, plain, rtol=1e-3, atol=1e-4)


def test_folded_weights_are_ranked_after_folding() -> None:
    model = net_of()
    small = folded(model, SOURCES[0].take(torch.arange(4)).images)
    mask = dg.allocate(weight_scores(small), ratio=0.4, scope="global")
    assert torch.equal(
        losses(WeightMasking(model, domains=SOURCES, batchnorm="fold"), 0.6), slow(dg.masked(small, mask))
    )


def test_statistics_are_re_estimated_after_each_masking() -> None:
    sources = [source.as_role("source") for source in SOURCES]
    model = net_of()
    twin = WeightMasking(model, domains=sources, batchnorm="recalibrate")
    for fraction in (0.3, 0.8):
        mask = dg.allocate(weight_scores(model), ratio=1 - fraction, scope="global")
        torch.testing.assert_close(losses(twin, fraction), slow(dg.recalibrate(dg.masked(model, mask), sources)))


class Late(nn.Module):
    """BatchNorm after the activation, or beside it."""

    def __init__(self, *, beside: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4)
        self.beside = beside

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        out = self.norm(out) + out if self.beside else self.norm(out.relu_())
        return self.head(out.mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Late(beside=False), "BatchNorm 'norm' does not directly follow one convolution"),
        (Late(beside=True), "with BatchNorm folded this network gives other logits"),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 12), nn.Flatten()), "BatchNorm '0' does not directly follow"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 12), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()),
            "BatchNorm '1' does not",
        ),
    ],
)
def test_what_cannot_be_folded_is_refused_by_name(model: nn.Module, message: str) -> None:
    with pytest.raises(dg.DgpruneError, match=message):
        folded(randomise(model, dtype=torch.float32), images(4, 3, 12, 12))


def test_bad_input_is_refused() -> None:
    model: Any = net_of()
    with pytest.raises(dg.DgpruneError, match="no weights to prune"):
        weight_scores(nn.Sequential(nn.Flatten(), nn.ReLU()))
    with pytest.raises(dg.DgpruneError, match="layer '0' computes its weight"):
        weight_scores(dg.masked(model, dg.allocate(weight_scores(model), ratio=0.5)))
    with pytest.raises(dg.DgpruneError, match=r"single weights are scored by 'l1', 'random'.*got 'l2'"):
        WeightMasking(model, domains=SOURCES, scorer="l2")  # type: ignore[arg-type]
    with pytest.raises(dg.DgpruneError, match=r"scores were made for another network: 0\.weight"):
        WeightMasking(net_of(plain_net), domains=SOURCES, scorer=dg.WeightScores("x", {"0.weight": torch.ones(2)}))
    with pytest.raises(dg.DgpruneError, match=r"NaN or infinite scores in parameter '0\.weight'"):
        dg.WeightScores("x", {"0.weight": torch.full((6, 3, 3, 3), torch.nan)})
    with pytest.raises(dg.DgpruneError, match="batchnorm must be one of 'as_is', 'fold'"):
        WeightMasking(model, domains=SOURCES, batchnorm="folded")  # type: ignore[arg-type]
