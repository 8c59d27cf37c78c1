"""The map right after the activation, before the pooling: found in any network, equal to what its layers give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from material import DepthwiseNet, ResidualNet, domain, fingerprint, grouped_net, norm_net, plain_net, randomise
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core.statistics import Need
from dgprune_lab.measurement.statistics import gather

ALL: tuple[Need, ...] = ("activation_map", "mean_map", "conv_map", "moments", "gate", "class_gate", "co_moments")
Seen = dict[str, Tensor]


class Written(nn.Module):
    """Two convolutions with BatchNorm; a subclass says what follows each, and stores what is right behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.b, self.norm_b = nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.head = nn.Linear(5, 4)
        self.seen: Seen = {}

    def after(self, x: Tensor, name: str) -> Tensor:
        self.seen[name] = x = torch.relu(x)
        return x

    def pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = {}
        x = self.pool(self.after(self.norm_a(self.a(x)), "a"))
        return self.head(self.after(self.norm_b(self.b(x)), "b").mean((2, 3)))


class Activation(Written):
    """Any activation, as a function."""

    function: Any = None

    def after(self, x: Tensor, name: str) -> Tensor:
        y = type(self).function(x)
        self.seen[name] = y.clone()
        return y


def _gelu_by_hand(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(0.79788 * (x + 0.044715 * x**3)))


class _Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * torch.sigmoid(x) * (1 + x * (1 - torch.sigmoid(x)))


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu in place": F.relu_,
    "relu6": F.relu6,
    "silu": F.silu,
    "silu in place": lambda x: F.silu(x, inplace=True),
    "gelu": F.gelu,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "elu": F.elu,
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "tanh": torch.tanh,
    "clamp": lambda x: x.clamp(min=0),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "swish by hand": lambda x: x * torch.sigmoid(x),
    "mish by hand": lambda x: x * torch.tanh(F.softplus(x)),
    "gelu by hand": _gelu_by_hand,
    "swish as an autograd function": _Swish.apply,
    "none": lambda x: x,
    "none, scaled": lambda x: 2 * x + 1,
}
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "average": lambda x: F.avg_pool2d(x, 2),
    "adaptive": lambda x: F.adaptive_max_pool2d(x, 3),
    "overlapping, same size": lambda x: F.max_pool2d(x, 3, stride=1, padding=1),
    "every second": lambda x: x[:, :, ::2, 1::2],
    "windows": lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2)),
    "blur": lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), torch.ones(6, 1, 3, 3) / 9, stride=2, groups=6),
    "upsampled": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "generalised mean": lambda x: F.avg_pool2d(x.clamp(min=1e-6).pow(3), 2).pow(1 / 3),
    "pooled, then scaled and normalised": lambda x: F.layer_norm(0.5 * F.avg_pool2d(x, 2) + 1, (6, 6)),
}


class PoolBeforeActivation(Written):
    def after(self, x: Tensor, name: str) -> Tensor:
        self.seen[name] = x = F.relu(F.max_pool2d(x, 2))
        return x


class SqueezeExcite(Written):
    """A gate per channel after the activation: the map is before it."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)

    def pool(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return F.max_pool2d(x * gate.expand_as(x), 2)


class GateBeforeActivation(Written):
    """Squeeze-excite between BatchNorm and ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(6, 2), nn.Linear(2, 6)

    def after(self, x: Tensor, name: str) -> Tensor:
        if name == "a":
            x = x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))[:, :, None, None]
        return super().after(x, name)


class NormAfterActivation(Written):
    """Convolution, GELU, BatchNorm: the map is between the last two."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = {}
        x = F.max_pool2d(self.norm_a(self.after(self.a(x), "a")), 2)
        return self.head(self.norm_b(self.after(self.b(x), "b")).mean((2, 3)))


class BatchNormAct(nn.BatchNorm2d):
    """A BatchNorm with the activation inside, as in timm."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class ActivationInside(Written):
    def __init__(self) -> None:
        super().__init__()
        self.norm_a, self.norm_b = BatchNormAct(6), BatchNormAct(5)

    def after(self, x: Tensor, name: str) -> Tensor:
        self.seen[name] = x.clone()
        return x


