"""Bad input gets a sentence that names what was wanted, and nothing is lost: the network and the study stay usable."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from material import domain, fingerprint, images, norm_net, randomise
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.core.tables import tidy


def net(classes: int = 4) -> nn.Sequential:
    return randomise(norm_net(classes), dtype=torch.float32)


X, Y = images(12, 3, 12, 12), torch.arange(12) % 4
SPLITS = {"train": range(4), "score": range(4, 8), "report": range(8, 12)}


def arrays(name: str = "a", **changed: Any) -> dg.Domain:
    return dg.Domain.from_arrays(name, **{"images": X, "labels": Y, "splits": SPLITS, **changed})


def with_pixel(value: float) -> Tensor:
    x = X.clone()
    x[3, 0, 0, 0] = value
    return x


class Ends(nn.Module):
    """A network with something else than logits at its end."""

    def __init__(self, end: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.end = net(), end

    def forward(self, x: Tensor) -> Any:
        return self.end(self.inner(x))


class Begins(nn.Module):
    """A network that does something to the images first."""

    def __init__(self, begin: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.begin = net(), begin

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.begin(x))


class Constant(nn.Module):
    """A network whose logits do not depend on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x)).mean((2, 3)) * 0


def study(**changed: Any) -> dg.Study:
    return dg.Study(changed.pop("model", None) or net(), **{"sources": [arrays()], **changed})


CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "empty domain": (lambda: arrays(images=X[:0], labels=Y[:0]), r"domain 'a' is empty"),
    "no name": (lambda: arrays(""), r"the domain needs a name"),
    "a name with a control character": (
        lambda: arrays("a\x00b"),
        r"the domain must be text without control .*'a\\x00b'",
    ),
    "a name of broken bytes": (
        lambda: study(name="caf\udce9"),
        r"the study must be text without control .*'caf\\udce9'",
    ),
    "a class of broken bytes": (
        lambda: arrays(classes=["x", "y", "z", "\udce9"]),
        r"the class of domain 'a' must be text without control",
    ),
    "axes": (lambda: arrays(images=X[:, 0]), r"four axes \(N, C, H, W\); got shape \(12, 12, 12\)"),
    "NaN image": (lambda: arrays(images=with_pixel(float("nan"))), r"1 images hold NaN or infinite pixels"),
    "infinite image": (lambda: arrays(images=with_pixel(float("inf"))), r"1 images hold NaN or infinite"),
    "range": (lambda: arrays(images=X * 255), r"must lie in \[0, 1\].*Divide by 255"),
    "label count": (lambda: arrays(labels=Y[:5]), r"12 images but 5 labels"),
    "label above": (lambda: arrays(classes=3), r"classes must cover all labels, 0 to 3; got classes=3\. .*at least 4"),
    "names of another number": (
        lambda: arrays(labels=["a", "b", "c", "d"] * 3, classes=6),
        r"classes=6, but the labels hold 4 names\. Pass the list of all class names",
    ),
    "label below": (lambda: arrays(labels=Y - 1), r"labels must be class indices from 0; got -1 to 2"),
    "label halves": (lambda: arrays(labels=Y + 0.5), r"labels must be whole numbers from 0; got \d\.5"),
    "no images": (lambda: arrays().rows("train", 0), r"images must be at least 1; got 0"),
    "split rows": (lambda: arrays(splits={"train": [12]}), r"rows outside 0 to 11"),
    "split overlap": (lambda: arrays(splits={"train": [1, 2], "score": [2]}), r"is in two splits"),
    "padding": (lambda: arrays().padded(8), r"12 x 12 cannot be padded to 8 x 8"),
    "no source": (lambda: study(sources=[]), r"at least one source"),
    "not a module": (lambda: study(model=torch.zeros), r"must be a network \(nn\.Module\); got the function zeros"),
    "same names": (lambda: study(targets=[arrays()]), r"different names; got a, a"),
    "two sizes": (
        lambda: study(targets=[arrays("b", images=images(12, 3, 8, 8))]),
        r"one size; got a 3 x 12 x 12, b 3 x 8 x 8",
    ),
    "channels": (lambda: study(sources=[arrays(images=X[:, :1])]), r"does not take images of 1 x 12 x 12"),
    "two types of weights": (
        lambda: dg.read_groups(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3).half()), X),
        r"stops at 1 \(Conv2d\).*its weights are float16 and float32: give them one type, copy\.deepcopy\(model\)",
    ),
    "a list of layers": (
        lambda: dg.recalibrate(nn.ModuleList([nn.Conv2d(3, 4, 3)]), [arrays()]),
        r"cannot be called .*ModuleList.*wrap it in a module whose forward takes \(B, C, H, W\) images",
    ),
    "nothing to prune": (lambda: dg.read_groups(nn.Sequential(nn.Flatten(), nn.Linear(432, 4)), X), r"nothing to"),
    "only the last layer": (lambda: dg.read_groups(nn.Conv2d(3, 4, 3), X), r"nothing to prune"),
    "constant": (lambda: dg.read_groups(Constant(), X), r"do not depend on its input"),
    "tuple": (lambda: study(model=Ends(lambda y: (y, y))), r"logits as one tensor; it returned tuple"),
    "map of logits": (lambda: dg.evaluate(Ends(lambda y: y[:, :, None]), arrays()), r"it returned \(4, 4, 1\)"),
    "NaN logits": (
        lambda: dg.evaluate(Ends(lambda y: y / 0 * 0), arrays()),
        r"this network are NaN or infinite; check its",
    ),
    "maps of one pixel": (
        lambda: dg.evaluate(Ends(lambda y: y[:, :, None, None]), arrays()),
        r"it returned \(4, 4, 1, 1\); add flatten\(1\)",
    ),
    "squeezed": (
        lambda: dg.evaluate(Ends(lambda y: y.squeeze()), arrays(), images=1),
        r"it returned \(4,\); a squeeze\(\) removes the axis of a single image",
    ),
    "logits in a dict": (lambda: dg.evaluate(Ends(lambda y: [y]), arrays()), r"it returned list; pass a network that"),
    "no logits": (lambda: study(model=Ends(lambda y: None)), r"are missing: its forward returns no tensor"),
    "images written to": (lambda: study(model=Begins(lambda x: x.mul_(2))), r"writes to the images that it is given"),
    "no gradients": (
        lambda: study(model=Ends(Tensor.detach)).score("taylor"),
        r"cuts gradients off \(by torch\.no_grad",
    ),
    "no gradients of logits": (
        lambda: study(model=Ends(Tensor.detach), sources=[arrays(), arrays("b")]).score("sensitivity_sources"),
        r"cuts gradients off \(by torch\.no_grad",
    ),
    "one domain twice": (lambda: dg.measure(net(), [arrays(), arrays()]), r"different names; got a, a"),
    "one ratio twice": (lambda: dg.sweep(study(), ratios=[0.5, 0.5]), r"ratios must hold each number once"),
    "wrapped": (
        lambda: dg.prune(nn.Sequential(net()), dg.allocate(study().score("l1"), ratio=0.5)),
        r"this one has no 0\.weight\. It has 0\.0\.weight: pass the network inside, its submodule '0'",
    ),
    "another network": (
        lambda: dg.prune(nn.Sequential(nn.Flatten()), dg.allocate(study().score("l1"), ratio=0.5)),
        r"this one has no 0\.weight\. Make a mask for it",
    ),
    "a filter without a score": (
        lambda: dg.Scores.from_frame(study().score("l1").to_frame().iloc[1:], graph=study().graph),
        r"no row for the filters \[0\] of layer '0', which has 6",
    ),
    "too many classes": (lambda: dg.evaluate(net(3), arrays()), r"3 outputs, domain 'a' has labels up to 3"),
    "classes in a pass": (lambda: study(model=net(3)).score("taylor"), r"3 outputs, domain 'a' has labels up to 3"),
    "unknown domain": (lambda: study().outcomes(None, domain="b"), r"unknown domain 'b'; known: a"),
    "unknown split": (lambda: dg.evaluate(net(), arrays(), "test"), r"no split 'test'; it has: train, score, report"),
    "empty split": (
        lambda: dg.evaluate(net(), arrays(splits={**SPLITS, "report": []})),
        r"has no image in its split 'report'",
    ),
    "empty score split": (
        lambda: study(sources=[arrays(splits={**SPLITS, "score": []})]).score("apoz"),
        r"no image in its split 'score'",
    ),
    "unknown scorer": (lambda: study().score("l11"), r"unknown scorer 'l11'; known: l1, .*Did you mean 'l1'\?"),
    "unlabelled source": (lambda: study(sources=[arrays(labels=None)]).score("taylor"), r"labels, and 'a' has none"),
    "batchnorm": (lambda: study().outcomes(None, domain="a", batchnorm="new"), r"must be one of 'as_is'"),  # type: ignore
    "ratio": (lambda: dg.sweep(study(), ratios=[1.0]), r"ratios must lie in \[0, 1\)"),
    "column": (lambda: tidy([{"accuracy": 1.0}]), r"names the column 'accuracy'; allowed: scorer, ratio_requested"),
    "nothing saved": (lambda: dg.load("nowhere/at_all", model=net()), r"no network at nowhere/at_all"),
    "unknown demo": (lambda: dg.demo("digit"), r"must be one of 'digits', 'fashion', 'paper'.*Did you mean 'digits'"),  # type: ignore[arg-type]
    "infinite scores": (
        lambda: dg.Scores("mine", {"0": torch.full((6,), torch.inf), "4": torch.zeros(8)}, study().graph),
        r"scorer 'mine' gave NaN or infinite scores in layer '0'",
    ),
    "missing scores": (lambda: dg.Scores("mine", {"0": torch.zeros(6)}, study().graph), r"'mine' lack the layer '4'"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_message_says_what_is_wrong(case: str) -> None:
    call, words = CASES[case]
    with pytest.raises(dg.DgpruneError, match=words) as raised:
        call()
    text = str(raised.value)
    assert "\n" not in text and len(text) < 600 and "Traceback" not in text


@pytest.mark.parametrize(("end", "word"), [(lambda y: y.softmax(1), "softmax"), (torch.sigmoid, "sigmoid")])
def test_a_network_that_ends_in_probabilities_is_noted(end: Callable[[Tensor], Tensor], word: str) -> None:
    with pytest.warns(dg.DgpruneNote, match=f"ends in a {word}, so it returns probabilities"):
        study(model=Ends(end))
    study(model=Ends(lambda y: y.log_softmax(1)))  # these are logits


def test_a_layer_that_no_gradient_reaches_is_noted() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(self.body(x).relu().detach()).relu().mean((2, 3)))

    some = study(model=Frozen())
    with pytest.warns(dg.DgpruneNote, match=r"no gradient reaches body: the forward cuts it off"):
        scores = some.score("taylor")
    assert not scores.values["body"].any() and scores.values["conv"].any()


