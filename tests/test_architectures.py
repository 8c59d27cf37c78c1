"""Masked equals removed, architecture by architecture; what cannot be pruned is refused by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision.models as zoo
from material import (
    DepthwiseNet,
    ResidualNet,
    domain,
    fingerprint,
    grouped_net,
    images,
    norm_net,
    plain_net,
    random_mask,
    randomise,
    zeroed,
)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import dgprune_lab as dg
from dgprune_lab.core.masks import Mask
from dgprune_lab.models.networks import build
from dgprune_lab.pruning.surgery import deep_copy


def small_vgg11_bn() -> nn.Module:
    """VGG11-BN with its convolutions, pooling and flatten, and narrow linear layers (the full ones hold a gigabyte)."""
    net = zoo.vgg11_bn(weights=None, num_classes=10)
    net.classifier = nn.Sequential(nn.Linear(512 * 49, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 10))
    return net


ZOO: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "lenet": (lambda: build("lenet"), 28),
    "digits_net": (lambda: build("digits_net"), 28),
    "vgg11_bn_32": (lambda: build("vgg11_bn_32"), 32),
    "resnet18_32": (lambda: build("resnet18_32"), 32),
    "resnet20": (lambda: build("resnet20"), 32),
    "vgg11_bn": (small_vgg11_bn, 64),
    "resnet18": (lambda: zoo.resnet18(num_classes=10), 64),
    "resnet50": (lambda: zoo.resnet50(num_classes=10), 64),
    "mobilenet_v2": (lambda: zoo.mobilenet_v2(num_classes=10), 64),
    "mobilenet_v3_small": (lambda: zoo.mobilenet_v3_small(num_classes=10), 64),
    "densenet121": (lambda: zoo.densenet121(num_classes=10), 64),
    "efficientnet_b0": (lambda: zoo.efficientnet_b0(num_classes=10), 64),
    "regnet_y_400mf": (lambda: zoo.regnet_y_400mf(num_classes=10), 64),
    "googlenet": (lambda: zoo.googlenet(num_classes=10, aux_logits=False, init_weights=False), 64),
    "squeezenet1_1": (lambda: zoo.squeezenet1_1(num_classes=10), 64),
}


def logits(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(x)


def extent(values: Tensor) -> float:
    return float(values.max() - values.min())


@pytest.mark.parametrize("name", ZOO)
def test_masked_equals_removed(name: str) -> None:
    builder, size = ZOO[name]
    model = randomise(builder(), seed=len(name))
    x = images(2, 3, size, size, seed=1, dtype=torch.float64)
    before = fingerprint(model)
    graph = dg.read_groups(model, x)
    assert not graph.refused
    mask = random_mask(graph, seed=3)
    small, zero = dg.prune(model, mask), zeroed(model, mask)
    soft = (
        dg.masked(model, mask)
        if name in ("lenet", "digits_net", "resnet18", "mobilenet_v3_small", "googlenet")
        else zero
    )
    assert fingerprint(model) == before

    dense, removed = logits(model, x), logits(small, x)
    spread = min(extent(dense), extent(removed))
    assert spread > 0
    assert float((dense - removed).abs().max()) > 1e-3 * spread
    for other in (zero, soft):
        assert float((logits(other, x) - removed).abs().max()) <= 1e-5 * spread

    cost = graph.cost(mask.keep)
    assert cost == mask.cost
    assert cost.filters == sum(int(part.sum()) for part in mask.keep.values()) < graph.free
    assert cost.parameters == sum(p.numel() for p in small.parameters())
    assert cost.bytes == sum(t.numel() * t.element_size() for t in itertools.chain(small.parameters(), small.buffers()))
    for network, count in ((small, cost.macs), (model, graph.cost().macs)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(x[:1])
        assert counter.get_total_flops() == 2 * count


def test_masking_the_convolution_alone_would_fail_this_comparison() -> None:
    """BatchNorm's constant output after a zeroed convolution is far outside the tolerance above."""
    model = randomise(zoo.resnet18(num_classes=10))
    x = images(2, 3, 64, 64, dtype=torch.float64)
    graph = dg.read_groups(model, x)
    mask = random_mask(graph, seed=0)
    half = deep_copy(model)
    for group in graph.groups:
        for producer in group.producers:
            module = half.get_submodule(producer)
            if isinstance(module, nn.Conv2d):
                with torch.no_grad():
                    module.weight[~mask.keep[group.name]] = 0
    removed = logits(dg.prune(model, mask), x)
    assert float((logits(half, x) - removed).abs().max()) > 0.01 * extent(removed)


def test_the_last_layer_is_never_pruned() -> None:
    for builder, size in (ZOO["resnet18"], ZOO["squeezenet1_1"], ZOO["lenet"]):
        graph = dg.read_groups(randomise(builder()), images(1, 3, size, size, dtype=torch.float64), layers="all")
        small = dg.prune(randomise(builder()), random_mask(graph, seed=5))
        assert logits(small, images(2, 3, size, size, dtype=torch.float64)).shape == (2, 10)


