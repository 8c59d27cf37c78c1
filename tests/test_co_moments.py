"""Which layers are consecutive; the sums of one pass equal those of all stored responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from material import DepthwiseNet, ResidualNet, domain, grouped_net, images, plain_net, randomise
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core.graph import FilterGraph
from dgprune_lab.core.statistics import CoMoments
from dgprune_lab.measurement import co_moments
from dgprune_lab.measurement.statistics import gather
from dgprune_lab.scorers.gc_net import correlation

Kept = Mapping[str, Tensor]
Response = Callable[[Kept], Tensor]


class Concatenated(nn.Module):
    """Two parallel branches consumed by one convolution; one of them has a second consumer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1)
        self.both, self.side = nn.Conv2d(9, 6, 3, padding=1), nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.relu(self.a(x)), torch.relu(self.b(x))
        x = torch.relu(self.both(torch.cat([b, a], 1)) + self.side(a))
        return self.head(x.mean((2, 3)))


class Mixer(nn.Module):
    """A depthwise convolution inside a residual branch: the stream keeps its previous value."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.point, self.last, self.head = nn.Conv2d(6, 5, 1), nn.Conv2d(5, 4, 1), nn.Linear(4, 4)
        self.norm = nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = self.norm(self.point(x + torch.relu(self.depth(x))))
        return self.head(torch.relu(self.last(torch.relu(x))).mean((2, 3)))


class Squeezed(nn.Module):
    """A map multiplied by a function of itself; its consumers are fed by the map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1)
        self.last, self.head = nn.Conv2d(6, 5, 1), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return self.head(torch.relu(self.last(x * gate)).mean((2, 3)))


def upsampled_net() -> nn.Sequential:
    """A transposed convolution, whose weight has its input axis first."""
    return nn.Sequential(
        nn.Conv2d(3, 5, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(5, 6, 2, stride=2),
        nn.ReLU(),
        nn.Conv2d(6, 4, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 4),
    )


def of(*layers: str) -> Response:
    return lambda kept: torch.stack([kept[layer] for layer in layers]).sum(0)


NETS: dict[str, tuple[Callable[[], nn.Module], dict[tuple[str, str], Response]]] = {
    "plain": (plain_net, {("0", "3"): of("0"), ("3", "7"): of("3")}),
    "residual": (
        ResidualNet,
        {
            ("stem", "inner"): of("stem"),
            ("inner", "outer"): of("inner"),
            ("stem", "last"): of("stem", "outer"),
            ("stem", "shortcut"): of("stem", "outer"),
            ("last", "head"): of("last", "shortcut"),
        },
    ),
    "depthwise": (DepthwiseNet, {("expand", "project"): of("depth"), ("project", "head"): of("project")}),
    "concatenated": (
        Concatenated,
        {("a", "both"): of("a"), ("b", "both"): of("b"), ("a", "side"): of("a"), ("both", "head"): of("both", "side")},
    ),
    "mixer": (
        Mixer,
        {("stem", "point"): of("stem", "depth"), ("point", "last"): of("point"), ("last", "head"): of("last")},
    ),
    "squeezed": (
        Squeezed,
        {
            ("conv", "down"): of("conv"),
            ("down", "up"): of("down"),
            ("conv", "last"): of("conv"),
            ("last", "head"): of("last"),
        },
    ),
    "upsampled": (upsampled_net, {("0", "2"): of("0"), ("2", "4"): of("2"), ("4", "8"): of("4")}),
    "grouped": (grouped_net, {("2", "4"): of("2"), ("4", "8"): of("4")}),
}


def net(name: str, **kinds: Any) -> tuple[nn.Module, FilterGraph]:
    model = randomise(NETS[name][0](), seed=3, dtype=torch.float32)
    return model, dg.read_groups(model, images(2, 3, 12, 12), **kinds)


def responses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Every layer's raw output on every image, (N, C), the mean over positions; all stored at once."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_m: nn.Module, _i: Any, y: Tensor) -> None:
            kept[name] = y.double().flatten(2).mean(2) if y.ndim > 2 else y.double()

        return hook

    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.register_forward_hook(keep(name))
    with torch.no_grad():
        model(x)
    return kept


def pearson(x: Tensor, y: Tensor) -> Tensor:
    """(A, B) one pair of columns at a time."""
    table = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64)
    for i, a in enumerate(x.T):
        for j, b in enumerate(y.T):
            steady = min(a.std(correction=0), b.std(correction=0)) < 1e-3
            table[i, j] = 0 if steady else torch.corrcoef(torch.stack([a, b]))[0, 1]
    return table


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("size", [7, 250])
def test_sums_equal_those_of_all_responses(name: str, size: int) -> None:
    model, graph = net(name)
    source = domain("a", count=120)
    sums_found = gather(model, graph, domain=source, needs=["co_moments", "class_co_moments"], size=size)
    batch = source.take(source.rows("score"))
    kept = responses(net(name)[0], batch.images)
    responses_of = NETS[name][1]
    assert list(sums_found.co_moments) == list(sums_found.class_co_moments) and set(sums_found.co_moments) == set(
        responses_of
    )
    assert [(group.name, layer) for group, layer in co_moments.pairs(model, graph)] == list(sums_found.co_moments)
    for key, response in responses_of.items():
        for moments, masks in (
            (sums_found.co_moments[key], [torch.ones(len(batch.images), dtype=torch.bool)]),
            (sums_found.class_co_moments[key], [batch.labels == k for k in range(4)]),
        ):
            for k, rows in enumerate(masks):
                x, y = response(kept)[rows], kept[key[1]][rows]
                same(moments, k, x, y)


