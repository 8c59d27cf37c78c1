"""The explorer by its traits: what it shows equals what `measure` says, latest wins, and nothing is left behind."""

from __future__ import annotations

import gc
import html
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import dgprune_lab as dg
from dgprune_lab.charts.theme import points_text
from dgprune_lab.widgets import Panel, View


@dg.scorer("corner", label="Smallest corner")
def corner(view: Any) -> torch.Tensor:
    """First weight of each filter."""
    return view.weight[:, 0].abs()


class Small(nn.Module):
    """A network of this test's own: two convolutions with BatchNorm, one of them without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 12, 3, stride=2)
        self.an = nn.BatchNorm2d(12)
        self.b = nn.Conv2d(12, 10, 3, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(10)
        self.head = nn.Linear(10 * 6 * 6, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn(self.b(torch.relu(self.an(self.a(images))))))
        return self.head(y.flatten(1))


def small_study() -> dg.Study:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Small()
        for layer in (model.an, model.bn):
            layer.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
            layer.weight.data.uniform_(0.5, 1.5)
    return dg.Study(model, sources=[dg.data.mnist()], targets=[dg.data.mnist_m()])


@pytest.fixture(scope="module")
def study() -> dg.Study:
    return dg.demo()


def until(test: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not test():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def workers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "dgprune-explorer"]


@pytest.mark.parametrize("batchnorm", ["recalibrate", "as_is"])
def test_at_rest_every_value_equals_measure_of_the_pruned_network(batchnorm: Any) -> None:
    study = small_study()
    explorer = dg.Explorer(study, scorer=corner, batchnorm=batchnorm)
    try:
        for ratio in np.random.default_rng(1).uniform(0, 0.95, 4):
            explorer.ratio = float(ratio)
            table = explorer.table
            mask = dg.allocate(study.score(corner), ratio=float(ratio))
            said = dg.measure(dg.prune(study.model, mask), study.domains, batchnorm=batchnorm, latency=False)
            for domain in study.domains:
                shown = table[(table.domain == domain.name) & (table.metric == "accuracy")].iloc[0]
                want = said[(said.domain == domain.name) & (said.metric == "accuracy")].iloc[0]
                assert (
                    shown[["value", "low", "high", "images"]].tolist()
                    == want[["value", "low", "high", "images"]].tolist()
                )
                frame = next(row for row in explorer.frames["rows"] if row["ratio"] == float(ratio))
                dots = {dot["domain"]: dot["value"] for dot in frame["dots"]}
                assert dots[domain.name] == 100 * want["value"] and not frame["estimate"]
            for metric in ("parameters", "macs", "bytes"):
                assert table[table.metric == metric].value.item() == said[said.metric == metric].value.item()
            step = next(s for s in explorer.plan["steps"] if s["ratio"] == float(ratio))
            assert step["parameters"] == said[said.metric == "parameters"].value.item()
            assert step["kept"] == [len(mask.kept(g.name)) for g in study.graph.groups]
    finally:
        explorer.close()


def test_the_plan_keeps_the_filters_that_allocate_keeps(study: dg.Study) -> None:
    explorer = dg.Explorer(study, scorer="taylor", scope="global", budget="macs", ratio=0.37)
    try:
        explorer.wait()
        step = next(s for s in explorer.plan["steps"] if s["ratio"] == 0.37)
        for k, group in enumerate(study.graph.groups):
            rank = explorer.plan["groups"][k]["rank"]
            kept = [f for f, r in enumerate(rank) if r >= group.filters - step["kept"][k]]
            assert kept == explorer.mask.kept(group.name)
    finally:
        explorer.close()


def test_a_burst_evaluates_only_the_last_request(study: dg.Study) -> None:
    explorer = dg.Explorer(study)
    try:
        explorer.wait()
        before = explorer.evaluations["requested"]
        for k in range(200):
            explorer.choice = {**explorer.choice, "id": k + 1, "ratio": (k % 40) / 100 + 0.011, "by": "page"}
        explorer.wait()
        assert explorer.choice["id"] == 200
        assert explorer.evaluations["requested"] - before <= 3
        assert any(row["ratio"] == explorer.ratio and not row["estimate"] for row in explorer.frames["rows"])
        assert explorer.status["ack"] == 200
    finally:
        explorer.close()


def test_curves_fill_in_behind_and_are_counted_apart(study: dg.Study) -> None:
    explorer = dg.Explorer(study, scorer="l2")
    try:
        assert explorer.wait(curves=True)
        assert [row["ratio"] for row in explorer.frames["rows"]] == [round(k / 20, 2) for k in range(20)]
        assert explorer.evaluations == {"requested": 1, "background": 19}
        assert explorer.status["progress"] is None
        latency = next(row for row in explorer.frames["rows"] if row["ratio"] == 0.5)["latency"]
        assert latency is not None and latency["low"] <= latency["value"] <= latency["high"]
    finally:
        explorer.close()


def test_an_error_shows_in_words_and_the_last_good_view_stays(study: dg.Study) -> None:
    @dg.scorer("broken")
    def broken(view: Any) -> torch.Tensor:
        """Not finite."""
        return view.weight.sum(1) * torch.nan

    explorer = dg.Explorer(study)
    try:
        assert explorer.wait(curves=True)
        good = explorer.frames
        explorer.scorer = broken
        explorer.wait()
        assert "broken" in explorer.status["error"] and "finite" in explorer.status["error"]
        assert explorer.frames == good
        with pytest.raises(dg.DgpruneError, match="finite"):
            _ = explorer.table
        explorer.scorer = "l1"
        explorer.wait()
        assert explorer.status["error"] is None
    finally:
        explorer.close()


def test_bad_values_are_refused_before_anything_moves(study: dg.Study) -> None:
    explorer = dg.Explorer(study)
    try:
        for name, value, words in (
            ("ratio", 1.0, r"\[0, 1\)"),
            ("ratio", -0.1, r"\[0, 1\)"),
            ("scope", "everywhere", "scope"),
            ("budget", "bytes", "budget must be"),
            ("batchnorm", "yes", "batchnorm"),
            ("scorer", "tailor", "Did you mean 'taylor'"),
        ):
            with pytest.raises(dg.DgpruneError, match=words):
                setattr(explorer, name, value)
        assert explorer.choice["id"] == 0
        explorer.choice = {**explorer.choice, "id": 1, "ratio": 7, "by": "page"}
        assert "[0, 1)" in explorer.status["error"] and explorer.ratio == 0.5
        explorer.ratio = 0.3
        assert explorer.choice["id"] == 2 and explorer.table.ratio_requested.iloc[0] == 0.3
    finally:
        explorer.close()


def test_closing_leaves_no_thread_and_no_hook(study: dg.Study) -> None:
    explorer = dg.Explorer(study)
    explorer.wait()
    assert workers()
    explorer.close()
    assert not workers()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in study.model.modules())
    assert explorer.ratio == 0.5


def test_what_only_a_page_shows_is_computed_once_it_is_shown_or_waited_for(study: dg.Study) -> None:
    panel = Counting()
    explorer = dg.Explorer(study, panels=[panel])
    try:
        explorer.handle_message({"type": "panel", "name": "counting"})
        assert explorer.wait() and explorer.table is not None
        worker = explorer._session.worker
        until(lambda: not workers())  # the thread ends: nothing is wanted
        assert worker.has("curves") and worker.has("latency") and worker.has("panel background")
        assert panel.ticks == 1 and explorer.evaluations["background"] == 0
        assert "later" not in explorer.panels["data"]["bars"]
        explorer.set_trait("_view_count", 1)
        until(lambda: "later" in explorer.panels["data"]["bars"] and explorer.evaluations["background"] > 0)
        explorer.set_trait("_view_count", 0)
        assert not worker.has("curves") and not worker.seen
        explorer.choice = {**explorer.choice, "id": 5, "ratio": 0.7, "by": "page"}
        assert worker.seen, "a page that does not count its views"
    finally:
        explorer.close()


def test_an_explorer_that_nobody_shows_stops_working_and_can_be_forgotten(study: dg.Study) -> None:
    explorer = dg.Explorer(study)
    explorer.set_trait("_view_count", 1)
    explorer.set_trait("_view_count", 0)
    explorer.wait()
    until(lambda: not workers())
    there = weakref.ref(explorer)
    explorer.close()
    del explorer
    gc.collect()
    assert there() is None


def test_pins_keep_a_view_and_its_curve(study: dg.Study) -> None:
    explorer = dg.Explorer(study)
    try:
        explorer.wait()
        explorer.pin()
        explorer.scorer = "random"
        assert explorer.wait(curves=True)
        assert len(explorer.pins) == 1 and len(explorer.pins[0]["points"]) == 3 * 20
        assert explorer.pins[0]["label"] == "L1 norm (weights), 50 %"
        pinned = dg.allocate(study.score("l1"), ratio=0.5)
        differences = dg.diagnostics.compare(study, pinned, explorer.mask).query("metric == 'difference'")
        shown = explorer.pins_table.loc["a"]
        for row in differences.to_dict("records"):
            ends = (points_text(100 * row[end]) for end in ("value", "low", "high"))
            assert shown[f"{row['domain']}, difference"] == "{} ({} to {})".format(*ends)
        explorer.ratio = 0.55
        assert explorer.pins_table.loc["a", "filters that differ"] == explorer.pins[0]["differs"] != ""
        assert explorer.pins[0]["against"][-1] == 0.55
        explorer.pin()
        explorer.ratio = 0.6
        explorer.pin()
        explorer.ratio = 0.65
        explorer.wait()
        explorer.handle_message({"type": "pin"})
        assert explorer._session.worker.wait("pin", timeout=60)
        assert len(explorer.pins) == 3 and "Three" in explorer.status["message"]
        explorer.handle_message({"type": "unpin", "index": 0})
        assert len(explorer.pins) == 2
        explorer.handle_message({"type": "reset"})
        assert explorer.pins == [] and explorer.scorer == "l1"
    finally:
        explorer.close()


def test_code_rebuilds_the_view(study: dg.Study) -> None:
    explorer = dg.Explorer(study, scorer="bn_scale", ratio=0.43)
    try:
        table = explorer.table
        names: dict[str, Any] = {}
        exec(explorer.code(), names)
        again = names["table"]
        for domain in study.domains:
            picked = [t[(t.domain == domain.name) & (t.metric == "accuracy")].value.item() for t in (table, again)]
            assert picked[0] == picked[1]
        assert dg.__version__ in explorer.code() and study.key in explorer.code()
    finally:
        explorer.close()


def test_an_unlabelled_target_shows_agreement_with_the_full_network() -> None:
    target = dg.data.mnist_m()
    bare = dg.Domain.from_arrays("found", images=target.images, splits=dict(target.splits))
    explorer = dg.Explorer(dg.Study(dg.demo().model, sources=[dg.data.mnist()], targets=[bare]), ratio=0.3)
    try:
        shown = explorer.table
        assert set(shown[shown.domain == "found"].metric) == {"agreement"}
        assert "no labels" in explorer.frames["rows"][0]["sentence"]
    finally:
        explorer.close()


class Counting(Panel):
    """A panel of this test's own."""

    name, label = "counting", "Counting"
    charts: Mapping[str, dict[str, Any]] = {"bars": {"mark": "bar"}}

    def __init__(self) -> None:
        self.ticks = 0

    def unavailable(self, study: dg.Study) -> str | None:
        return None

    def tick(self, view: View) -> Any:
        self.ticks += 1
        if view.mask.ratio_requested > 0.8:
            raise dg.DgpruneError("too much is removed")
        return {"bars": {"rows": [{"kept": view.mask.cost.filters}]}}

    def background(self, view: View) -> Any:
        yield {"bars": {"later": [{"kept": 1}]}}


