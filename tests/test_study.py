"""A study: bit-exact outcomes, caches that notice changes, two threads, sweeps, drops, and networks on disk."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from material import ResidualNet, domain, norm_net, plain_net, randomise
from torch import nn

import dgprune_lab as dg
from dgprune_lab.core.kinds import COLUMNS, SEEN
from dgprune_lab.core.masks import Mask
from dgprune_lab.core.statistics import Outcomes
from dgprune_lab.core.tables import BatchNorm
from dgprune_lab.measurement.evaluator import Evaluator
from dgprune_lab.models.networks import build
from dgprune_lab.study.cache import stamp
from dgprune_lab.widgets.explorer.menu import static_state


def net(seed: int = 0) -> nn.Module:
    return randomise(norm_net(), seed=seed, dtype=torch.float32)


def study_of(model: nn.Module, *, shape: tuple[int, int, int] = (3, 12, 12), count: int = 120) -> dg.Study:
    domains = [domain(name, count=count, shape=shape, seed=k) for k, name in enumerate("abt")]
    return dg.Study(model, sources=domains[:2], targets=domains[2:])


def same(one: Outcomes, two: Outcomes) -> bool:
    return (
        torch.equal(one.predicted, two.predicted)
        and torch.equal(one.loss, two.loss)
        and torch.equal(one.index, two.index)
    )


def by_hand(study: dg.Study, mask: Mask | None, name: str, batchnorm: BatchNorm, **kinds: Any) -> Outcomes:
    """What a user would write."""
    model = study.model if mask is None else dg.prune(study.model, mask)
    if batchnorm == "recalibrate":
        model = dg.recalibrate(model, study.sources, **kinds)
    return dg.evaluate(model, study.domain(name), **kinds)


@pytest.mark.parametrize("shared", [True, False], ids=["shared_prefix", "no_shared_prefix"])
@pytest.mark.parametrize(("name", "size"), [("digits_net", 28), ("lenet", 28), ("resnet18_32", 32)])
def test_outcomes_equal_those_of_the_pruned_network_bit_by_bit(
    name: str, size: int, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"widths": (8, 12, 16, 20)} if name == "resnet18_32" else {}
    study = study_of(randomise(build(name, **options), dtype=torch.float32), shape=(3, size, size), count=780)
    if not shared:
        monkeypatch.setattr("dgprune_lab.measurement.evaluator.find_shared_prefix", lambda *_: None)
    assert (study._current().evaluator.shared_prefix is not None) == shared
    scores = study.score("random")
    masks = [None, *(dg.allocate(scores, ratio=ratio) for ratio in (0.0, 0.37))]
    masks.append(dg.allocate(scores, ratio=0.8, scope="global"))
    settings: list[BatchNorm] = ["as_is", "recalibrate"]
    for mask, batchnorm in itertools.product(masks if shared else masks[::2], settings):
        for domain_name in ("a", "t"):
            assert same(
                study.outcomes(mask, domain=domain_name, batchnorm=batchnorm),
                by_hand(study, mask, domain_name, batchnorm),
            )
    few = study.outcomes(masks[2], domain="t", batchnorm="recalibrate", images=40, calibration=40)
    assert same(few, by_hand(study, masks[2], "t", "recalibrate", images=40)) and len(few) == 40


def test_the_network_of_a_mask_has_the_measured_outcomes() -> None:
    study = study_of(net())
    mask = dg.allocate(study.score("l1"), ratio=0.5)
    for batchnorm in ("as_is", "recalibrate"):
        small = study.network(mask, batchnorm=batchnorm)  # type: ignore[arg-type]
        assert same(dg.evaluate(small, study.domain("t")), study.outcomes(mask, domain="t", batchnorm=batchnorm))  # type: ignore[arg-type]
        assert dg.provenance_of(small).finetuning == (
            {} if batchnorm == "as_is" else {"a/train": "images", "b/train": "images"}
        )


CHANGES = {
    "in_place": lambda model: model[0].weight.data.mul_(1.5),
    "filters_swapped_behind_the_version": lambda model: model[4].weight.data.copy_(
        model[4].weight.data.flip(0).clone()
    ),
    "one_weight": lambda model: model[9].bias.data[1].add_(3.0),
    "statistics": lambda model: model[1].running_mean.add_(0.7),
    "a_layer_replaced": lambda model: model.__setitem__(2, nn.Sigmoid()),
    "a_setting": lambda model: setattr(model[1], "eps", 5.0),
    "loaded": lambda model: model.load_state_dict(net(seed=8).state_dict()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_caches_notice_a_model_changed_in_place(change: str) -> None:
    study = study_of(net())
    mask = Mask.by_hand(study.graph, removed={"0": [1]})
    as_is: dict[str, Any] = {"domain": "a", "batchnorm": "as_is"}
    before = study.outcomes(mask, **as_is), study.score("taylor").values["4"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "steps", None)  # the second time it comes from the cache
        assert same(study.outcomes(mask, **as_is), before[0])
    CHANGES[change](study.model)
    after = study.outcomes(mask, **as_is)
    assert not torch.equal(after.loss, before[0].loss)
    assert same(after, by_hand(study, mask, "a", "as_is"))
    fresh = dg.Study(study.model, sources=study.sources, targets=study.targets).score("taylor").values["4"]
    assert torch.equal(study.score("taylor").values["4"], fresh)


def swap(weight: np.ndarray, first: Any, second: Any) -> None:
    weight[first], weight[second] = weight[second].copy(), weight[first].copy()


BEHIND_THE_VERSION: dict[str, Any] = {
    "the last bit of one weight": lambda weight: weight.view(np.uint32).__setitem__(
        (7, 8), weight.view(np.uint32)[7, 8] ^ 1
    ),
    "two weights swapped": lambda weight: swap(weight, (0, 0), (1, 1)),
    "two filters swapped": lambda weight: swap(weight, 4, 5),
    "two inputs swapped": lambda weight: swap(weight, (slice(None), 4), (slice(None), 5)),
    "the last weight": lambda weight: weight[-1].__setitem__(-1, 9),
}


@pytest.mark.parametrize("change", BEHIND_THE_VERSION)
@pytest.mark.parametrize("turned", [False, True], ids=["in order", "transposed in memory"])
def test_the_stamp_notices_what_numpy_changes_in_large_weights(change: str, turned: bool) -> None:
    torch.manual_seed(0)
    weight = torch.rand(302, 301).t() if turned else torch.rand(301, 302)
    layer = nn.Linear(302, 301)
    layer.weight = nn.Parameter(weight)
    before = stamp(layer)
    assert stamp(layer) == before and layer.weight.data_ptr() == weight.data_ptr()
    BEHIND_THE_VERSION[change](weight.numpy())
    assert stamp(layer) != before


DOMAIN_CHANGES: dict[str, Any] = {
    "pixels": lambda domain: domain.images.zero_(),
    "pixels_through_numpy": lambda domain: domain.images.numpy().fill(0.5),
    "labels": lambda domain: domain.labels.add_(1).remainder_(4),
    "a_split": lambda domain: domain.splits["report"].copy_(domain.splits["score"].clone()),
    "images_for_batchnorm": lambda domain: domain.images.index_fill_(0, domain.splits["train"], 0.5),
}


@pytest.mark.parametrize("change", DOMAIN_CHANGES)
def test_caches_notice_a_domain_changed_in_place(change: str) -> None:
    study = study_of(net())
    mask = Mask.by_hand(study.graph, removed={"0": [1]})

    def numbers(study: dg.Study) -> list[torch.Tensor]:
        losses = [study.outcomes(mask, domain=name).loss for name in ("a", "t")]
        return [*losses, study.score("taylor").values["4"]]

    before, content, key = numbers(study), study.content, study.domain("a").key
    DOMAIN_CHANGES[change](study.domain("a"))
    fresh = numbers(dg.Study(study.model, sources=study.sources, targets=study.targets))
    assert any(not torch.equal(old, new) for old, new in zip(before, fresh, strict=True)), "the change matters"
    assert all(torch.equal(now, new) for now, new in zip(numbers(study), fresh, strict=True))
    assert study.content != content and study.domain("a").key != key


def test_scores_that_a_study_computed_belong_to_its_network() -> None:
    study, other = study_of(net()), study_of(net(seed=1))
    scores = study.score("taylor")
    assert study_of(net()).score(scores) is scores, "the same weights"
    for refused in (
        lambda: other.score(scores),
        lambda: dg.sweep(other, scorers=[scores], ratios=[0.5]),
        lambda: dg.diagnostics.drop(other, scorers=[scores], ratios=[0.5]),
    ):
        with pytest.raises(dg.DgpruneError, match=r"'taylor' were computed for another network.*dg\.Scores\("):
            refused()
    mine = dg.Scores(scores.scorer, scores.values, other.graph, reads=scores.reads)
    assert other.score(mine) is mine, "whoever makes scores by hand knows what they are for"
    with torch.no_grad():
        study.model[9].bias[1] += 1.0  # type: ignore[index]
    with pytest.raises(dg.DgpruneError, match="before its weights changed"):
        study.score(scores)


def test_a_study_that_is_made_and_used_in_inference_mode_gives_the_same_numbers() -> None:
    model = net()

    def numbers() -> list[torch.Tensor]:
        study = study_of(model)
        scores = study.score("taylor")
        mask = dg.allocate(scores, ratio=0.5)
        tuned = dg.prune_and_tune(study, "l1", ratio=0.5, rounds=1, epochs=1).network
        losses = [study.outcomes(mask, domain="t").loss, dg.evaluate(tuned, study.domain("a")).loss]
        return [*losses, scores.values["4"], *dg.recalibrate(dg.prune(study.model, mask), study.sources).buffers()]

    with torch.inference_mode():
        inside = numbers()
        assert torch.is_inference_mode_enabled()
        with pytest.raises(dg.DgpruneError, match=r"0\.weight was made under torch\.inference_mode"):
            study_of(net())
    assert all(torch.equal(one, two) for one, two in zip(inside, numbers(), strict=True))


def test_caches_are_bounded() -> None:
    study = study_of(net())
    for index in range(6):
        study.outcomes(Mask.by_hand(study.graph, removed={"0": [index % 5]}), domain="a", images=40 - index)
    cache = study._cache
    assert sum(size for _, size in cache._entries.values()) == cache._size > 0
    cache.put(("large",), None, size=2**30)
    cache.put(("larger",), None, size=2**30)
    assert cache._size == 2**30 and list(cache._entries) == [("larger",)]


def test_two_threads_may_use_one_study() -> None:
    """A widget works while a cell runs: each gets the numbers of its own network and images."""
    study, single = study_of(net(), count=3000), study_of(net(), count=3000)
    scores = study.score("l1")
    jobs = [(dg.allocate(scores, ratio=r), name) for r, name in itertools.product((0.2, 0.2, 0.5, 0.6), "abt")]
    expected = [single.outcomes(mask, domain=name, batchnorm="recalibrate") for mask, name in jobs]
    results: dict[int, Outcomes] = {}
    errors: list[BaseException] = []

    def work(order: list[int]) -> None:
        try:
            for k in order:
                mask, name = jobs[k]
                results[k + len(jobs) * threading.get_ident()] = study.outcomes(
                    mask, domain=name, batchnorm="recalibrate"
                )
        except BaseException as error:
            errors.append(error)

    orders = [list(range(len(jobs))), list(reversed(range(len(jobs)))), list(range(5, len(jobs)))]
    threads = [threading.Thread(target=work, args=(order,)) for order in orders]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not errors, errors
    assert len(results) == sum(map(len, orders))
    assert all(same(outcomes, expected[key % len(jobs)]) for key, outcomes in results.items())


@pytest.mark.parametrize("batchnorm", ["as_is", "recalibrate"])
@pytest.mark.parametrize("split", ["report", "train"])
def test_rows_of_a_sweep_equal_measure_of_the_pruned_networks(batchnorm: BatchNorm, split: str) -> None:
    study = study_of(net())
    frame = dg.sweep(
        study, scorers=["random", "l1", "taylor"], ratios=[0, 0.5, 0.7], seeds=2, batchnorm=batchnorm, split=split
    )
    assert tuple(frame.columns)[: len(COLUMNS)] == COLUMNS
    assert set(frame[frame.scorer == "random"].seed) == {0, 1} and frame[frame.scorer != "random"].seed.isna().all()
    assert frame.groupby("scorer", dropna=False).size().to_dict() == {"random": 60, "l1": 30, "taylor": 30}
    assert set(frame.batchnorm) == {batchnorm} and frame.training_seed.isna().all()
    for key, rows in frame.groupby(["scorer", "ratio_requested", "seed"], dropna=False):
        name, ratio, seed = cast(tuple[Any, Any, Any], key)
        mask = dg.allocate(study.score(name, seed=0 if pd.isna(seed) else int(seed)), ratio=ratio)
        assert (
            set(rows.ratio_achieved) == {mask.ratio_achieved}
            and set(rows.scope) == {"layer"}
            and set(rows.budget) == {"filters"}
        )
        table = dg.measure(dg.prune(study.model, mask), study.domains, split=split, batchnorm=batchnorm, latency=False)
        for _, row in table.iterrows():
            match = rows[
                (rows.metric == row.metric) & (rows.domain.fillna("") == ("" if pd.isna(row.domain) else row.domain))
            ]
            assert len(match) == 1
            mine = match.iloc[0]
            assert mine.value == row.value and mine.unit == row.unit
            if bool(pd.notna(row["low"])):
                assert [mine.low, mine.high] == pytest.approx([row.low, row.high], abs=1e-5)
            for column in ("role", "split", "images", "interval", *SEEN, "target_aware"):
                if bool(pd.notna(row[column])):
                    assert mine[column] == row[column], column
        assert rows[rows.metric == "filters"].value.item() == mask.cost.filters


def test_a_sweep_takes_ready_scores_whose_provenance_is_unknown() -> None:
    study = study_of(net())
    ready = dg.Scores.from_frame(study.score("l1").to_frame(), graph=study.graph, scorer="mine")
    frame = dg.sweep(study, scorers=[ready, "l1"], ratios=[0.5])
    values = {name: list(part.value) for name, part in frame.groupby("scorer")}
    assert values["mine"] == values["l1"]
    assert set(frame[(frame.scorer == "mine") & frame.domain.notna()].seen_by_scorer) == {"unknown"}
    assert frame[frame.scorer == "mine"].target_aware.isna().all()
    with pytest.raises(dg.DgpruneError, match=r"at least one ratio, one scorer and one seed"):
        dg.sweep(study, scorers=[])
    with pytest.raises(dg.DgpruneError, match=r"and one seed"):
        dg.sweep(study, scorers=["random", "l1"], seeds=0)
    with pytest.raises(dg.DgpruneError, match=r"2,000,000,002 pruned networks .*at most 10,000"):
        dg.sweep(study, scorers=["random", "l1"], ratios=[0.1, 0.5], seeds=10**9)
    with pytest.raises(dg.DgpruneError, match=r"20,000 pruned networks"):
        dg.diagnostics.drop(study, scorers=["l1"], ratios=np.linspace(0, 0.9, 10_000).tolist(), by="layer")
    other = study_of(randomise(plain_net(), dtype=torch.float32))
    with pytest.raises(dg.DgpruneError, match=r"'mine' were made for another network"):
        other.score(ready)


def test_the_drop_is_paired_and_relative_to_the_full_network_as_given() -> None:
    study = study_of(net(), count=900)
    frame = dg.diagnostics.drop(study, scorers=["l1", "random"], ratios=[0.0, 0.5], batchnorm="recalibrate", seed=3)
    assert tuple(frame.columns[: len(COLUMNS)]) == COLUMNS and set(frame.metric) == {"accuracy_change", "relative_drop"}
    frame = frame.loc[frame.metric == "accuracy_change"]
    assert len(frame) == 2 * 2 * 3
    generator = np.random.default_rng(0)
    for _, row in frame.iterrows():
        mask = dg.allocate(study.score(row.scorer, seed=3), ratio=row.ratio_requested)
        after, full = by_hand(study, mask, row.domain, "recalibrate"), by_hand(study, None, row.domain, "as_is")
        gap = (after.predicted == after.labels).double().numpy() - (full.predicted == full.labels).double().numpy()
        assert row.value == pytest.approx(gap.mean()) and (row.seed is pd.NA) == (row.scorer == "l1")
        slow = np.percentile(gap[generator.integers(0, len(gap), (2000, len(gap)))].mean(1), [2.5, 97.5])
        assert [row.low, row.high] == pytest.approx(slow.tolist(), abs=0.013) and row.low < row.high
        assert row.seen_by_finetuning == "none" and row.interval == "images" and row.unit == "share"
    unpruned = dg.diagnostics.drop(study, ratios=[0.0], batchnorm="as_is")
    unpruned = unpruned.loc[unpruned.metric == "accuracy_change"]
    assert (unpruned.value == 0).all() and (unpruned.low < 0).all() and (unpruned.high > 0).all()


def test_a_pruned_network_is_saved_and_loaded(tmp_path: Path) -> None:
    study = study_of(randomise(ResidualNet(), dtype=torch.float32))
    first = dg.allocate(study.score("taylor"), ratio=0.4)
    small = dg.prune(study.model, first)
    second = dg.Study(small, sources=study.sources, targets=study.targets)
    inner = dg.allocate(second.score("l2"), ratio=0.3)
    final = dg.recalibrate(dg.prune(small, inner), study.sources)
    path = dg.save(final, tmp_path / "net")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.json", "net.safetensors"]
    with pytest.raises(dg.DgpruneError, match=r"names no builder; pass a fresh network"):
        dg.load(path)
    fresh = ResidualNet()
    again = dg.load(path, model=fresh)
    assert same(dg.evaluate(again, study.domain("t")), dg.evaluate(final, study.domain("t")))
    assert dg.provenance_of(again) == dg.provenance_of(final)
    assert (
        dg.provenance_of(again).scorer == {"a/score": "labels", "b/score": "labels"}
        and dg.provenance_of(again).training is None
    )
    original = first.then(inner)
    assert original.kept("inner") == [first.kept("inner")[i] for i in inner.kept("inner")]
    assert again.inner.weight.shape[0] == len(original.kept("inner"))  # type: ignore[union-attr, arg-type]
    assert fresh.inner.weight.shape[0] == 5
    head = path.read_bytes()[8:9] + (tmp_path / "net.json").read_bytes()[:1]
    assert head == b"{{", "a safetensors header and a JSON object, no pickle"
    with pytest.raises(dg.DgpruneError):
        dg.load(path, model=norm_net())
    with pytest.raises(dg.DgpruneError, match=r"masked network cannot be saved"):
        dg.save(dg.masked(study.model, first), tmp_path / "soft")


def test_outputs_of_a_shared_prefix_are_kept_for_one_request() -> None:
    """Another split, number of images, domain or BatchNorm setting has outputs of its own."""
    study = study_of(net())
    mask = dg.allocate(study.score("random"), ratio=0.4)
    assert study._current().evaluator.shared_prefix is not None
    for name, split, few, calibration in itertools.product("at", ("score", "report"), (None, 30), (0, 40)):
        batchnorm: BatchNorm = "recalibrate" if calibration else "as_is"
        options: dict[str, Any] = {"calibration": calibration} if calibration else {}
        found = study.outcomes(mask, domain=name, split=split, images=few, batchnorm=batchnorm, **options)
        model = dg.prune(study.model, mask)
        model = dg.recalibrate(model, study.sources, images=calibration) if calibration else model
        assert same(found, dg.evaluate(model, study.domain(name), split=split, images=few))


@pytest.mark.parametrize("limit", [0, 30_000])
def test_a_shared_prefix_too_large_to_cache_changes_no_number(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(randomise(build("digits_net"), dtype=torch.float32), shape=(3, 28, 28), count=300)
    mask = dg.allocate(study.score("random"), ratio=0.4)
    settings: list[BatchNorm] = ["as_is", "recalibrate"]
    want = [study.outcomes(mask, domain="t", batchnorm=batchnorm) for batchnorm in settings]
    monkeypatch.setattr("dgprune_lab.measurement.evaluator.cache_room", lambda *_: limit)
    other = dg.Study(study.model, sources=study.sources, targets=study.targets)
    assert all(
        same(other.outcomes(mask, domain="t", batchnorm=batchnorm), expected)
        for batchnorm, expected in zip(settings, want, strict=True)
    )
    assert sum(t.nbytes for stored in other._current().evaluator._outputs.values() for t in stored) <= limit


class PaddedShortcut(nn.Module):
    """A block of the CIFAR ResNets: the shortcut drops every second pixel and pads channels with zeros."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, filters, 3, 2, 1, bias=False), nn.BatchNorm2d(filters))
        self.second = nn.Sequential(nn.Conv2d(filters, filters, 3, 1, 1, bias=False), nn.BatchNorm2d(filters))
        self.pad = (filters - channels) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(torch.relu(self.first(x)))
        return torch.relu(y + nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad)))