class Concatenated(nn.Module):
    """Two branches, one pooled before they are joined: each map is behind its own ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (
            nn.Conv2d(3, 6, 3, padding=1),
            nn.Conv2d(3, 5, 3, stride=2, padding=1),
            nn.Conv2d(11, 4, 1),
        )
        self.head = nn.Linear(4, 4)
        self.seen: Seen = {}

    def forward(self, x: Tensor) -> Tensor:
        self.seen = {"a": F.relu(self.a(x)), "b": F.relu(self.b(x))}
        x = torch.cat([F.max_pool2d(self.seen["a"], 2), self.seen["b"]], 1)
        self.seen["c"] = F.relu(self.c(x))
        return self.head(self.seen["c"].mean((2, 3)))


class PooledTwice(Written):
    """A head that reads the average and the maximum of every map: the map is the one that both come from."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = {}
        x = F.max_pool2d(self.after(self.norm_a(self.a(x)), "a"), 2)
        x = self.after(self.norm_b(self.b(x)), "b")
        return self.head(torch.cat([F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)], 1).flatten(1))


class FlattenedFirst(Written):
    """The activation follows the flattening: the map is behind it, with its positions in one row."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(180, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = {}
        x = F.max_pool2d(self.after(self.norm_a(self.a(x)), "a"), 2)
        x = F.relu(self.norm_b(self.b(x)).flatten(1))
        self.seen["b"] = x.unflatten(1, (-1, 36))
        return self.head(x)


class Normalising(Written):
    """A response normalised over its neighbouring filters is no other map."""

    def pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x / (2 + x.mean((2, 3), keepdim=True)).expand_as(x), 2)


class Dense(nn.Module):
    """A pre-activated layer behind a concatenation: the map is behind the last consumer's BatchNorm and ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
        self.norm_a, self.norm = nn.BatchNorm2d(6), nn.BatchNorm2d(10)
        self.c, self.head = nn.Conv2d(10, 5, 1), nn.Linear(5, 4)
        self.seen: Seen = {}

    def forward(self, x: Tensor) -> Tensor:
        first = self.a(x)
        both = F.relu(self.norm(torch.cat([first, self.b(F.relu(self.norm_a(first)))], 1)))
        x = F.relu(self.c(F.avg_pool2d(both, 2)))
        self.seen = {"a": both[:, :6], "b": both[:, 6:], "c": x}
        return self.head(x.mean((2, 3)))


class Residual(ResidualNet):
    """The same with the maps stored; the sum's ReLU works in place."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        inner = F.relu(self.inner_norm(self.inner(x)))
        stem = F.relu(self.outer_norm(self.outer(inner)) + x)
        last = F.relu(self.last_norm(self.last(stem)) + self.shortcut_norm(self.shortcut(stem)))
        self.seen = {"stem": stem, "inner": inner, "last": last}
        return self.head(last.mean((2, 3)))


class LinearStream(nn.Module):
    """A stream without an activation behind its sum, which is pooled: the map is the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.a, self.b = (
            nn.Conv2d(3, 6, 3),
            nn.BatchNorm2d(6),
            nn.Conv2d(6, 8, 1),
            nn.Conv2d(8, 6, 1),
        )
        self.head = nn.Linear(6, 4)
        self.seen: Seen = {}

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        self.seen["a"] = F.hardswish(self.a(x))
        self.seen["stem"] = x + self.b(self.seen["a"])
        return self.head(self.seen["stem"].mean((2, 3)))


