"""Scorers against oracles: Torch-Pruning's importances, and gradients by finite differences."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision.models as zoo
from material import DepthwiseNet, ResidualNet, domain, norm_net, plain_net, randomise
from torch import Tensor, nn

import dgprune_lab as dg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch_pruning as tp


def studied(name: str, *, positive: bool = False) -> tuple[dg.Study, nn.Module]:
    """A study of an uncoupled network (weights of one sign if `positive`), and a copy for experiments."""
    builders: dict[str, Callable[[], nn.Module]] = {"plain": plain_net, "norm": norm_net}
    nets = [randomise(builders[name](), seed=2, dtype=torch.float32) for _ in range(2)]
    for net in nets:
        for parameter in net.parameters():
            if positive:
                parameter.data.abs_()
    return dg.Study(nets[0], sources=[domain("a", count=90), domain("b", seed=1)]), nets[1]


def theirs(model: nn.Module, importance: Any, names: list[str]) -> dict[str, Tensor]:
    """Torch-Pruning's numbers, on its own graph."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=(torch.zeros(1, 3, 12, 12),))
    scores = {}
    for name in names:
        layer = model.get_submodule(name)
        group = graph.get_pruning_group(layer, tp.prune_conv_out_channels, list(range(layer.out_channels)))  # type: ignore[arg-type]
        scores[name] = importance(group).double()
    return scores


def with_gradients(study: dg.Study, model: nn.Module) -> nn.Module:
    """The gradient of the mean over sources of the mean risk, by plain backward."""
    for source in study.sources:
        batch = source.take(source.rows("score"))
        (F.cross_entropy(model(batch.images), batch.labels) / len(study.sources)).backward()  # type: ignore[arg-type]
    return model


FIRST = {"group_reduction": "first", "normalizer": None}
SAME: dict[str, tuple[Any, Callable[[Tensor], Tensor], bool]] = {
    "l1": (tp.importance.MagnitudeImportance(p=1, **FIRST), lambda ours: ours, False),
    "l2": (tp.importance.MagnitudeImportance(p=2, **FIRST), torch.square, False),
    "fpgm": (tp.importance.FPGMImportance(p=1, **FIRST), lambda ours: ours, True),
    "lamp": (tp.importance.LAMPImportance(group_reduction="first"), lambda ours: ours, False),
    "bn_scale": (tp.importance.BNScaleImportance(**FIRST), lambda ours: ours, False),
    "taylor_weight": (tp.importance.TaylorImportance(**FIRST), lambda ours: ours, False),
    "taylor": (tp.importance.TaylorImportance(multivariable=True, bias=False, **FIRST), lambda ours: ours, False),
}