def test_a_refused_stream_is_named_wherever_a_ratio_is_shown() -> None:
    stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    model = randomise(nn.Sequential(stem, PaddedShortcut(4, 8), PaddedShortcut(8, 16), head), dtype=torch.float32)
    study = study_of(model)
    assert study.graph.free == 8 + 16 and study.graph.refused
    assert study.graph.total == 24 + 16, "a stream of 4, then 8, then 16 filters, of which each counts once"
    layer, why = next(iter(study.graph.refused.items()))
    said = f"24 of 40 filters can be pruned (refused: {layer}: {why.rstrip('.')}"
    assert said in repr(study)
    frame = dg.sweep(study, scorers=["l1"], ratios=[0.5])
    assert set(frame.prunable) == {24} and set(frame.of_all) == {40} and set(frame.ratio_achieved) == {0.5}
    page = static_state(study, items=[])
    assert page["prunable"] == [24, 40] and list(page["refused"]) == list(study.graph.refused)
    whole = study_of(net())
    assert "can be pruned" not in repr(whole)
    assert "Removed: a share of the 24 of 40 filters that can be pruned." in dg.charts.sweep(frame).title.subtitle


def test_two_scorers_of_one_name_are_refused_wherever_a_table_would_mix_them() -> None:
    study = study_of(net())
    mine = dg.Scores("l1", study.score("l2").values, graph=study.graph)
    for refused in (
        lambda: dg.sweep(study, scorers=["l1", mine], ratios=[0.5]),
        lambda: dg.diagnostics.drop(study, scorers=["l1", mine]),
        lambda: dg.diagnostics.flips(study, scorers=["l1", "l1"]),
        lambda: dg.diagnostics.compare_scorers(study, scorers=["l1", mine], against="l2"),
    ):
        with pytest.raises(dg.DgpruneError, match="two scorers are called 'l1'"):
            refused()
    with pytest.raises(dg.DgpruneError, match="layers must be one of 'conv', 'all'"):
        dg.Study(study.model, sources=study.sources, layers="al")  # type: ignore[arg-type]


