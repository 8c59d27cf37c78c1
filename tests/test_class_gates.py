"""Gates per image on the true class's logit: a slow twin, many batches, tokens, and when they are not gathered."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from material import DepthwiseNet, ResidualNet, domain, fingerprint, images, norm_net, plain_net, randomise, zeroed
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core.graph import FilterGraph
from dgprune_lab.core.statistics import COSTLY, Need, Statistics
from dgprune_lab.measurement.attributions import Attributor, Method
from dgprune_lab.measurement.statistics import gather, gathering

OTHERS: tuple[Need, ...] = ("class_gate", "gate", "weight_gradient", "mean_map", "moments", "risk")


class SharedNorm(nn.Module):
    """A residual stream whose two producers share one BatchNorm."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.last, self.head = nn.BatchNorm2d(6), nn.Conv2d(6, 5, 1), nn.Linear(5, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = (x + self.norm(self.inner(x))).relu()
        return self.head(self.last(x).relu().mean((2, 3)))


class Tokens(nn.Module):
    """Patches as tokens (N, T, C) through two linear layers."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.patch, self.wide = nn.Conv2d(3, 6, 4, stride=4), nn.Linear(6, 7)
        self.back, self.head = nn.Linear(7, 5), nn.Linear(5, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(self.patch(x).relu().flatten(2).transpose(1, 2)).relu()
        return self.head(self.back(x).relu().mean(1))


NETS: dict[str, Callable[[], nn.Module]] = {
    "plain": plain_net,
    "norm": norm_net,
    "residual": ResidualNet,
    "depthwise": DepthwiseNet,
    "shared": SharedNorm,
    "tokens": Tokens,
}


def ready(name: str) -> tuple[nn.Module, FilterGraph, dg.Domain]:
    """A network and a domain of 30 scored images: none of class 3, one of class 2."""
    model = randomise(NETS[name](), dtype=torch.float32)
    passes = domain("a", count=90)
    labels = torch.arange(90) % 2
    labels[40] = 2
    source = dg.Domain.from_arrays("a", images=passes.images, labels=labels, classes=4, splits=passes.splits)
    return model, dg.read_groups(model, images(2, 3, 12, 12), layers="all" if name == "tokens" else "conv"), source


def by_consumer_gates(model: nn.Module, graph: FilterGraph, layer: str, source: dg.Domain) -> tuple[Tensor, Tensor]:
    """(N, C) change of each image's logit by a gate at every consumer of the filter, and the labels.

    Between producers and consumers, everything here commutes with a positive factor.
    """
    group, twin = graph[layer], copy.deepcopy(model).double().eval()
    factor = torch.ones(group.filters, dtype=torch.float64)

    def gate(consumer: str) -> Callable[..., Any]:
        places, filters = group.consumer_inputs[consumer]

        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
            axis = inputs[0].ndim - 1 if isinstance(module, nn.Linear) else 1
            gate_values = torch.ones(inputs[0].shape[axis], dtype=torch.float64)
            gate_values[places] = factor[filters]
            return (inputs[0] * gate_values.view([-1 if k == axis else 1 for k in range(inputs[0].ndim)]),)

        return hook

    for consumer in group.consumers:
        twin.get_submodule(consumer).register_forward_pre_hook(gate(consumer))
    batch = source.take(source.rows("score"))
    labels = batch.labels
    assert labels is not None
    result = torch.zeros(len(labels), group.filters, dtype=torch.float64)
    for k in range(group.filters):
        ends = []
        for step in (1e-5, -1e-5):
            factor.fill_(1.0)
            factor[k] += step
            with torch.no_grad():
                ends.append(twin(batch.images.double()).gather(1, labels[:, None])[:, 0])
        result[:, k] = (ends[0] - ends[1]) / 2e-5
    return result, labels


@pytest.mark.parametrize("needs", [("class_gate",), OTHERS], ids=["alone", "together"])
@pytest.mark.parametrize("name", NETS)
def test_many_batches_equal_a_slow_twin_over_all_images(name: str, needs: Sequence[Need]) -> None:
    model, graph, source = ready(name)
    before = fingerprint(model)
    result = gather(model, graph, domain=source, needs=needs, size=7)
    assert fingerprint(model) == before and result.labels_read and result.images == 30
    for layer in graph.names:
        values, labels = (part.numpy() for part in by_consumer_gates(model, graph, layer, source))
        moments = result.class_gate[layer]
        scale = float(np.abs(values).max())
        assert moments.images.tolist() == [15 - (labels == 2).sum(), 15, 1, 0] and scale > 0.01
        for k in (0, 1):
            of_class = values[labels == k]
            assert np.allclose(moments.mean[k], of_class.mean(0), atol=1e-3 * scale), (layer, k)
            assert np.allclose(moments.variance[k], of_class.var(0, ddof=1), atol=1e-3 * scale**2), (layer, k)
        assert np.allclose(moments.mean[2], values[labels == 2][0], atol=2e-3 * scale), "a ReLU at 0 in float32"
        assert not moments.variance[2:].any() and not moments.mean[3].any()


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_batch_size_and_further_needs_change_nothing(name: str) -> None:
    model, graph, source = ready(name)
    result = [gather(model, graph, domain=source, needs=["class_gate"], size=size) for size in (1, 4, 1000)]
    result.append(gather(model, graph, domain=source, needs=OTHERS, size=11))
    for layer in graph.names:
        for other in result[1:]:
            for one, two in zip(result[0].class_gate[layer], other.class_gate[layer], strict=True):
                assert torch.allclose(one.double(), two.double(), rtol=1e-4, atol=1e-5)
    alone = gather(model, graph, domain=source, needs=["gate", "weight_gradient", "risk"], size=11)
    assert alone.risk == pytest.approx(result[3].risk)
    for key, value in {**alone.gate, **alone.weight_gradient}.items():
        assert torch.allclose(value, {**result[3].gate, **result[3].weight_gradient}[key], rtol=1e-4, atol=1e-6), key


def test_the_scorer_does_not_depend_on_how_many_images_a_batch_holds() -> None:
    """Effect sizes of one pass, by numpy from the slow twin's attributions: 260 images are three batches."""
    model = randomise(ResidualNet(), dtype=torch.float32)
    parts = {"train": range(10), "score": range(10, 270), "report": range(270, 280)}
    pair = [domain(name, count=280, seed=k, splits=parts) for k, name in enumerate(("a", "t"))]
    study = dg.Study(model, sources=pair[:1], targets=pair[1:])
    scores = study.score("sensitivity")
    for layer in study.graph.names:
        (first, ones), (second, others) = (by_consumer_gates(model, study.graph, layer, moments) for moments in pair)
        sizes = []
        for k in range(4):
            x, y = first[ones == k].numpy(), second[others == k].numpy()
            pooled = ((len(x) - 1) * x.var(0, ddof=1) + (len(y) - 1) * y.var(0, ddof=1)) / (len(x) + len(y) - 2)
            answers = pooled > 1e-12
            sizes.append(np.where(answers, (y.mean(0) - x.mean(0)) / np.sqrt(np.where(answers, pooled, 1)), 0))
        assert np.allclose(-scores.values[layer].numpy(), np.abs(np.mean(sizes, axis=0)), atol=1e-3), layer


