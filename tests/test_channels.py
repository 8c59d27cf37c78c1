"""Which filters go together, kind by kind: each works, in full or in part, or is refused in words."""

from __future__ import annotations

import pickle
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
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
from torchvision.models.feature_extraction import create_feature_extractor

import dgprune_lab as dg
from dgprune_lab.core import MacCounter
from dgprune_lab.pruning import elements, refusals, verify
from dgprune_lab.pruning.surgery import zeroing
from dgprune_lab.study import prunable_words

Operation = Callable[[Any, Tensor], Tensor]


class Net(nn.Module):
    """Convolution a, an operation, convolutions b and c, mean, linear layer."""

    def __init__(self, operation: Operation, *, width: int = 16, **layers: Any) -> None:
        super().__init__()
        self.operation = operation
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.a, self.b, self.c = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(width, 12, 3), nn.Conv2d(12, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.operation(self, self.a(x).relu())).relu()
        return self.head(self.c(x).relu().mean((2, 3)))


class Blur(nn.Module):
    """A depthwise convolution with a buffer, and the number of channels as an attribute."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("kernel", torch.rand(channels, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, padding=1, groups=self.channels)  # type: ignore[arg-type]


class NormAct(nn.BatchNorm2d):
    """A BatchNorm with a child module, as in timm."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class Padded(nn.Conv2d):
    """A convolution with a child module that pads, as in EfficientNet packages."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3)
        self.pad = nn.ZeroPad2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pad(x))


def gated_by_halves(net: Any, x: Tensor) -> Tensor:
    first, second = x.chunk(2, 1)
    return first * second.sigmoid()


def shuffled(net: Any, x: Tensor) -> Tensor:
    parts = x.view(len(x), 4, -1, *x.shape[2:])
    return parts.transpose(1, 2).reshape(len(x), -1, *x.shape[2:])


def eca(net: Any, x: Tensor) -> Tensor:
    gate = net.g(x.mean((2, 3))[:, None]).sigmoid()
    return x * gate.transpose(1, 2)[..., None]


def squeezed(net: Any, x: Tensor) -> Tensor:
    return x * net.e(net.q(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


def radix(net: Any, x: Tensor) -> Tensor:
    parts = net.n(x).view(len(x), 2, -1, *x.shape[2:])
    gate = parts.mean((3, 4), keepdim=True).softmax(1)
    return (parts * gate).sum(1)


def selected(net: Any, x: Tensor) -> Tensor:
    paths = torch.stack([net.p(x), net.q(x)], 1)
    gate = net.e(paths.sum(1).mean((2, 3), keepdim=True))
    return (paths * gate.view(len(x), 2, -1, 1, 1).softmax(1)).sum(1)


def blurred(net: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, net.k.expand(x.shape[1], 1, 3, 3), net.o, padding=1, groups=x.shape[1])


BLUR = {"k": nn.Parameter(torch.rand(1, 1, 3, 3)), "o": nn.Parameter(torch.rand(16))}


def inferred(net: Any, x: Tensor) -> Tensor:
    with torch.inference_mode():
        y = net.n(x)
    return y.clone()


def conv(*sizes: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(*sizes, padding=sizes[2] // 2, **options)


# operation, further layers and options; filters that go together with `a` and how many at once; other groups
WORKS: dict[str, tuple[Operation, dict[str, Any], dict[str, tuple[int, int]]]] = {
    "gate of one channel": (lambda n, x: x * n.g(x).sigmoid(), {"g": conv(16, 1, 3)}, {"a": (16, 1)}),
    "squeeze and excite": (squeezed, {"q": conv(16, 4, 1), "e": conv(4, 16, 1)}, {"a": (16, 1), "q": (4, 1)}),
    "batchnorm with a child": (lambda n, x: n.n(x), {"n": NormAct(16)}, {"a": (16, 1)}),
    "padded convolution": (lambda n, x: n.n(x), {"n": Padded(16)}, {"a": (16, 1), "n": (16, 1)}),
    "gated linear unit": (lambda n, x: F.glu(x, 1), {"width": 8}, {"a": (16, 2)}),
    "chunk": (gated_by_halves, {"width": 8}, {"a": (16, 2)}),
    "computed split": (lambda n, x: torch.cat(x.split(x.shape[1] // 2, 1)[::-1], 1), {}, {"a": (16, 2)}),
    "pixel shuffle": (lambda n, x: F.pixel_shuffle(x, 2), {"width": 4}, {"a": (16, 4)}),
    "pixel unshuffle": (lambda n, x: F.pixel_unshuffle(x, 2), {"width": 64}, {"a": (16, 1)}),
    "channel shuffle": (shuffled, {}, {"a": (16, 4)}),
    "radix": (radix, {"n": conv(16, 32, 1)}, {"a": (16, 1), "n": (32, 2)}),
    "selective kernel": (
        selected,
        {"p": conv(16, 8, 3), "q": conv(16, 8, 3), "e": conv(8, 16, 1), "width": 8},
        {"a": (16, 1), "p": (8, 1)},
    ),
    "instance norm": (lambda n, x: n.n(x), {"n": nn.InstanceNorm2d(16, affine=True)}, {"a": (16, 1)}),
    "prelu": (lambda n, x: n.n(x), {"n": nn.PReLU(16)}, {"a": (16, 1)}),
    "scale": (lambda n, x: x * n.g, {"g": nn.Parameter(torch.rand(16, 1, 1))}, {"a": (16, 1)}),
    "residual": (lambda n, x: x + n.n(x), {"n": conv(16, 16, 3)}, {"a": (16, 1)}),
    "blur": (lambda n, x: n.n(x), {"n": Blur(16)}, {"a": (16, 1)}),
    "unfold": (lambda n, x: F.unfold(x, 2).view(len(x), -1, 11, 11), {"width": 64}, {"a": (16, 1)}),
    "transposed": (lambda n, x: n.n(x), {"n": nn.ConvTranspose2d(16, 16, 2, 2)}, {"a": (16, 1), "n": (16, 1)}),
    "depthwise transposed": (lambda n, x: n.n(x), {"n": nn.ConvTranspose2d(16, 16, 2, 2, groups=16)}, {"a": (16, 1)}),
    "layer norm over positions": (lambda n, x: n.n(x), {"n": nn.LayerNorm([12, 12])}, {"a": (16, 1)}),
    "group norm of single channels": (lambda n, x: n.n(x), {"n": nn.GroupNorm(16, 16)}, {"a": (16, 1)}),
    "maximum of pairs": (
        lambda n, x: x.view(len(x), x.shape[1] // 2, 2, *x.shape[2:]).max(2).values,
        {"width": 8},
        {"a": (16, 2)},
    ),
    "hard gate": (
        lambda n, x: x * (n.e(x.mean((2, 3), keepdim=True)) > 0).to(x.dtype),
        {"e": conv(16, 16, 1)},
        {"a": (16, 1)},
    ),
    "one blur for all": (blurred, BLUR, {"a": (16, 1)}),
    "embedding": (
        lambda n, x: x + n.e(x.new_zeros(1).long())[..., None, None],
        {"e": nn.Embedding(3, 16)},
        {"a": (16, 1)},
    ),
    "inference mode": (inferred, {"n": conv(16, 16, 3)}, {"a": (16, 1), "n": (16, 1)}),
    "unit length": (lambda n, x: F.normalize(x, dim=1), {}, {"a": (16, 1)}),
    "sorted positions": (lambda n, x: x.cumsum(2).sort(3).values, {}, {"a": (16, 1)}),
    "picked positions": (
        lambda n, x: x[:, :, [3, 1, 2, 0, 5]].index_select(3, torch.arange(0, 10, 2)),
        {},
        {"a": (16, 1)},
    ),
    "largest positions": (
        lambda n, x: x.flatten(2).gather(2, x.flatten(2).topk(49, 2).indices).unflatten(2, (7, 7)),
        {},
        {"a": (16, 1)},
    ),
}


def check_removed_is_masked(model: nn.Module, graph: Any, x: Tensor) -> None:
    mask = random_mask(graph, seed=4)
    with torch.no_grad():
        dense, zero, small = model(x), zeroed(model, mask)(x), dg.prune(model, mask)(x)
    spread = float(dense.max() - dense.min())
    assert float((dense - small).abs().max()) > 1e-3 * spread > 0
    assert float((zero - small).abs().max()) <= 1e-9 * spread


@pytest.mark.parametrize("kind", WORKS)
def test_a_kind_that_works_has_the_right_groups(kind: str) -> None:
    operation, options, groups = WORKS[kind]
    model = randomise(Net(operation, **options))
    x = images(2, 3, 12, 12, dtype=torch.float64)
    before = fingerprint(model)
    graph = dg.read_groups(model, x)
    assert fingerprint(model) == before
    expected = {**groups, "b": (12, 1), "c": (8, 1)}
    assert {group.name: (group.filters, group.step) for group in graph.groups} == expected
    assert not graph.refused and graph.total == graph.free
    for group in graph.groups:  # each position of the layer that names a group is one filter
        filters = [m.filters for m in group.members if m.tensor == f"{group.name}.weight" and m.side == "out"]
        assert torch.equal(torch.cat(filters), torch.arange(group.filters))
    check_removed_is_masked(model, graph, x)


class Standardised(nn.Conv2d):
    """Weight standardisation: its input columns depend on one another."""

    def forward(self, x: Tensor) -> Tensor:
        w = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / (self.weight.std((1, 2, 3), keepdim=True) + 0.1)
        return self._conv_forward(x, w, self.bias)


def pooled_gate(net: Any, x: Tensor) -> Tensor:
    both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
    return x * net.g(both).sigmoid()


class Own(nn.Module):
    """A convolution that is written by hand."""

    def __init__(self, *, dynamic: bool = False) -> None:
        super().__init__()
        self.dynamic, self.weight = dynamic, nn.Parameter(torch.rand(16, 16, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * x.mean((0, 2, 3))[:, None, None] if self.dynamic else self.weight
        return F.conv2d(x, weight, padding=1)


class CountedOutputs(nn.Module):
    """Returns as many logits as its first layer has filters."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = conv(3, 6, 3), conv(6, 12, 3), conv(12, 8, 3), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        return self.head(self.c(self.b(x).relu()).mean((2, 3)))[:, : x.shape[1]]


