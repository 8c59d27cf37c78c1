"""Layers and filters by hand, steps, history and fine-tuning in the explorer: every number is that of its network."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import dgprune_lab as dg


class Tiny(nn.Module):
    """Two convolutions with BatchNorm, small enough to be trained within a test."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.an = nn.Conv2d(1, 10, 3, stride=2), nn.BatchNorm2d(10)
        self.b, self.bn = nn.Conv2d(10, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn(self.b(torch.relu(self.an(self.a(images))))))
        return self.head(y.flatten(1))


def domain(name: str, *, seed: int) -> dg.Domain:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(60) % 3
    images = (torch.rand(60, 1, 12, 12, generator=draw) + labels.view(-1, 1, 1, 1) / 3) / 2
    splits = {"train": range(24), "score": range(24, 40), "report": range(40, 60)}
    return dg.Domain.from_arrays(name, images=images, labels=labels, splits={k: list(v) for k, v in splits.items()})


def tiny_study() -> dg.Study:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = Tiny()
    return dg.Study(model, sources=[domain("one", seed=1), domain("two", seed=2)], targets=[domain("far", seed=3)])


@pytest.fixture(scope="module")
def study() -> dg.Study:
    return tiny_study()


@pytest.fixture
def explorer(study: dg.Study) -> Iterator[dg.Explorer]:
    explorer = dg.Explorer(study, panels=[])
    assert explorer.wait()
    yield explorer
    explorer.close()


def by_page(explorer: dg.Explorer, **changes: Any) -> None:
    """What a page does when the user moves something."""
    explorer.choice = {**explorer.choice, "id": explorer.choice["id"] + 1, "by": "page", **changes}


def shown_equals_measured(explorer: dg.Explorer) -> None:
    """Every number on the page is what `dg.measure` says of the network that the explorer hands out."""
    table, domains = explorer.table, explorer.study.domains
    said = dg.measure(explorer.network, domains, latency=False)
    frame = next(row for row in explorer.frames["rows"] if row["ratio"] == explorer.ratio)
    dots, changes = ({row["domain"]: row for row in frame[name]} for name in ("dots", "drops"))
    for one in domains:
        want = said[(said.domain == one.name) & (said.metric == "accuracy")].iloc[0]
        shown = table[(table.domain == one.name) & (table.metric == "accuracy")].iloc[0]
        assert shown[["value", "low", "high", "images"]].tolist() == want[["value", "low", "high", "images"]].tolist()
        assert dots[one.name]["value"] == 100 * want["value"] and not frame["estimate"]
        full = explorer.study.outcomes(None, domain=one.name).accuracy
        assert changes[one.name]["change"] == pytest.approx(100 * (want["value"] - full), abs=1e-9)
    step = next(row for row in explorer.plan["steps"] if row["ratio"] == explorer.ratio)
    for metric in ("parameters", "macs", "bytes"):
        want = said[said.metric == metric].value.item()
        assert table[table.metric == metric].value.item() == want == step[metric], metric


def kept_by_plan(explorer: dg.Explorer, ratio: float) -> dict[str, list[int]]:
    """The filters that the page draws as kept, by their numbers in the full network."""
    step = next(row for row in explorer.plan["steps"] if row["ratio"] == ratio)
    return {
        group["name"]: [i for i, r in zip(group["index"], group["rank"], strict=True) if r >= len(group["rank"]) - kept]
        for group, kept in zip(explorer.plan["groups"], step["kept"], strict=True)
    }


