"""One pass equals keeping every activation; memory does not grow; BatchNorm is re-estimated by definition."""

from __future__ import annotations

import copy
import tracemalloc
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from material import DepthwiseNet, ResidualNet, domain, fingerprint, images, norm_net, plain_net, randomise
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import dgprune_lab as dg
from dgprune_lab.core.graph import FilterGraph
from dgprune_lab.core.statistics import Need, Statistics
from dgprune_lab.measurement.recalibrate import calibration_batches
from dgprune_lab.measurement.statistics import gather

ALL: tuple[Need, ...] = ("mean_map", "moments", "gate", "weight_gradient")


class FlattenedByHand(nn.Module):
    """A view instead of a Flatten, a functional in-place ReLU and two consumers of one map."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv, self.side, self.head = nn.Conv2d(3, 5, 3, stride=3), nn.Conv2d(5, 5, 1), nn.Linear(80, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.conv(x))
        x = F.relu_(x + self.side(x))
        return self.head(x.reshape(len(x), -1))


NETS: dict[str, Callable[[], nn.Module]] = {
    "plain": plain_net,
    "norm": norm_net,
    "residual": ResidualNet,
    "depthwise": DepthwiseNet,
    "by_hand": FlattenedByHand,
}


def net(name: str) -> tuple[nn.Module, FilterGraph]:
    model = randomise(NETS[name](), seed=4, dtype=torch.float32)
    return model, dg.read_groups(model, images(2, 3, 12, 12))


def activations(model: nn.Module, graph: FilterGraph, x: Tensor) -> dict[str, Tensor]:
    """Every group's output on all images at once: a copy of its last consumer's input, (N, C, positions)."""
    kept: dict[str, Tensor] = {}
    for group in graph.groups:
        places, filters = group.consumer_inputs[group.consumers[-1]]

        def hook(
            _: nn.Module,
            inputs: tuple[Tensor, ...],
            key: str = group.name,
            places: Tensor = places,
            filters: Tensor = filters,
        ) -> None:
            maps = [inputs[0][:, places[filters == f]].flatten(1).clone() for f in range(int(filters.max()) + 1)]
            kept[key] = torch.stack(maps, 1).double()

        model.get_submodule(group.consumers[-1]).register_forward_pre_hook(hook)
    with torch.no_grad():
        model(x)
    return kept


@pytest.mark.parametrize("name", NETS)
def test_one_pass_equals_all_activations(name: str) -> None:
    model, graph = net(name)
    source = domain("a", count=90, seed=6)
    before = fingerprint(model)
    result = gather(model, graph, domain=source, needs=ALL, size=7)
    assert fingerprint(model) == before
    batch = source.take(source.rows("score"))
    slow = activations(net(name)[0], graph, batch.images)
    assert (result.domain, result.split, result.images, result.labels_read) == ("a", "score", 30, True)
    for group in graph.groups:
        y = slow[group.name]
        assert result.mean_map[group.name].shape[0] == group.filters
        assert torch.allclose(result.mean_map[group.name].flatten(1), y.mean(0), atol=1e-5)
        expected = (y.mean((0, 2)), y.abs().mean((0, 2)), y.square().mean((0, 2)), (y == 0).double().mean((0, 2)))
        for got, want in zip(result.moments[group.name], expected, strict=True):
            assert got.dtype == torch.float64 and torch.allclose(got, want, atol=1e-5)
    assert any(float(m.zero_share.max()) > 0 for m in result.moments.values())
    loss = F.cross_entropy(model(batch.images), batch.labels)  # type: ignore[arg-type]
    loss.backward()
    assert result.risk == pytest.approx(float(loss.detach()), rel=1e-5)
    for key, gradient in result.weight_gradient.items():
        assert torch.allclose(gradient, model.get_parameter(key).grad.double(), atol=1e-5), key  # type: ignore[union-attr]


def test_a_consumer_called_twice_does_not_double_the_map() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.again, self.head = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 5, 1), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.conv(x))
            return self.head((self.again(x) + self.again(x)).mean((2, 3)))

    model = randomise(Twice(), dtype=torch.float32)
    source = domain("a")
    graph = dg.read_groups(model, images(2, 3, 12, 12))
    result = gather(model, graph, domain=source, needs=["mean_map", "moments"])
    with torch.no_grad():
        y = torch.relu(model.conv(source.take(source.rows("score")).images)).double()
    assert torch.allclose(result.mean_map["conv"], y.mean(0), atol=1e-5)
    assert torch.allclose(result.moments["conv"].mean, y.mean((0, 2, 3)), atol=1e-5)


def test_class_maps_are_means_behind_the_pooling_over_each_predicted_class() -> None:
    model, graph = net("plain")
    source = domain("a", count=90)
    batch = source.take(source.rows("score"))
    found = gather(model, graph, domain=source, needs=["class_map"], size=7).class_map
    with torch.no_grad():
        predicted, slow = model(batch.images).argmax(1), activations(net("plain")[0], graph, batch.images)
    assert len(predicted.unique()) > 1
    for name, (mean, count) in found.items():
        for k in range(4):
            rows = slow[name].mean(2)[predicted == k]
            assert count[k] == len(rows)
            assert torch.allclose(
                mean[k], rows.mean(0) if len(rows) else torch.zeros(rows.shape[1]).double(), atol=1e-5
            )


def test_maps_keep_their_shape() -> None:
    model, graph = net("plain")
    maps = gather(model, graph, domain=domain("a"), needs=["mean_map"]).mean_map
    assert maps["0"].shape == (6, 6, 6) and maps["3"].shape == (8, 9), "pooled by two; nine places after a flatten"


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_batches_of_any_size_give_the_same_sums(name: str) -> None:
    model, graph = net(name)
    source = domain("a", count=90)
    result = [gather(model, graph, domain=source, needs=ALL, size=size) for size in (1, 4, 30, 1000)]

    def numbers(statistics: Statistics) -> Tensor:
        parts = [*statistics.mean_map.values(), *(t for m in statistics.moments.values() for t in m)]
        return torch.cat(
            [t.flatten() for t in (*parts, *statistics.gate.values(), *statistics.weight_gradient.values())]
        )

    for other in result[1:]:
        assert torch.allclose(numbers(result[0]), numbers(other), rtol=1e-4, atol=1e-5)


def test_only_needed_fields_are_filled_and_labels_are_not_read() -> None:
    model, graph = net("norm")
    bare = domain("a", labelled=False)
    result = gather(model, graph, domain=bare, needs=["moments"])
    assert not result.labels_read and result.risk is None
    assert result.moments and not (result.mean_map or result.gate or result.weight_gradient)
    with pytest.raises(dg.DgpruneError, match=r"'a' has no labels; the risk, its gradients and classes need them"):
        gather(model, graph, domain=bare, needs=["gate"])
    with pytest.raises(dg.DgpruneError, match=r"no split 'test'; it has: train, score, report"):
        gather(model, graph, domain=bare, needs=["moments"], split="test")


def test_every_source_has_the_same_weight() -> None:
    model, _ = net("norm")
    few, many = domain("few", count=30), domain("many", count=300, seed=2)
    study = dg.Study(model, sources=[few, many])
    alone = [dg.Study(model, sources=[data]).score("activation_l1").values for data in (few, many)]
    both = study.score("activation_l1").values
    for key in both:
        assert torch.allclose(both[key], (alone[0][key] + alone[1][key]) / 2)
        assert not torch.allclose(alone[0][key], alone[1][key], rtol=1e-4)


class Peak(TorchDispatchMode):
    """Counts the bytes of every storage that operations allocate, while it is alive."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.known = {StorageWeakRef(tensor.untyped_storage()).cdata for tensor in known}
        self.data: dict[int, tuple[StorageWeakRef, int]] = {}
        self.top = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                reference = StorageWeakRef(leaf.untyped_storage())
                if reference.cdata not in self.known:
                    self.data[reference.cdata] = reference, leaf.untyped_storage().nbytes()
        self.data = {key: entry for key, entry in self.data.items() if not entry[0].expired()}
        self.top = max(self.top, sum(size for _, size in self.data.values()))
        return result