def test_a_panel_works_only_while_open_and_its_error_stays_in_it(study: dg.Study) -> None:
    panel = Counting()
    explorer = dg.Explorer(study, panels=[panel])
    try:
        explorer.wait(curves=True)
        assert panel.ticks == 0 and explorer.panels["list"][0]["label"] == "Counting"
        explorer.handle_message({"type": "panel", "name": "counting"})
        assert explorer.wait_idle()
        assert explorer.panels["data"]["bars"]["rows"] == [{"kept": 116}]
        assert explorer.panels["data"]["bars"]["later"] == [{"kept": 1}]
        explorer.ratio = 0.9
        assert explorer.wait_idle()
        assert explorer.panels["error"] == "too much is removed" and explorer.status["error"] is None
        explorer.handle_message({"type": "panel", "name": None})
        ticks = panel.ticks
        explorer.ratio = 0.1
        explorer.wait(curves=True)
        assert panel.ticks == ticks
    finally:
        explorer.close()


def test_a_saved_notebook_holds_the_sentence_and_a_picture(study: dg.Study) -> None:
    explorer = dg.Explorer(study)
    try:
        explorer.wait()
        bundle = explorer._repr_mimebundle_()
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        row = next(row for row in explorer.frames["rows"] if row["ratio"] == 0.5)
        assert row["sentence"] in html.unescape(data["text/html"])
        assert "<svg" in explorer.still() and "<script" not in explorer.still()
        assert "data:image/svg+xml;base64," in data["text/html"]
    finally:
        explorer.close()


