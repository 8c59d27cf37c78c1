"""Saved networks: one file for weights and card, hashes that are compared, and files of others answered in words."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from material import DepthwiseNet, ResidualNet, fingerprint, images, norm_net, plain_net, random_mask
from safetensors.torch import load_file, save_file
from torch import nn

import dgprune_lab as dg
from dgprune_lab.core import Provenance, provenance_of, set_provenance
from dgprune_lab.models import SHIPPED, container, networks, saving
from dgprune_lab.models.networks import BUILDERS, build

RESOURCES = Path(saving.__file__).parent / "shipped"


def small(seed: int = 0) -> nn.Module:
    return networks.digits_net(widths=(2, 2, 2, 2, 2), seed=seed)


def chosen_on_the_target(seed: int = 1) -> nn.Module:
    net = small(seed)
    set_provenance(net, Provenance(training={}, selection={"target/score": "labels"}))
    return net


@pytest.mark.parametrize("name", BUILDERS)
def test_a_network_that_the_package_builds_is_loaded_by_itself(name: str, tmp_path: Path) -> None:
    widths = [4] * {
        "digits_net": 5,
        "lenet": 2,
        "nin": 3,
        "one_hidden_layer": 1,
        "vgg_small": 4,
        "vgg11_bn_32": 8,
        "resnet18_32": 4,
        "resnet20": 3,
    }[name]
    options: dict[str, Any] = {
        "classes": 7,
        "mean": (0.1, 0.2, 0.3),
        "std": np.float32(0.5),
        "widths": widths,
        "seed": 3,
    }
    net = BUILDERS[name](**options)
    back = dg.load(dg.save(net, tmp_path / name))
    assert {k: v.tolist() for k, v in back.state_dict().items()} == {k: v.tolist() for k, v in net.state_dict().items()}
    assert repr(back) == repr(net) and not back.training


def test_a_network_is_built_on_the_cpu_with_the_same_weights_whatever_the_default_device() -> None:
    with torch.device("meta"):
        net = networks.lenet(mean=torch.full((3,), 0.5, device="cpu"), seed=4)  # type: ignore[arg-type]
    there, here = net.state_dict(), networks.lenet(mean=0.5, seed=4).state_dict()
    assert all(not tensor.is_meta and torch.equal(tensor, here[name]) for name, tensor in there.items())


def test_a_pruned_network_is_loaded_with_its_masks_and_in_its_type(tmp_path: Path) -> None:
    for dtype in (torch.float16, torch.float64):
        net = networks.lenet(widths=(6, 4), hidden=(5, 5))
        mask = dg.Mask.by_hand(dg.read_groups(net, torch.rand(1, 3, 28, 28)), removed={"conv1": [0, 4], "conv2": [1]})
        pruned = dg.prune(net, mask).to(dtype)
        back = dg.load(dg.save(pruned, tmp_path / "a"))
        assert all(torch.equal(t, back.state_dict()[n]) for n, t in pruned.state_dict().items())
        assert {t.dtype for t in back.parameters()} == {dtype}


def test_a_network_that_fx_traced_is_saved_and_loaded(tmp_path: Path) -> None:
    model, fresh = (torch.fx.symbolic_trace(plain_net()) for _ in range(2))
    graph = dg.read_groups(model, images(1, 3, 12, 12))
    small = dg.prune(model, random_mask(graph, seed=1)).eval()
    loaded = dg.load(dg.save(small, tmp_path / "traced"), model=fresh)
    x = images(2, 3, 12, 12)
    assert torch.equal(loaded(x), small(x)) and not torch.equal(loaded(x), model.eval()(x))


@pytest.mark.parametrize("step", range(6))
def test_a_kill_at_any_step_leaves_weights_and_card_of_one_network(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that touches the disk is, in turn, where the process ends."""
    first, second = small(0), chosen_on_the_target()
    path = dg.save(first, tmp_path / "net")
    calls = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls - 1 == step:
                raise KeyboardInterrupt
            return function(*args, **options)

        return call

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(os, "unlink", counted(os.unlink))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        dg.save(second, path)
        raise KeyboardInterrupt  # fewer steps than this one
    back = dg.load(path)
    of = {True: first, False: second}[torch.equal(back.head.weight, first.head.weight)]  # type: ignore[arg-type]
    assert provenance_of(back) == provenance_of(of)
    assert all(torch.equal(t, of.state_dict()[n]) for n, t in back.state_dict().items())
    beside = path.with_suffix(".json")
    assert not beside.exists() or json.loads(beside.read_text())["provenance"] == provenance_of(of).to_json()