class Recurrent(nn.Module):
    def __init__(self, kind: Any = nn.GRU) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8, 3), conv(8, 6, 3)
        self.rnn, self.head = kind(72, 10, batch_first=True), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x).relu()).relu().permute(0, 3, 1, 2).flatten(2)
        return self.head(self.rnn(x)[0][:, -1])


def attends(net: Any, x: Tensor) -> Tensor:
    y = x.flatten(2)
    return (y.transpose(1, 2) @ y @ y.transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])


def assigned(net: Any, x: Tensor) -> Tensor:
    larger = x.new_zeros(len(x), 20, *x.shape[2:])
    larger[:, :16] = x
    return larger


def with_constant(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[:, :1]).expand(-1, 16, -1, -1)], 1)


def quantised() -> nn.Module:
    from torch.ao.nn.qat import Conv2d
    from torch.ao.quantization import get_default_qat_qconfig

    layer = Conv2d(3, 8, 3, qconfig=get_default_qat_qconfig("fbgemm"))
    return nn.Sequential(layer, nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(6 * 64, 4))


def written_split(net: Any, x: Tensor) -> Tensor:
    return torch.cat(x.split((8, 8), 1)[::-1], 1)


def as_images(net: Any, x: Tensor) -> Tensor:
    return net.n(x.flatten(0, 1)[:, None]).view_as(x)


def outer(net: Any, x: Tensor) -> Tensor:
    y = net.n(x).flatten(2)
    return x * net.h((y @ y.transpose(1, 2)).flatten(1))[..., None, None]


