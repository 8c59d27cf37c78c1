"""Attributions per filter by Captum, on a copy on which they are correct; against slow twins."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from captum import attr
from material import ResidualNet, domain, fingerprint, norm_net, plain_net, randomise, zeroed
from material import images as random_images
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core.domain import Batch
from dgprune_lab.core.errors import DgpruneError
from dgprune_lab.measurement.attributions import STEPS, TOGETHER, Attributor, Method, separated

NETS = {"plain": plain_net, "norm": norm_net, "residual": ResidualNet}
METHODS: tuple[Method, ...] = ("gradient_x_activation", "activation", "integrated_gradients", "conductance", "ablation")


def ready(name: str) -> tuple[Any, Any, Attributor]:
    """A network with random weights, a batch of 10 images and its attributor."""
    model = randomise(NETS[name](), dtype=torch.float32)
    data = domain("a", count=30)
    batch = data.take(data.rows("score"))
    graph = dg.read_groups(model, batch.images[:2])
    return model, batch, Attributor(model, graph, example=batch.images[:2])


def gates(model: nn.Module, attributor: Attributor, batch: Any, layer: str) -> Tensor:
    """The slow twin of gradient x activation: d logit / d gate at 1, image by image, by central differences."""
    group = attributor.graph[layer]
    twin = copy.deepcopy(model).double()
    factor = torch.ones(group.filters, dtype=torch.float64)

    def hook(end: str) -> Any:
        positions, filters = group.end_places[end]

        def gate(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            all_at_once = torch.ones(output.shape[1], dtype=torch.float64)
            all_at_once[positions] = factor[filters]
            return output * all_at_once.view(-1, *(1,) * (output.ndim - 2))

        return gate

    for end in group.ends:
        twin.get_submodule(end).register_forward_hook(hook(end))
    result = torch.zeros(len(batch.images), group.filters, dtype=torch.float64)
    for k in range(group.filters):
        logits = []
        for step in (1e-5, -1e-5):
            factor.fill_(1.0)
            factor[k] += step
            with torch.no_grad():
                logits.append(twin(batch.images.double()).gather(1, batch.labels[:, None])[:, 0])
        result[:, k] = (logits[0] - logits[1]) / 2e-5
    return result


@pytest.mark.parametrize("name", NETS)
def test_gradient_x_activation_is_the_derivative_by_a_gate(name: str) -> None:
    model, batch, by = ready(name)
    result = by.values(batch, method="gradient_x_activation", layers=by.graph.names)
    for layer in by.graph.names:
        slow = gates(model, by, batch, layer)
        assert slow.abs().max() > 0.01
        assert torch.allclose(result[layer].double(), slow, atol=1e-4 * float(slow.abs().max())), layer


@pytest.mark.parametrize("name", NETS)
def test_ablation_is_the_drop_of_the_logit_without_the_filter(name: str) -> None:
    model, batch, by = ready(name)
    with torch.no_grad():
        full = model(batch.images).gather(1, batch.labels[:, None])[:, 0]
        for layer, result in by.values(batch, method="ablation", layers=by.graph.names).items():
            for k in range(by.graph[layer].filters):
                mask = dg.Mask.by_hand(by.graph, removed={layer: [k]})
                lost = full - zeroed(model, mask)(batch.images).gather(1, batch.labels[:, None])[:, 0]
                assert torch.allclose(result[:, k], lost, atol=1e-5)
            assert result.abs().max() > 0.01


@pytest.mark.parametrize("name", NETS)
def test_activation_is_the_sum_at_the_consumer_input(name: str) -> None:
    model, batch, by = ready(name)
    for layer, result in by.values(batch, method="activation", layers=by.graph.names).items():
        group, recorded = by.graph[layer], []
        consumer = group.consumers[-1]
        handle = model.get_submodule(consumer).register_forward_pre_hook(
            lambda _, x, recorded=recorded: recorded.append(x[0].clone())
        )
        with torch.no_grad():
            model(batch.images)
        handle.remove()
        slow = torch.zeros(len(batch.images), group.filters)
        for place, filter_ in zip(*(part.tolist() for part in group.consumer_inputs[consumer]), strict=True):
            slow[:, filter_] += recorded[0][:, place].reshape(len(slow), -1).sum(1)
        assert torch.allclose(result, slow, atol=1e-5) and slow.std() > 0


def test_integrated_gradients_add_up_to_the_logit_and_its_value_on_black() -> None:
    model, batch, by = ready("norm")
    with torch.no_grad():
        change = (model(batch.images) - model(torch.zeros_like(batch.images))).gather(1, batch.labels[:, None])[:, 0]
    for method in ("integrated_gradients", "conductance"):
        for layer in by.graph.names:
            total = by.values(batch, method=method, layers=[layer])[layer].sum(1)
            assert torch.allclose(total, change, atol=0.05 * float(change.abs().max())), (method, layer)


def test_integrated_gradients_take_one_layer_at_a_time() -> None:
    """Integrated gradients over a list of layers move all of them at once; ours are those of each layer alone."""
    model, batch, by = ready("residual")
    apart = separated(model, batch.images[:2])
    names = ["stem_norm", "inner_norm"]
    layers = [apart.get_submodule(name) for name in names]
    images = batch.images.clone().requires_grad_()
    single: Any = attr.LayerIntegratedGradients(apart, layers[1])
    alone = single.attribute(images, target=batch.labels, n_steps=STEPS).sum((2, 3))
    with pytest.warns(UserWarning, match="Multiple layers"):
        mixed: Any = attr.LayerIntegratedGradients(apart, layers)
    listed = mixed.attribute(images, target=batch.labels, n_steps=STEPS)
    ours = {name: by.values(batch, method="integrated_gradients", layers=[name])[name] for name in ("stem", "inner")}
    assert not torch.allclose(listed[0].sum((2, 3)), ours["stem"], atol=1e-3)
    assert torch.allclose(ours["inner"], alone, atol=1e-5)


def test_captum_fails_on_shared_in_place_modules_and_works_on_the_copy() -> None:
    """On torchvision's network DeepLift and integrated gradients fail; on the copy they work and add up."""
    import torchvision

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = torchvision.models.resnet18(weights=None, num_classes=4).eval()
    images = random_images(3, 3, 32, 32)
    target = torch.tensor([0, 1, 2])
    before = fingerprint(model)
    apart = separated(model, images)
    assert torch.equal(apart(images), model(images)) and fingerprint(model) == before
    assert model.layer1[0].relu.inplace and not any(getattr(m, "inplace", False) for m in apart.modules())
    data = images.clone().requires_grad_()
    with pytest.raises(RuntimeError, match="used more than once"):
        attr.LayerDeepLift(model, model.layer1[0].bn1).attribute(data, torch.zeros_like(images), target=target)
    deep: Any = attr.LayerDeepLift(apart, apart.get_submodule("maxpool"))
    lifted = deep.attribute(data, torch.zeros_like(images), target=target)
    with torch.no_grad():
        change = (model(images) - model(torch.zeros_like(images))).gather(1, target[:, None])[:, 0]
    assert torch.allclose(lifted.flatten(1).sum(1), change, atol=0.02 * float(change.abs().max()))
    with pytest.raises(RuntimeError, match="in-place"):
        attr.LayerIntegratedGradients(model, model.layer1[0].bn2).attribute(data, target=target, n_steps=2)
    by = Attributor(model, dg.read_groups(model, images[:2]), example=images[:2])
    result = by.values(Batch(images, target, torch.arange(3)), method="integrated_gradients", layers=["layer2.0.conv2"])
    assert torch.isfinite(result["layer2.0.conv2"]).all()