def of_tokens(method: Method) -> tuple[nn.Module, FilterGraph, dg.Domain, dict[str, Tensor]]:
    """A network, its groups, a domain, and the attributions of its linear layers by Captum."""
    model, graph, source = ready("tokens")
    batch = source.take(source.rows("score"))
    assert graph.names == ["patch", "wide", "back"]
    by = Attributor(model, graph, example=batch.images[:2])
    return model, graph, source, by.values(batch, method=method, layers=["wide", "back"])


def logits(model: nn.Module, source: dg.Domain, *, light: float = 1.0) -> Tensor:
    """Of the true class, of all scored images."""
    batch = source.take(source.rows("score"))
    assert batch.labels is not None
    with torch.no_grad():
        return model(light * batch.images).gather(1, batch.labels[:, None])[:, 0]


def test_gradients_and_activations_of_tokens_are_added_up() -> None:
    model, graph, source, result = of_tokens("gradient_x_activation")
    net: Any = model
    tokens = net.patch(source.take(source.rows("score")).images).relu().flatten(2).transpose(1, 2).detach()
    wide = net.wide(tokens).relu()
    for layer, values in of_tokens("activation")[3].items():
        slow = by_consumer_gates(model, graph, layer, source)[0]
        assert torch.allclose(result[layer].double(), slow, atol=1e-3 * float(slow.abs().max()))
        expected = wide.sum(1) if layer == "wide" else net.back(wide).relu().mean(1)
        assert torch.allclose(values, expected, atol=1e-4) and values.shape == slow.shape


def test_ablation_closes_a_filter_on_all_tokens() -> None:
    model, graph, source, result = of_tokens("ablation")
    for layer, values in result.items():
        for k in range(graph[layer].filters):
            without = zeroed(model, dg.Mask.by_hand(graph, removed={layer: [k]}))
            assert torch.allclose(values[:, k], logits(model, source) - logits(without, source), atol=1e-5), (layer, k)
        assert values.abs().max() > 0.01


@pytest.mark.parametrize("method", ["integrated_gradients", "conductance"])
def test_paths_through_tokens_add_up_to_the_change_from_black(method: Method) -> None:
    model, _, source, result = of_tokens(method)
    change = logits(model, source) - logits(model, source, light=0.0)
    for values in result.values():
        assert torch.allclose(values.sum(1), change, atol=0.05 * float(change.abs().max()))


@pytest.mark.parametrize("scorer", ["taylor", "dss", "l1"])
def test_costly_fields_are_not_gathered_for_scorers_alongside(scorer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dss` reads the target's images: gates by class alongside would read its labels, too."""
    passes: list[tuple[set[Need], Statistics]] = []

    def watched(*args: Any, needs: Sequence[Need], **options: Any) -> Any:
        passes.append((set(needs), (yield from gathering(*args, needs=needs, **options))))
        return passes[-1][1]

    monkeypatch.setattr("dgprune_lab.study.scorer_inputs.gathering", watched)
    study = dg.Study(
        randomise(plain_net(), dtype=torch.float32),
        sources=[domain("a"), domain("b", seed=1)],
        targets=[domain("t", seed=2)],
    )
    later = [dg.SCORERS[name] for name in ("sensitivity", "sensitivity_sources", "taylor", "dss_sources")]
    study.score_all([scorer], alongside=later)
    reads = {"taylor": {"a", "b"}, "dss": {"a", "b", "t"}, "l1": set()}[scorer]
    assert {moments.domain for _, moments in passes} == reads and "class_gate" in COSTLY
    for needs, moments in passes:
        assert not needs & COSTLY and not moments.class_gate
        assert moments.labels_read == (moments.domain != "t"), "sources give Taylor's gates too, the target only images"
    passes.clear()
    study.score("sensitivity")
    assert {moments.domain for needs, moments in passes if "class_gate" in needs} == {"a", "b", "t"}
