"""One BatchNorm default: whatever evaluates a mask re-estimates statistics, and every table and title says so."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
import torch
from material import domain, fingerprint, norm_net, plain_net, randomise
from read_study import lively, read_domain, read_study
from torch import nn

import dgprune_lab as dg
from dgprune_lab.core import drain
from dgprune_lab.diagnostics._features import features_steps
from dgprune_lab.measurement import at_chance
from dgprune_lab.measurement.recalibrate import calibration_batches
from dgprune_lab.study import batchnorm_cell
from dgprune_lab.widgets.explorer.frames import measure_frame

PLAIN = "this network has no BatchNorm"


@pytest.fixture(scope="module")
def study() -> dg.Study:
    return read_study()


@pytest.fixture(scope="module")
def plain() -> dg.Study:
    return read_study("plain", net=without_norm)


def without_norm() -> nn.Sequential:
    layers = (nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def by_hand(study: dg.Study, mask: dg.Mask, name: str) -> dg.core.Outcomes:
    """What a user would write."""
    return dg.evaluate(dg.recalibrate(dg.prune(study.model, mask), study.sources), study.domain(name))


def full_network(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a sweep chart that stand for the full network."""
    return next(layer["data"]["values"] for layer in spec["layer"] if layer.get("data", {}).get("name") == "full")


def at(frame: pd.DataFrame, ratio: float) -> pd.DataFrame:
    return cast(pd.DataFrame, frame[frame.ratio_requested == ratio])


def accuracy(frame: pd.DataFrame, name: str, *, ratio: float = 0.5, metric: str = "accuracy") -> float:
    wanted = frame.query("metric == @metric and domain == @name and ratio_requested == @ratio and scorer == 'l1'")
    return float(wanted["value"].tolist()[0])


