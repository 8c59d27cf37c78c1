"""Weights of other tools: true files of each, loaded into a network, or refused in words with nothing changed."""

from __future__ import annotations

import argparse
import copy
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from material import ResidualNet, domain, fingerprint, images, randomise
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import dgprune_lab as dg

State = dict[str, Tensor]


def network(seed: int, *, classes: int = 4) -> ResidualNet:
    return randomise(ResidualNet(classes), seed=seed, dtype=torch.float32)


TRAINED = network(1)
STATE: State = TRAINED.state_dict()
EMA: State = network(2).state_dict()
X = images(3, 3, 12, 12)


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(X)


def under(start: str, state: Mapping[str, Tensor] = STATE) -> State:
    return {f"{start}{name}": tensor for name, tensor in state.items()}


class Featurizer(nn.Module):
    """DomainBed's ResNet: the network without its head, as `network`."""

    def __init__(self) -> None:
        super().__init__()
        self.network = copy.deepcopy(TRAINED)
        self.network.head = nn.Identity()  # type: ignore[assignment]


class ERM(nn.Module):
    """DomainBed's algorithm, which registers featurizer and classifier twice."""

    def __init__(self) -> None:
        super().__init__()
        self.featurizer, self.classifier = Featurizer(), copy.deepcopy(TRAINED.head)
        self.network = nn.Sequential(self.featurizer, self.classifier)


def domainbed(**further: Tensor) -> dict[str, Any]:
    """What `save_checkpoint` of DomainBed's train.py writes; some hyperparameters are numpy numbers."""
    return {
        "args": {"algorithm": "ERM", "test_envs": [0]},
        "model_input_shape": (3, 12, 12),
        "model_num_classes": 4,
        "model_num_domains": 3,
        "model_hparams": {"lr": 5e-5, "resnet_dropout": np.float64(0.1), "batch_size": np.int64(32)},
        "model_dict": {**ERM().state_dict(), **further},
    }


def lightning() -> dict[str, Any]:
    """What a Trainer of Lightning saves, for a module with the network as `model` and a weighted loss."""
    return {
        "epoch": 3,
        "global_step": 40,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {**under("model."), "criterion.weight": torch.ones(4)},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.8)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(6, 3, 3, 3)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "data": Path("data")},
    }


def timm(**further: Any) -> dict[str, Any]:
    return {"epoch": 3, "arch": "x", "state_dict": STATE, "version": 2, "args": argparse.Namespace(lr=0.1), **further}


def pooled_name(state: State) -> State:
    return {name.replace("head.", "fc."): tensor for name, tensor in state.items()}


READ: dict[str, tuple[Callable[[], Any], str | None]] = {
    "plain": (lambda: STATE, None),
    "DomainBed": (domainbed, r"key='model_dict', prefix={'': 'featurizer\.network\.', 'head': 'classifier\.'}\.$"),
    "DomainBed, DANN": (
        lambda: domainbed(**{"discriminator.0.weight": torch.ones(4, 7), "update_count": torch.zeros(1)}),
        r"model_dict.*not used: model_dict\.discriminator\.0\.weight, model_dict\.update_count",
    ),
    "DomainBed, network alone": (
        lambda: {k: v for k, v in ERM().state_dict().items() if k.startswith("network.")},
        r"prefix={'': 'network\.0\.network\.', 'head': 'network\.1\.'}",
    ),
    "DataParallel": (lambda: nn.DataParallel(TRAINED).state_dict(), r"prefix='module\.'\.$"),
    "Lightning": (lightning, r"key='state_dict', prefix='model\.'; not used: .*criterion\.weight"),
    "timm": (timm, r"key='state_dict', prefix=''\.$"),
    "timm, EMA of equal weights": (lambda: timm(state_dict_ema=STATE), r"key='state_dict', prefix=''\.$"),
    "torchvision": (lambda: {"model": STATE, "epoch": 3}, r"key='model', prefix=''"),
    "compiled": (lambda: under("_orig_mod."), None),
    "compiled, DataParallel": (lambda: under("module._orig_mod."), r"prefix='module\.'\.$"),
    "Dassl": (lambda: {"state_dict": dassl()}, r"key='state_dict', prefix={'': 'backbone\.', 'head': 'classifier\.'}"),
    "beside an optimiser": (
        lambda: {**STATE, "optimizer": {"state": {0: {"exp_avg": torch.ones(6)}}}},
        r"not used: optimizer\.state\.0\.exp_avg\.$",
    ),
    "a dict a part": (
        lambda: {"encoder": headless(), "classifier": TRAINED.head.state_dict()},
        r"prefix={'': 'encoder\.', 'head': 'classifier\.'}",
    ),
    "half": (lambda: halved(STATE), r": converted from float16\.$"),
    "double, in a wrapper": (lambda: under("net.", doubled()), r"prefix='net\.'; converted from float64"),
    "sharded": (lambda: {n.replace(".", "._fsdp_wrapped_module.", 1): t for n, t in STATE.items()}, None),
    "arrays": (lambda: {"params": {n: t.numpy() for n, t in STATE.items()}}, r"key='params', prefix=''\.$"),
    "before BatchNorm counted": (lambda: {k: v for k, v in STATE.items() if "num_batches" not in k}, None),
}