def test_weights_of_another_network_of_equal_shapes_do_not_load_under_a_card(tmp_path: Path) -> None:
    honest, other = dg.save(small(), tmp_path / "a"), dg.save(chosen_on_the_target(), tmp_path / "b")
    size = 8 + int.from_bytes(honest.read_bytes()[:8], "little")
    theirs = other.read_bytes()
    mixed = honest.read_bytes()[:size] + theirs[8 + int.from_bytes(theirs[:8], "little") :]
    assert len(mixed) == len(honest.read_bytes())
    honest.write_bytes(mixed)
    with pytest.raises(dg.DgpruneError, match=r"a\.safetensors.*changed after it was saved"):
        dg.load(honest)
    honest.with_suffix(".json").unlink()
    with pytest.raises(dg.DgpruneError, match=r"changed after it was saved.*Copy the file again"):
        dg.load(honest)
    honest.write_bytes(theirs)  # the whole file: its own card comes with it
    assert provenance_of(dg.load(honest)).seen("selection", "target", "score") == "labels"


def test_one_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    path = dg.save(chosen_on_the_target(), tmp_path / "a")
    path.with_suffix(".json").unlink()
    data = path.read_bytes()
    places = np.random.default_rng(0).integers(0, len(data), 150).tolist()
    for place in [0, 8, 9, *places, len(data) - 1]:
        for bit in (0, 4):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            path.write_bytes(bytes(changed))
            with pytest.raises(dg.DgpruneError):
                dg.load(path)
    path.write_bytes(data)
    assert provenance_of(dg.load(path)) == provenance_of(chosen_on_the_target())


def test_a_card_that_was_made_more_flattering_is_refused(tmp_path: Path) -> None:
    path = dg.save(chosen_on_the_target(), tmp_path / "a")
    beside = path.with_suffix(".json")
    beside.write_text(beside.read_text().replace('"target/score": "labels"', '"target/score": "none"'))
    with pytest.raises(dg.DgpruneError, match=r"a\.json is a copy of the card inside.*Delete it"):
        dg.load(path)
    beside.unlink()
    path.write_bytes(path.read_bytes().replace(b'target/score\\": \\"labels', b'target/score\\": \\"images'))
    with pytest.raises(dg.DgpruneError, match=r"changed after it was saved"):
        dg.load(path)


def test_the_file_is_plain_safetensors_for_others_and_the_card_reads_itself(tmp_path: Path) -> None:
    net = small()
    path = dg.save(net, tmp_path / "a", card={"comment": "é"})
    assert all(torch.equal(t, net.state_dict()[n]) for n, t in load_file(path).items())
    assert json.loads(path.with_suffix(".json").read_text())["comment"] == "é"
    with pytest.raises(dg.DgpruneError, match=r"save writes provenance itself"):
        dg.save(net, tmp_path / "b", card={"provenance": {}})


def with_card(path: Path, change: Callable[[dict[str, Any]], Any], *, signed: bool = True) -> None:
    """Write the file again with another card, by somebody who computes the hash as well."""
    tensors, card = container.unpack(path.read_bytes(), path.name)
    card.pop("sha256")
    changed = change(card)
    card = changed if isinstance(changed, dict) else card
    data, _ = container.pack(tensors, card)
    path.write_bytes(data)
    path.with_suffix(".json").unlink(missing_ok=True)