def test_a_network_changed_in_place_is_measured_anew() -> None:
    study = small_study()
    explorer = dg.Explorer(study, ratio=0.2)
    try:
        explorer.wait(curves=True)
        assert len(explorer.frames["rows"]) == 20
        with torch.no_grad():
            study.model.get_parameter("head.weight").mul_(-1)
        explorer.ratio = 0.25
        table = explorer.table
        said = dg.measure(dg.prune(study.model, explorer.mask), study.domains, batchnorm="recalibrate", latency=False)
        for name in ("mnist", "mnist_m"):
            both = [t[(t.domain == name) & (t.metric == "accuracy")].value.item() for t in (table, said)]
            assert both[0] == both[1]
    finally:
        explorer.close()


@pytest.mark.filterwarnings("ignore:risk_variance. the variance term makes up")
def test_an_option_of_the_scorer_makes_another_entry_of_the_menu() -> None:
    explorer = dg.Explorer(dg.demo(), scorer="risk_variance", panels=[])
    try:
        explorer.handle_message({"type": "option", "name": "mode", "value": "signed"})
        assert explorer.wait() and explorer.scorer == "risk_variance[mode=signed]"
        entry = next(s for s in explorer.static["scorers"] if s["name"] == explorer.scorer)
        shown = {option["name"]: option["value"] for option in entry["options"]}
        assert shown == {"mode": "signed", "beta": 1.0} and entry["kind"] == "source"
        assert "scorer = dg.SCORERS['risk_variance'].using(mode='signed')" in explorer.code()
        names: dict[str, Any] = {}
        exec(explorer.code().rsplit("\n", 1)[0], names)
        assert names["mask"].key == explorer.mask.key
        explorer.handle_message({"type": "option", "name": "mode", "value": "additive"})
        assert explorer.scorer == "risk_variance"
        explorer.handle_message({"type": "option", "name": "style", "value": 1})
        assert "has no option 'style'" in explorer.status["error"] and explorer.scorer == "risk_variance"
    finally:
        explorer.close()