def headless(state: State = STATE) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}


def dassl(state: State = STATE) -> State:
    head = {name.replace("head.", "classifier."): value for name, value in state.items() if name.startswith("head.")}
    return {**under("backbone.", headless(state)), **head}


def halved(state: State) -> State:
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def doubled() -> State:
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in STATE.items()}


@pytest.mark.parametrize("case", READ)
def test_a_file_is_read_and_what_was_done_is_said(case: str, tmp_path: Path) -> None:
    make, words = READ[case]
    torch.save(make(), tmp_path / "net.pth")
    model = network(0).train()
    before = fingerprint(model)
    with pytest.warns(dg.DgpruneNote, match=words) if words else nullcontext():  # a note would be an error
        loaded = dg.load_weights(model, tmp_path / "net.pth")
    wanted = copy.deepcopy(TRAINED).half().float() if case == "half" else TRAINED
    assert torch.equal(logits(loaded), logits(wanted)) and not loaded.training
    assert fingerprint(model) == before and not torch.equal(logits(network(0)), logits(TRAINED))


def test_a_bare_safetensors_file_and_a_dict_are_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "bare.safetensors")
    for weights in (tmp_path / "bare.safetensors", str(tmp_path / "bare.safetensors"), STATE):
        assert torch.equal(logits(dg.load_weights(network(0), weights)), logits(TRAINED))
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(logits(dg.load_weights(network(0), tmp_path / "old.pth")), logits(TRAINED))


def test_a_place_that_fits_as_a_whole_comes_before_one_that_holds_more() -> None:
    content = {**under("student."), "student.further.weight": torch.ones(2, 2), **under("teacher.", EMA)}
    assert torch.equal(logits(quietly(network(0), content)), logits(network(2)))


def test_of_two_fits_one_must_be_named() -> None:
    both = timm(state_dict_ema=EMA)
    with pytest.raises(
        dg.DgpruneError, match=r"2 places: key='state_dict', prefix=''; key='state_dict_ema', prefix=''"
    ):
        dg.load_weights(network(0), both)
    for key, wanted in (("state_dict", TRAINED), ("state_dict_ema", network(2))):
        assert torch.equal(logits(quietly(network(0), both, key=key)), logits(wanted))
    averaged = AveragedModel(network(2))
    torchvision = {"model": STATE, "model_ema": averaged.state_dict()}
    with pytest.raises(dg.DgpruneError, match=r"key='model', prefix=''; key='model_ema', prefix='module\.'"):
        dg.load_weights(network(0), torchvision)
    assert torch.equal(logits(quietly(network(0), torchvision, key="model_ema")), logits(network(2)))
    with pytest.raises(dg.DgpruneError, match=r"2 places: key='now', .*'classifier\.'}; key='mean', .*'classifier\.'}"):
        dg.load_weights(network(0), {"now": dassl(), "mean": dassl(EMA)})
    pair = {**under("student."), **under("teacher.", EMA)}
    with pytest.raises(dg.DgpruneError, match=r"prefix='student\.'; prefix='teacher\.'"):
        dg.load_weights(network(0), pair)
    for prefix in ("teacher.", "teacher"):
        assert torch.equal(logits(quietly(network(0), pair, prefix=prefix)), logits(network(2)))
    with pytest.raises(dg.DgpruneError, match=r"unknown key 'modl'; known: .*Did you mean 'model'"):
        dg.load_weights(network(0), torchvision, key="modl")
    with pytest.raises(dg.DgpruneError, match=r"no tensor of this network is in the dict with prefix='x'"):
        dg.load_weights(network(0), pair, prefix="x")


def test_of_two_heads_one_must_be_named() -> None:
    heads = {**dassl(), **under("fc.", {"weight": EMA["head.weight"], "bias": EMA["head.bias"]})}
    with pytest.raises(dg.DgpruneError, match=r"2 places: .*'head': 'classifier\.'}; .*'head': 'fc\.'}"):
        dg.load_weights(network(0), heads)
    chosen = quietly(network(0), heads, prefix={"": "backbone.", "head": "fc."})
    assert torch.equal(chosen.state_dict()["head.bias"], EMA["head.bias"])