def test_what_is_set_by_hand_holds_whatever_slider_scorer_and_scope_do(explorer: dg.Explorer) -> None:
    draw = random.Random(3)
    explorer.forced = {"remove": {"a": [7, 2]}, "keep": {"b": [0, 5]}}
    for _ in range(8):
        layers = draw.choice([{}, {"b": round(draw.uniform(0, 0.7), 2)}, {"a": 0.5}])
        ratio, scorer = round(draw.uniform(0, 0.99), 2), draw.choice(["l1", "random", "taylor"])
        scope, budget = draw.choice(["layer", "global"]), draw.choice(["filters", "parameters", "macs"])
        by_page(explorer, ratio=ratio, scorer=scorer, scope=scope, budget=budget, layers=layers)
        assert explorer.wait() and explorer.status["error"] is None
        mask, (low, high) = explorer.mask, explorer.plan["range"]
        assert not {2, 7} & set(mask.kept("a")) and {0, 5} <= set(mask.kept("b"))
        assert kept_by_plan(explorer, ratio) == {name: mask.kept(name) for name in ("a", "b")}
        by_hand = [[[name, own] for name, own in layers.items()], [["a", [2, 7]]], [["b", [0, 5]]]]
        assert explorer.plan["key"] == [scorer, scope, budget, 0, by_hand]
        assert explorer.frames["key"][3:] == [explorer.batchnorm, *explorer.plan["key"][3:]]
        for name, own in layers.items():
            assert len(mask.kept(name)) == len(mask.keep[name]) - int(own * len(mask.keep[name]) + 1e-9)
        given: Any = {"remove": {"a": [2, 7]}, "keep": {"b": [0, 5]}, "layers": layers or None}
        given |= {"ratio": min(max(ratio, low), high), "scope": scope, "budget": budget}
        assert dg.allocate(explorer.study.score(scorer), **given).key == mask.key and mask.ratio_requested == ratio
    shown_equals_measured(explorer)


def test_a_handle_gets_its_grid_at_once_and_the_other_ratios_when_it_rests(explorer: dg.Explorer) -> None:
    plans: list[Any] = []
    explorer.observe(lambda event: plans.append(event["new"]), "plan")
    for own in (0.1, 0.2, 0.3, 0.4):
        by_page(explorer, layers={"a": own}, moving=True)
        assert [step["ratio"] for step in plans[-1]["steps"]] == [0.5], "before the handle rests"
        assert plans[-1]["key"][4] == [[["a", own]], [], []] and plans[-1]["steps"][0]["kept"][0] == 10 - int(10 * own)
    by_page(explorer, moving=False)
    assert explorer.wait()
    assert len(explorer.plan["steps"]) == 100 and explorer.plan["key"] == plans[-1]["key"]
    low, high = explorer.plan["range"]
    assert 0 < low < high < 1
    by_page(explorer, ratio=0.95)
    assert explorer.wait() and explorer.status["error"] is None, "who only drags sees no error"
    step = next(row for row in explorer.plan["steps"] if row["ratio"] == 0.95)
    assert step["ratio_achieved"] == pytest.approx(high) and explorer.mask.ratio_achieved == pytest.approx(high)
    sentence = next(row for row in explorer.frames["rows"] if row["ratio"] == 0.95)["sentence"]
    assert sentence.startswith(f"{100 * high:.0f} % of the filters removed (95 % requested)")
    names: dict[str, Any] = {"study": explorer.study}
    exec(explorer.code(), names)
    assert names["mask"].key == explorer.mask.key


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"layers": {"c": 0.5}}, "layer 'c'"),
        ({"layers": {"a": 1.0}}, r"layers, 'a': ratio must lie in \[0, 1\)"),
        ({"layers": [0.5]}, "layers must map"),
        ({"forced": {"remove": {"a": [10]}}}, "filters 0 to 9"),
        ({"forced": {"remove": {"a": [1]}, "keep": {"a": [1]}}}, "both remove= and keep="),
        ({"forced": {"drop": {"a": [1]}}}, "forced must name"),
        ({"layers": {"a": 0.0}, "forced": {"remove": {"a": [1]}}}, "change one of them"),
        ({"step": 3}, "step must be"),
    ],
)
def test_what_cannot_be_is_said_and_the_last_good_view_stays(
    explorer: dg.Explorer, wrong: dict[str, Any], words: str
) -> None:
    before, plan, frames = explorer.view, explorer.plan, explorer.frames
    with pytest.raises(dg.DgpruneError, match=words):
        explorer.choose(**wrong)
    by_page(explorer, **wrong)
    assert explorer.wait() and explorer.status["error"]
    assert explorer.view == before and (explorer.plan, explorer.frames) == (plan, frames)


def test_a_choice_by_hand_was_made_by_someone_who_saw_the_reported_images(explorer: dg.Explorer) -> None:
    explorer.layers = {"a": 0.2}
    rows = explorer.table.query("metric == 'accuracy'").set_index("domain")
    assert rows.seen_by_scorer.tolist() == ["labels"] * 3 and rows.target_aware.tolist() == [True, True, True]
    assert explorer.plan["exposure"]["text"].startswith("Target-aware: the scorer looked at the reported labels")
    explorer.layers = {}
    assert explorer.table.query("metric == 'accuracy'").target_aware.eq(False).all()