CARDS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    **{key: (lambda card, key=key: card.pop(key) and None, rf"lacks '{key}'") for key in ("options", "layers")},
    "no builder": (lambda card: card.pop("builder") and None, r"lacks 'builder'"),
    "no masks": (lambda card: card.pop("masks") and None, r"lacks 'masks'"),
    "no provenance": (lambda card: card.pop("provenance") and None, r"lacks 'provenance'"),
    "newer": (lambda card: card.update(format=9, versions={"dgprune-lab": "7.0"}), r"format 9.*7\.0.*Update"),
    "older": (
        lambda card: card.update(format=2, versions=[]),
        r"format 2, written by dgprune-lab 0\.1\.0.*reads format 3.*Load it with",
    ),
    "layers of another kind": (lambda card: card["layers"].update(conv1="Conv2d"), r"layer 'conv1' was"),
    "another kind": (lambda card: {"kind": "run", "format": 2}, r"not the card of a network"),
    "builder of another kind": (lambda card: card.update(builder=["lenet"]), r"has list under 'builder'"),
    "unknown builder": (lambda card: card.update(builder="resnet"), r"unknown network 'resnet'"),
    "unknown option": (lambda card: card["options"].update(width=3), r"'width'"),
    "option of another kind": (lambda card: card["options"].update(widths="abcde"), r"widths|can be built"),
    "masks of another kind": (lambda card: card.update(masks=[3]), r"something else than masks"),
    "a mask without layers": (lambda card: card.update(masks=[{"input_shape": [3, 28, 28]}]), r"lacks 'layers'"),
    "a huge image": (
        lambda card: card.update(masks=[{"input_shape": [3, 10**9, 10**9], "layers": "conv"}]),
        r"mask for images of \[3, 1000000000",
    ),
    "provenance of another kind": (lambda card: card.update(provenance={"training": {"a/b": "all"}}), r"one of none"),
}