class Fragile(nn.Module):
    """Passes its input and, once armed, raises after so many calls."""

    left: ClassVar[int | None] = None

    def forward(self, x: Tensor) -> Tensor:
        if Fragile.left is not None:
            Fragile.left -= 1
            if Fragile.left < 0:
                raise RuntimeError("broke half-way")
        return x


def fragile(number: int = 5) -> nn.Module:
    layers = list(net())
    return nn.Sequential(*layers[:number], Fragile(), *layers[number:])


WORK: dict[str, Callable[[dg.Study, dg.Mask], Any]] = {
    "outcomes": lambda s, mask: s.outcomes(mask, domain="a"),
    "recalibrated": lambda s, mask: s.outcomes(mask, domain="a", batchnorm="recalibrate"),
    "recalibrate": lambda s, mask: dg.evaluate(dg.recalibrate(s.model, s.sources), s.sources[0]),
    "score": lambda s, mask: s.score("taylor").values["0"],
    "sweep": lambda s, mask: dg.sweep(s, scorers=["taylor"], ratios=[0.5]).value.sum(),
    "evaluate": lambda s, mask: dg.evaluate(s.model, s.sources[0]),
    "measure": lambda s, mask: dg.measure(s.model, s.sources, latency=False).value.sum(),
    "statistics": lambda s, mask: s.statistics("a", needs=["mean_map", "gate"]).gate["4"],
}


def plain(value: Any) -> Any:
    return (
        value.loss.tolist()
        if isinstance(value, dg.Outcomes)
        else value.tolist()
        if isinstance(value, Tensor)
        else float(value)
    )