def peak(count: int) -> tuple[int, int]:
    """Most bytes of tensors, and of Python objects, that scoring by everything at once holds above the images."""
    parts: dict[str, Any] = {"score": range(count), "train": [], "report": []}
    data = [domain(name, count=count, splits=parts, seed=k) for k, name in enumerate("abt")]
    model: Any = randomise(norm_net(), seed=1, dtype=torch.float32)
    with torch.no_grad():  # so that it predicts more than one class, which a layer with maps of 1 x 1 is scored by
        model[9].bias.sub_(model.eval()(images(200, 3, 12, 12)).mean(0))
    study = dg.Study(model, sources=data[:2], targets=data[2:])
    study.graph.cost()
    tracemalloc.start()
    own = [[d.images, d.labels, *d.splits.values()] for d in data]
    known = [t for part in own for t in part if t is not None]
    with Peak([*known, *model.parameters(), *model.buffers()]) as watch, warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.DgpruneNote)  # of maps of 1 x 1 and of few images
        study.score_all(list(dg.SCORERS))
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return watch.top, python


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images() -> None:
    peak(250)  # for one-time set-up
    (few, few_python), (many, many_python) = peak(500), peak(1500)
    batch = 250 * 6 * 12 * 12 * 4
    assert few > batch, "nothing was recorded"
    assert abs(many - few) < 0.05 * few
    assert abs(many_python - few_python) < 0.05 * few, "a copy of the images in plain bytes counts as well"


