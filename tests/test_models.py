"""Networks, checkpoints and the built-in checkpoints."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dgprune_lab.commands.recipes import RECIPES
from dgprune_lab.commands.train import accuracy_by_split, macs, make, source_statistics
from dgprune_lab.core.domain import Domain
from dgprune_lab.core.errors import DgpruneError
from dgprune_lab.core.provenance import Provenance, provenance_of, set_provenance
from dgprune_lab.core.tables import Seen
from dgprune_lab.data import BUILTIN
from dgprune_lab.models.checkpoints import SHIPPED, shipped, shipped_card
from dgprune_lab.models.networks import BUILDERS, Normalise, build, digits_net, lenet
from dgprune_lab.models.saving import fit_state, load, save
from dgprune_lab.training.options import TrainingOptions

SIZES = {
    "digits_net": 28,
    "lenet": 28,
    "nin": 28,
    "one_hidden_layer": 28,
    "vgg_small": 28,
    "vgg11_bn_32": 32,
    "resnet18_32": 32,
    "resnet20": 32,
}


def count(modules: list[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_gives_logits_of_its_classes(name: str) -> None:
    model = build(name, classes=7).eval()
    images = torch.rand(3, 3, SIZES[name], SIZES[name])
    assert model(images).shape == (3, 7)
    assert isinstance(next(model.children()), Normalise)
    assert provenance_of(model) == Provenance(training={})


@pytest.mark.parametrize("name", BUILDERS)
def test_a_seed_decides_the_initial_weights_and_nothing_else_changes(name: str) -> None:
    before = torch.get_rng_state()
    first, again, other = build(name, seed=1), build(name, seed=1), build(name, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert not all(torch.equal(value, other.state_dict()[key]) for key, value in first.state_dict().items())


@pytest.mark.parametrize("name", BUILDERS)
def test_every_activation_is_a_module_used_once(name: str) -> None:
    model = build(name).eval()
    calls: dict[nn.Module, int] = {}
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda m, i, o: calls.__setitem__(m, calls.get(m, 0) + 1))
    model(torch.rand(2, 3, SIZES[name], SIZES[name]))
    assert set(calls.values()) == {1}
    assert not any(isinstance(m, nn.ReLU) and m.inplace for m in model.modules())


def test_parameter_counts() -> None:
    paper = lenet()
    assert count([m for m in paper if isinstance(m, nn.Conv2d)]) == 40_880
    assert count([paper]) == 40_880 + (2352 * 100 + 100) + (100 * 100 + 100) + (100 * 10 + 10)
    resnet18 = build("resnet18_32")
    assert count([resnet18]) == 11_173_962  # the usual figure of CIFAR ResNet-18
    assert sum(m.out_channels for m in resnet18.modules() if isinstance(m, nn.Conv2d)) == 4_800
    assert sum(m.out_channels for m in build("vgg11_bn_32").modules() if isinstance(m, nn.Conv2d)) == 2_752


def test_nin_stacks_blocks_of_three_convolutions_and_takes_images_of_any_size() -> None:
    net: Any = build("nin", widths=(6, 4), dropout=0.3, classes=5).eval()
    blocks = (3 * 9 * 6 + 6) + 2 * (36 + 6) + (6 * 9 * 4 + 4) + 2 * (16 + 4)
    assert count([net]) == blocks + 4 * 5 + 5 and net(torch.rand(2, 3, 40, 24)).shape == (2, 5)
    assert [m.p for m in net if isinstance(m, nn.Dropout)] == [0.3, 0.3]
    assert net[:4](torch.rand(1, 3, 28, 28)).shape == net[:7](torch.rand(1, 3, 28, 28)).shape == (1, 6, 14, 14)
    bad: Any = (({"widths": ()}, "at least one width"), ({"dropout": 1.0}, "dropout"), ({"widths": (4, 0)}, "widths"))
    for options, message in bad:
        with pytest.raises(DgpruneError, match=message):
            build("nin", **options)


def test_digits_net_fits_a_live_slider() -> None:
    model = digits_net().eval()
    assert macs(model, (3, 28, 28)) <= 5_000_000
    # by hand, from the sizes of the maps: 14, 7, 7, 3, 3
    w = [m.out_channels for m in model if isinstance(m, nn.Conv2d)]
    hand = 75 * w[0] * 196 + 9 * 49 * (w[0] * w[1] + w[1] * w[2]) + 9 * 9 * (w[2] * w[3] + w[3] * w[4]) + 10 * w[4]
    assert macs(model, (3, 28, 28)) == hand


def test_normalise_uses_the_statistics_it_is_given() -> None:
    images = torch.rand(4, 3, 5, 5)
    module = Normalise(mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 4.0])
    wanted = torch.stack([(images[:, c] - m) / s for c, (m, s) in enumerate([(0.1, 1), (0.2, 2), (0.3, 4)])], 1)
    torch.testing.assert_close(module(images), wanted)
    assert "mean=[0.1, 0.2, 0.3]" in repr(module)
    with pytest.raises(DgpruneError, match="one number or 3"):
        Normalise(mean=[1.0, 2.0])
    with pytest.raises(DgpruneError, match="std must be positive"):
        Normalise(std=0.0)


def test_source_statistics_equal_the_plain_formula() -> None:
    images = torch.rand(30, 3, 6, 6)
    splits = {"train": list(range(20)), "report": list(range(20, 30))}
    domain = Domain.from_arrays("a", images=images, labels=torch.arange(30) % 3, splits=splits)
    mean, std = source_statistics([domain])
    assert mean == pytest.approx(images[:20].mean((0, 2, 3)).tolist(), abs=6e-5)
    assert std == pytest.approx(images[:20].std((0, 2, 3), correction=0).tolist(), abs=6e-5)


@pytest.mark.parametrize(
    (("call", "message")),
    [
        (lambda: build("lennet"), "unknown network 'lennet'.*Did you mean 'lenet'"),
        (lambda: build("lenet", widht=3), "unknown option of lenet 'widht'.*Did you mean 'widths'"),
        (lambda: digits_net(widths=(8, 8)), r"digits_net takes 5 widths of at least 1; got \(8, 8\)"),
        (lambda: shipped("digit"), "unknown built-in checkpoint 'digit'.*Did you mean 'digits'"),
        (lambda: make("lenet"), "unknown recipe 'lenet'"),
    ],
)
def test_wrong_names_and_widths_are_refused(call: Any, message: str) -> None:
    with pytest.raises(DgpruneError, match=message):
        call()


def test_a_checkpoint_comes_back_byte_for_byte(tmp_path: Path) -> None:
    model = build("digits_net", widths=[4, 4, 6, 6, 8], classes=5, seed=3)
    set_provenance(model, Provenance(training={"a/train": "labels"}))
    model(torch.rand(8, 3, 28, 28))  # moves the running statistics
    path = save(model, tmp_path / "deep" / "net.v1", card={"comment": "for a test"})
    assert path.name == "net.v1.safetensors"
    back = load(path)
    assert not back.training
    assert provenance_of(back) == provenance_of(model)
    for key, value in model.state_dict().items():
        assert back.state_dict()[key].dtype == value.dtype
        assert torch.equal(back.state_dict()[key], value)
    again = save(back, tmp_path / "again.json", card={"comment": "for a test"})
    assert again.read_bytes() == path.read_bytes()
    assert again.with_suffix(".json").read_bytes() == path.with_name("net.v1.json").read_bytes()
    assert json.loads(path.with_name("net.v1.json").read_text())["comment"] == "for a test"


def test_a_network_without_provenance_is_unknown_never_none(tmp_path: Path) -> None:
    model = build("lenet")
    del model.dgprune_provenance
    path = save(model, tmp_path / "bare")
    assert provenance_of(load(path)).seen("training", "mnist", "train") == "unknown"


def test_what_does_not_fit_is_named_and_nothing_changes() -> None:
    model, wider = lenet(seed=1), lenet(widths=(40, 48), seed=2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(DgpruneError, match=r"conv1\.weight is float32 \(40, 3, 5, 5\) in the file, float32 \(32"):
        fit_state(model, wider.state_dict())
    with pytest.raises(DgpruneError, match=r"the file lacks .*fc1.*; the file has .*bn1.* and .* more"):
        fit_state(model, digits_net().state_dict())
    with pytest.raises(DgpruneError, match="float64"):
        fit_state(model, lenet().double().state_dict())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    path = save(build("lenet"), tmp_path / "a")
    with pytest.raises(DgpruneError, match="no network at"):
        load(tmp_path / "b")
    other = save(build("lenet", seed=9), tmp_path / "b")
    beside = other.with_suffix(".json")
    other.write_bytes(path.read_bytes())
    with pytest.raises(DgpruneError, match="not the file its card describes"):
        load(other)
    other.unlink()
    with pytest.raises(DgpruneError, match="no network at"):
        load(other)
    torch.save({"a": torch.zeros(2)}, other)
    with pytest.raises(DgpruneError, match=r"b\.safetensors is a pickle, which is never read"):
        load(other)
    beside.write_text("{")
    with pytest.raises(DgpruneError, match="is not JSON"):
        load(other)
    beside.write_text("[]")
    with pytest.raises(DgpruneError, match="not the card of a network"):
        load(other)


OLDER: dict[str, dict[str, Any]] = {
    "saved network": {"form": "dgprune_lab network 1", "builder": "lenet", "options": {}, "masks": [], "record": {}},
    "checkpoint": {"builder": "lenet", "options": {}, "record": {"tuning": {}}, "versions": {"dgprune-lab": "0.0.7"}},
    "of tomorrow": {"kind": "network", "format": 4, "versions": {"dgprune-lab": "9.1"}},
}


@pytest.mark.parametrize("case", OLDER)
def test_a_file_of_another_format_names_its_version(case: str, tmp_path: Path) -> None:
    path = save(build("lenet"), tmp_path / "old")
    path.with_suffix(".json").write_text(json.dumps(OLDER[case]))
    number, writer = OLDER[case].get("format", 1), OLDER[case].get("versions", {}).get("dgprune-lab", "0.1.0")
    with pytest.raises(
        DgpruneError, match=rf"old.json has format {number}, written by dgprune-lab {writer}; .*save it"
    ):
        load(path)


def test_a_card_must_be_able_to_rebuild_its_network(tmp_path: Path) -> None:
    own = lenet()
    del own.dgprune_builder
    path = save(own, tmp_path / "a")
    with pytest.raises(DgpruneError, match="names no builder; pass a fresh network"):
        load(path)
    assert torch.equal(
        load(path, model=lenet(seed=2)).get_parameter("head.weight"), lenet().get_parameter("head.weight")
    )
    with pytest.raises(DgpruneError, match="cannot be written as JSON"):
        save(lenet(), tmp_path / "b", card={"mean": torch.zeros(3)})
    assert not list(tmp_path.glob("b*"))


@pytest.mark.parametrize("name", ["digits", "lenet_paper", "lenet_two_sources_1", "fashion", "fashion_pair_b"])
def test_a_shipped_network_is_as_good_as_its_card_says(name: str) -> None:
    model, card = shipped(name), shipped_card(name)
    domains = {key: BUILTIN[key]() for key in (*card["sources"], *card["targets"])}
    for key, domain in domains.items():
        assert card["domains"][key]["key"] == domain.key, f"{key} is no longer the domain the card describes"
    found = accuracy_by_split(model, domains.values())
    for key, splits in card["accuracy"].items():
        for split, row in splits.items():
            # another processor may round one image to the other side
            assert abs(found[key][split]["correct"] - row["correct"]) <= 1
            assert found[key][split]["images"] == row["images"] == len(domains[key].splits[split])
            assert row["accuracy"] == pytest.approx(row["correct"] / row["images"], abs=1e-9)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_card_is_its_recipe(name: str) -> None:
    model, card, recipe = shipped(name), shipped_card(name), RECIPES[name]
    assert TrainingOptions.from_json(card["training"]) == recipe.training
    options = recipe.training
    assert (card["builder"], card["seed"], card["epochs"]) == (recipe.builder, options.seed, options.epochs)
    assert card["why"] == list(recipe.why)
    assert card["parameters"] == count([model])
    assert card["macs"] == macs(model, (3, 28, 28)) <= 10_000_000
    wanted: dict[str, Seen] = {f"{source}/train": "labels" for source in recipe.sources}
    assert provenance_of(model) == Provenance(training=wanted, selection=dict(recipe.selected_on))
    for target in recipe.targets:
        for split in card["accuracy"][target]:
            assert set(provenance_of(model).columns(target, split).values()) == {"none"}


def test_the_demo_is_worth_a_slider() -> None:
    accuracy = {key: splits["report"]["accuracy"] for key, splits in shipped_card("digits")["accuracy"].items()}
    assert min(accuracy["mnist"], accuracy["uci_digits"]) >= 0.95
    assert 0.45 <= accuracy["mnist_m"] <= 0.75


def halved(model: nn.Module, keys: list[torch.Tensor]) -> nn.Module:
    """Half of the filters of every convolution put to zero, lowest keys first; BatchNorm re-estimated on 500 images."""
    model = copy.deepcopy(model)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm, key in zip(norms, keys, strict=True):
        removed = key.argsort()[: len(key) // 2]
        norm.weight.data[removed] = 0
        norm.bias.data[removed] = 0
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    sources = [BUILTIN[name]() for name in ("mnist", "uci_digits")]
    with torch.no_grad():
        for start in (0, 125):
            rows = [source.splits["train"][start : start + 125] for source in sources]
            model(torch.cat([source.take(split).images for source, split in zip(sources, rows, strict=True)]))
    return model.eval()


def test_half_of_the_demo_can_be_removed_and_not_any_half() -> None:
    model = shipped("digits")
    names = ("mnist", "uci_digits", "mnist_m")
    reports = [replace(BUILTIN[n](), splits={"report": BUILTIN[n]().splits["report"]}) for n in names]

    def accuracies(network: nn.Module) -> torch.Tensor:
        return torch.tensor([splits["report"]["accuracy"] for splits in accuracy_by_split(network, reports).values()])

    scales = [m.weight.detach().abs() for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    full, best = accuracies(model), accuracies(halved(model, scales))
    assert best[:2].min() >= 0.85
    assert full[2] - best[2] > 2 * (full[:2] - best[:2]).max(), "the target must lose more than the sources"
    draws = [torch.Generator().manual_seed(seed) for seed in range(3)]
    random = [accuracies(halved(model, [torch.rand(len(s), generator=draw) for s in scales])) for draw in draws]
    assert torch.stack(random).mean(0)[:2].max() < 0.60


def test_recipes_builders_and_checkpoints_agree() -> None:
    assert tuple(RECIPES) == SHIPPED
    assert set(SIZES) == set(BUILDERS)