class ChannelsLast(nn.Module):
    """A block as in ConvNeXt: a linear layer per position, with the channels on the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.narrow = nn.Conv2d(3, 4, 2, stride=2), nn.Linear(4, 12), nn.Linear(12, 4)
        self.head = nn.Linear(4, 4)
        self.seen: Seen = {}

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        y = F.gelu(self.wide(x))
        self.seen = {"wide": y.movedim(-1, 1)}
        return self.head((x + self.narrow(y)).mean((1, 2)))


class CalledTwice(Written):
    """One convolution on two maps: images count twice."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen, calls = {}, []
        for part in (x, x.flip(3)):
            y = F.relu(self.norm_a(self.a(part)))
            calls.append(y)
            x = F.relu(self.norm_b(self.b(F.max_pool2d(y, 2))))
        self.seen["a"] = torch.cat(calls)
        return self.head(x.mean((2, 3)))


def _variants() -> dict[str, Callable[[], nn.Module]]:
    made: dict[str, Callable[[], nn.Module]] = {
        name: type(name, (Activation,), {"function": staticmethod(function)}) for name, function in FUNCTIONS.items()
    }
    for name, pool in POOLS.items():
        made[name] = type(name, (Written,), {"pool": lambda self, x, pool=pool: pool(x)})
    kinds = (
        FlattenedFirst,
        PoolBeforeActivation,
        SqueezeExcite,
        GateBeforeActivation,
        NormAfterActivation,
        ActivationInside,
        PooledTwice,
        Normalising,
    )
    return made | {kind.__name__: kind for kind in (*kinds, Concatenated, Dense, Residual, LinearStream, ChannelsLast)}


def gathered(
    net: nn.Module, *needs: Need, size: int = 7, layers: Any = "conv", **options: Any
) -> tuple[Any, dg.Domain]:
    """One pass over a domain; the groups of networks that differ in pooling alone are those of the plain one."""
    source, alike = domain("a", count=60, seed=6), type(net).__mro__[1] is Written and "pool" in vars(type(net))
    plain = randomise(Written(), dtype=torch.float32) if alike and not isinstance(net, SqueezeExcite) else net
    graph = dg.read_groups(plain, source.images[:2], layers=layers)
    return gather(net, graph, domain=source, needs=needs, size=size, **options), source


@pytest.mark.parametrize("name", _variants())
def test_the_map_is_right_behind_the_activation_and_before_the_pooling(name: str) -> None:
    net: Any = randomise(_variants()[name](), seed=4, dtype=torch.float32)
    statistics, source = gathered(net, "activation_map", layers="all" if name == "ChannelsLast" else "conv")
    with torch.no_grad():
        net(source.take(source.rows("score")).images)
    known = statistics.activation_map
    assert set(net.seen) <= set(known)
    for group in net.seen:
        expected = net.seen[group].double().mean(0)
        assert known[group].shape == expected.shape, group
        assert torch.allclose(known[group], expected, atol=1e-5), group


def formula(first: Tensor, second: Tensor) -> Tensor:
    """<M_S, M_T> / (|M_S| |M_T|) per filter, M the mean over images of (N, C, H, W) float64 maps; 0 for a zero map."""
    a, b = (maps.mean(0).flatten(1) for maps in (first, second))
    norms = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(norms > 0, (a * b).sum(1) / norms.clamp_min(1e-300), 0)


def by_hand(net: Any, part: dg.Domain, split: str) -> dict[str, dict[str, Tensor]]:
    """The paper's LeNet in float64, layer by layer: its maps at the three sites."""
    with torch.no_grad():
        x = net.normalise(part.take(part.rows(split)).images).double()
        conv1 = F.conv2d(x, net.conv1.weight.double(), net.conv1.bias.double(), padding=2)
        relu1 = conv1.clamp(min=0)
        pool1 = F.max_pool2d(relu1, 2)
        conv2 = F.conv2d(pool1, net.conv2.weight.double(), net.conv2.bias.double(), padding=2)
        relu2 = conv2.clamp(min=0)
    return {
        "conv_output": {"conv1": conv1, "conv2": conv2},
        "activation": {"conv1": relu1, "conv2": relu2},
        "consumer_input": {"conv1": pool1, "conv2": F.max_pool2d(relu2, 2)},
    }