def test_recalibrate_equals_its_definition() -> None:
    """250 images a batch, the first of each source's train split in equal shares, plain average over the batches."""
    model = randomise(ResidualNet(), dtype=torch.float32).train()
    sources = [domain(name, count=900, seed=k).as_role("source") for k, name in enumerate("ab")]
    target = domain("t", seed=9).as_role("target")
    before = fingerprint(model)
    fresh = dg.recalibrate(model, [sources[0], target, sources[1]])
    assert fingerprint(model) == before

    twin = copy.deepcopy(model).eval()
    norms = {name: m for name, m in twin.named_modules() if isinstance(m, nn.BatchNorm2d)}
    recorded: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in norms}
    for name, layer in norms.items():
        layer.train().momentum = 0.0

        def hook(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
            y = inputs[0].transpose(0, 1).flatten(1)
            recorded[name].append((y.mean(1), y.var(1)))

        layer.register_forward_pre_hook(hook)
    for start in (0, 125):
        rows = [data.take(data.rows("train")[start : start + 125]).images for data in sources]
        with torch.no_grad():
            twin(torch.cat(rows))
    for name, data in recorded.items():
        layer = fresh.get_submodule(name)
        assert torch.allclose(layer.running_mean, torch.stack([m for m, _ in data]).mean(0), atol=1e-5)  # type: ignore[arg-type]
        assert torch.allclose(layer.running_var, torch.stack([v for _, v in data]).mean(0), rtol=1e-4)  # type: ignore[arg-type]
        assert not torch.allclose(layer.running_mean, model.get_submodule(name).running_mean)  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, fresh.get_parameter(name))
    assert all(m.training for m in fresh.modules()), "the modes are those of the argument"
    momenta = {m.momentum for m in fresh.modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {0.1}


def test_recalibrate_reads_only_train_images_of_sources_and_records_it() -> None:
    model = randomise(norm_net(), dtype=torch.float32)
    parts = {"train": range(20), "score": range(20, 40), "report": range(40, 60)}
    data = domain("a", splits=parts)
    pixels = data.images.clone()
    pixels[20:] = 1 - pixels[20:]
    other = dg.Domain.from_arrays("a", images=pixels, labels=3 - data.labels, splits=parts)  # type: ignore[operator]
    target, elsewhere = domain("t", seed=1).as_role("target"), domain("t", seed=2).as_role("target")
    one = dg.recalibrate(model, [data.as_role("source"), target], images=50)
    two = dg.recalibrate(model, [other.as_role("source"), elsewhere], images=50)
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), two.buffers(), strict=True))
    assert dg.provenance_of(one).finetuning == {"a/train": "images"}
    assert dg.provenance_of(one).training is None and dg.provenance_of(model).finetuning == {}