# cause of the refusal -> network, the refused layer, and where its sentence says that the cause is
CAUSES: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "attention": (lambda: Net(attends), "a", "the forward of Net"),
    "batch": (lambda: Net(as_images, n=conv(1, 1, 3)), "a", "n (Conv2d)"),
    "breaks": (lambda: Net(written_split), "a", "the forward of Net"),
    "constant": (lambda: Net(lambda n, x: x + torch.ones(16, 1, 1).to(x)), "a", "the forward of Net"),
    "differs": (lambda: Net(lambda n, x: x / x.shape[1]), "a", "b"),
    "function": (lambda: Net(lambda n, x: F.conv2d(x, n.n.weight), n=conv(16, 16, 1)), "a", "n"),
    "grouped": (
        lambda: Net(lambda n, x: n.n(F.pad(x, (0, 0, 0, 0, 0, 16))), n=conv(32, 16, 3, groups=2)),
        "a",
        "n (Conv2d)",
    ),
    "large": (lambda: Net(lambda n, x: x.flatten(2).unflatten(2, (12, 12))), "a", "the forward of Net"),
    "merged": (lambda: Net(outer, n=conv(16, 4, 1), h=nn.Linear(16, 16)), "n", "the forward of Net"),
    "mixed": (lambda: Net(lambda n, x: sum(with_constant(x).chunk(2, 1))), "a", "the forward of Net"),  # type: ignore
    "neighbours": (lambda: Net(eca, g=nn.Conv1d(1, 1, 3, padding=1)), "a", "g (Conv1d)"),
    "opaque": (lambda: Net(lambda n, x: n.n(x), n=Own(dynamic=True)), "n", "n (Own)"),
    "order": (lambda: Net(lambda n, x: x.cumsum(1)), "a", "the forward of Net"),
    "outputs": (CountedOutputs, "a", ""),
    "over": (lambda: Net(pooled_gate, g=conv(2, 1, 7)), "a", "the forward of Net"),
    "own": (lambda: Net(lambda n, x: n.n(x), n=Own()), "n", "n (Own)"),
    "padded": (
        lambda: Net(lambda n, x: n.n(x) + F.pad(x, (0, 0, 0, 0, 4, 4)), width=24, n=conv(16, 24, 3)),
        "n",
        "the forward of Net",
    ),
    "part": (lambda: Net(assigned, width=20), "a", "the forward of Net"),
    "picked": (lambda: Net(lambda n, x: x[:, torch.arange(15, -1, -1)]), "a", "the forward of Net"),
    "quantised": (quantised, "0", "0 (Conv2d)"),
    "recurrent": (Recurrent, "b", "rnn (GRU)"),
    "shared": (lambda: Shared(parallel=True), "b", "c (Conv2d)"),
    "standardised": (lambda: Net(lambda n, x: n.n(x), n=Standardised(16, 16, 3)), "a", "n (Standardised)"),
    "statistics": (lambda: Net(lambda n, x: n.n(x), n=nn.GroupNorm(4, 16)), "a", "n (GroupNorm)"),
    "tied": (lambda: Net(lambda n, x: n.n(x), n=conv(16, 32, 3, groups=16), width=32), "a", "n (Conv2d)"),
    "transposed": (lambda: Net(lambda n, x: n.n(x), n=nn.ConvTranspose2d(16, 16, 2, 2, groups=4)), "a", "n (ConvTr"),
    "unknown": (lambda: Net(lambda n, x: torch.fft.fft2(x).real), "a", "the forward of Net"),
    "unproven": (lambda: Net(written_split), "a", ""),
    "unread": (lambda: Net(lambda n, x: x.sum(1, keepdim=True), width=1), "a", ""),
    "window": (lambda: Net(lambda n, x: n.n(x), n=nn.LocalResponseNorm(3)), "a", "n (LocalResponseNorm)"),
    "written": (lambda: Net(lambda n, x: x.index_fill(1, torch.tensor([0]), 0)), "a", "the forward of Net"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("cause", refusals._SENTENCES)
def test_a_refusal_says_which_operation_where_what_is_left_and_what_to_do(
    cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, layer, where = CAUSES[cause]
    if cause == "large":
        monkeypatch.setattr("dgprune_lab.pruning.moves._MAX_ELEMENTS", 100)
    if cause == "unproven":
        monkeypatch.setattr(verify, "_SECONDS", 1e-9)
    model = build() if cause == "quantised" else randomise(build())
    x = images(2, 3, 12, 12, dtype=torch.float32 if cause == "quantised" else torch.float64)
    start = time.thread_time()
    if cause == "unproven":
        with pytest.raises(dg.DgpruneError, match="nothing to prune: a: its removal was not verified within"):
            dg.read_groups(model, x)
        return
    graph = dg.read_groups(model, x)
    assert time.thread_time() - start < 5
    why = graph.refused[layer]
    sentence = re.escape(refusals._SENTENCES[cause]).replace(r"\{where\}", "(?P<where>.+)")
    found = re.fullmatch(sentence.replace(r"\{detail\}", ".+"), why)
    assert found is not None, why
    assert not where or found["where"].startswith(where), why
    assert re.search(r"can( still)? be pruned", why) and why.count(";") >= 2
    assert not re.search(r"Error|sizes? of|must match|mat1|expected input|invalid for", why)
    assert graph.groups and graph.total > graph.free
    assert f"{len(graph.refused)} layers refused" in repr(graph)
    check_removed_is_masked(model, graph, x)


class Shared(nn.Module):
    """One Parameter in two convolutions."""

    def __init__(self, *, parallel: bool) -> None:
        super().__init__()
        self.parallel = parallel
        self.a, self.b, self.c = conv(3, 8, 3), conv(8, 8, 3), conv(8, 8, 3)
        self.c.weight = self.b.weight
        self.d, self.head = nn.Conv2d(16 if parallel else 8, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        x = torch.cat([self.b(x), self.c(x.flip(3))], 1) if self.parallel else self.c(self.b(x).relu())
        return self.head(self.d(x.relu()).mean((2, 3)))


@pytest.mark.parametrize(("parallel", "refused", "names"), [(True, "b", ["a", "d"]), (False, "a", ["d"])])
def test_what_a_shared_parameter_writes_is_refused_and_the_rest_is_pruned(
    parallel: bool, refused: str, names: list[str]
) -> None:
    model = randomise(Shared(parallel=parallel))
    x = images(2, 3, 12, 12, dtype=torch.float64)
    graph = dg.read_groups(model, x)
    assert graph.names == names and list(graph.refused) == [refused]
    assert "c (Conv2d) shares the parameter b.weight" in graph.refused[refused]
    check_removed_is_masked(model, graph, x)


KINDS = ("gated linear unit", "pixel shuffle", "channel shuffle", "selective kernel", "radix", "blur", "instance norm")


@pytest.mark.filterwarnings("ignore::dgprune_lab.core.errors.DgpruneNote")
@pytest.mark.parametrize("kind", KINDS)
def test_filters_that_go_together_are_scored_by_every_evidence(kind: str) -> None:
    operation, options, _ = WORKS[kind]
    model = randomise(Net(operation, **options), dtype=torch.float32)
    study = dg.Study(model, sources=[domain("one"), domain("two", seed=2)])
    for scorer in ("l1", "activation_l1", "taylor", "dss_sources"):
        values = study.score(scorer).values
        for group in study.graph.groups:
            assert values[group.name].shape == (group.filters,)
            assert float(values[group.name].double().std()) > 0
    group = study.graph[next(iter(WORKS[kind][2]))]
    for positions, filters in group.consumer_inputs.values():
        assert len(positions) == len(filters) and len(filters.bincount(minlength=group.filters).unique()) == 1


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_behind_a_recurrent_head_all_but_the_last_convolution_is_pruned(kind: type[nn.RNNBase]) -> None:
    model = randomise(Recurrent(kind))
    x = images(2, 3, 12, 12, dtype=torch.float64)
    graph = dg.read_groups(model, x)
    assert graph.names == ["a"] and "recurrent layer" in graph.refused["b"]
    assert (graph.free, graph.total) == (8, 14)
    check_removed_is_masked(model, graph, x)


class Frozen(nn.Module):
    """A backbone that runs without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(conv(3, 8, 3), nn.ReLU(), conv(8, 6, 3), nn.ReLU()), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.body(x)
        return self.head(x.mean((2, 3)))


def test_networks_of_other_makes_work() -> None:
    x = images(2, 3, 32, 32, dtype=torch.float64)
    extractor = create_feature_extractor(zoo.resnet18(), {"layer1": "features"})

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.head = extractor, nn.Linear(64, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.features(x)["features"].mean((2, 3)))

    for model, groups in ((Frozen(), 2), (torch.fx.symbolic_trace(norm_net().eval()), 2), (Head(), 3)):
        model = randomise(model)
        graph = dg.read_groups(model, x)
        assert len(graph.groups) == groups and not graph.refused
        check_removed_is_masked(model, graph, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_networks_of_every_type_have_the_groups_of_the_same_network_in_float(dtype: torch.dtype) -> None:
    graph = dg.read_groups(norm_net().eval().to(dtype), images(2, 3, 12, 12))
    assert graph.names == dg.read_groups(norm_net().eval(), images(2, 3, 12, 12)).names
    assert not graph.refused
    assert {size for shape, size in graph.shapes.values() if shape} == {torch.empty(0, dtype=dtype).element_size()}


def test_a_network_in_channels_last_has_the_groups_of_the_same_network() -> None:
    net = nn.Sequential(conv(3, 6, 3), nn.ReLU(), conv(6, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    graph = dg.read_groups(net.eval().to(memory_format=torch.channels_last), images(2, 3, 12, 12))  # type: ignore[call-overload]
    assert graph.names == ["0", "2"] and not graph.refused


class Domains(nn.Module):
    """One BatchNorm per domain."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norms = conv(3, 8, 3), nn.ModuleList([nn.BatchNorm2d(8) for _ in range(3)])
        self.b, self.head = conv(8, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor, domain: int = 0) -> Tensor:
        return self.head(self.b(self.norms[domain](self.a(x)).relu()).mean((2, 3)))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = plain_net()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.net(x + y)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:Lazy modules")
@pytest.mark.parametrize(
    ("builder", "words"),
    [
        (Domains, r"norms\.1, norms\.2.*BatchNorm layers of other domains.*keep one BatchNorm"),
        (TwoInputs, r"with images alone.*wrap it in a module"),
        (lambda: torch.jit.trace(plain_net().eval(), torch.rand(1, 3, 12, 12)), r"TorchScript.*Python module"),
        (lambda: nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten(), nn.LazyLinear(4)), r"no size yet.*model\(images\)"),
        (lambda: plain_net().to("meta"), r"meta device.*to_empty"),
    ],
    ids=["domains", "two inputs", "jit", "lazy", "meta"],
)
def test_a_network_that_cannot_be_read_is_told_why_and_what_to_do(builder: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(dg.DgpruneError, match=words):
        dg.read_groups(builder(), images(2, 3, 12, 12))


def test_hidden_units_of_a_transformer_are_pruned_and_its_streams_refused() -> None:
    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
            self.patches = nn.Conv2d(3, 16, 4, 4)
            self.body, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(self.patches(x).flatten(2).transpose(1, 2)).mean(1))

    model = randomise(Transformer())
    x = images(2, 3, 12, 12, dtype=torch.float64)
    fast = torch.backends.mha.get_fastpath_enabled()
    graph = dg.read_groups(model, x, layers="all")
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert [group.filters for group in graph.groups] == [32, 32]
    layer = 9 * (16 * 48 + 16 * 16 + 2 * 9 * 16 + 2 * 16 * 32)  # 9 positions: queries, output, attention, hidden units
    with MacCounter() as counter, torch.no_grad():
        model.eval()(x[:1])
    assert counter.total == graph.full.macs == 9 * 48 * 16 + 2 * layer + 16 * 4
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert "norm1 (LayerNorm)" in graph.refused["patches"]
    assert sum("attention" in reason for reason in graph.refused.values()) == 2
    check_removed_is_masked(model, graph, x)
    with pytest.raises(dg.DgpruneError, match=r"patches: .*LayerNorm.*layers='all'"):
        dg.read_groups(model, x)


def small_networks() -> dict[str, nn.Module]:
    nets: dict[str, nn.Module] = {"lenet": dg.models.networks.lenet()}
    nets |= {"digits_net": dg.models.networks.digits_net()}
    nets |= {net.__name__: net() for net in (ResidualNet, DepthwiseNet, norm_net, plain_net)}
    nets |= {"resnet18": zoo.resnet18(num_classes=4), "mobilenet_v3_small": zoo.mobilenet_v3_small(num_classes=4)}
    nets["squeezenet"] = zoo.squeezenet1_1(num_classes=4)
    nets["googlenet"] = zoo.googlenet(num_classes=4, aux_logits=False, init_weights=False)
    return nets


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", small_networks())
def test_the_partition_is_that_of_torch_pruning(name: str) -> None:
    model = small_networks()[name].eval()
    size = 28 if name in ("lenet", "digits_net") else 64 if hasattr(zoo, name) or name == "squeezenet" else 12
    x = images(1, 3, size, size)
    graph = dg.read_groups(model, x)
    ours = set()
    for group in graph.groups:
        places: dict[int, set[tuple[str, int]]] = {}
        for member in group.members:
            layer, _, leaf = member.tensor.rpartition(".")
            if leaf == "weight" and member.side == "out" and isinstance(model.get_submodule(layer), nn.Conv2d):
                for position, filter_ in zip(member.positions.tolist(), member.filters.tolist(), strict=True):
                    places.setdefault(filter_, set()).add((layer, position))
        ours |= set(map(frozenset, places.values()))
    layers = {module: layer for layer, module in model.named_modules()}
    peer = tp.DependencyGraph().build_dependency(model, example_inputs=(x,), verbose=False)
    theirs = set()
    for group in peer.get_all_groups(root_module_types=[nn.Conv2d]):
        items = [(item.dep.target.module, item) for item in group.items]
        if any(type(module).__name__ == "_OutputOp" for module, _ in items):
            continue
        roots: dict[int, set[tuple[str, int]]] = {}
        for module, item in items:
            if isinstance(module, nn.Conv2d) and peer.is_out_channel_pruning_fn(item.dep.handler):
                for position, root in zip(item.idxs, item.root_idxs, strict=True):
                    roots.setdefault(root, set()).add((layers[module], position))
        theirs |= set(map(frozenset, roots.values()))
    assert ours == theirs and len(ours) == graph.free


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_transposed_convolutions_cost_one_weight_at_each_input_position(groups: int) -> None:
    model = Net(lambda n, x: n.n(x), n=nn.ConvTranspose2d(16, 16, 2, 2, groups=groups))
    graph = dg.read_groups(model, images(1, 3, 12, 12))
    a, n, b, c, head = 3 * 16 * 9 * 144, 16 * 16 // groups * 4 * 144, 16 * 12 * 9 * 22**2, 12 * 8 * 9 * 20**2, 8 * 4
    assert graph.full.macs == a + n + b + c + head and bool(graph.products) == (groups == 4)
    assert sorted(graph.refused) == (["a", "n"] if groups == 4 else [])
    assert graph.total == (52 if groups == 4 else 52 - 16 * (groups == 16)) and graph.free == graph.total - 32 * (
        groups == 4
    )


def test_macs_outside_of_layers_are_counted_whether_or_not_groups_fail_their_proof() -> None:
    for other in (lambda n, x: x, written_split):
        model = Net(
            lambda n, x, other=other: torch.cat([attends(n, n.q(x)), other(n, x)], 1), width=32, q=conv(16, 16, 1)
        )
        graph = dg.read_groups(randomise(model), images(2, 3, 12, 12, dtype=torch.float64))
        assert graph.products == ((2 * 144 * 144 * 16, ()),)  # two products of 144 positions and 16 channels
        assert list(graph.refused) == (["q", "a"] if other is written_split else ["q"])
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(images(1, 3, 12, 12, dtype=torch.float64))
        assert 2 * graph.full.macs == counter.get_total_flops()


def branches(net: Any, x: Tensor) -> Tensor:
    return torch.einsum("k,kbchw->bchw", torch.ones(2).to(x), torch.stack([net.p(x), net.q(x)])).relu()


def pooled_by_attention(net: Any, x: Tensor) -> Tensor:
    return x + (x.flatten(2) @ net.k(x).flatten(2).transpose(1, 2).softmax(1))[..., None]


# operation and further layers: the cost of something besides layers, or of a layer, depends on how many channels stay
COSTS: dict[str, tuple[Operation, dict[str, Any]]] = {
    "attention over positions": (pooled_by_attention, {"k": conv(16, 1, 1)}),
    "sum over branches": (branches, {"p": conv(16, 16, 3), "q": conv(16, 16, 3)}),
    "linear layer over positions": (lambda n, x: n.l(x.flatten(2)).view_as(x), {"l": nn.Linear(144, 144)}),
    "one blur for all": (blurred, BLUR),
    "heads": (
        lambda n, x: x + F.scaled_dot_product_attention(
            *(y.unflatten(1, (4, -1)).flatten(3).transpose(2, 3) for y in (n.q(x), n.q(x), n.v(x)))
        ).transpose(2, 3).flatten(1, 2).unflatten(2, (12, 12)),
        {"q": conv(16, 8, 1), "v": conv(16, 16, 1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("kind", COSTS)
def test_macs_are_those_of_the_pruned_network(kind: str, broken: bool) -> None:
    operation, layers = COSTS[kind]
    split = Split()
    split.first, name = conv(16, 16, 1), "y.1" if broken else "y.0"
    before = (
        [split, conv(16, 16, 1)] if broken else [conv(16, 16, 1)]
    )  # a group that fails leaves, others are renumbered
    model = Net(lambda n, x: n.z(operation(n, n.y(x))), y=nn.Sequential(*before), z=conv(16, 16, 1), **layers)
    x = images(2, 3, 12, 12, dtype=torch.float64)
    graph = dg.read_groups(randomise(model), x)
    assert ("y.0.first" in graph.refused) == broken and name in graph.names
    for mask in (
        dg.Mask.by_hand(graph),
        random_mask(graph, seed=4),
        dg.Mask.by_hand(graph, removed={name: [0, 4, 8, 12]}),
    ):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            dg.prune(model, mask)(x[:1])
        assert 2 * mask.cost.macs == counter.get_total_flops()


class Split(nn.Module):
    first: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.first(x).split((8, 8), 1)[::-1], 1)


# operations that take the number of channels of one layer from another one
WIDTHS: dict[str, Operation] = {
    "cut to the other's width": lambda n, x: torch.cat([n.p(x), n.q(x)[:, : n.p(x).shape[1]]], 1),
    "reshaped to the other's shape": lambda n, x: torch.cat([n.p(x), n.q(x).flatten(1).view_as(n.p(x))], 1),
    "padded by the difference": lambda n, x: torch.cat(
        [n.p(x), F.pad(n.q(x), (0, 0, 0, 0, 0, n.p(x).shape[1] - n.q(x).shape[1]))], 1
    ),
    "a state of the other's width": lambda n, x: torch.cat(
        [n.p(x), n.q(x) + n.r(x.new_zeros(1, n.p(x).shape[1], 1, 1))], 1
    ),
    "twice the other's width": lambda n, x: n.s(x)[:, : 2 * n.p(x).shape[1]] + n.p(x).sum(1, keepdim=True),
}


@pytest.mark.parametrize("kind", WIDTHS)
def test_of_layers_whose_widths_depend_on_each_other_by_a_shape_one_is_refused(kind: str) -> None:
    both = {"p": conv(16, 16, 3), "q": conv(16, 16, 3)}
    layers = {"p": both["p"], "s": conv(16, 32, 3)} if kind.startswith("twice") else both
    layers |= {"r": conv(16, 16, 1)} if "state" in kind else {}
    model = randomise(Net(WIDTHS[kind], width=32, **layers))
    x = images(2, 3, 12, 12, dtype=torch.float64)
    graph = dg.read_groups(model, x)
    assert "p" in graph.refused or "q" in graph.refused
    for name in graph.names:
        mask = dg.Mask.by_hand(graph, removed={name: [1]})
        assert torch.allclose(dg.prune(model, mask)(x), dg.masked(model, mask)(x), atol=1e-9)
    check_removed_is_masked(model, graph, x)


def test_a_difference_of_a_few_percent_is_refused() -> None:
    model = randomise(Net(lambda n, x: x * (1 + 2e-4 * x.shape[1])))
    graph = dg.read_groups(model, images(2, 3, 12, 12, dtype=torch.float64))
    found = re.search(r"masked network by ([\d.]+)%", graph.refused["a"])
    assert found is not None and 0.1 < float(found[1]) < 10


@pytest.mark.parametrize("budget", ["macs"])
def test_transposed_convolutions_cost_what_torch_counts(budget: Any) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(16, 24, 4, stride=4), nn.ReLU(),
        nn.Conv2d(24, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    x = images(1, 3, 12, 12)
    graph = dg.read_groups(model, x)
    scores = dg.Scores("mine", {group.name: torch.arange(float(group.filters)) for group in graph.groups}, graph)
    mask = dg.allocate(scores, ratio=0.5, budget=budget)
    counts = []
    for network in (model, dg.prune(model, mask)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(x)
        counts.append(counter.get_total_flops() // 2)
    assert [graph.full.macs, mask.cost.macs] == counts
    assert 0.4 < 1 - counts[1] / counts[0] <= 0.5


CUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "a slice that is written out": lambda x: x[:, 1:3],
    "all but the first": lambda x: x[:, 1:] * x[:, :1],
    "every second": lambda x: x[:, ::2],
    "uneven halves": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "moved by one": lambda x: x.roll(1, 1),
    "the last as a gate": lambda x: x[:, :-1] * x[:, -1:].sigmoid(),
}


@pytest.mark.parametrize("width", [4, 5, 7, 8])
@pytest.mark.parametrize("cut", CUTS)
def test_what_is_accepted_can_be_removed_in_any_number(cut: str, width: int) -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = conv(3, width, 3), conv(CUTS[cut](torch.zeros(1, width, 1, 1)).shape[1], 6, 3)
            self.three, self.head = conv(6, 6, 1), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.three(self.two(CUTS[cut](self.one(x).relu())).relu()).relu().mean((2, 3)))

    model, x = randomise(Cut()), images(2, 3, 8, 8, dtype=torch.float64)
    graph = dg.read_groups(model, x)
    assert "three" not in graph.refused
    for group in graph.groups:
        units = int(group.units.max()) + 1
        for removed in [[k] for k in range(units)] + [list(range(k)) for k in range(2, units)]:
            filters = torch.isin(group.units, torch.tensor(removed)).nonzero().flatten().tolist()
            mask = dg.Mask.by_hand(graph, removed={group.name: filters if units > 1 else []})
            assert torch.allclose(dg.prune(model, mask)(x), dg.masked(model, mask)(x), atol=1e-9), (group.name, filters)


def test_one_trial_serves_all_groups_and_a_failing_one_is_found_near_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Block(nn.Module):
        def __init__(self, *, written: bool) -> None:
            super().__init__()
            self.one, self.two, self.written = conv(8, 8, 3), conv(8, 8, 3), written

        def forward(self, x: Tensor) -> Tensor:
            y = self.one(x).relu()
            return self.two(torch.cat(y.split((4, 4), 1), 1) if self.written else y).relu()

    trials: list[int] = []
    plain: Any = verify._Trial.failure
    monkeypatch.setattr(verify._Trial, "failure", lambda self, g: trials.append(len(g)) or plain(self, g))
    for written, most in ((False, 4), (True, 14)):  # four kinds of masks
        trials.clear()
        blocks = [Block(written=written and k in (3, 11)) for k in range(16)]
        model = nn.Sequential(conv(3, 8, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
        graph = dg.read_groups(randomise(model), images(2, 3, 8, 8, dtype=torch.float64))
        assert list(graph.refused) == (["4.one", "12.one"] if written else [])
        assert len(graph.groups) == 33 - len(graph.refused) and len(trials) <= most


class CountsChannels(nn.Module):
    """Divides its first maps by their number, far below the logits: removing filters changes what masking does not."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(24)]
        self.first, self.body, self.head = nn.Conv2d(3, 8, 3), nn.Sequential(*layers), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(self.body(x / x.shape[1]).mean((2, 3)))


def test_a_mistake_far_below_the_logits_is_found_though_half_of_every_layer_is_removed() -> None:
    graph = dg.read_groups(CountsChannels(), torch.zeros(1, 3, 12, 12))
    assert set(graph.refused) == {"first"}
    assert len(graph.groups) == 24 and graph.groups[0].name == "body.0.0"


class PaddedShortcut(nn.Module):
    """A residual block whose shortcut takes every second position and pads the channels with zeros."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(width // stride, width, 3, stride, 1)
        self.two, self.pad, self.stride = conv(width, width, 3), width // 4 if stride > 1 else 0, stride

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return (self.two(self.one(x).relu()) + shortcut).relu()


def test_a_filter_of_a_padded_stream_counts_once() -> None:
    blocks = [PaddedShortcut(width, 2 if width > 16 and k == 0 else 1) for width in (16, 32, 64) for k in range(3)]
    model = nn.Sequential(conv(3, 16, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    graph = dg.read_groups(randomise(model), images(2, 3, 12, 12, dtype=torch.float64))
    assert graph.share == "336 of 400 filters can be pruned"  # 9 inner layers, and one stream of 64 filters
    assert len(graph.groups) == 9 and list(graph.refused) == ["7.two"]
    assert prunable_words(graph).startswith(f"{graph.share} (refused: 7.two: 4 (PaddedShortcut) adds it to channels")
    check_removed_is_masked(model, graph, images(2, 3, 12, 12, dtype=torch.float64))


class Typed(nn.Module):
    """Runs its first layers in 16 bits, as mixed precision does."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b, self.head = conv(3, 8, 3), nn.BatchNorm2d(8), conv(8, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.n(self.a(x)).relu()
        return self.head(self.b(x.float()).relu().mean((2, 3)))


class Decoder(nn.Module):
    """Decodes by the weight of its encoder, which a function uses."""

    def __init__(self, *, listed: bool) -> None:
        super().__init__()
        self.a, self.c, self.head = conv(3, 8, 3), conv(8, 6, 3), nn.Linear(6, 4)
        self.e = nn.ParameterList([torch.rand(5, 8, 3, 3)]) if listed else nn.Conv2d(8, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        if isinstance(self.e, nn.Conv2d):
            x = F.conv_transpose2d(self.e(x).relu(), self.e.weight).relu()
        else:
            x = F.conv_transpose2d(F.conv2d(x, self.e[0]).relu(), self.e[0]).relu()
        return self.head(self.c(x).mean((2, 3)))


def test_mixed_precision_is_followed_and_weights_that_functions_use_are_named() -> None:
    graph = dg.read_groups(randomise(Typed(), dtype=torch.float32), images(2, 3, 12, 12))
    assert graph.names == ["a", "b"] and graph.share == "14 of 14 filters can be pruned"
    for listed, words in (
        (False, "the weight of e is used by a function"),
        (True, "the forward of Decoder uses weights"),
    ):
        graph = dg.read_groups(randomise(Decoder(listed=listed)), images(2, 3, 12, 12, dtype=torch.float64))
        assert graph.names == (["c"] if listed else ["a", "c"])
        assert list(graph.refused.values())[-1].startswith(words)


def test_a_convolution_whose_weights_are_lost_on_the_way_is_refused_and_counted() -> None:
    class Computed(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return self._conv_forward(x, torch.fft.ifft(torch.fft.fft(self.weight)).real, self.bias)

    model = nn.Sequential(
        Computed(3, 8, 3, bias=False), nn.ReLU(), conv(8, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )
    graph = dg.read_groups(randomise(model), images(2, 3, 12, 12, dtype=torch.float64))
    assert graph.share == "6 of 14 filters can be pruned" and graph.refused["0"].startswith("0 (Computed) computes its")


def test_a_network_that_draws_random_numbers_is_told_so_and_the_generator_stays_as_it_was() -> None:
    model = randomise(Net(lambda n, x: x + 1e-9 * torch.rand(())))
    noisy = randomise(Net(lambda n, x: x * (1 + 2e-3 * torch.rand(()))))
    before = torch.get_rng_state()
    assert dg.read_groups(model, images(2, 3, 12, 12, dtype=torch.float64)).names == ["a", "b", "c"]
    with pytest.raises(dg.DgpruneError, match="other logits each time"):
        dg.read_groups(noisy, images(2, 3, 12, 12, dtype=torch.float64))
    assert torch.equal(torch.get_rng_state(), before)


def test_batchnorm_without_running_statistics_is_said() -> None:
    model = randomise(Net(lambda n, x: n.n(x), n=nn.BatchNorm2d(16, track_running_stats=False)))
    with pytest.warns(dg.DgpruneNote, match=r"BatchNorm layers n keep no running statistics .* share a batch"):
        graph = dg.read_groups(model, images(2, 3, 12, 12, dtype=torch.float64))
    assert graph.names == ["a", "b", "c"]


@pytest.mark.parametrize("fails", [False, True])
def test_what_masks_for_a_moment_gives_back_every_value(fails: bool) -> None:
    model, x = randomise(norm_net()), images(2, 3, 12, 12, dtype=torch.float64)
    graph = dg.read_groups(model, x)
    mask, before, dense = random_mask(graph, seed=2), fingerprint(model), model(x)
    with pytest.raises(ZeroDivisionError) if fails else nullcontext(), zeroing(model, mask):
        assert torch.equal(model(x), zeroed(model, mask)(x)) and not torch.equal(model(x), dense)
        _ = 1 / (not fails)
    assert fingerprint(model) == before and torch.equal(model(x), dense)


def test_half_of_a_unit_is_no_mask() -> None:
    graph = dg.read_groups(randomise(grouped_net()), images(1, 3, 12, 12, dtype=torch.float64))
    assert graph["0"].step == 2
    for filters in ([0], [0, 1, 4], [7]):
        with pytest.raises(dg.DgpruneError, match=r"layer '0': grouped convolutions tie its filters in steps of 2"):
            dg.Mask.by_hand(graph, removed={"0": filters})
    assert dg.Mask.by_hand(graph, removed={"0": [0, 4]}).kept("0") == [1, 2, 3, 5, 6, 7]


def test_groups_cannot_be_changed_by_who_reads_them() -> None:
    graph = dg.read_groups(norm_net().eval(), images(2, 3, 12, 12))
    name, group = next(iter(graph.axes)), graph.groups[0]
    units, ids = group.units, graph.axes[name][0]
    group.units.zero_()
    graph.axes[name][0].zero_()
    assert torch.equal(group.units, units) and torch.equal(graph.axes[name][0], ids) and bool(units.any())
    with pytest.raises(TypeError):
        graph.refused["conv"] = "no reason"  # type: ignore[index]
    again = pickle.loads(pickle.dumps(graph))
    assert torch.equal(again.groups[0].units, units) and again.full == graph.full


def test_groups_print_in_a_line() -> None:
    graph = dg.read_groups(norm_net().eval(), images(2, 3, 12, 12))
    assert len(repr(graph)) < 120 and all(len(repr(group)) < 120 for group in graph.groups)


class WindowBlock(nn.Module):
    """A block of CoAtNet and MaxViT: an inverted bottleneck with a gate, attention in windows with biases, an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.d, self.p = conv(width, 32, 1), conv(32, 32, 3, groups=32), conv(32, width, 1)
        self.q, self.e, self.n, self.m = conv(32, 4, 1), conv(4, 32, 1), nn.BatchNorm2d(32), nn.LayerNorm(width)
        self.qkv, self.out, self.bias = nn.Linear(width, 3 * width), nn.Linear(width, width), nn.Embedding(49, 2)
        self.up, self.down = nn.Linear(width, 24), nn.Linear(24, width)
        at = torch.cartesian_prod(torch.arange(4), torch.arange(4))
        self.register_buffer("places", ((at[:, None] - at[None] + 3) * torch.tensor([7, 1])).sum(2))

    def forward(self, x: Tensor) -> Tensor:
        y = squeezed(self, self.d(self.n(self.a(x)).relu()).relu())
        x = x + self.p(y)
        (b, c, h, w), places = x.shape, self.places
        y = x.view(b, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, c)
        q, k, v = self.qkv(self.m(y)).reshape(len(y), 16, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(2, 3) + self.bias(places).permute(2, 0, 1)).softmax(3)  # type: ignore[arg-type]
        y = y + self.out((weights @ v).transpose(1, 2).reshape(len(y), 16, c))
        y = y + self.down(F.gelu(self.up(self.m(y))))
        return y.view(b, h // 4, w // 4, 4, 4, c).permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w)


def test_the_work_for_attention_in_windows_grows_with_the_layers_and_not_with_paths_or_positions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work: list[int] = []
    trials: list[int] = []
    join: Any = elements.Elements.join
    failure: Any = verify._Trial.failure
    monkeypatch.setattr(
        elements.Elements, "join", lambda self, a, b, **o: work.append(a.numel() + b.numel()) or join(self, a, b, **o)
    )
    monkeypatch.setattr(verify._Trial, "failure", lambda self, g: trials.append(len(g)) or failure(self, g))
    found = {}
    for blocks, size in ((2, 8), (4, 8), (4, 16)):
        work.clear()
        trials.clear()
        body = [WindowBlock(16) for _ in range(blocks)]
        model = nn.Sequential(conv(3, 16, 3), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
        graph = dg.read_groups(randomise(model), images(2, 3, size, size, dtype=torch.float64), layers="all")
        assert {group.name.partition(".")[2] for group in graph.groups} == {"a", "q", "up"}
        assert len(graph.groups) == 3 * blocks and "takes statistics across channels" in graph.refused["0"]
        assert len(trials) == 4  # one for each kind of mask: nothing fails
        found[blocks, size] = sum(work)
    assert found[4, 8] < 2.2 * found[2, 8] and found[4, 16] < 1.1 * found[4, 8]
    check_removed_is_masked(model, graph, images(2, 3, 16, 16, dtype=torch.float64))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ecaresnet26t", "rexnet_100", "resnest14d", "mobilevitv2_050", "efficientvit_m0"])
def test_networks_of_timm_are_read_in_seconds(name: str) -> None:
    timm = pytest.importorskip("timm")
    size = 224 if name == "efficientvit_m0" else 64
    start = time.thread_time()
    graph = dg.read_groups(timm.create_model(name, num_classes=4).eval(), images(2, 3, size, size))
    assert time.thread_time() - start < 20 and 2 * graph.free > graph.total