@pytest.mark.parametrize("case", CARDS)
def test_a_card_that_is_not_as_save_writes_it_is_answered_in_words(case: str, tmp_path: Path) -> None:
    change, words = CARDS[case]
    path = dg.save(small(), tmp_path / "a")
    with_card(path, change)
    with pytest.raises(dg.DgpruneError, match=words):
        dg.load(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{", "[]", "\xff", "1" * 10_000, ""])
def test_hostile_json_is_answered_in_words(text: str, tmp_path: Path) -> None:
    path = dg.save(small(), tmp_path / "a")
    beside = path.with_suffix(".json")
    beside.write_bytes(text.encode("latin-1"))
    with pytest.raises(dg.DgpruneError, match=r"a\.json is not (JSON|the card of a network)"):
        dg.load(path)
    beside.unlink()
    header = json.dumps({"__metadata__": {"dgprune_lab": text}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(dg.DgpruneError, match=r"the card in a\.safetensors is not"):
        dg.load(path)
    raw = text.encode("latin-1") or b"{"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    with pytest.raises(dg.DgpruneError, match=r"a\.safetensors is "):
        dg.load(path)


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)


def zipped(path: Path, names: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)


DOMAINBED = {f"network.0.network.{n}": t for n, t in norm_net().state_dict().items()}
FOREIGN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "DomainBed": (
        lambda p: torch.save({"args": {}, "model_hparams": {}, "model_dict": DOMAINBED}, p),
        r"a checkpoint of DomainBed.*dg\.load_weights\(model, path\)",
    ),
    "DomainBed, bare": (lambda p: save_file(DOMAINBED, p), r"bare safetensors.*of DomainBed.*load_weights"),
    "DataParallel": (
        lambda p: torch.save(nn.DataParallel(norm_net()).state_dict(), p),
        r"state_dict of nn\.DataParallel.*load_weights",
    ),
    "DataParallel, bare": (
        lambda p: save_file(nn.DataParallel(norm_net()).state_dict(), p),
        r"bare safetensors.*of nn\.DataParallel.*load_weights",
    ),
    "half": (lambda p: torch.save(norm_net().half().state_dict(), p), r"a state_dict in half precision.*load_weights"),
    "half, bare": (lambda p: save_file(nn.Linear(2, 2).half().state_dict(), p), r"2 tensors in half precision"),
    "bare": (lambda p: save_file(norm_net().state_dict(), p), r"bare safetensors file.*without the card.*load_weights"),
    "state_dict": (lambda p: torch.save(norm_net().state_dict(), p), r"a state_dict \(torch\.save\).*load_weights"),
    "training checkpoint": (
        lambda p: torch.save({"epoch": 3, "state_dict": norm_net().state_dict()}, p),
        r"training checkpoint.*load_weights",
    ),
    "whole network": (lambda p: torch.save(Whole(), p), r"whole pickled network.*never read.*can run any code"),
    "old format": (
        lambda p: torch.save(norm_net().state_dict(), p, _use_new_zipfile_serialization=False),
        r"a state_dict",
    ),
    "pickle": (lambda p: p.write_bytes(pickle.dumps([1, 2])), r"is a pickle, which is never read"),
    "TorchScript": (lambda p: torch.jit.save(torch.jit.trace(nn.ReLU(), torch.zeros(2)), p), r"TorchScript archive"),
    "zip": (lambda p: zipped(p, {"a.txt": b"x"}), r"a zip archive without a network"),
    "broken zip": (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(40)), r"a damaged zip archive"),
    "empty": (lambda p: p.write_bytes(b""), r"an empty file"),
    "cut": (
        lambda p: p.write_bytes((RESOURCES / "digits.safetensors").read_bytes()[:-1000]),
        r"damaged|cut short|changed|under another name",
    ),
    "cut in the header": (
        lambda p: p.write_bytes((RESOURCES / "digits.safetensors").read_bytes()[:900]),
        r"cut short \(it has 900 bytes\)",
    ),
    "Keras": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(90)), r"an HDF5 file"),
    "Git LFS": (lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid x"), r"git lfs pull"),
    "web page": (lambda p: p.write_bytes(b"<!DOCTYPE html><html>"), r"a web page"),
    "JSON": (lambda p: p.write_bytes(b'{"a": 1}'), r"JSON text"),
    "noise": (lambda p: p.write_bytes(bytes(range(1, 200))), r"neither a safetensors file nor one of torch\.save"),
    "folder": (lambda p: p.mkdir(), r"is a folder"),
}


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize("case", FOREIGN)
def test_a_file_of_another_project_is_named_and_not_executed(case: str, ending: str, tmp_path: Path) -> None:
    make, words = FOREIGN[case]
    path = tmp_path / f"net.{ending}"
    make(path)
    with pytest.raises(dg.DgpruneError, match=rf"net\.{ending}.*({words})"):
        dg.load(path)
    with pytest.raises(dg.DgpruneError, match=words):
        dg.load(path, model=norm_net())


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(dg.DgpruneError, match=r"no network at .*nothing: there is no file nothing\.safetensors"):
        dg.load(tmp_path / "nothing")
    path = dg.save(small(), tmp_path / "net")
    with pytest.raises(dg.DgpruneError, match=r"is a folder: name a file in it, such as net\.safetensors"):
        dg.load(tmp_path)
    path.unlink()
    with pytest.raises(dg.DgpruneError, match=r"net\.json is a card, net\.safetensors is missing"):
        dg.load(path)


def test_a_network_whose_layers_were_exchanged_does_not_load_as_what_it_was(tmp_path: Path) -> None:
    net = small()
    net.relu1 = nn.GELU()
    path = dg.save(net, tmp_path / "a")
    with pytest.raises(dg.DgpruneError, match=r"'relu1' was GELU, is ReLU.*load\(path, model=\.\.\.\)"):
        dg.load(path)
    fresh = small(seed=8)
    fresh.relu1 = nn.GELU()
    before = fingerprint(fresh)
    assert torch.equal(dg.load(path, model=fresh).get_parameter("head.weight"), net.head.weight)  # type: ignore[arg-type]
    assert fingerprint(fresh) == before
    with pytest.raises(dg.DgpruneError, match=r"the network itself was ResidualNet, is Other"):
        dg.load(dg.save(ResidualNet(), tmp_path / "b"), model=Other())


