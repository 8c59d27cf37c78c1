"""GC-Net: its weights are the correlations, it is pruned like any module, and its mask maps back to kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from material import ResidualNet, domain, fingerprint, grouped_net, images, plain_net, randomise
from planted import flat, linear_net, values
from test_co_moments import Concatenated, upsampled_net
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core.connections import Pair, Spread
from dgprune_lab.scorers.gc_net import correlation

ENOUGH = 3000


def study_of(model: nn.Module, count: int = ENOUGH) -> dg.Study:
    sources = [domain("a", count=count), domain("b", count=count, seed=1)]
    return dg.Study(randomise(model, seed=2, dtype=torch.float32), sources=sources, targets=[domain("t", seed=3)])


def test_its_weights_are_the_correlations_of_every_pair() -> None:
    study = study_of(ResidualNet())
    before, state = fingerprint(study.model), torch.get_rng_state()
    network = dg.gc_net(study)
    assert fingerprint(study.model) == before and torch.equal(torch.get_rng_state(), state)
    assert isinstance(network, nn.Module) and not any(p.requires_grad for p in network.parameters())
    keys = {(pair.group, pair.layer): pair.name for pair in network.pairs}
    assert keys == {
        ("stem", "inner"): "stem_to_inner",
        ("inner", "outer"): "inner_to_outer",
        ("stem", "last"): "stem_to_last",
        ("stem", "shortcut"): "stem_to_shortcut",
        ("last", "head"): "last_to_head",
    }
    assert [name for name, _ in network.named_parameters()] == list(keys.values())
    co_moments = [study.statistics(name, needs=["class_co_moments"]).class_co_moments for name in ("a", "b")]
    for key, name in keys.items():
        wanted = (correlation(co_moments[0][key]) + correlation(co_moments[1][key])) / 2
        null = sum(correlation(part[key], shuffled=True) for part in co_moments) / 2
        assert torch.equal(network.get_parameter(name), wanted.T)
        pair = next(pair for pair in network.pairs if pair.name == name)
        assert isinstance(null, Tensor) and pair.null == pytest.approx(float(null.mean()))
        assert pair.null_spread == pytest.approx(float(null.std(correction=0)))
        assert pair.null_expected == pytest.approx(0.8 / 250**0.5, rel=0.05)
        spread = network.spread[name]
        assert spread.std == pytest.approx(float(wanted.std(correction=0)))
        assert spread.low <= spread.middle <= spread.high and spread.mean == pytest.approx(float(wanted.mean()))
    assert sum(network.images["a"]) == ENOUGH // 3 and network.smallest == min(
        *network.images["a"], *network.images["b"]
    )


def test_its_provenance_lists_what_was_read() -> None:
    study = study_of(plain_net())
    cases: tuple[tuple[dict[str, Any], dict[str, str]], ...] = (
        ({}, {"a/score": "labels", "b/score": "labels"}),
        ({"split": "train"}, {"a/train": "labels", "b/train": "labels"}),
        ({"by_class": False}, {"a/score": "images", "b/score": "images"}),
    )
    for options, reads in cases:
        network = dg.gc_net(study, **options)
        mask = dg.allocate(network.scores(), ratio=0.5)
        cut = dg.masked(study.model, network.kernels(mask))
        assert network.reads == mask.reads == dg.provenance_of(network).scorer == dg.provenance_of(cut).scorer == reads
        assert dg.provenance_of(network.pruned(mask)).scorer == reads
    assert not study.statistics("a", needs=["co_moments"]).labels_read


def by_hand(model: nn.Module, gc_net: dg.GCNet, mask: dg.WeightMask) -> nn.Module:
    """The network with every kernel of a removed connection zeroed, one at a time."""
    with torch.no_grad():
        for pair in gc_net.pairs:
            layer = model.get_submodule(pair.layer)
            places, filters = gc_net.graph[pair.group].consumer_inputs[pair.layer]
            for output, number in (~mask.keep[pair.name]).nonzero().tolist():
                for place in places[filters == number].tolist():
                    weight = layer.weight
                    assert isinstance(weight, Tensor)
                    if isinstance(layer, nn.ConvTranspose2d):
                        weight[place, output] = 0
                    else:
                        weight[output, place] = 0
    return model


@pytest.mark.parametrize("build", [plain_net, ResidualNet, Concatenated, upsampled_net])
def test_removed_connections_map_back_to_kernels(build: type[nn.Module]) -> None:
    """A flatten, a residual stream, a concatenation, a transposed convolution."""
    study = study_of(build())
    network = dg.gc_net(study)
    mask = dg.allocate(network.scores(), ratio=0.4)
    kernels = network.kernels(mask)
    assert set(kernels.keep) == {f"{pair.layer}.weight" for pair in network.pairs}
    assert kernels.ratio_requested == 0.4 and kernels.ratio_achieved == pytest.approx(mask.ratio_achieved, abs=0.1)
    soft, plain = dg.masked(study.model, kernels), by_hand(study_of(build()).model, network, mask)
    x = images(5, 3, 12, 12, seed=8)
    with torch.no_grad():
        assert torch.equal(soft(x), plain(x)) and not torch.allclose(soft(x), study.model(x), atol=1e-3)
    for name, keep in kernels.keep.items():
        assert torch.equal(keep, plain.get_parameter(name) != 0), name


def test_it_is_pruned_by_allocate_and_masked() -> None:
    network = dg.gc_net(study_of(plain_net()))
    for scope in ("layer", "global"):
        mask = dg.allocate(network.scores(), ratio=0.5, scope=scope)
        cut, soft = network.pruned(mask), dg.masked(network, mask)
        for pair in network.pairs:
            keep, rho = mask.keep[pair.name], network.get_parameter(pair.name)
            assert torch.equal(cut.get_parameter(pair.name), torch.where(keep, rho, 0))
            assert isinstance(soft, dg.GCNet) and torch.equal(soft.rho(pair.name), cut.rho(pair.name))
            if scope == "layer":
                assert int((~keep).sum()) == keep.numel() // 2
                assert float(rho[~keep].max()) <= float(rho[keep].min())
        strength = torch.rand(2, network.graph.groups[0].filters).double()
        assert torch.equal(cut(strength), soft(strength)) and not torch.allclose(cut(strength), network(strength))
    assert network.spread != cut.spread and cut.pairs == network.pairs


def test_forward_propagates_importance_as_linear_layers_do() -> None:
    chain = dg.gc_net(study_of(plain_net()))
    first, second = chain.parameters()
    start = torch.rand(6).double()
    assert torch.allclose(chain(start), second @ (first @ start / 6) / 8)
    stream = dg.gc_net(study_of(ResidualNet()))
    rho = {(pair.group, pair.layer): stream.rho(pair.name) for pair in stream.pairs}
    after = start + rho["inner", "outer"] @ (rho["stem", "inner"] @ start / 6) / 5
    last = (rho["stem", "last"] + rho["stem", "shortcut"]) @ after / 6
    assert torch.allclose(stream(start), rho["last", "head"] @ last / 7)
    assert stream(start.expand(3, 6)).shape == (3, 4)


def test_scores_with_weights_and_a_start_layer() -> None:
    study = study_of(ResidualNet())
    network = dg.gc_net(study)
    rho = {pair.name: pair for pair in network.pairs}
    weight = study.model.get_parameter("last.weight").detach().double()
    size = network.magnitude["stem_to_last"]
    assert torch.allclose(size, weight.abs().sum((2, 3)))

    def order(value: Tensor) -> list[int]:
        return value.flatten().argsort(stable=True).tolist()

    ranked = network.scores(weights="rank")
    late = network.scores(start="last")
    both = network.scores(start="last", weights="rank")
    for name, pair in rho.items():
        value = network.rho(name)
        product = value * network.magnitude[name]
        assert order(network.scores().values[name]) == order(value)
        assert order(ranked.values[name]) == order(product)
        early = pair.layer in ("inner", "outer")
        assert order(late.values[name]) == order(network.magnitude[name] if early else value)
        assert order(both.values[name]) == order(network.magnitude[name] if early else product)
        assert float(ranked.values[name].min()) > 0 and float(ranked.values[name].max()) == 1
    assert late.options["start"] == "last" and late.reads == network.reads
    with pytest.raises(dg.DgpruneError, match=r"unknown layer 'lost'; known: inner, .*Did you mean 'last'"):
        network.scores(start="lost")
    with pytest.raises(dg.DgpruneError, match=r"weights must be one of 'none', 'rank'; got 'sum'"):
        network.scores(weights="sum")  # type: ignore[arg-type]


def test_a_mask_of_another_gc_net_is_refused() -> None:
    network, other = dg.gc_net(study_of(plain_net())), dg.gc_net(study_of(ResidualNet()))
    mask = dg.allocate(other.scores(), ratio=0.5)
    for function in (network.kernels, network.pruned):
        with pytest.raises(dg.DgpruneError, match=r"does not fit.* has 0_to_3, 3_to_7; got stem_to"):
            function(mask)
    with pytest.raises(dg.DgpruneError, match=r"single weights.*use masked"):
        dg.prune(network, mask)  # type: ignore[arg-type]


def test_connections_with_little_spread_are_called_nearly_uniform() -> None:
    def summary(second: list[list[float]]) -> str:
        source = flat("a", values(2400), labels=torch.arange(2400) % 4)
        return dg.gc_net(dg.Study(linear_net(second), sources=[source])).summary()

    apart = summary([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    assert apart.startswith("0 to 1: rho 0.") and "nearly uniform" not in apart and apart.count("\n") == 1
    alike = summary([[1.0, 1.0, 1.0]] * 3)  # every filter is a third of every output: rho = .58 throughout
    assert "0 to 1: rho 0.58" in alike and alike.splitlines()[0].endswith("; nearly uniform")
    assert alike.splitlines()[-1].startswith("Nearly uniform: ") and alike.endswith("close to random.")
    assert "0 to 1: rho 0.00, spread 0.00; by chance 0.00, spread 0.00; 100% are exactly 0; nearly" in summary(
        [[0.0] * 3]
    )
    line = Pair(name="a_to_b", group="a", layer="b", null=0.1, null_spread=0.02, null_expected=0.1)
    assert line.words(Spread.of(torch.tensor([0.1, 0.11, 0.12]))).endswith("; nearly uniform")
    assert "nearly" not in line.words(Spread.of(torch.tensor([0.1, 0.2, 0.3])))
    assert "67% are exactly 0" in line.words(Spread.of(torch.tensor([0.0, 0.0, 0.5])))


def test_its_table_has_a_row_per_pair() -> None:
    network = dg.gc_net(study_of(ResidualNet()))
    table = network.table()
    assert table[["group", "layer"]].to_numpy().tolist() == [[pair.group, pair.layer] for pair in network.pairs]
    assert table["filters"].tolist() == [6, 5, 6, 6, 7] and table["outputs"].tolist() == [5, 6, 7, 7, 4]
    assert table["words"].tolist() == [pair.words(network.spread[pair.name]) for pair in network.pairs]
    assert "stem_to_inner=5x6" in repr(network)


def test_signed_connections_keep_their_sign() -> None:
    source = flat("a", values(2400), labels=torch.arange(2400) % 4)
    study = dg.Study(linear_net([[1.0, 0, 0], [-1.0, 0, 0]]), sources=[source])
    network = dg.gc_net(study, signed=True).get_parameter("0_to_1")
    assert network[:, 0].tolist() == pytest.approx([1, -1], abs=1e-6)
    assert not dg.allocate(dg.gc_net(study, signed=True).scores(), ratio=1 / 6).keep["0_to_1"][1, 0]


def test_networks_that_cannot_be_measured_are_refused() -> None:
    few = dg.Study(randomise(plain_net(), dtype=torch.float32), sources=[domain("few", count=60)])
    with pytest.warns(dg.DgpruneNote, match=r"images of 'few' in its smallest class"):
        dg.gc_net(few)
    bare = dg.Study(few.model, sources=[domain("bare", count=60, labelled=False)])
    with pytest.raises(dg.DgpruneError, match=r"'bare' has no labels"):
        dg.gc_net(bare)
    with pytest.raises(dg.DgpruneError, match=r"no split 'test'"):
        dg.gc_net(few, split="test")
    head = nn.Sequential(*list(grouped_net())[:4], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    tied = dg.Study(randomise(head, dtype=torch.float32), sources=[domain("a", classes=12, count=60)])
    with pytest.raises(dg.DgpruneError, match=r"no pair of consecutive layers"):
        dg.gc_net(tied)
