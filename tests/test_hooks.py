"""The optimisations of a pass change no sum: blocks, memory formats, batched co-moments, gates, the study's cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from material import ResidualNet, domain, images, norm_net, plain_net, randomise
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core.statistics import Need, Statistics
from dgprune_lab.measurement import co_moments, collectors
from dgprune_lab.measurement.co_moments import Classes, PairSums
from dgprune_lab.measurement.statistics import gather, gathering
from dgprune_lab.study.cache import Cache

NEEDS: tuple[Need, ...] = (
    "activation_map",
    "activation_unit_map",
    "mean_map",
    "unit_map",
    "conv_map",
    "conv_unit_map",
    "class_map",
    "moments",
    "gate",
    "weight_gradient",
    "co_moments",
    "class_co_moments",
)


def leaves(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [leaf for part in (value.values() if isinstance(value, dict) else value) for leaf in leaves(part)]


def numbers(result: Statistics) -> Tensor:
    """Every number of a pass, concatenated."""
    selected = [leaf for need in NEEDS for leaf in leaves(getattr(result, need))]
    assert all(getattr(result, need) for need in NEEDS) and len(selected) > len(NEEDS)
    return torch.cat([leaf.double().flatten() for leaf in selected])


@pytest.mark.parametrize("make", [plain_net, norm_net, ResidualNet])
def test_memory_formats_blocks_and_waiting_rows_change_no_sum(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomise(make(), seed=4, dtype=torch.float32)
    graph, source = dg.read_groups(model, images(2, 3, 12, 12)), domain("a", count=120)

    def result(layout: torch.memory_format) -> Tensor:
        return numbers(gather(model, graph, domain=source, needs=NEEDS, size=9, layout=layout))

    first = result(torch.contiguous_format)
    assert torch.allclose(first, result(torch.channels_last), rtol=1e-3, atol=1e-4)
    monkeypatch.setattr(collectors, "_BLOCK", 1000)  # one to four images of these maps
    monkeypatch.setattr(co_moments, "_ROWS", 20)
    for layout in (torch.contiguous_format, torch.channels_last):
        assert torch.allclose(first, result(layout), rtol=1e-3, atol=1e-4)


def test_the_memory_format_is_tried_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    class Flattens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 5, 3), nn.Linear(500, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.conv(x)).view(len(x), -1))

    layouts: list[bool] = []
    for make in (Flattens, plain_net):
        model: Any = randomise(make(), dtype=torch.float32)
        graph = dg.read_groups(model, images(2, 3, 12, 12))
        take = dg.Domain.batches

        def batches(self: dg.Domain, *args: Any, take: Any = take, **options: Any) -> Any:
            layouts.append(options["layout"] == torch.channels_last)
            return take(self, *args, **options)

        monkeypatch.setattr(dg.Domain, "batches", batches)
        assert gather(model, graph, domain=domain("a"), needs=["gate", "mean_map"]).gate
        monkeypatch.undo()
    assert layouts == [False, True]


@pytest.mark.parametrize("rows", [1, 10, 1000])
def test_waiting_rows_are_added_class_by_class(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class 2 has no image, class 1 a single one, and most batches lack a class."""
    monkeypatch.setattr(co_moments, "_ROWS", rows)
    labels = torch.tensor([0, 3, 3, 0, 1, 3, 0, 0, 3, 0, 3, 0, 0, 3])
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(len(labels), width, generator=generator, dtype=torch.float64) for width in (70, 3))
    sums = PairSums(x, y, classes=(classes := Classes(labels, 4)))
    for part in torch.arange(len(labels)).split(4):
        classes.begin(part)
        sums.add(x[part], y[part])
    result = sums.result()
    assert result.images.tolist() == [7, 1, 0, 6] and result.shuffled.shape == (4, 64, 3)
    for k in range(4):
        a, b = x[labels == k], y[labels == k]
        assert torch.allclose(result.cross[k], a.T @ b) and torch.allclose(
            result.shuffled[k], a[:, :64].roll(1, 0).T @ b
        )
        assert torch.allclose(result.first[:, k], torch.stack([a.sum(0), a.square().sum(0)]))
        assert torch.allclose(result.second[:, k], torch.stack([b.sum(0), b.square().sum(0)]))