def test_a_scorer_that_reads_no_image_needs_no_split_of_scorers() -> None:
    images = torch.rand(20, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    source = dg.Domain.from_arrays("a", images=images, labels=torch.arange(20) % 4, splits={"report": range(20)})
    study = dg.Study(randomise(plain_net(), dtype=torch.float32), sources=[source])
    assert study.score("l1").values
    for scorer, split in (("taylor", "score"), ("l1", "scores")):
        with pytest.raises(dg.DgpruneError, match=rf"split '{split}'"):
            study.score(scorer, split=split)


def test_a_study_notices_attributes_of_layers_that_are_no_tensors() -> None:
    class Warm(nn.Module):
        factor = 1.0

        def __init__(self) -> None:
            super().__init__()
            self.net, self.temperature, self.options = randomise(norm_net(), dtype=torch.float32), 1.0, {"times": 1.0}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x) / self.temperature * self.options["times"] * self.factor

    model = Warm()
    study = study_of(model)
    losses = [float(study.outcomes(None, domain="a").loss.mean())]
    for change in (
        lambda: setattr(model, "temperature", 0.5),
        lambda: model.options.update(times=3.0),
        lambda: setattr(Warm, "factor", 2.0),
    ):
        change()
        losses.append(float(study.outcomes(None, domain="a").loss.mean()))
        assert losses[-1] == pytest.approx(float(dg.evaluate(model, study.domain("a")).loss.mean()))
    assert len(set(losses)) == 4