def test_reversed_and_hybrid_choices_can_be_copied_as_code() -> None:
    choice = dg.hybrid(dg.reverse("l1"), dg.SCORERS["dss"].using(site="conv_output"), by="depth", start=2)
    explorer = dg.Explorer(dg.demo(), scorer=choice, panels=[])
    try:
        assert explorer.wait()
        written = "dg.hybrid(dg.reverse('l1'), dg.SCORERS['dss'].using(site='conv_output'), by='depth', start=2)"
        assert f"scorer = {written}" in explorer.code() and eval(written).name == choice.name
        explorer.handle_message({"type": "instead"})
        assert explorer.wait() and "dss_sources" in explorer.view["scorer"] and "dss[" not in explorer.view["scorer"]
    finally:
        explorer.close()


def test_the_page_is_told_how_far_scores_lie_apart() -> None:
    study = dg.demo()
    explorer = dg.Explorer(study, scorer="l1", panels=[])
    try:
        assert explorer.wait()
        flat = torch.cat(list(study.score("l1").values.values()))
        assert f"Scores from {float(flat.min()):.3g} to {float(flat.max()):.3g}" in explorer.plan["spread"]
    finally:
        explorer.close()


def test_save_names_all_choices_and_overwrites_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = small_study()
    study = dg.Study(small.model, sources=small.sources, targets=small.targets, name="../my net: größe/2")
    explorer = dg.Explorer(study, scorer="l1", ratio=0.125)
    try:
        saved = []
        for choice in ({}, {"scope": "global", "budget": "macs"}, {"batchnorm": "as_is", "ratio": 0.1251}, {}):
            for name, value in choice.items():
                setattr(explorer, name, value)
            explorer.wait()
            mask = explorer.mask
            explorer.handle_message({"type": "save"})
            assert explorer._session.worker.wait("save", timeout=120)
            (path,) = set(tmp_path.glob("*.safetensors")) - {path for path, _ in saved}
            saved.append((path, mask))
            back = dg.load(path, model=Small())
            assert back.dgprune_masks[-1]["keep"] == mask.to_json()["keep"]  # type: ignore[index]
    finally:
        explorer.close()
    names = [path.stem for path, _ in saved]
    assert names == [
        "my_net_gr_e_2-l1-12.5pct-layer-filters-recalibrate",
        "my_net_gr_e_2-l1-12.5pct-global-macs-recalibrate",
        "my_net_gr_e_2-l1-12.51pct-global-macs-as_is",
        "my_net_gr_e_2-l1-12.51pct-global-macs-as_is-2",
    ]
    assert {path.parent for path, _ in saved} == {tmp_path} and list(tmp_path.parent.glob("*my_net*")) == []