@pytest.mark.parametrize("split", ["score", "report"])
def test_dss_on_the_papers_network_equals_the_formula_at_every_site(split: str) -> None:
    whole = dg.demo("paper")
    source, target = (
        replace(part, splits={name: part.rows(name)[:150] for name in ("score", "report")}) for part in whole.domains
    )
    study = dg.Study(whole.model, sources=[source], targets=[target])
    source, target = (by_hand(study.model, part, split) for part in study.domains)
    assert [source["activation"][name].shape[2:] for name in ("conv1", "conv2")] == [(28, 28), (14, 14)]
    for site in source:
        scores = study.score("dss", options={"site": site}, split=split).values
        for name in ("conv1", "conv2"):
            assert float((scores[name] - formula(source[site][name], target[site][name])).abs().max()) < 1e-6, site
    by_default = study.score("dss", split=split)
    assert by_default.options["site"] == "activation"
    assert all(torch.equal(by_default.values[k], v) for k, v in scores_at(study, "activation", split).items())
    assert not torch.equal(by_default.values["conv2"], scores_at(study, "consumer_input", split)["conv2"])


def scores_at(study: dg.Study, site: str, split: str) -> Any:
    return study.score("dss", options={"site": site}, split=split).values


def test_other_statistics_are_the_same_to_the_bit_beside_it() -> None:
    """The numbered calls are those of the network alone, whatever the other collectors compute in their hooks."""
    for made in (plain_net, norm_net, ResidualNet, DepthwiseNet, grouped_net):
        net = randomise(made(), seed=4, dtype=torch.float32)
        before = fingerprint(net)
        alone, _ = gathered(net, *ALL[1:])
        beside, _ = gathered(net, *ALL)
        assert fingerprint(net) == before
        only, _ = gathered(net, "activation_map")
        for group, maps in only.activation_map.items():
            assert torch.allclose(maps, beside.activation_map[group], atol=1e-5), group
        for need in ALL[1:]:
            first, second = getattr(alone, need), getattr(beside, need)
            assert first.keys() == second.keys() and first, need
            for key in first:
                a, b = (value if isinstance(value, tuple) else (value,) for value in (first[key], second[key]))
                assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True)), (need, key)


def test_it_is_one_pass_and_channels_last_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net = randomise(norm_net(), seed=4, dtype=torch.float32)
    images: list[int] = []
    forward = nn.Sequential.forward
    monkeypatch.setattr(nn.Sequential, "forward", lambda self, x: images.append(len(x)) or forward(self, x))
    study = dg.Study(net, sources=[domain("a", seed=6)], targets=[domain("t", seed=2)])
    study.statistics("a", needs=["mean_map"])
    images.clear()
    study.score_all(["dss", "l1", "activation_l1", "taylor"])
    assert sum(size for size in images if size > 2) == 20 + 20, "20 images of each domain, once"
    first, second = (
        gathered(net, "activation_map", layout=layout)[0].activation_map
        for layout in (torch.contiguous_format, torch.channels_last)
    )
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)


def test_a_layer_called_twice_counts_both_calls() -> None:
    net: Any = randomise(CalledTwice(), seed=4, dtype=torch.float32)
    statistics, source = gathered(net, "activation_map")
    with torch.no_grad():
        net(source.take(source.rows("score")).images)
    assert torch.allclose(statistics.activation_map["a"], net.seen["a"].double().mean(0), atol=1e-5)


class Reshaped(Written):
    """A Fourier transform before the pooling, of which no rule knows what it does to positions."""

    def after(self, x: Tensor, name: str) -> Tensor:
        return x

    def pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(torch.fft.fft2(x).real, 2)


class FoundOnce(Written):
    """The second layer runs twice, and only the map of its first call can be followed back to an activation."""

    def pool(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x).real

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm_a(self.a(x)))
        x = self.b(x) + self.b(self.pool(x))
        return self.head(torch.relu(self.norm_b(x)).mean((2, 3)))


def test_a_map_that_is_found_for_one_of_two_calls_does_not_stand_for_both() -> None:
    statistics, _ = gathered(randomise(FoundOnce(), seed=4, dtype=torch.float32), "activation_map", "mean_map")
    assert torch.equal(statistics.activation_map["a"], statistics.mean_map["a"])