@pytest.mark.parametrize("work", WORK)
def test_a_model_that_raises_half_way_loses_nothing(work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fresh() -> dg.Study:
        held = [domain(name, count=1200, seed=k) for k, name in enumerate("ab")]
        return dg.Study(fragile(), sources=held)

    monkeypatch.setattr(Fragile, "left", None)
    expected_study = fresh()
    mask = dg.Mask.by_hand(expected_study.graph, removed={"0": [0, 2]})
    expected = plain(WORK[work](expected_study, mask))
    for calls in range(4):
        broken = fresh()
        before = fingerprint(broken.model)
        monkeypatch.setattr(Fragile, "left", calls)
        try:
            WORK[work](broken, mask)
        except (RuntimeError, dg.DgpruneError) as error:
            assert "broke half-way" in str(error)
        else:
            assert calls > 0, "nothing was run"
        assert fingerprint(broken.model) == before
        monkeypatch.setattr(Fragile, "left", None)
        assert plain(WORK[work](broken, mask)) == expected, "what was left in the study is not what belongs there"


def test_a_model_that_raises_while_its_groups_are_read_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for calls in range(5):  # read, traced, whole, masked, removed
        model = fragile().train()
        before = fingerprint(model)
        monkeypatch.setattr(Fragile, "left", calls)
        with pytest.raises((dg.DgpruneError, RuntimeError), match="broke half-way"):
            dg.read_groups(model, X)
        assert fingerprint(model) == before


def test_an_operation_the_graph_cannot_cut_is_named_before_anything_changes() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.second = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 3)
            self.head = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.second(torch.relu(self.norm(self.first(x))))).mean((2, 3)))

    model = randomise(Odd(), dtype=torch.float32)
    before = fingerprint(model)
    graph = dg.read_groups(model, X)
    assert graph.names == ["second"] and "norm (GroupNorm)" in graph.refused["first"]
    with pytest.raises(dg.DgpruneError, match=r"unknown layer 'first'"):
        dg.Mask.by_hand(graph, removed={"first": [0]})
    assert fingerprint(model) == before


def test_hooks_that_change_the_output_are_refused_and_others_are_not() -> None:
    model = net()
    handle = model[0].register_forward_hook(lambda _m, _i, output: output * 2)  # type: ignore[index]
    with pytest.raises(dg.DgpruneError, match=r"hooks on this network change its output.*remove them first"):
        study(model=model)
    handle.remove()
    model[0].register_forward_hook(lambda _m, _i, output: None)  # type: ignore[index]
    assert len(study(model=model).outcomes(None, domain="a")) == 4


def test_a_masked_network_is_neither_read_nor_masked_again() -> None:
    held = study()
    mask = dg.Mask.by_hand(held.graph, removed={"0": [1]})
    soft = dg.masked(held.model, mask)
    with pytest.raises(dg.DgpruneError, match=r"layers 0, 1, 4, 5 are parametrized \(a masked network"):
        dg.read_groups(soft, X)
    for function in (dg.prune, dg.masked):
        with pytest.raises(dg.DgpruneError, match=r"has no 0\.weight.*masked already"):
            function(soft, mask)


def test_a_cut_without_splits_gives_a_note() -> None:
    with pytest.warns(dg.DgpruneNote, match=r"'a' came without splits; cut with seed 3: train 7, score 2, report 3"):
        cut = dg.Domain.from_arrays("a", images=X, labels=Y, seed=3)
    with pytest.warns(dg.DgpruneNote):
        again = dg.Domain.from_arrays("a", images=X, labels=Y, seed=3)
    assert all(torch.equal(cut.splits[key], again.splits[key]) for key in cut.splits)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = dg.save(net(), tmp_path / "net")
    card = tmp_path / "net.json"
    for content, words in (
        ("{", r"is not JSON"),
        ("[]", r"not the card of a network"),
        (json.dumps({"form": "x"}), r"not the card of a network"),
        (json.dumps({"kind": "run", "format": 2}), r"not the card of a network"),
    ):
        card.write_text(content)
        with pytest.raises(dg.DgpruneError, match=words):
            dg.load(path, model=net())
    dg.save(net(), tmp_path / "net")
    path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(dg.DgpruneError, match=r"net\.safetensors is not the file its card describes.*is a pickle"):
        dg.load(path, model=net())


def test_a_mask_of_another_format_is_refused() -> None:
    held = study()
    mask = dg.Mask.by_hand(held.graph, removed={"0": [1]}).to_json()
    older = {"asked" if key == "ratio_requested" else key: value for key, value in mask.items() if key != "format"}
    for value, number in ((older, 1), ({**mask, "format": 3}, 3)):
        with pytest.raises(
            dg.DgpruneError, match=rf"the mask has format {number}, written by dgprune-lab .*reads format 2"
        ):
            dg.Mask.from_json(value, graph=held.graph)


def test_a_mask_in_a_damaged_file_is_refused() -> None:
    held = study()
    whole = dg.Mask.by_hand(held.graph, removed={"0": [1]}).to_json()
    for damage in (
        {"keep": {"0": [0]}},
        {"keep": {**whole["keep"], "0": [99]}},
        {"keep": {**whole["keep"], "0": [-1, 2]}},
    ):
        with pytest.raises(dg.DgpruneError, match=r"mask"):
            dg.Mask.from_json({**whole, **damage}, graph=held.graph)
    with pytest.raises(dg.DgpruneError, match=r"mask"):
        dg.Mask.from_json({"keep": {}}, graph=held.graph)