@dg.scorer("largest weight", needs=("weights",))
def largest_weight(view: Any) -> torch.Tensor:
    """Largest absolute weight of each filter."""
    return view.weight.flatten(1).abs().amax(1)


def rebuilt(explorer: dg.Explorer, **supplied: Any) -> dict[str, Any]:
    """What the copied cell makes, with what it asks for."""
    names = dict(supplied)
    exec(explorer.code(), names)
    return names


def test_copied_code_is_valid_and_says_what_to_supply(study: dg.Study) -> None:
    own = dg.Study(study.model, sources=study.sources, targets=study.targets)
    ready = study.score("l2")
    scores = dg.Scores('a "b"\n|c', ready.values, graph=ready.graph)
    explorer = dg.Explorer(own, scorers=[largest_weight, scores])
    try:
        said = "# Supply `study`: dg.Study(model, sources=[...], targets=[...]), as in this view.\n"
        assert said in explorer.code() and "study = " not in explorer.code()
        made = rebuilt(explorer, study=own)
        assert made["mask"].key == explorer.mask.key
        explorer.scorer = "largest weight"
        assert "# Supply `largest_weight`: the Scorer of this view, named 'largest weight'." in explorer.code()
        assert rebuilt(explorer, study=own, largest_weight=largest_weight)["mask"].key == explorer.mask.key
        explorer.scorer = scores.scorer
        assert "# Supply `scorer`: the Scores of this view, named 'a \"b\"\\n|c'." in explorer.code()
        assert rebuilt(explorer, study=own, scorer=scores)["mask"].key == explorer.mask.key
        explorer.scorer = dg.reverse(largest_weight)
        assert "# Supply `" in explorer.code() and "dg.reverse" not in explorer.code()
        explorer.scorer = dg.reverse("l2")
        assert "scorer = dg.reverse('l2')\n" in explorer.code()
        assert rebuilt(explorer, study=own)["mask"].key == explorer.mask.key
    finally:
        explorer.close()


def test_a_table_is_waited_for_however_long_it_takes(study: dg.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = dg.Explorer(study)
    waited: list[float] = []
    worker = explorer._session.worker
    patient = worker.wait

    def wait(*names: str, timeout: float) -> bool:
        waited.append(timeout)
        return patient(*names, timeout=60)

    monkeypatch.setattr(worker, "wait", wait)
    try:
        assert len(explorer.table) and waited[0] > 7 * 86400
    finally:
        explorer.close()
    assert len(explorer.table), "what was measured stays readable"


def test_a_typo_ends_in_one_sentence(capfd: pytest.CaptureFixture[str], study: dg.Study) -> None:
    for wrong in ({"scorer": "l11"}, {"ratio": 1.5}, {"batchnorm": "no"}, {"scopes": "layer"}):
        with pytest.raises(dg.DgpruneError):
            dg.Explorer(study, **wrong)  # type: ignore[arg-type]
    gc.collect()
    assert capfd.readouterr().err == ""


def test_two_scorers_of_one_name_are_refused(study: dg.Study) -> None:
    first, second = (dg.Scores("mine", study.score(name).values, graph=study.graph) for name in ("l1", "l2"))
    with pytest.raises(dg.DgpruneError, match="two scorers are called 'mine'"):
        dg.Explorer(study, scorers=[first, second])
    dg.Explorer(study, scorer=first, scorers=[first]).close()


def test_a_folder_that_cannot_be_written_is_said_and_try_again_saves(
    study: dg.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    explorer = dg.Explorer(study)
    sent: list[Any] = []
    monkeypatch.setattr(explorer, "send", sent.append)
    explorer._session._send = lambda name, value: (
        sent.append(value) if name == "message" else setattr(explorer, name, value)
    )
    try:
        assert explorer.wait()
        with monkeypatch.context() as patch:
            patch.setattr("dgprune_lab.models.saving.write_file", refuse)
            explorer.handle_message({"type": "save"})
            assert explorer._session.worker.wait("save", timeout=60)
        error = str(explorer.status["error"])
        assert "cannot be written" in error and "Error" not in error, "a sentence, not an exception's name"
        assert not list(tmp_path.glob("*.safetensors"))
        explorer.handle_message({"type": "retry"})
        assert explorer._session.worker.wait("save", timeout=60) and explorer.status["error"] is None
        assert len(list(tmp_path.glob("*.safetensors"))) == 1 and sent[-1]["type"] == "saved"
    finally:
        explorer.close()


def refuse(*_: Any, **__: Any) -> Any:
    raise PermissionError(13, "Permission denied")