def test_a_reused_relu_becomes_one_module_per_call() -> None:
    model, batch, _ = ready("plain")
    apart: Any = separated(model, batch.images[:2])
    assert apart[1] is apart[4] and len(apart[1].copies) == 2
    sizes: list[Any] = [[], []]
    for turn, data in zip(apart[1].copies, sizes, strict=True):
        turn.register_forward_hook(lambda _m, _i, output, data=data: data.append(tuple(output.shape[1:])))
    apart(batch.images)
    apart(batch.images)
    assert sizes == [[(6, 12, 12)] * 2, [(8, 6, 6)] * 2]


@pytest.mark.parametrize("method", METHODS)
def test_every_number_comes_from_captum(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    _, batch, by = ready("norm")

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("Captum was asked")

    for name in (
        "LayerGradientXActivation",
        "LayerActivation",
        "LayerIntegratedGradients",
        "LayerConductance",
        "FeatureAblation",
    ):
        monkeypatch.setattr(f"captum.attr.{name}.attribute", refuse)
    with pytest.raises(RuntimeError, match="Captum was asked"):
        by.values(batch, method=method, layers=["0"])


def test_all_layers_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    _, batch, by = ready("residual")
    layer_counts: list[int] = []
    real = attr.LayerGradientXActivation.__init__

    def counting(self: Any, model: Any, layer: Any, *rest: Any) -> None:
        layer_counts.append(len(layer))
        real(self, model, layer, *rest)

    monkeypatch.setattr(attr.LayerGradientXActivation, "__init__", counting)
    by.values(batch, method="gradient_x_activation", layers=by.graph.names)
    assert layer_counts == [len({end for group in by.graph.groups for end in group.ends})]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("method", METHODS)
def test_maps_add_up_to_the_values(name: str, method: Method) -> None:
    model, batch, by = ready(name)
    before = fingerprint(model)
    layer = by.graph.names[-1]
    shown: Method = "gradient_x_activation" if method == "ablation" else method
    values = by.values(batch, method=shown, layers=[layer])[layer]
    maps = by.maps(batch, method=method, layer=layer, filter=2)
    assert maps.ndim == 3 and torch.allclose(maps.flatten(1).sum(1), values[:, 2], atol=1e-5)
    assert fingerprint(model) == before


def test_a_call_holds_a_bounded_amount() -> None:
    _, _, by = ready("norm")
    assert by.batch_size("gradient_x_activation") == 125
    by._shapes["huge"] = (10, 1000, 1000)
    assert by.batch_size("gradient_x_activation") == 1 and by.batch_size("conductance") == 1
    assert set(TOGETHER) == {"gradient_x_activation", "activation"}


class Joined(nn.Module):
    """Two convolutions joined before one BatchNorm, which has more channels than either group."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1)
        self.norm, self.last, self.head = nn.BatchNorm2d(9), nn.Conv2d(9, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        joined = self.norm(torch.cat([self.a(x), self.b(x)], 1)).relu()
        return self.head(self.last(joined).relu().mean((2, 3)))


def test_each_group_has_its_own_positions_behind_a_concatenation() -> None:
    model = randomise(Joined(), dtype=torch.float32)
    data = domain("a", count=30)
    batch: Any = data.take(data.rows("score"))
    by = Attributor(model, dg.read_groups(model, batch.images[:2]), example=batch.images[:2])
    assert by.graph.names[:2] == ["a", "b"]
    gradient = by.values(batch, method="gradient_x_activation", layers=["b"])["b"]
    assert torch.allclose(gradient.double(), gates(model, by, batch, "b"), atol=1e-4) and gradient.abs().max() > 0.01
    with torch.no_grad():
        full = model(batch.images).gather(1, batch.labels[:, None])[:, 0]
        result = by.values(batch, method="ablation", layers=["b"])["b"]
        for k in range(5):
            mask = dg.Mask.by_hand(by.graph, removed={"b": [k]})
            lost = full - zeroed(model, mask)(batch.images).gather(1, batch.labels[:, None])[:, 0]
            assert torch.allclose(result[:, k], lost, atol=1e-5)


def test_a_flattened_map_has_the_shape_of_the_layer_before() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d((3, 2)), nn.Flatten(), nn.Linear(120, 4))
    model, images = randomise(net, dtype=torch.float32), random_images(4, 3, 12, 12)
    by = Attributor(model, dg.read_groups(model, images[:2]), example=images[:2])
    batch = Batch(images, torch.arange(4), torch.arange(4))
    with torch.no_grad():
        pooled = model[:3](images)
    assert torch.allclose(by.maps(batch, method="activation", layer="0", filter=2), pooled[:, 2])


def test_one_image_too_large_for_all_steps_takes_them_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    _, batch, by = ready("norm")
    one = Batch(batch.images[:1], batch.labels[:1], batch.index[:1])
    for method in ("integrated_gradients", "conductance"):
        all_at_once = by.values(one, method=method, layers=["0"])["0"]
        with monkeypatch.context() as small:
            small.setattr("dgprune_lab.measurement.attributions._BYTES", 12 * 30_000)
            assert by.batch_size(method) == 1 and 2 <= by._max_images < STEPS
            assert torch.allclose(by.values(one, method=method, layers=["0"])["0"], all_at_once, atol=1e-5)


class Twice(nn.Module):
    """Calls one convolution two times."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.second(self.first(x)).relu()).mean((2, 3)))


def test_a_layer_that_is_called_twice_is_refused() -> None:
    model, x = randomise(Twice(), dtype=torch.float32), domain("a").take(torch.arange(2)).images
    graph = dg.read_groups(model, x)
    if not any("second" in group.ends for group in graph.groups):
        pytest.skip("the groups leave the reused layer alone")
    with pytest.raises(DgpruneError, match="called 2 times for one image"):
        Attributor(model, graph, example=x)