def test_recalibrate_without_batchnorm_is_a_copy() -> None:
    model = randomise(plain_net(), dtype=torch.float32)
    twin = dg.recalibrate(model, [domain("a")])
    assert all(
        torch.equal(a, b) and a.data_ptr() != b.data_ptr()
        for a, b in zip(model.parameters(), twin.parameters(), strict=True)
    )
    assert dg.provenance_of(twin).finetuning == {}


def test_sources_share_the_images_of_recalibrate_and_the_first_get_the_rest() -> None:
    batches = calibration_batches([domain(name, seed=k) for k, name in enumerate("abc")], 20)
    assert [len(rows) for batch in batches for _, rows in batch] == [7, 7, 6]


def test_recalibrate_needs_a_source_with_enough_train_images() -> None:
    model = randomise(norm_net(), dtype=torch.float32)
    bare = domain("a", splits={"score": range(30), "report": range(30, 60)})
    with pytest.raises(dg.DgpruneError, match=r"needs a source with a train split; sources here: 'a'"):
        dg.recalibrate(model, [bare])
    with pytest.raises(dg.DgpruneError, match=r"needs a source with a train split"):
        dg.recalibrate(model, [domain("t").as_role("target")])
    with pytest.raises(dg.DgpruneError, match=r"at least 2 images; got 1"):
        dg.recalibrate(model, [domain("a")], images=1)
    with pytest.raises(dg.DgpruneError, match=r"train"):
        dg.recalibrate(model, [domain("a", splits={"train": [], "report": range(60)})])
    few = dg.recalibrate(model, [domain("a", splits={"train": range(3), "report": range(3, 60)})])
    assert all(bool(torch.isfinite(buffer).all()) for buffer in few.buffers())


@pytest.mark.filterwarnings("ignore:.*keep no running statistics")
def test_a_batchnorm_without_scale_gets_a_gate_too() -> None:
    net: Any = norm_net()
    net[1], net[5] = nn.BatchNorm2d(6, affine=False), nn.BatchNorm2d(8, affine=False)
    randomise(net, seed=3, dtype=torch.float32)
    study = dg.Study(net, sources=[domain("a")])
    result = study.statistics("a", needs=["gate"]).gate
    gates = {"1": torch.ones(6, 1, 1, requires_grad=True), "5": torch.ones(8, 1, 1, requires_grad=True)}
    hooks = [net.get_submodule(k).register_forward_hook(lambda _, __, y, z=z: y * z) for k, z in gates.items()]
    batch = study.sources[0].take(study.sources[0].rows("score"))
    assert batch.labels is not None
    expected_gradients = torch.autograd.grad(F.cross_entropy(net(batch.images), batch.labels), list(gates.values()))
    for hook in hooks:
        hook.remove()
    for name, value in zip(("0", "4"), expected_gradients, strict=True):
        assert torch.allclose(result[name], value.flatten().double(), atol=1e-6), name
    net[1] = nn.BatchNorm2d(6, affine=False, track_running_stats=False)
    with pytest.raises(dg.DgpruneError, match="neither scale nor statistics"):
        dg.Study(net, sources=[domain("a")]).statistics("a", needs=["gate"])