class WithImage(nn.Module):
    """Concatenates two convolutions with the image itself."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1)
        self.c, self.d, self.head = nn.Conv2d(12, 6, 3), nn.Conv2d(6, 7, 3), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.a(x).relu(), x, self.b(x).relu()], 1)
        return self.head(self.d(self.c(joined).relu()).mean((2, 3)))


def test_a_concatenation_with_the_input_leaves_the_image_and_cuts_the_rest() -> None:
    model = randomise(WithImage())
    x = images(2, 3, 12, 12, dtype=torch.float64)
    graph = dg.read_groups(model, x)
    assert graph.names == ["a", "b", "c", "d"] and not graph.refused
    positions, filters = graph["b"].consumer_inputs["c"]
    assert positions.tolist() == [7, 8, 9, 10, 11] and filters.tolist() == [0, 1, 2, 3, 4]
    mask = random_mask(graph, seed=2)
    dense, removed, zero = logits(model, x), logits(dg.prune(model, mask), x), logits(zeroed(model, mask), x)
    assert float((dense - removed).abs().max()) > 1e-3 * extent(dense)
    assert float((zero - removed).abs().max()) <= 1e-5 * extent(dense)


def test_auxiliary_heads_are_refused_by_name() -> None:
    with pytest.raises(dg.DgpruneError, match=r"aux1, aux2 hold.*auxiliary heads"):
        dg.read_groups(zoo.googlenet(num_classes=4, init_weights=False), images(1, 3, 64, 64))


@pytest.mark.parametrize("name", [pytest.param("convnext_tiny", marks=pytest.mark.slow), "vit_b_32"])
def test_groups_with_statistics_across_channels_are_refused_and_the_rest_is_exact(name: str) -> None:
    torch.manual_seed(0)
    if name == "convnext_tiny":
        model: nn.Module = zoo.convnext_tiny(num_classes=10)
    else:
        model = zoo.VisionTransformer(64, 16, 3, 4, 64, 128, num_classes=10)
    model = randomise(model)
    x = images(2, 3, 64, 64, dtype=torch.float64)
    graph = dg.read_groups(model, x, layers="all")
    assert graph.refused and all(model.get_submodule(layer) is not None for layer in graph.refused)
    stream = [why for why in graph.refused.values() if "attention" not in why]
    assert stream and all("LayerNorm" in why and "across channels" in why for why in stream)
    assert not set(graph.refused) & set(graph.names)
    assert len(graph.groups) == (18 if name == "convnext_tiny" else 3)
    mask = random_mask(graph, seed=2)
    dense, removed, soft = logits(model, x), logits(dg.prune(model, mask), x), logits(dg.masked(model, mask), x)
    spread = min(extent(dense), extent(removed))
    assert float((dense - removed).abs().max()) > 1e-3 * spread
    assert float((soft - removed).abs().max()) <= 1e-5 * spread


@pytest.mark.parametrize(
    ("builder", "size", "words"),
    [
        (
            lambda: zoo.SwinTransformer([4, 4], 24, [2, 2], [3, 6], [7, 7], num_classes=4),
            64,
            r"features\.0\.2 \(LayerNorm\).*layers='all'",
        ),
        (lambda: nn.DataParallel(norm_net()), 12, r"wrapped in DataParallel.*model\.module"),
        (lambda: torch.compile(norm_net()), 12, r"wrapped in OptimizedModule.*model\._orig_mod"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 4)), 12, r"nothing to prune"),
    ],
    ids=["swin", "data_parallel", "compiled", "linear"],
)
def test_networks_that_cannot_be_traced_are_refused_with_the_reason(
    builder: Callable[[], nn.Module], size: int, words: str
) -> None:
    model = builder()
    before = fingerprint(model)
    with pytest.raises(dg.DgpruneError, match=words):
        dg.read_groups(model, images(1, 3, size, size))
    assert fingerprint(model) == before


@pytest.mark.parametrize("builder", [norm_net, plain_net, ResidualNet, DepthwiseNet], ids=lambda b: b.__name__)
def test_masked_filters_are_exactly_zero_and_stay_so_in_training(builder: Callable[[], nn.Module]) -> None:
    model = randomise(builder(), dtype=torch.float32)
    x, labels = images(16, 3, 12, 12), torch.arange(16) % 4
    graph = dg.read_groups(model, x)
    mask = random_mask(graph, seed=7)
    soft = dg.masked(model, mask)
    seen: dict[str, Tensor] = {}
    for group in graph.groups:
        for consumer_input, (places, filters) in group.consumer_inputs.items():
            removed = places[~mask.keep[group.name][filters]]

            def hook(
                _: nn.Module,
                inputs: tuple[Tensor, ...],
                key: str = f"{group.name}>{consumer_input}",
                removed: Tensor = removed,
            ) -> None:
                seen[key] = inputs[0].detach()[:, removed].clone()

            soft.get_submodule(consumer_input).register_forward_pre_hook(hook)
    optimiser = torch.optim.SGD(soft.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    first = logits(soft, x)
    for step in range(4):
        soft.train(step > 0)
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(soft(x), labels)
        assert seen and sum(part.numel() for part in seen.values()) > 0
        assert all(bool((part == 0).all()) for part in seen.values())
        loss.backward()
        if step:
            optimiser.step()
    assert not torch.allclose(first, logits(soft, x)), "training changed nothing, so the test is void"


@pytest.mark.filterwarnings("ignore::dgprune_lab.core.errors.DgpruneNote")
def test_no_function_touches_the_network_it_is_given() -> None:
    model: Any = randomise(ResidualNet(), dtype=torch.float32)
    nn.functional.cross_entropy(model(images(8, 3, 12, 12)), torch.arange(8) % 4).backward()
    model.train()
    model.relu.eval()
    model.inner.weight.requires_grad_(False)
    calls: list[int] = []
    model.head.register_forward_pre_hook(lambda *_: calls.append(1))
    sources, target = [domain("a"), domain("c", seed=2)], domain("b", seed=1)
    before = fingerprint(model)
    study = dg.Study(model, sources=sources, targets=[target])
    assert fingerprint(model) == before
    available = [name for name in dg.SCORERS if study.unavailable(dg.SCORERS[name]) is None]
    assert set(dg.SCORERS) - set(available) == {"expected_activation"}
    for name in available:
        study.score(name, options={"site": "conv_output"} if name.startswith("dss") else None)
        assert fingerprint(model) == before, name
    mask = dg.allocate(study.score("l1"), ratio=0.5)
    for step in (
        lambda: dg.read_groups(model, images(1, 3, 12, 12)),
        lambda: dg.prune(model, mask),
        lambda: dg.masked(model, mask),
        lambda: dg.recalibrate(model, study.sources, images=16),
        lambda: dg.measure(model, study.domains, batchnorm="recalibrate"),
        lambda: dg.sweep(study, scorers=["random", "l2"], ratios=[0.0, 0.5], batchnorm="recalibrate"),
        lambda: dg.diagnostics.drop(study, ratios=[0.5]),
        lambda: study.network(mask, batchnorm="recalibrate"),
    ):
        step()
        assert fingerprint(model) == before


def test_filters_tied_by_grouped_convolutions_are_removed_together() -> None:
    model = randomise(grouped_net())
    x = images(2, 3, 12, 12, dtype=torch.float64)
    graph = dg.read_groups(model, x)
    assert graph["0"].step == 2 and graph["2"].step == 2 and graph["4"].step == 1
    with pytest.raises(dg.DgpruneError, match=r"layer '0'.*steps of 2"):
        Mask.by_hand(graph, removed={"0": [1]})
    for group in graph.groups:
        for unit in group.units.unique().tolist():
            tied = (group.units == unit).nonzero().flatten().tolist()
            mask = Mask.by_hand(graph, removed={group.name: tied})
            difference = logits(dg.prune(model, mask), x) - logits(dg.masked(model, mask), x)
            assert float(difference.abs().max()) < 1e-10


def test_an_axis_that_two_groups_share_is_cut_by_both_masks() -> None:
    """A concatenation: the consumer's columns belong to two groups, and each is cut by its own mask."""

    class Concat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 5, 1)
            self.join, self.head = nn.Conv2d(9, 6, 3), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.join(torch.cat([self.left(x), self.right(x)], 1)))
            return self.head(x.mean((2, 3)))

    model = randomise(Concat())
    x = images(2, 3, 12, 12, dtype=torch.float64)
    graph = dg.read_groups(model, x)
    small = dg.prune(model, Mask.by_hand(graph, removed={"left": [0, 3], "right": [2]}))
    kept = [1, 2, 4, 5, 7, 8]
    assert torch.equal(small.join.weight, model.join.weight[:, kept])  # type: ignore[union-attr, index]


def test_a_group_whose_removal_fails_is_refused_by_name_not_by_a_shape_error() -> None:
    class Fixed(nn.Module):
        """Reshapes to a number of channels written into the code, which no graph can trace."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 5, 3)
            self.head = nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.one(x))
            x = torch.relu(self.two(x.reshape(len(x), 8, x.shape[2], x.shape[3])))
            return self.head(self.three(x).mean((2, 3)))

    graph = dg.read_groups(randomise(Fixed()), images(2, 3, 12, 12, dtype=torch.float64))
    assert graph.names == ["two", "three"]
    assert list(graph.refused) == ["one"] and "breaks the network" in graph.refused["one"]