def test_where_it_cannot_be_found_the_consumer_input_is_read_and_a_note_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = randomise(Reshaped(), seed=4, dtype=torch.float32)
    statistics, _ = gathered(net, "activation_map", "mean_map")
    assert torch.equal(statistics.activation_map["a"], statistics.mean_map["a"])
    assert statistics.activation_map["b"].shape == (5, 6, 6) and statistics.mean_map["b"].shape == (5, 1)
    monkeypatch.setattr("dgprune_lab.measurement.taps.activation_maps", lambda model, graph: {})
    study = dg.Study(randomise(plain_net(), dtype=torch.float32), sources=[domain("a")], targets=[domain("t", seed=2)])
    with pytest.warns(dg.DgpruneNote) as notes:
        scores = study.score("dss").values
    said = {str(note.message) for note in notes}
    for layer, reader in (("0", "3"), ("3", "7")):
        assert any(
            text.startswith(f"layer {layer!r}: its activation could not be found")
            and text.endswith(f"the map that {reader!r} reads is compared (site='consumer_input').")
            for text in said
        )
    expected = study.score("dss", options={"site": "consumer_input"}).values
    assert all(torch.equal(scores[name], expected[name]) for name in ("0", "3"))


def test_a_network_that_runs_otherwise_on_real_images_is_refused() -> None:
    class Fickle(Written):
        def after(self, x: Tensor, name: str) -> Tensor:
            return F.relu(x) if self.blank else F.leaky_relu(x)

        def forward(self, x: Tensor) -> Tensor:
            self.blank = not bool(x.any())
            return super().forward(x)

    plain, net = (randomise(made(), seed=4, dtype=torch.float32) for made in (Written, Fickle))
    source = domain("a", seed=6)
    graph = dg.read_groups(plain, source.images[:2])
    with pytest.raises(dg.DgpruneError, match=r"runs other operations on these images .* take site='consumer_input'"):
        gather(net, graph, domain=source, needs=["activation_map"])


def test_the_network_is_left_alone_where_its_images_raise() -> None:
    net = randomise(norm_net(), seed=4, dtype=torch.float32)
    graph, before = dg.read_groups(net, domain("a").images[:2]), fingerprint(net)
    with pytest.raises(RuntimeError):
        gather(net, graph, domain=domain("b", shape=(1, 12, 12)), needs=["activation_map"])
    assert fingerprint(net) == before
    assert torch.relu(torch.tensor([-1.0])).item() == 0 and not torch.overrides._get_current_function_mode_stack()


@pytest.mark.parametrize("pairing", ["means", "all_pairs", "paired"])
def test_dss_between_sources_and_every_pairing_at_the_activation(pairing: Any) -> None:
    net: Any = randomise(norm_net(), seed=4, dtype=torch.float32)
    study = dg.Study(net, sources=[domain("a"), domain("b", seed=1)], targets=[domain("t", seed=2)])
    maps: list[Tensor] = []
    for part in study.domains:
        with torch.no_grad():
            maps.append(net[:3](part.take(part.rows("score")).images).flatten(2).double())
    unit = [m / m.norm(dim=2, keepdim=True).clamp_min(1e-30) for m in maps]
    expected = []
    for source in (0, 1):
        every = torch.einsum("icp,jcp->ijc", unit[source], unit[2]).mean((0, 1))
        paired = (unit[source] * unit[2]).sum(2).mean(0)
        means = formula(maps[source][..., None], maps[2][..., None])
        expected.append({"means": means, "all_pairs": every, "paired": paired}[pairing])
    scores = study.score("dss", options={"pairing": pairing}).values["0"]
    assert torch.allclose(scores, torch.stack(expected).mean(0), atol=1e-5)
    between = study.score("dss_sources").values["0"]
    assert torch.allclose(between, formula(maps[0][..., None], maps[1][..., None]), atol=1e-5)