# name of the diagnostic: its table where no BatchNorm setting is named
TABLES: dict[str, Any] = {
    "sweep": lambda study: dg.sweep(study, scorers=["l1"], ratios=[0.5]),
    "drop": lambda study: dg.diagnostics.drop(study, ratios=[0.5]),
    "layers": lambda study: dg.diagnostics.drop(study, ratios=[0.5], by="layer"),
    "flips": lambda study: dg.diagnostics.flips(study, ratios=[0.5]),
    "compare_scorers": lambda study: dg.diagnostics.compare_scorers(study, scorers=["l1"], against="l2"),
    "feature_shift": lambda study: dg.diagnostics.feature_shift(study, ratios=[0.5], embedding="none", images=60),
}
GIVEN: dict[str, Any] = {
    "compare_networks": lambda study: dg.diagnostics.compare_networks([study, read_study("other")]),
    "mean_map": lambda study: dg.diagnostics.mean_map(study, layer="0", filters=[0]),
    "sensitivity": lambda study: dg.diagnostics.sensitivity(study, images=40),
    "prunability": lambda study: dg.diagnostics.prunability(study, step=0.25),
    "measure": lambda study: dg.measure(study.model, study.domains, latency=False),
    "margin": lambda study: dg.diagnostics.margin(study),
    "flatness": lambda study: dg.diagnostics.flatness(study, images=4, steps=(), draws=2),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_table_of_a_mask_re_estimates_by_default_and_says_so(name: str, study: dg.Study, plain: dg.Study) -> None:
    frame = TABLES[name](study)
    pruned = frame[frame.ratio_requested == 0.5]
    assert len(pruned) and set(pruned.batchnorm) == {"recalibrate"}
    assert set(frame[frame.ratio_requested == 0].batchnorm) <= {"as_is"}, "the full network is as given"
    assert TABLES[name](plain).batchnorm.isna().all(), PLAIN


@pytest.mark.parametrize("name", GIVEN)
def test_a_table_of_the_network_as_given_says_so(name: str, study: dg.Study, plain: dg.Study) -> None:
    assert set(GIVEN[name](study).batchnorm) == {"as_is"}
    if name != "compare_networks":
        assert GIVEN[name](plain).batchnorm.isna().all(), PLAIN


def test_numbers_of_a_mask_are_those_of_the_re_estimated_network(study: dg.Study) -> None:
    mask = dg.allocate(study.score("l1"), ratio=0.5)
    for name in ("a", "t"):
        wanted = by_hand(study, mask, name)
        stale = dg.evaluate(dg.prune(study.model, mask), study.domain(name))
        assert not torch.equal(wanted.predicted, stale.predicted), "the setting matters here"
        assert torch.equal(study.outcomes(mask, domain=name).loss, wanted.loss)
        assert torch.equal(drain(study.steps(mask, domain=name)).loss, wanted.loss)
        assert torch.equal(dg.evaluate(study.network(mask), study.domain(name)).loss, wanted.loss)
        full = dg.evaluate(study.model, study.domain(name))
        assert torch.equal(study.outcomes(None, domain=name).loss, full.loss), "the full network is as given"
        assert accuracy(TABLES["sweep"](study), name) == wanted.accuracy
        assert accuracy(TABLES["compare_scorers"](study), name) == wanted.accuracy
        change = accuracy(TABLES["drop"](study), name, metric="accuracy_change")
        assert change == pytest.approx(wanted.accuracy - full.accuracy)
    features = [
        drain(features_steps(study, "4", masks=[mask], batchnorm="recalibrate", images=60, split="report")),
        drain(study.feature_steps(mask, layer="4", domain="a", images=60)),
        drain(study.feature_steps(mask, layer="4", domain="a", images=60, batchnorm="recalibrate")),
        drain(study.feature_steps(mask, layer="4", domain="a", images=60, batchnorm="as_is")),
    ]
    assert torch.equal(features[1], features[2]) and not torch.equal(features[1], features[3])


def test_the_explorer_its_panels_and_diagnostics_have_one_default() -> None:
    named = (
        dg.sweep,
        *(getattr(dg.diagnostics, name) for name in ("drop", "flips", "compare_scorers", "feature_shift")),
    )
    assert {inspect.signature(each).parameters["batchnorm"].default for each in named} == {"recalibrate"}
    explorer = dg.Explorer(read_study())
    explorer.close()
    assert explorer.batchnorm == "recalibrate"


def test_at_ratio_0_the_change_is_named_as_that_of_the_re_estimation(study: dg.Study) -> None:
    frame = dg.diagnostics.drop(study, ratios=[0.0, 0.5])
    full, again = dg.evaluate(study.model, study.domain("t")), dg.recalibrate(study.model, study.sources)
    wanted = dg.evaluate(again, study.domain("t")).accuracy - full.accuracy
    assert wanted != 0 and accuracy(frame, "t", ratio=0.0, metric="accuracy_change") == pytest.approx(wanted)
    for chart in (dg.charts.drop_curve(frame), dg.charts.drop(at(frame, 0.0))):
        assert "At 0 % the change is due to re-estimation alone." in chart.to_dict()["title"]["subtitle"]
    alone = dg.charts.drop(at(frame, 0.5)).to_dict()["title"]
    assert alone["text"] == "Accuracy change, BatchNorm re-estimated" and "subtitle" not in alone
    swept = dg.charts.sweep(dg.sweep(study, scorers=["l1"], ratios=[0.0, 0.5])).to_dict()
    assert full_network(swept) == [], "what is measured at 0 % is not the full network as given"
    as_is = dg.charts.sweep(dg.sweep(study, scorers=["l1"], ratios=[0.0, 0.5], batchnorm="as_is")).to_dict()
    assert [row["domain"] for row in full_network(as_is)] == ["a", "t"]
    assert as_is["title"]["text"] == "Accuracy, BatchNorm as is" and "subtitle" not in as_is["title"]


@pytest.mark.parametrize(("batchnorm", "said"), [("recalibrate", True), ("as_is", False)])
def test_the_explorers_sentence_at_0_names_the_re_estimation(batchnorm: Any, said: bool, study: dg.Study) -> None:
    mask = dg.allocate(study.score("l1"), ratio=0.0)
    sentence = drain(measure_frame(study, mask, batchnorm=batchnorm)).payload["sentence"]
    start = "Nothing removed; the change is that of re-estimating BatchNorm: " if said else "Nothing removed: "
    assert sentence.startswith(f"{start}a ")


def test_the_head_of_a_summary_says_the_setting(study: dg.Study, plain: dg.Study) -> None:
    assert dg.summary(TABLES["sweep"](study)).columns.name == "BatchNorm re-estimated"
    assert "BatchNorm re-estimated" in str(dg.summary(TABLES["sweep"](study)))
    assert dg.summary(TABLES["sweep"](plain)).columns.name is None


def test_titles_of_a_network_without_batchnorm_say_nothing_of_it(plain: dg.Study) -> None:
    frame = dg.diagnostics.drop(plain, ratios=[0.0, 0.5])
    assert (frame[(frame.ratio_requested == 0) & (frame.metric == "accuracy_change")].value == 0).all()
    assert "BatchNorm" not in str(dg.charts.drop_curve(frame).to_dict()["title"])
    assert batchnorm_cell(plain, "recalibrate") is None


def test_sources_without_a_train_split_are_told_of_the_setting() -> None:
    model = randomise(norm_net(), dtype=torch.float32)
    splits = {"score": list(range(20)), "report": list(range(20, 60))}
    bare = dg.Study(model, sources=[domain("a", splits=splits)])
    with pytest.raises(dg.DgpruneError, match=r"train split.*batchnorm='as_is'"):
        dg.sweep(bare, scorers=["l1"], ratios=[0.5])
    assert len(dg.sweep(bare, scorers=["l1"], ratios=[0.5], batchnorm="as_is"))


def flat_source(name: str, value: float, *, count: int = 300) -> dg.Domain:
    return dg.Domain.from_arrays(name, images=torch.full((count, 3, 2, 2), value), splits={"train": range(count)})


@pytest.mark.parametrize(
    ("images", "sizes"),
    [(2, [2]), (374, [374]), (376, [189, 187]), (500, [251, 249]), (620, [311, 309]), (630, [210] * 3)],
)
def test_calibration_is_shared_equally_in_batches_of_about_250(images: int, sizes: list[int]) -> None:
    batches = calibration_batches([flat_source(name, 0.0) for name in "abc"], images)
    assert [sum(len(rows) for _, rows in batch) for batch in batches] == sizes
    shares = [sum(len(rows) for batch in batches for domain, rows in batch if domain.name == name) for name in "abc"]
    assert shares == [images // 3 + (k < images % 3) for k in range(3)], "500 images: 167, 167, 166"


def test_statistics_are_the_plain_average_over_the_batches_whatever_they_were_before() -> None:
    norm = nn.BatchNorm2d(3)
    model = nn.Sequential(norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)).eval()
    norm.num_batches_tracked.fill_(1000)  # type: ignore[union-attr]
    norm.running_mean.fill_(7.0)  # type: ignore[union-attr]
    again: Any = dg.recalibrate(model, [flat_source("a", 0.0), flat_source("b", 0.0), flat_source("c", 1.0)])
    wanted = (83 / 251 + 83 / 249) / 2
    torch.testing.assert_close(again[0].running_mean, torch.full((3,), wanted), rtol=1e-6, atol=0)
    assert again[0].num_batches_tracked == 2 and norm.num_batches_tracked == 1000


def test_the_number_of_calibration_images_is_part_of_what_is_cached(study: dg.Study) -> None:
    mask = dg.allocate(study.score("l1"), ratio=0.5)
    losses = [study.outcomes(mask, domain="a", calibration=count).loss for count in (500, 20)]
    few = dg.recalibrate(dg.prune(study.model, mask), study.sources, images=20)
    assert torch.equal(losses[1], dg.evaluate(few, study.domain("a")).loss)
    assert not torch.equal(losses[0], losses[1])


# ---- at chance


def outcomes_of(predicted: list[int], labels: list[int]) -> dg.core.Outcomes:
    count = len(labels)
    rows, loss = torch.arange(count), torch.zeros(count, dtype=torch.float64)
    return dg.core.Outcomes(predicted=torch.tensor(predicted), loss=loss, index=rows, labels=torch.tensor(labels))


@pytest.mark.parametrize(
    ("right", "images", "classes", "expected"),
    [
        (10, 100, 10, True),
        (16, 100, 10, True),  # 16 or more of 100 by guessing: 4 %
        (17, 100, 10, False),  # 2.1 %
        (0, 50, 10, True),
        (61, 100, 2, False),
        (59, 100, 2, True),
        (1, 1, 10, False),  # a single image cannot tell
        (5, 5, 2, False),  # nor can five of two classes: all right by guessing is 3 %
        (2, 6, 2, True),
    ],
)
def test_chance_is_an_exact_binomial_bound(right: int, images: int, classes: int, expected: bool) -> None:
    labels = [k % classes for k in range(images)]
    predicted = [label if k < right else (label + 1) % classes for k, label in enumerate(labels)]
    assert at_chance(outcomes_of(predicted, labels), classes=classes) is expected


def test_one_class_for_every_image_is_chance_whatever_the_share_of_that_class() -> None:
    labels = [0] * 70 + [1, 2, 3] * 10
    assert at_chance(outcomes_of([0] * 100, labels), classes=4)
    assert not at_chance(outcomes_of([0] * 99 + [3], labels), classes=4)
    assert not at_chance(outcomes_of([0] * 100, [0] * 100), classes=4), "there is one class only"


def test_a_study_warns_once_where_a_source_is_at_chance() -> None:
    model = lively(norm_net, seed=3)
    good = read_domain(model, "a", seed=1)
    shifted = (cast(torch.Tensor, good.labels) + 1) % 4
    wrong = dg.Domain.from_arrays("b", images=good.images, labels=shifted, splits=good.splits, classes=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study = dg.Study(model, sources=[good, wrong], targets=[])  # nothing is measured yet
        study.outcomes(None, domain="a")
        study.outcomes(None, domain="b", images=50)  # part of the split, as of an estimate
    message = r"source 'b' is classified at chance: 0 of 300 .*0\.0 %; guessing gives 25\.0 %.*normalise.*order"
    with pytest.warns(dg.DgpruneNote, match=message) as caught:
        dg.diagnostics.drop(study)
        dg.sweep(study, scorers=["l1"], ratios=[0.0, 0.5])
    assert len([w for w in caught if "at chance" in str(w.message)]) == 1, "once per study"
    with pytest.warns(dg.DgpruneNote, match=r"domain 'b' is classified at chance.*BatchNorm statistics are stale"):
        dg.measure(model, [good, wrong], latency=False)
    with pytest.warns(dg.DgpruneNote, match="at chance") as caught:
        dg.measure(model, [wrong.as_role("source")], latency=False, batchnorm="recalibrate")
    assert not any("stale" in str(w.message) for w in caught), "they have just been re-estimated"
    small = dg.prune(model, dg.allocate(study.score("l1"), ratio=0.5))
    for network, pruned in ((model, False), (small, True)):
        with pytest.warns(dg.DgpruneNote, match="at chance") as caught:
            dg.measure(network, [wrong], latency=False)
        assert any("too many filters are removed" in str(w.message) for w in caught) == pruned
    options = dg.TrainingOptions(epochs=1, lr=1e-9, batch_size=50, schedule="constant")
    with pytest.warns(dg.DgpruneNote, match="at chance") as caught:
        plan: dict[str, Any] = {"ratio": 0.5, "rounds": 1, "epochs": 1, "options": options}
        dg.prune_and_tune(dg.Study(model, sources=[wrong]), None, **plan, batchnorm="recalibrate")
    assert ["stale" in str(w.message) for w in caught if "at chance" in str(w.message)] == [True, False]
    target = dg.Study(model, sources=[good], targets=[wrong])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dg.diagnostics.drop(target)  # a target at chance is a finding
        unlabelled = dg.Domain.from_arrays("c", images=good.images, splits=good.splits)
        dg.Study(model, sources=[unlabelled]).outcomes(None, domain="c")


def test_a_network_whose_statistics_lag_is_re_estimated_after_fine_tuning_or_warned_of() -> None:
    """A small momentum, as in EfficientNet: after a few batches the statistics are still the first ones."""
    pool = domain("any", count=1500)
    model: Any = dg.recalibrate(randomise(norm_net(), seed=3, dtype=torch.float32), [pool])
    with torch.no_grad():  # every class about equally often
        logits = model(pool.take(torch.arange(500)).images)
        model[-1].weight /= logits.std(0)[:, None]
        model[-1].bias.copy_((model[-1].bias - logits.mean(0)) / logits.std(0))
    study = dg.Study(model, sources=[read_domain(model, "a", seed=1)])
    for module in study.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0001
            module.running_mean.add_(40.0)  # type: ignore[union-attr, operator]
    options = dg.TrainingOptions(epochs=1, lr=1e-3, batch_size=50, schedule="constant")
    plan: dict[str, Any] = {"ratio": 0.3, "rounds": 1, "epochs": 1, "options": options}
    with pytest.warns(
        dg.DgpruneNote, match=r"'a' is classified at chance: class \d is predicted for every image .*, so [\d,]+ of"
    ) as seen:
        stale = dg.prune_and_tune(study, None, **plan)  # the dense control: nothing is removed
    assert not any("more is removed" in str(w.message) for w in seen) and any("stale" in str(w.message) for w in seen)
    with pytest.warns(dg.DgpruneNote, match=r"at chance.*: too many filters are removed; its BatchNorm.*stale"):
        dg.prune_and_tune(study, "l1", **plan)
    fresh = dg.prune_and_tune(study, None, **plan, batchnorm="recalibrate")
    last = [run.table[(run.table.stage == "tuned") & (run.table.metric == "accuracy")] for run in (stale, fresh)]
    assert last[1].value.item() > last[0].value.item() + 0.2
    assert [rows.batchnorm.item() for rows in last] == ["as_is", "recalibrate"]
    again = dg.recalibrate(fresh.network, study.sources)
    assert torch.equal(
        dg.evaluate(again, study.domain("a")).loss, dg.evaluate(fresh.network, study.domain("a")).loss
    ), "the statistics of the tuned network are the re-estimated ones"
    assert dg.provenance_of(fresh.network).finetuning == {"any/train": "images", "a/train": "labels"}


# ---- normalisation

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def test_normalise_is_the_first_module_of_the_network_that_is_studied(tmp_path: Path) -> None:
    model = lively(norm_net, seed=3)
    before = fingerprint(model)
    source = read_domain(model, "a", seed=1)
    study = dg.Study(model, sources=[source], normalise=(MEAN, STD))
    mask = dg.allocate(study.score("l1"), ratio=0.5)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    shifted = dg.Domain.from_arrays("a", images=source.images, labels=source.labels, splits=source.splits, classes=4)
    with torch.no_grad():
        rows = shifted.rows("report")
        wanted = model.eval()((shifted.take(rows).images - mean) / std).argmax(1)
    assert torch.equal(study.outcomes(None, domain="a").predicted, wanted)
    assert fingerprint(model) == before, "the network that was given is untouched"
    small = study.network(mask)
    path = dg.save(small, tmp_path / "small")
    again = dg.load(path, model=dg.models.normalised(lively(norm_net, seed=3), (MEAN, STD)))
    assert torch.equal(dg.evaluate(again, source).loss, dg.evaluate(small, source).loss)
    assert torch.equal(study.on("cpu").outcomes(None, domain="a").predicted, wanted), "not normalised twice"


def test_imagenet_names_the_usual_numbers_and_wrong_ones_are_refused() -> None:
    network: Any = dg.models.normalised(norm_net(), "imagenet")
    assert network[0].mean.tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert network[0].std.tolist() == pytest.approx([0.229, 0.224, 0.225])
    model = randomise(norm_net(), dtype=torch.float32)
    for wrong in (((0.5, 0.5), (0.5, 0.5)), (0.5, 0.0), (0.5,), "cifar"):
        with pytest.raises(dg.DgpruneError, match=r"normalise|std"):
            dg.Study(model, sources=[domain("a")], normalise=wrong)  # type: ignore[arg-type]
    with pytest.raises(dg.DgpruneError, match=r"mean lies there too; got 123\.7.*by 255"):
        dg.models.normalised(norm_net(), ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)))
    with pytest.raises(dg.DgpruneError, match=r"normalises its images already, by mean=\[0\.485, .*would do it twice"):
        dg.Study(network, sources=[domain("a")], normalise=(0.5, 0.5))
    assert dg.models.normalised(dg.models.networks.lenet(), (0.5, 0.5)), "its own normalisation changes nothing"
    double: Any = dg.models.normalised(randomise(plain_net()), "imagenet")
    assert double[0].mean.dtype == torch.float64, "the type of the network"