def test_a_gate_on_a_layer_without_batchnorm_is_its_weights_times_their_gradients() -> None:
    """Of a layer that is linear in its weights, sum y dL/dy = sum w dL/dw + sum b dL/db; of hidden units too."""
    model = randomise(plain_net(), dtype=torch.float32)
    graph = dg.read_groups(model, images(2, 3, 12, 12), layers="all")
    result = gather(model, graph, domain=domain("a"), needs=["gate", "weight_gradient"])
    assert [group.name for group in graph.groups] == ["0", "3", "7"]
    for name, gate in result.gate.items():
        products = [
            model.get_parameter(f"{name}.{part}").detach().double() * result.weight_gradient[f"{name}.{part}"]
            for part in ("weight", "bias")
        ]
        assert torch.allclose(gate, products[0].flatten(1).sum(1) + products[1], atol=1e-6)
        assert float(gate.abs().max()) > 1e-3
    assert set(result.weight_gradient) <= {name for name, _ in model.named_parameters()}


def test_waiting_responses_are_copies_that_no_in_place_layer_rewrites() -> None:
    """In float64 nothing is converted, so nothing is copied on the way."""

    class Double(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.double()

    result = []
    for in_place in (True, False):
        hidden = nn.Sequential(nn.Flatten(), nn.Linear(5 * 16, 6), nn.ReLU(in_place), nn.Linear(6, 4))
        model = nn.Sequential(
            Double(), randomise(nn.Sequential(nn.Conv2d(3, 5, 3, stride=3), nn.ReLU(in_place), hidden))
        )
        graph = dg.read_groups(model, images(2, 3, 12, 12), layers="all")
        needs: list[Need] = ["co_moments", "class_co_moments", "moments", "class_map", "gate"]
        result.append(gather(model, graph, domain=domain("a", count=60), needs=needs, size=6))
    assert list(result[0].co_moments) == [("1.0", "1.2.1"), ("1.2.1", "1.2.3")]
    for one, other in zip(
        *(leaves([s.co_moments, s.class_co_moments, s.moments, s.gate]) for s in result), strict=True
    ):
        assert torch.allclose(one.double(), other.double())


class TestRoom:
    def test_the_size_limit_is_raised_until_its_end(self) -> None:
        cache = Cache(limit=lambda _: 10)
        with cache.room(20):
            for k in range(3):
                cache.put((k,), str(k), size=10)
            assert [cache.get((k,)) for k in range(3)] == ["0", "1", "2"]
        assert [cache.get((k,)) for k in range(3)] == [None, None, "2"]

    def test_it_ends_when_something_raises(self) -> None:
        cache = Cache(limit=lambda _: 10)
        with pytest.raises(KeyError), cache.room(20):
            cache.put(("a",), 1, size=10)
            cache.put(("b",), 2, size=10)
            raise KeyError
        assert cache.get(("a",)) is None and cache.get(("b",)) == 2

    def test_the_smallest_matching_entry_is_found(self) -> None:
        cache = Cache(limit=lambda _: 100)
        for size in (30, 10, 20):
            cache.put((size,), size, size=size)
        assert cache.find(lambda key: True) == 10 and cache.find(lambda key: key != (10,)) == 20
        assert cache.find(lambda key: False) is None

    def test_scorers_share_one_pass_even_above_the_cache_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(Cache.__init__.__kwdefaults__ or {}, "limit", lambda _: 1000)
        passes: list[tuple[str, tuple[Need, ...]]] = []

        def counted(*args: Any, **options: Any) -> Any:
            passes.append((options["domain"].name, options["needs"]))
            return gathering(*args, **options)

        monkeypatch.setattr("dgprune_lab.study.scorer_inputs.gathering", counted)
        selected = dg.Study(
            randomise(plain_net(), seed=4, dtype=torch.float32),
            sources=[domain("a", count=120), domain("b", count=120, seed=1)],
            targets=[domain("t", seed=2)],
        )
        with pytest.warns(dg.DgpruneNote, match="connections are correlations"):
            selected.score_all(["gc_net", "taylor", "apoz", "dss"])
        assert [name for name, _ in passes] == ["a", "b", "t"]

    def test_co_moments_are_evicted_before_other_fields(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(Cache.__init__.__kwdefaults__ or {}, "limit", lambda _: 2000)
        selected = dg.Study(
            randomise(plain_net(), seed=4, dtype=torch.float32),
            sources=[domain("a", count=120), domain("b", count=120, seed=1)],
        )
        with pytest.warns(dg.DgpruneNote, match="connections are correlations"):
            selected.score_all(["gc_net", "taylor"])
        kept = [key[4] for key in selected._cache._entries if key[0] == "statistics"]
        assert kept == [("gate",), ("gate",)]
        monkeypatch.setattr("dgprune_lab.study.scorer_inputs.gathering", None)
        for name in ("a", "b"):
            assert selected.statistics(name, needs=["gate"]).gate
