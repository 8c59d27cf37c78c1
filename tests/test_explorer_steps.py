"""Layers and filters by hand, steps, history and fine-tuning in the explorer: every number is that of its network."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections.abc import Iterator
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import nn

import dgprune_lab as dg
from dgprune_lab.widgets import Panel, View
from dgprune_lab.widgets.explorer.choices import hand_reads
from dgprune_lab.widgets.explorer.frames import sentence
from dgprune_lab.widgets.explorer.workbench import tuning_steps


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
    return dg.Study(
        model.eval(), sources=[domain("one", seed=1), domain("two", seed=2)], targets=[domain("far", seed=3)]
    )


@pytest.fixture(scope="module")
def study() -> dg.Study:
    return tiny_study()


@pytest.fixture
def explorer(study: dg.Study) -> Iterator[dg.Explorer]:
    explorer = dg.Explorer(study, panels=[])
    assert explorer.wait()
    yield explorer
    explorer.close()


def settled(explorer: dg.Explorer, *jobs: str) -> bool:
    """Wait for these jobs, and for the view to which they lead, but not for its curves."""
    return explorer._session.worker.wait(*jobs, timeout=60) and explorer.wait()


def by_page(explorer: dg.Explorer, **changes: Any) -> None:
    """What a page does when the user moves something."""
    explorer.choice = {**explorer.choice, "id": int(cast(Any, explorer.choice["id"])) + 1, "by": "page", **changes}


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


def sentence_of(explorer: dg.Explorer) -> str:
    return next(row["sentence"] for row in explorer.frames["rows"] if row["ratio"] == explorer.ratio)


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
    for _ in range(4):
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
        ({"step": True}, "step must be"),
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
    text = explorer.plan["exposure"]["text"]
    assert text.startswith("Target-aware: the scorer, or the choice by hand, looked at the reported")
    explorer.layers = {}
    assert explorer.table.query("metric == 'accuracy'").target_aware.eq(False).all()
    far = explorer.study.targets[0]
    blind = dg.Domain.from_arrays("blind", images=far.images, splits=far.splits)
    unlabelled = dg.Study(explorer.study.model, sources=explorer.study.sources, targets=[blind])
    assert hand_reads(unlabelled) == {"one/report": "labels", "two/report": "labels", "blind/report": "images"}


def tree(explorer: dg.Explorer) -> list[tuple[int, int | None, str]]:
    return [(step["number"], step["parent"], step["kind"]) for step in explorer.tree["steps"]]


def test_every_number_of_every_step_is_that_of_its_network(study: dg.Study, explorer: dg.Explorer) -> None:
    before = {name: tensor.clone() for name, tensor in study.model.state_dict().items()}
    content, shown = study.content, dict[int, Any]()
    explorer.choose(ratio=0.4, forced={"remove": {"a": [2]}, "keep": {"b": [5]}}, layers={"b": 0.25})
    shown_equals_measured(explorer)
    explorer.apply()
    assert (explorer.step, explorer.ratio, explorer.layers) == (1, 0.0, {}) and explorer.forced == {"keep": {"b": [5]}}
    shown_equals_measured(explorer)
    assert sentence_of(explorer).startswith("Nothing more removed (39 % of all): one ")
    explorer.choose(scorer="taylor", scope="global", ratio=0.3)
    shown_equals_measured(explorer)
    assert sentence_of(explorer).startswith("27 % of the remaining filters removed (30 % requested, 56 % of all): one ")
    assert set(explorer.mask.kept("a")) <= set(explorer._session.steps[1].mask.kept("a")) - {2}
    assert kept_by_plan(explorer, 0.3) == {name: explorer.mask.kept(name) for name in ("a", "b")}
    chosen = explorer.mask
    explorer.finetune(epochs=2, options=dg.TrainingOptions(lr=0.02))
    assert settled(explorer, "finetune") and tree(explorer) == [
        (0, None, "full"),
        (1, 0, "prune"),
        (2, 1, "prune"),
        (3, 2, "finetune"),
    ]
    assert explorer.step == 3 and explorer.tree["job"] is None
    assert all(explorer.mask.kept(name) == chosen.kept(name) for name in ("a", "b")), "numbers of the full network"
    shown_equals_measured(explorer)
    seen = explorer.table.query("domain == 'one' and metric == 'accuracy'").iloc[0]
    assert seen.seen_by_finetuning == "none" and explorer.table.query("domain == 'far'").target_aware.all()
    finetuning = dg.provenance_of(explorer.network).finetuning
    assert finetuning is not None and finetuning["one/train"] == "labels"
    for number in (0, 1, 3):
        explorer.step = number
        shown_equals_measured(explorer)
        shown[number] = explorer.table
    for number in (1, 0):
        explorer.undo()
        shown_equals_measured(explorer)
        assert explorer.step == number and explorer.table.value.equals(shown[number].value)
    assert (
        explorer.tree["undo"] == "go to step 0, full network"
        and explorer.tree["redo"] == "L1 norm (weights), 40 %, by hand"
    )
    accuracy = {step["number"]: step["accuracy"] for step in explorer.tree["steps"]}
    full = [row["value"] for row in accuracy[0]]
    assert full == [study.outcomes(None, domain=one.name).accuracy for one in study.domains]
    for number in (1, 3):
        rows = shown[number].query("metric == 'accuracy'")
        assert [row["value"] for row in accuracy[number]] == rows.value.tolist()
        assert [row["target_aware"] for row in accuracy[number]] == [False, False, True]
    assert study.content == content, "the study's network is unchanged"
    assert all(torch.equal(tensor, before[name]) for name, tensor in study.model.state_dict().items())


def test_fine_tuning_is_that_of_prune_and_tune(study: dg.Study, explorer: dg.Explorer) -> None:
    explorer.ratio = 0.5
    explorer.apply()
    small = explorer.network
    options = dg.TrainingOptions(lr=0.03, augmentation="crop_flip", seed=4)
    state = torch.get_rng_state()
    explorer.finetune(epochs=1, options=options, wait=True)
    assert explorer.step == 2 and torch.equal(torch.get_rng_state(), state)
    there = dg.Study(small, sources=study.sources, targets=study.targets)
    again = dg.prune_and_tune(there, None, ratio=0.0, rounds=1, epochs=1, options=options, batchnorm="recalibrate")
    theirs = again.network.state_dict()
    for ours in (explorer.network.state_dict(), explorer._session.steps.network(2).state_dict()):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_fine_tuned_network_does_not_take_the_view_from_who_moved_on(
    explorer: dg.Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = threading.Event()

    def held(*args: Any, **options: Any) -> Any:
        while not moved.is_set():
            yield {"words": "Fine-tuning", "done": 0, "total": 1}
        return (yield from tuning_steps(*args, **options))

    monkeypatch.setattr("dgprune_lab.widgets.explorer.workbench.tuning_steps", held)
    explorer.ratio = 0.0
    explorer.finetune()
    explorer.ratio = 0.25
    moved.set()
    assert settled(explorer, "finetune") and len(explorer.tree["steps"]) == 2
    assert (explorer.step, explorer.ratio) == (0, 0.25)
    assert explorer.status["message"] == "The fine-tuned network is step 1; go there in the tree of steps."


def test_a_cancelled_fine_tuning_loses_nothing_and_the_slider_works_meanwhile(explorer: dg.Explorer) -> None:
    explorer.ratio = 0.5
    explorer.apply()
    assert explorer.wait()
    before = {name: tensor.clone() for name, tensor in explorer.network.state_dict().items()}
    explorer.handle_message({"type": "finetune", "epochs": 100_000, "lr": 0.01, "augment": "none"})
    with pytest.raises(dg.DgpruneError, match="is running"):
        explorer.finetune()
    by_page(explorer, ratio=0.25)
    assert explorer.wait()
    shown_equals_measured(explorer)
    assert explorer.tree["job"]["words"].startswith("Fine-tuning")
    explorer.handle_message({"type": "cancel"})
    assert settled(explorer, "finetune") and explorer.tree["job"] is None and len(explorer.tree["steps"]) == 2
    by_page(explorer, ratio=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in explorer.network.state_dict().items())
    explorer.handle_message({"type": "finetune", "epochs": 1, "lr": 1e30, "augment": "none"})
    assert settled(explorer, "finetune") and "the loss is" in explorer.status["error"] and explorer.tree["job"] is None
    shown_equals_measured(explorer)
    with pytest.raises(dg.DgpruneError, match="the loss is"):
        explorer.finetune(3, dg.TrainingOptions(lr=1e30), wait=True)
    explorer.handle_message({"type": "finetune", "epochs": 0, "lr": 0.1, "augment": "none"})
    assert "epochs" in explorer.status["error"] and explorer.tree["job"] is None


def test_undo_covers_every_control_and_no_slider_event(explorer: dg.Explorer) -> None:
    for k in range(10):
        by_page(explorer, ratio=k / 100, moving=True)
    by_page(explorer, ratio=0.3, moving=False)
    assert explorer.wait()
    explorer.scorer = "random"
    assert explorer.wait()
    explorer.forced = {"remove": {"a": [1]}}
    assert explorer.wait() and explorer.tree["undo"] == "filters by hand"
    explorer.layers = {"b": 0.0}
    explorer.undo()  # before it has come to rest
    assert explorer.layers == {} and explorer.forced == {"remove": {"a": [1]}}
    for _ in range(2):
        explorer.handle_message({"type": "undo"})
    assert (explorer.scorer, explorer.ratio, explorer.forced) == ("l1", 0.3, {}) and explorer.wait()
    explorer.undo()
    assert explorer.ratio == 0.5 and explorer.tree["redo"] == "ratio 50 % \N{RIGHTWARDS ARROW} 30 %"
    explorer.undo()
    assert explorer.status["message"] == "There is nothing to undo." and explorer.ratio == 0.5
    explorer.redo()
    explorer.ratio = 0.9
    assert explorer.wait() and explorer.tree["redo"] is None


@pytest.mark.parametrize("gap", ["before it settles", "while it moves"])
def test_a_measurement_that_undo_overtakes_does_not_settle_what_was_undone(
    explorer: dg.Explorer, gap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("scorer", "scope", "budget"):
        setattr(explorer, name, {"scorer": "random", "scope": "global", "budget": "macs"}[name])
        assert explorer.wait()
    session = explorer._session
    history, target = session.history, session if gap == "while it moves" else session.history
    before, name = history.to_json()["undo"], "choose" if gap == "while it moves" else "settle"
    plain, overtaken = getattr(target, name), list[bool]()

    def overtaking(choices: Any, **options: Any) -> Any:
        if not overtaken:
            overtaken.append(True)
            stale = session.view
            if gap == "while it moves":
                history.settle(stale, is_present=lambda: stale is session.view)
            else:
                explorer.undo()
        return plain(choices, **options)

    explorer.budget = "parameters"
    assert explorer.wait()
    monkeypatch.setattr(target, name, overtaking)
    if gap == "while it moves":
        explorer.undo()
    else:
        session.measure(ack=0)
        assert explorer.wait()
    assert overtaken and explorer.wait() and explorer.budget == "macs"
    assert history.to_json()["undo"] == before and [e["budget"] for e in history.to_json()["redo"]] == ["parameters"]
    explorer.redo()
    assert explorer.wait() and explorer.budget == "parameters" and history.to_json()["redo"] == []


def test_a_page_that_lags_behind_does_not_leave_the_step(explorer: dg.Explorer) -> None:
    explorer.apply()
    assert explorer.step == 1
    by_page(explorer, step=0, ratio=0.7)
    assert (explorer.step, explorer.ratio) == (1, 0.0) and explorer.choice["step"] == 1
    explorer.handle_message({"type": "goto", "choice": {"step": 0, "ratio": 0.0}})
    assert explorer.wait() and (explorer.step, explorer.ratio) == (0, 0.0)
    explorer.handle_message({"type": "apply"})
    assert settled(explorer, "apply") and explorer.status["message"].startswith("Nothing is removed")
    with pytest.raises(dg.DgpruneError, match="Nothing is removed"):
        explorer.apply()
    explorer.ratio = 0.99
    with pytest.raises(dg.DgpruneError, match="One filter would be left in every layer"):
        explorer.apply()
    with pytest.raises(dg.DgpruneError, match=r"were removed before step 1\. Go back"):
        gone = sorted(set(range(10)) - set(explorer._session.steps[1].mask.kept("a")))
        explorer.choose(step=1, forced={"keep": {"a": gone[:1]}})


def test_many_steps_take_no_more_memory_than_two(study: dg.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgprune_lab.widgets.explorer.steps.KEPT", 3_000)
    explorer = dg.Explorer(study, panels=[], batchnorm="as_is")
    studies: list[Any] = []
    try:
        for k in range(4):
            explorer.choose(step=0, ratio=0.1 + k / 6, scorer="random")
            explorer.apply()
            assert explorer.wait()
            studies.append(weakref.ref(explorer._session.measurements.study))
        gc.collect()
        steps = explorer._session.steps
        assert sum(one() is not None for one in studies) == 1
        held = sum(t.nbytes for step in list(steps)[1:] for t in step.network.parameters())
        assert held < 3_000 + 2 * 5_000
        stored = {step["stored"] for step in explorer.tree["steps"]}
        assert stored == {"memory", "disk"} and len(steps) == 5
        folder = steps._folder
        assert folder is not None and len(list(folder.iterdir())) >= 1
        explorer.step = next(step.number for step in steps if step.away)
        shown_equals_measured(explorer)
        good, lost = explorer.frames, next(step for step in steps if step.away and step.file is not None)
        (folder / f"step_{lost.number}.safetensors").write_bytes(b"other")
        explorer.step = lost.number
        assert explorer.wait() and "cannot be read" in explorer.status["error"] and explorer.frames == good
        explorer.step = 0
        assert explorer.wait() and explorer.status["error"] is None
    finally:
        explorer.close()
    assert not folder.exists()


def test_filters_that_never_answer_are_named_by_their_number_in_the_full_network() -> None:
    silenced = tiny_study()
    with torch.no_grad():
        silenced.model.an.bias[[3, 8]], silenced.model.an.weight[[3, 8]] = -1.0, 0.0  # type: ignore[union-attr, index]
    images = torch.cat([one.images[one.splits["score"]] for one in silenced.sources])
    explorer = dg.Explorer(silenced, panels=[], scorer="l1")
    try:
        assert (
            explorer.wait()
            and settled(explorer, "silent")
            and explorer.silent == {"key": [0], "groups": never_positive(silenced.model, images)}
        )
        assert {3, 8} <= set(explorer.silent["groups"]["a"])
        explorer.choose(forced={"remove": {"a": [3]}}, ratio=0.1)
        explorer.apply()
        assert explorer.wait() and settled(explorer, "silent") and explorer.silent["key"] == [1]
        left, found = explorer._session.steps[1].mask, never_positive(explorer.network, images)
        assert explorer.silent["groups"] == {name: [left.kept(name)[k] for k in found[name]] for name in found}
    finally:
        explorer.close()


def never_positive(model: Any, images: torch.Tensor) -> dict[str, list[int]]:
    """The filters that are 0 behind their ReLU on all images."""
    with torch.no_grad():
        first = model.an(model.a(images)).relu()
        maps = {"a": first, "b": model.bn(model.b(first)).relu()}
    found = {name: (each.amax((0, 2, 3)) == 0).nonzero().flatten().tolist() for name, each in maps.items()}
    return {name: filters for name, filters in found.items() if filters}


def test_scores_of_the_full_network_are_greyed_at_a_later_step_and_refused_in_words(study: dg.Study) -> None:
    scores = dg.Scores("mine", study.score("l2").values, graph=study.graph)
    explorer = dg.Explorer(study, panels=[], scorers=[scores])
    try:
        explorer.apply()
        assert explorer.wait() and explorer.status["error"] is None
        entry = next(entry for entry in explorer.static["scorers"] if entry["name"] == "mine")
        assert "made for another network" in entry["unavailable"]
        good = explorer.frames
        explorer.scorer = "mine"
        assert (
            explorer.wait() and "made for another network" in str(explorer.status["error"]) and explorer.frames == good
        )
        explorer.choose(step=0, scorer="mine")
        assert explorer.wait() and explorer.status["error"] is None
        entry = next(entry for entry in explorer.static["scorers"] if entry["name"] == "mine")
        assert entry["unavailable"] is None
    finally:
        explorer.close()


def test_panels_are_given_everything_that_was_tried(study: dg.Study) -> None:
    seen: list[View] = []

    class Seeing(Panel):
        name, label = "seeing", "Seeing"
        charts: ClassVar[Any] = {}

        def tick(self, view: View) -> Any:
            seen.append(view)
            return {}

    explorer = dg.Explorer(study, panels=[Seeing()], ratio=0.3)
    try:
        explorer.handle_message({"type": "panel", "name": "seeing"})
        assert explorer.wait()
        explorer.pin()
        explorer.apply()
        explorer.scorer, explorer.ratio = "random", 0.5
        assert explorer.wait() and settled(explorer, "panel")
        view = seen[-1]
        assert view.full is study and view.original == {n: explorer._session.steps[1].mask.kept(n) for n in ("a", "b")}
        assert view.present is not None and view.present.table.equals(explorer.table)
        names = {tried.kind: tried.name for tried in view.tried if tried.choice["scorer"] != "random"}
        assert names["pin"] == "pin a: L1 norm (weights), 30 %" and names["ratio"].startswith("L1 norm (weights), ")
        for tried in view.tried:
            said = dg.measure(tried.network(), study.domains, latency=False).query("metric == 'accuracy'")
            assert tried.table.query("metric == 'accuracy'").value.tolist() == said.value.tolist(), tried.name
            assert tried.mask.cost.parameters == tried.table.query("metric == 'parameters'").value.item()
        full, step = (next(one for one in view.tried if one.name.startswith(f"step {k}")) for k in (0, 1))
        assert (full.choice["batchnorm"], view.batchnorm) == ("as_is", "recalibrate"), "nothing was removed from it"
        explorer.batchnorm = "as_is"
        assert explorer.wait() and settled(explorer, "panel") and seen[-1].batchnorm == "as_is"
        (step,) = (one for one in seen[-1].tried if one.name == step.name)
        assert step.choice["batchnorm"] == "recalibrate", "as it was made"
        explorer.handle_message({"type": "goto", "choice": step.choice})
        assert explorer.table.value.equals(step.table.value)
    finally:
        explorer.close()


def test_the_sentence_says_the_number_of_the_slider_and_what_was_achieved_where_they_differ() -> None:
    study = dg.demo()
    scores = study.score("l1")
    for ratio, start in (
        (0.5, "50 % of the filters removed: a"),
        (0.37, "35 % of the filters removed (37 % requested): a"),
        (0.2542, "25.42 % of the filters removed: a"),
        (0.99, "98 % of the filters removed (99 % requested): a"),
        (0.001, "Nothing removed (0.1 % requested); the change is that of re-estimating BatchNorm: a"),
    ):
        assert sentence(dg.allocate(scores, ratio=ratio), ["a"], recalibrated=True) == start, ratio


def test_a_closed_explorer_says_so(study: dg.Study) -> None:
    explorer = dg.Explorer(study, panels=[])
    explorer.close()
    for act in (explorer.apply, explorer.finetune, explorer.pin, explorer.download):
        with pytest.raises(dg.DgpruneError, match="this explorer is closed"):
            act()


def test_the_tree_says_what_each_network_does_as_it_was_made() -> None:
    study = tiny_study()
    explorer = dg.Explorer(study, panels=[], calibration=20, images=15)
    try:
        explorer.ratio = 0.4
        explorer.apply()
        explorer.finetune(options=dg.TrainingOptions(lr=0.5), wait=True)
        assert explorer.wait() and explorer.batchnorm == "recalibrate"
        shown = {step["number"]: [row["value"] for row in step["accuracy"]] for step in explorer.tree["steps"]}
        network = explorer._session.steps.network(2)
        assert shown[2] == [dg.evaluate(network, one, images=15).accuracy for one in study.domains]
        with torch.no_grad():
            study.model.get_parameter("head.weight").mul_(-1)
        explorer.step = 0
        assert explorer.wait()
        values = [row["value"] for row in explorer.tree["steps"][0]["accuracy"]]
        assert values == [study.outcomes(None, domain=one.name, images=15).accuracy for one in study.domains]
        assert values != shown[0]
    finally:
        explorer.close()


def test_a_filter_is_silent_where_no_source_makes_it_answer() -> None:
    first = nn.Conv2d(3, 4, 1, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0], [-1, -1, -1], [1, 1, 1]]).view(4, 3, 1, 1))
    model = nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    red, green = torch.zeros(2, 12, 3, 4, 4)
    red[:, 0], green[:, 1] = 0.5, 0.5
    splits = {"score": [*range(6)], "report": [*range(6, 12)]}
    sources = [
        dg.Domain.from_arrays(name, images=images, labels=torch.arange(12) % 2, splits=splits)
        for name, images in (("red", red), ("green", green))
    ]
    explorer = dg.Explorer(dg.Study(model.eval(), sources=sources), panels=[])
    try:
        assert explorer.wait() and settled(explorer, "silent")
        assert explorer.silent["groups"] == {"0": [2]}, "a filter that answers on one source is not silent"
        explorer.ratio = 0.5
        explorer.apply()
        assert explorer.wait() and settled(explorer, "silent") and explorer.silent["key"] == [1]
        explorer.step = 0
        assert explorer.wait() and settled(explorer, "silent")
        assert explorer.silent == {"key": [0], "groups": {"0": [2]}}, "they are marked again where they are known"
    finally:
        explorer.close()


def test_a_step_tells_agreement_with_the_full_network_from_accuracy() -> None:
    first = tiny_study()
    far: Any = domain("far", seed=3)
    bare = dg.Domain.from_arrays("bare", images=far.images, splits=far.splits, classes=3)
    explorer = dg.Explorer(dg.Study(first.model, sources=first.sources, targets=[bare]), panels=[])
    try:
        assert explorer.wait()
        assert list(explorer.steps)[-3:] == ["one (%)", "two (%)", "bare, agreement (%)"]
        steps: Any = explorer.tree["steps"]
        assert [row["metric"] for row in steps[0]["accuracy"]] == ["accuracy", "accuracy", "agreement"]
    finally:
        explorer.close()