def bare(model: nn.Module) -> nn.Module:
    """Without biases in its convolutions, where the gate of a plain network is exactly the sum of w dR/dw."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.bias = None
    return model


# A plain network has no BatchNorm; where there is one, our gate comes after it and theirs before.
PAIRS = [
    (name, net)
    for name in SAME
    for net in ("plain", "norm")
    if (name, net) not in (("bn_scale", "plain"), ("taylor", "norm"))
]


@pytest.mark.parametrize(("name", "net"), PAIRS)
def test_equal_to_torch_pruning(name: str, net: str) -> None:
    importance, before_root, positive = SAME[name]
    study, twin = studied(net, positive=positive)
    if name == "taylor":
        study = dg.Study(bare(study.model), sources=study.sources)
        bare(twin)
    gradients = name.startswith("taylor")
    if gradients:
        with_gradients(study, twin)
    expected = theirs(twin, importance, study.graph.names)
    ours = study.score(name).values
    adapter = dg.from_torch_pruning(importance, gradients=gradients)
    through = study.score(adapter)
    assert through.reads == ({"a/score": "labels", "b/score": "labels"} if gradients else {})
    for key, value in expected.items():
        scale = float(value.abs().max())
        assert scale > 0
        assert torch.allclose(before_root(ours[key]), value, rtol=1e-5, atol=1e-6 * scale), key
        assert torch.allclose(through.values[key], value, rtol=1e-5, atol=1e-6 * scale), key


@pytest.mark.parametrize("multivariable", [False, True])
def test_importances_in_their_default_form_run_on_coupled_groups(multivariable: bool) -> None:
    """Their mean over a group reads the gradient of the layers that consume it too, the last one included."""
    nets = [randomise(ResidualNet(), dtype=torch.float32) for _ in range(2)]
    study = dg.Study(nets[0], sources=[domain("a")])
    for importance, gradients in (
        (tp.importance.MagnitudeImportance(), False),
        (tp.importance.TaylorImportance(multivariable=multivariable), True),
    ):
        expected = theirs(with_gradients(study, nets[1]), importance, study.graph.names)
        got = study.score(dg.from_torch_pruning(importance, gradients=gradients)).values
        for key, value in expected.items():
            assert torch.allclose(got[key], value, rtol=1e-4, atol=1e-6), key
        nets[1].zero_grad()


def test_an_importance_that_reads_gradients_it_did_not_declare_is_refused() -> None:
    study, _ = studied("norm")
    with pytest.raises(dg.DgpruneError, match=r"TaylorImportance.*gradients=True"):
        study.score(dg.from_torch_pruning(tp.importance.TaylorImportance()))

    class Silent(tp.importance.Importance):
        def __call__(self, group: Any) -> None:
            return None

    with pytest.raises(dg.DgpruneError, match=r"Silent gives no importance for layer '0'"):
        study.score(dg.from_torch_pruning(Silent()))


def test_fpgm_on_the_shapes_of_vgg16() -> None:
    """Equal to the distances taken one filter at a time, on the widest layer; all 13 layers are scored."""
    generator = torch.Generator().manual_seed(0)
    net = zoo.vgg16(num_classes=4, init_weights=False).features.eval()
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    net = nn.Sequential(net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 4))
    study = dg.Study(net, sources=[domain("a", shape=(3, 32, 32), count=12)])
    values = study.score("fpgm").values
    assert len(values) == 13
    rows = net.get_parameter("0.28.weight").detach().double().flatten(1)
    slow = torch.stack([(rows - row).norm(dim=1).sum() for row in rows[:20]])
    assert torch.allclose(values["0.28"][:20], slow, rtol=1e-8)


class PreActivation(nn.Module):
    """A dense block in miniature: BatchNorm after the first convolution AND on the concatenation that it is part of."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.norm, self.conv = nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3, padding=1, bias=False)
        self.last_norm, self.head = nn.BatchNorm2d(10), nn.Linear(10, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        x = torch.cat([x, self.conv(torch.relu(self.norm(x)))], 1)
        return self.head(torch.relu(self.last_norm(x)).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """A map multiplied by a function of its own mean."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.squeeze, self.excite = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1)
        self.project, self.head = nn.Conv2d(6, 5, 1), nn.Linear(5, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        x = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True))))) * x
        return self.head(torch.relu(self.project(x)).mean((2, 3)))


class IntoItsOwnStream(nn.Module):
    """A convolution reads the stream to which it adds: it consumes the filters that it produces."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.slope, self.head = nn.PReLU(6), nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.slope(self.stem(x))
        return self.head((x + self.inner(x)).mean((2, 3)))


class Double(nn.Module):
    """The network behind it computes in float64."""

    def forward(self, x: Tensor) -> Tensor:
        return x.double()


NETS: dict[str, Callable[[], nn.Module]] = {
    "plain": plain_net,
    "norm": norm_net,
    "residual": ResidualNet,
    "depthwise": DepthwiseNet,
    "residual_with_a_bare_shortcut": lambda: ResidualNet(shortcut_norm=False),
    "pre_activation": PreActivation,
    "squeeze_excite": SqueezeExcite,
    "into_its_own_stream": IntoItsOwnStream,
}


@pytest.mark.parametrize("name", NETS)
def test_the_gate_gradient_equals_finite_differences(name: str) -> None:
    model = nn.Sequential(Double(), randomise(NETS[name](), seed=3))
    source = domain("a", count=36, seed=5)
    study = dg.Study(model, sources=[source])
    gate = study.statistics("a", needs=["gate"]).gate
    batch = source.take(source.rows("score"))
    labels = batch.labels
    assert labels is not None

    def risk(group: Any, index: int, z: float) -> float:
        """Mean risk with one filter's output multiplied by z at every consumer input."""
        handles = []
        for consumer_input, (places, filters) in group.consumer_inputs.items():

            def hook(
                module: nn.Module, inputs: tuple[Tensor, ...], where: Tensor = places[filters == index]
            ) -> tuple[Tensor]:
                factor = torch.ones(inputs[0].shape[1], dtype=torch.float64)
                factor[where] = z
                return (inputs[0] * factor.view(-1, *[1] * (inputs[0].ndim - 2)),)

            handles.append(model.get_submodule(consumer_input).register_forward_pre_hook(hook))
        with torch.no_grad():
            value = float(F.cross_entropy(model(batch.images), labels))
        for handle in handles:
            handle.remove()
        return value

    for group in study.graph.groups:
        step = 1e-5
        slow = [(risk(group, i, 1 + step) - risk(group, i, 1 - step)) / (2 * step) for i in range(group.filters)]
        assert max(map(abs, slow)) > 1e-4
        assert gate[group.name].tolist() == pytest.approx(slow, rel=1e-5, abs=1e-7), group.name
        assert torch.equal(study.score("taylor").values[group.name], gate[group.name].abs())