WRAPPED: dict[str, Callable[[nn.Module], Any]] = {
    "nn.Sequential": lambda inner: nn.Sequential(OrderedDict(body=nn.Sequential(inner))),
    "nn.DataParallel": nn.DataParallel,
    "normalised": lambda inner: dg.models.normalised(inner, "imagenet"),
}


@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize("case", ["plain", "Lightning", "DomainBed", "Dassl"])
def test_the_network_may_be_in_a_wrapper_that_the_saved_one_was_not_in(wrap: str, case: str) -> None:
    loaded: Any = quietly(WRAPPED[wrap](network(0)), READ[case][0]())
    inner = next(module for module in loaded.modules() if type(module) is type(TRAINED))
    assert torch.equal(logits(inner), logits(TRAINED))
    assert wrap != "normalised" or loaded.normalise.mean[0] == pytest.approx(0.485)


def quietly(model: nn.Module, weights: Any, **options: Any) -> nn.Module:
    with pytest.warns(dg.DgpruneNote):
        return dg.load_weights(model, weights, **options)


def test_of_two_layers_that_the_file_lacks_none_is_taken_for_its_classifier() -> None:
    two = nn.Sequential(OrderedDict(body=nn.Linear(5, 4), neck=nn.Linear(4, 4), head=nn.Linear(4, 4)))
    body = {f"backbone.body.{name}": tensor for name, tensor in nn.Linear(5, 4).state_dict().items()}
    file = {**body, **under("classifier.", nn.Linear(4, 4).state_dict())}
    with pytest.raises(dg.DgpruneError, match=r"lacks neck\.weight, neck\.bias, head\.weight, head\.bias"):
        dg.load_weights(two, file)


def test_a_prefix_for_each_layer_can_be_given() -> None:
    file = {**under("body.", headless()), **under("answer.", TRAINED.head.state_dict())}
    with pytest.raises(dg.DgpruneError, match=r"lacks head\.weight, head\.bias\. Build.*skip=\['head'\]"):
        dg.load_weights(network(0), file)
    loaded = dg.load_weights(network(0), file, prefix={"": "body.", "head": "answer"})
    assert torch.equal(logits(loaded), logits(TRAINED))


def test_a_head_for_other_classes_is_refused_unless_it_is_named() -> None:
    model = network(0, classes=6)
    with pytest.raises(
        dg.DgpruneError, match=r"head\.weight is \(6, 7\) in the network, \(4, 7\) in the file.*skip=\['head'\]"
    ):
        dg.load_weights(model, STATE)
    loaded = quietly(model, STATE, skip="head")
    now, then = loaded.state_dict(), model.state_dict()
    assert all(torch.equal(t, (then if n.startswith("head.") else STATE)[n]) for n, t in now.items())
    with pytest.raises(dg.DgpruneError, match=r"has a layer 'haed'; layers are stem.*Did you mean 'head'"):
        dg.load_weights(network(0), STATE, skip=["haed"])
    with pytest.raises(dg.DgpruneError, match=r"has a layer 'nothing'; layers are stem[^?]*$"):
        dg.load_weights(network(0), STATE, skip=["nothing"])


def test_a_deeper_network_of_the_same_names_is_refused() -> None:
    """All tensors of the shallower network are in the file of the deeper one."""
    shallow, deep = (nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(count))) for count in (2, 3))
    with pytest.raises(dg.DgpruneError, match=r"the network lacks 2\.weight, 2\.bias"):
        dg.load_weights(shallow, under("module.", deep.state_dict()))
    assert torch.equal(quietly(shallow, deep.state_dict(), skip=["2"])[0].weight, deep[0].weight)  # type: ignore[index]


class Harmful:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("harm"),)