def same(moments: CoMoments, k: int, x: Tensor, y: Tensor) -> None:
    assert int(moments.images[k]) == len(x)
    for got, want in (
        (moments.first[:, k], torch.stack([x.sum(0), x.square().sum(0)])),
        (moments.second[:, k], torch.stack([y.sum(0), y.square().sum(0)])),
        (moments.cross[k], x.T @ y),
        (moments.shuffled[k], x.roll(1, 0).T @ y),
    ):
        assert got.dtype == torch.float64 and torch.allclose(got, want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["residual", "concatenated"])
def test_correlations_equal_those_of_all_responses(name: str) -> None:
    model, graph = net(name)
    source = domain("a", count=120)
    sums_found = gather(model, graph, domain=source, needs=["class_co_moments"]).class_co_moments
    batch = source.take(source.rows("score"))
    kept = responses(net(name)[0], batch.images)
    assert batch.labels is not None
    for key, response in NETS[name][1].items():
        masks = [pearson(response(kept)[batch.labels == k], kept[key[1]][batch.labels == k]) for k in range(4)]
        assert torch.allclose(correlation(sums_found[key]), torch.stack(masks).abs().mean(0), atol=1e-4)
        assert torch.allclose(correlation(sums_found[key], signed=True), torch.stack(masks).mean(0), atol=1e-4)


def test_one_image_of_a_class_in_a_batch_is_not_paired_with_itself() -> None:
    model, graph = net("plain")
    one = gather(model, graph, domain=domain("a", count=120), needs=["class_co_moments"], size=1)
    all_at_once = gather(model, graph, domain=domain("a", count=120), needs=["class_co_moments"])
    for key, sums in one.class_co_moments.items():
        assert torch.allclose(sums.shuffled, all_at_once.class_co_moments[key].shuffled, rtol=1e-5)
        assert not torch.allclose(sums.shuffled, sums.cross, rtol=1e-5)


def test_prunable_hidden_units_form_pairs_too() -> None:
    model, graph = net("plain", layers="all")
    assert [(group.name, layer) for group, layer in co_moments.pairs(model, graph)] == [
        ("0", "3"),
        ("3", "7"),
        ("7", "9"),
    ]
    source = domain("a", count=60)
    sums_found = gather(model, graph, domain=source, needs=["co_moments"]).co_moments
    kept = responses(net("plain")[0], source.take(source.rows("score")).images)
    same(sums_found["7", "9"], 0, kept["7"], kept["9"])


def test_co_moments_above_the_stated_size_are_refused_before_anything_is_allocated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, graph = net("plain")
    # 6 x 8 and 8 x 10 connections in 8 bytes, over 4 classes
    monkeypatch.setattr(co_moments, "CO_MOMENT_BYTES", 8 * (48 + 80) * 4 - 1)
    monkeypatch.setattr(co_moments, "PairSums", None)
    monkeypatch.setattr(nn.Conv2d, "forward", None)
    with pytest.raises(dg.DgpruneError, match=r"2 pairs of layers over 4 classes would take .*\(by_class=False\)"):
        gather(model, graph, domain=domain("a"), needs=["class_co_moments"], size=10)
    monkeypatch.undo()
    monkeypatch.setattr(co_moments, "CO_MOMENT_BYTES", 8 * (48 + 80) * 4)
    assert gather(model, graph, domain=domain("a"), needs=["class_co_moments"]).class_co_moments
