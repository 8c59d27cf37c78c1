"""Pooled outputs under a mask equal those of the masked network, column for column, for every kind of network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from material import DepthwiseNet, ResidualNet, domain, fingerprint, norm_net, plain_net, randomise, zeroed
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core.errors import DgpruneError
from dgprune_lab.core.steps import drain
from dgprune_lab.measurement.evaluator import Evaluator

NETS: dict[str, Any] = {"plain": plain_net, "norm": norm_net, "residual": ResidualNet, "depthwise": DepthwiseNet}


def study_of(name: str) -> dg.Study:
    model = randomise(NETS[name](), dtype=torch.float32)
    return dg.Study(model, sources=[domain("a")], targets=[domain("t", seed=2, labelled=False)])


def slow(study: dg.Study, net: nn.Module, layer: str) -> Tensor:
    """(N, C) spatial mean at the input of the last consumer, position by position."""
    group, recorded = study.graph[layer], []
    consumer = group.consumers[-1]
    target = study.domain("t")
    handle = net.get_submodule(consumer).register_forward_pre_hook(lambda _, x: recorded.append(x[0].detach().clone()))
    net.eval()(target.take(target.rows("report")).images)
    handle.remove()
    result = torch.zeros(len(target.rows("report")), group.filters)
    count = torch.zeros(group.filters)
    for place, filter_ in zip(*(part.tolist() for part in group.consumer_inputs[consumer]), strict=True):
        result[:, filter_] += recorded[0][:, place].reshape(len(result), -1).mean(1)
        count[filter_] += 1
    return result / count


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("name", NETS)
def test_features_equal_those_of_the_masked_network(name: str, scope: Any) -> None:
    study = study_of(name)
    before = fingerprint(study.model)
    mask = dg.allocate(study.score("l1"), ratio=0.5, scope=scope)
    for layer in study.graph.names:
        full = drain(study.feature_steps(None, layer=layer, domain="t"))
        pruned = drain(study.feature_steps(mask, layer=layer, domain="t", batchnorm="as_is"))
        assert torch.allclose(full, slow(study, study.model, layer), atol=1e-5) and full.std() > 0
        assert torch.allclose(pruned, slow(study, zeroed(study.model, mask), layer), atol=1e-5)
        assert not pruned[:, ~mask.keep[layer]].any() and pruned.shape == full.shape
        assert not torch.allclose(full, pruned)
    assert fingerprint(study.model) == before and not any(len(m._forward_pre_hooks) for m in study.model.modules())


def test_features_with_recalibrated_batchnorm() -> None:
    study = study_of("norm")
    mask = dg.allocate(study.score("l1"), ratio=0.5)
    result = drain(study.feature_steps(mask, layer="4", domain="t", batchnorm="recalibrate"))
    kept = mask.keep["4"]
    small = dg.recalibrate(dg.prune(study.model, mask), study.sources)
    recorded: list[Tensor] = []
    small[9].register_forward_pre_hook(lambda _, x: recorded.append(x[0].detach().clone()))  # type: ignore[index]
    target = study.domain("t")
    small.eval()(target.take(target.rows("report")).images)
    assert torch.allclose(result[:, kept], recorded[0], atol=1e-4)


def test_features_are_cached_until_the_network_changes() -> None:
    study = study_of("plain")
    first = drain(study.feature_steps(None, layer="0", domain="t", images=5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "feature_steps", None)  # the second time they come from the cache
        again = drain(study.feature_steps(None, layer="0", domain="t", images=5))
    assert torch.equal(again, first) and len(first) == 5
    with torch.no_grad():
        study.model[0].weight.mul_(2)  # type: ignore[index, union-attr]
    assert not torch.equal(drain(study.feature_steps(None, layer="0", domain="t", images=5)), first)


def test_an_unknown_layer_and_a_network_with_nan_are_refused() -> None:
    study = study_of("plain")
    with pytest.raises(DgpruneError, match=r"unknown layer 'conv9'; known: 0, 3"):
        drain(study.feature_steps(None, layer="conv9", domain="t"))
    with torch.no_grad():
        study.model[0].weight.fill_(float("nan"))  # type: ignore[index, union-attr]
    with pytest.raises(DgpruneError, match="NaN or infinite"):
        drain(study.feature_steps(None, layer="0", domain="t"))


class Small(nn.Module):
    """A network of the user's with a part called `small`, whose convolution `c` is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.b, self.c, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.c(self.small(x)) + self.c(self.b(x).relu() * 0.3)).relu().mean((2, 3)))


def test_user_names_do_not_clash_and_calls_of_one_layer_are_averaged() -> None:
    model = randomise(Small(), dtype=torch.float32)
    study = dg.Study(model, sources=[domain("a")], targets=[domain("t", seed=2)])
    recorded: list[Tensor] = []
    model.c.register_forward_pre_hook(lambda _, x: recorded.append(x[0].detach().mean((2, 3))))
    target = study.domain("t")
    with torch.no_grad():
        Small.forward(model, target.take(target.rows("report")).images)
    model.c._forward_pre_hooks.clear()
    result = drain(study.feature_steps(None, layer="small.0", domain="t"))
    assert len(recorded) == 2 and torch.allclose(result, (recorded[0] + recorded[1]) / 2, atol=1e-6)


class Broken(torch.utils.data.Dataset[Any]):
    """Images on demand, one of which is NaN; its labels are known without reading them."""

    targets = tuple(k % 4 for k in range(60))

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(index))
        return (image * float("nan") if index == 45 else image), self.targets[index]


def test_a_domain_with_nan_is_named() -> None:
    parts = {"train": range(20), "score": range(20, 40), "report": range(40, 60)}
    broken = dg.Domain.from_dataset("t", Broken(), splits=parts)
    study = dg.Study(randomise(norm_net(), dtype=torch.float32), sources=[domain("a")], targets=[broken])
    with pytest.raises(DgpruneError, match="domain 't': the image of item 45: it holds NaN or infinite pixels"):
        drain(study.feature_steps(None, layer="4", domain="t"))
    with pytest.raises(DgpruneError, match="domain 't'"):
        dg.diagnostics.feature_shift(study, embedding="none")