def renamed(*ends: str) -> State:
    """A state_dict whose first weight is computed from other tensors."""
    name = next(name for name in STATE if name.endswith(".weight"))
    start = name.removesuffix("weight")
    return {**{n: t for n, t in STATE.items() if n != name}, **{f"{start}{end}": STATE[name] for end in ends}}


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "whole network": (
        lambda p: torch.save(TRAINED, p),
        r"objects of material\.ResidualNet.*any code.*trust.*weights_only=False.*content\.state_dict\(\)",
    ),
    "code": (lambda p: p.write_bytes(pickle.dumps({"state_dict": Harmful()}, protocol=2)), r"any code"),
    "other objects": (lambda p: torch.save({"state_dict": STATE, "x": Harmful()}, p), r"any code"),
    "no tensors": (lambda p: torch.save({"epoch": 3}, p), r"holds no tensors by name"),
    "other names": (
        lambda p: torch.save(pooled_name(nn.Linear(2, 2).state_dict()), p),
        r"no tensor of this network is in net\.pth: the network has .*stem\.weight.*; the file has weight, bias",
    ),
    "not finite": (lambda p: torch.save({**STATE, "head.bias": torch.full((4,), torch.nan)}, p), r"head\.bias in net"),
    "integers": (lambda p: torch.save({**STATE, "head.bias": torch.ones(4, dtype=torch.int8)}, p), r"int8.*float32"),
    "masked": (lambda p: torch.save(renamed("weight_orig", "weight_mask"), p), r"torch\.nn\.utils\.prune\.remove"),
    "weight norm": (
        lambda p: torch.save(renamed("weight_g", "weight_v"), p),
        r"Make them permanent .*remove_weight_norm",
    ),
    "dg.save": (lambda p: p.write_bytes(dg.save(TRAINED, p.parent / "own").read_bytes()), r"dg\.load\(path, model="),
    "cut": (lambda p: (torch.save(STATE, p), p.write_bytes(p.read_bytes()[:900])), r"damaged"),
    "cut, old format": (
        lambda p: (torch.save(STATE, p, _use_new_zipfile_serialization=False), p.write_bytes(p.read_bytes()[:5000])),
        r"damaged or was cut short",
    ),
    "text": (lambda p: p.write_text("<html>"), r"web page"),
    "missing": (lambda p: None, r"is not a file; check the path"),
    "folder": (lambda p: (p.mkdir(), [(p / n).touch() for n in (".a", "b.md", "c.pt")]), r"is a folder; .* as c\.pt\."),
    "folder without weights": (lambda p: (p.mkdir(), (p / "b.md").touch()), r"is a folder; name a file .*as b\.md\."),
    "empty folder": (lambda p: p.mkdir(), r"net\.pth is a folder; there is not a file in it, so check the path\."),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_said_and_nothing_is_executed(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, words = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "net.pth")
    model = network(0)
    before = fingerprint(model)
    with pytest.raises(dg.DgpruneError, match=words):
        dg.load_weights(model, tmp_path / "net.pth")
    assert fingerprint(model) == before and not Path("harm").exists()


def test_tensors_without_dense_numbers_are_refused() -> None:
    weight = STATE["head.weight"]
    for other, words in ((weight.to("meta"), r"on the meta device"), (weight.to_sparse(), r"is sparse; save it")):
        with pytest.raises(dg.DgpruneError, match=words):
            dg.load_weights(network(0), {**STATE, "head.weight": other})


def test_a_network_that_cannot_be_copied_is_refused() -> None:
    with pytest.raises(dg.DgpruneError, match=r"meta device"):
        dg.load_weights(network(0).to("meta"), STATE)


def test_tied_weights_that_the_file_unties_are_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    untied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).state_dict()
    with pytest.raises(dg.DgpruneError, match=r"0\.weight of this network could not take its values"):
        dg.load_weights(model, untied)


def untold_lenet() -> State:
    return dg.models.networks.lenet(seed=1).state_dict()


def test_weights_of_elsewhere_have_an_unknown_training_and_can_be_pruned() -> None:
    untrained = dg.models.networks.lenet(widths=(4, 4), hidden=(5, 5))
    assert dg.provenance_of(untrained).training == {}
    loaded = dg.load_weights(untrained, dg.models.networks.lenet(widths=(4, 4), hidden=(5, 5), seed=1).state_dict())
    assert dg.provenance_of(loaded) == dg.Provenance()
    digits = dg.data.load("uci_digits")
    declared = dg.Study(
        dg.load_weights(dg.models.networks.lenet(seed=3), untold_lenet()), sources=[digits], trained_on=[]
    )
    assert declared.training_seed is None, "3 is the seed of weights that were replaced"
    study = dg.Study(quietly(network(0), domainbed()), sources=[domain("a")])
    small = dg.prune(study.model, dg.allocate(study.score("l1"), ratio=0.5))
    assert logits(small).shape == (3, 4)


def test_counters_of_batchnorm_that_were_converted_with_the_weights_stay_whole_numbers() -> None:
    loaded = quietly(network(0), {name: tensor.double() for name, tensor in STATE.items()}).state_dict()
    assert all(
        loaded[name].dtype == wanted.dtype and torch.equal(loaded[name], wanted) for name, wanted in STATE.items()
    )


def test_a_network_in_half_precision_keeps_its_type() -> None:
    loaded = quietly(network(0).half(), STATE)
    assert {t.dtype for t in loaded.parameters()} == {torch.float16}
    with pytest.raises(dg.DgpruneError, match=r"head\.bias .*infinite"):
        dg.load_weights(network(0).half(), {**STATE, "head.bias": torch.full((4,), 1e6)})