class Other(ResidualNet):
    pass


class Scaled(nn.Module):
    """A layer of one's own, without `extra_repr`: its settings are attributes."""

    def __init__(
        self, by: float = 2.0, act: Callable[..., Any] = torch.tanh, hyperparameters: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self._by, self.act, self.hyperparameters = by, act, hyperparameters or {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._by * self.act(x)


class Settings:
    """Builds networks whose tensors have equal names and shapes whatever the settings are."""

    def __init__(self) -> None:
        self.layers: dict[str, Any] = {
            "group": (nn.GroupNorm, {"num_groups": 2, "num_channels": 4}),
            "conv": (nn.Conv2d, {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": 1}),
            "norm": (nn.BatchNorm2d, {"num_features": 4}),
            "scaled": (Scaled, {}),
            "pool": (nn.MaxPool2d, {"kernel_size": 2}),
            "drop": (nn.Dropout, {}),
            "act": (nn.LeakyReLU, {}),
        }

    def net(self, layer: str = "conv", **changed: Any) -> nn.Module:
        made = {n: kind(**{**own, **(changed if n == layer else {})}) for n, (kind, own) in self.layers.items()}
        return nn.Sequential(OrderedDict(made)).eval()


@pytest.mark.parametrize(
    ("layer", "changed", "words"),
    [
        ("conv", {"stride": 2}, r"'conv' had stride=1, has stride=2\. Pass"),
        ("conv", {"padding": 3, "dilation": 3}, r"'conv' had dilation=1, padding=1, has dilation=3, padding=3"),
        ("conv", {"padding_mode": "reflect"}, r"padding_mode='zeros', has padding_mode='reflect'"),
        ("norm", {"eps": 0.1}, r"'norm' had eps=1e-05, has eps=0\.1"),
        ("act", {"negative_slope": 0.3}, r"'act' had negative_slope=0\.01, has negative_slope=0\.3"),
        ("scaled", {"by": 3.0}, r"'scaled' had _by=2\.0, has _by=3\.0"),
        ("scaled", {"act": torch.sigmoid}, r"act=.*tanh, has act=.*sigmoid"),
        ("pool", {"ceil_mode": True}, r"ceil_mode=False, has ceil_mode=True"),
        ("group", {"num_groups": 4}, r"'group' had num_groups=2, has num_groups=4"),
    ],
)
def test_a_network_with_other_settings_is_refused_although_its_tensors_fit(
    layer: str, changed: dict[str, Any], words: str, tmp_path: Path
) -> None:
    saved, other = Settings().net(), Settings().net(layer, **changed)
    x = torch.rand(2, 4, 9, 9)
    other.load_state_dict(saved.state_dict())
    with torch.no_grad():
        one, two = saved(x), other(x)
    assert one.shape != two.shape or not torch.allclose(one, two), "the setting matters"
    before, path = fingerprint(other), dg.save(saved, tmp_path / "a")
    with pytest.raises(dg.DgpruneError, match=words):
        dg.load(path, model=other)
    assert fingerprint(other) == before
    with torch.no_grad():
        assert torch.equal(dg.load(path, model=Settings().net())(x), one)


@pytest.mark.parametrize(
    ("layer", "changed"),
    [
        ("norm", {"momentum": 0.9}),
        ("act", {"inplace": True}),
        ("drop", {"p": 0.1}),
        ("scaled", {"hyperparameters": {"lr": 0.1}}),
        ("pool", {"kernel_size": (2, 2)}),
        ("conv", {"kernel_size": (3, 3)}),
    ],
)
def test_settings_that_change_nothing_in_eval_mode_are_not_compared(
    layer: str, changed: dict[str, Any], tmp_path: Path
) -> None:
    saved, other, x = Settings().net(), Settings().net(layer, **changed), torch.rand(2, 4, 8, 8)
    with torch.no_grad():
        assert torch.equal(dg.load(dg.save(saved, tmp_path / "a"), model=other)(x), saved(x))


def test_layers_of_the_same_names_in_another_order_are_refused(tmp_path: Path) -> None:
    layers = [("conv", nn.Conv2d(3, 4, 3)), ("norm", nn.BatchNorm2d(4)), ("act", nn.ReLU())]
    path = dg.save(nn.Sequential(OrderedDict(layers)), tmp_path / "a")
    with pytest.raises(dg.DgpruneError, match=r"had order=conv, norm, act, has order=conv, act, norm"):
        dg.load(path, model=nn.Sequential(OrderedDict([layers[0], layers[2], layers[1]])))


def test_a_pruned_depthwise_network_loads_although_its_number_of_groups_has_changed(tmp_path: Path) -> None:
    net = DepthwiseNet()
    mask = dg.Mask.by_hand(dg.read_groups(net, torch.rand(1, 3, 8, 8)), removed={"expand": [0, 4], "project": [1]})
    small, x = dg.prune(net, mask).eval(), torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(dg.load(dg.save(small, tmp_path / "a"), model=DepthwiseNet())(x), small(x))


def test_what_cannot_be_saved_is_named(tmp_path: Path) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"a": 1}

    with pytest.raises(dg.DgpruneError, match=r"_extra_state, which are not dense tensors"):
        dg.save(Extra(2, 2), tmp_path / "a")
    with pytest.raises(dg.DgpruneError, match=r"meta device"):
        dg.save(norm_net().to("meta"), tmp_path / "a")
    loose = norm_net()
    loose.layers = [nn.Linear(2, 2)]  # type: ignore[assignment]
    with pytest.raises(
        dg.DgpruneError, match=r"would lack layers.*'layers' of the network is a plain list.*ModuleList"
    ):
        dg.save(loose, tmp_path / "a")
    loose.layers = [loose[0], loose[1].weight]  # type: ignore[assignment]
    dg.save(loose, tmp_path / "b").unlink()
    (tmp_path / "b.json").unlink()
    (tmp_path / "file").write_text("x")
    with pytest.raises(dg.DgpruneError, match=r"net\.safetensors cannot be written \(.*name a file in a folder"):
        dg.save(small(), tmp_path / "file" / "net")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_json_beside_a_shipped_network_is_its_card(name: str) -> None:
    card = dg.models.shipped_card(name)
    assert json.loads((RESOURCES / f"{name}.json").read_text()) == card
    assert (
        dg.load(RESOURCES / name).state_dict().keys() == build(card["builder"], **card["options"]).state_dict().keys()
    )


@pytest.mark.gpu
def test_a_network_on_a_gpu_is_saved_and_loaded_on_the_cpu(tmp_path: Path) -> None:
    there = torch.tensor([0.1, 0.2, 0.3], device="cuda")
    with torch.device("cuda"):
        net = networks.digits_net(mean=there, std=there, seed=2)  # type: ignore[arg-type]
    assert {p.device.type for p in [*net.parameters(), *net.buffers()]} == {"cpu"}
    here = networks.digits_net(mean=[0.1, 0.2, 0.3], std=[0.1, 0.2, 0.3], seed=2).state_dict()
    assert all(torch.equal(tensor, here[name]) for name, tensor in net.state_dict().items())
    net = net.cuda()
    mask = dg.Mask.by_hand(dg.read_groups(net, torch.rand(1, 3, 28, 28)), removed={"conv1": [0, 4]})
    pruned = dg.prune(net, mask)
    assert {p.device.type for p in [*pruned.parameters(), *pruned.buffers()]} == {"cuda"}
    path = dg.save(pruned, tmp_path / "a")
    for back in (dg.load(path), dg.load(path, model=networks.digits_net().cuda())):
        assert {p.device.type for p in [*back.parameters(), *back.buffers()]} == {"cpu"}
        assert all(torch.equal(t.cpu(), back.state_dict()[n]) for n, t in pruned.state_dict().items())
