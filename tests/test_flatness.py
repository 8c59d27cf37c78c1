"""Flatness against exact Hessians, its measures and refusals, and the pruned network among the surroundings."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from material import domain, fingerprint, randomise
from material import images as drawn_images
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.charts.flatness import flatness_data
from dgprune_lab.core import drain
from dgprune_lab.diagnostics import flatness, hessian_trace, sam_sharpness
from dgprune_lab.diagnostics.curvature_measures import trace_cells
from dgprune_lab.measurement import Curvature
from dgprune_lab.widgets import Flatness, FlatnessPanel, View

Exact = tuple[dg.Study, Tensor, Tensor, Tensor]
"""A study; its Hessian (P, P), the gradient of each image (N, P) and the weights (P,), in float64, by torch.func."""


def small_net(*, norm: bool) -> nn.Sequential:
    after = [nn.BatchNorm2d(3)] if norm else []
    first = [nn.Conv2d(3, 3, 3), *after, nn.ReLU(), nn.Conv2d(3, 3, 2), nn.ReLU(), nn.AvgPool2d(2)]
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(3, 4))


def study_of(net: nn.Module | None = None, **options: Any) -> dg.Study:
    sources = [domain("a", shape=(3, 5, 5), count=24, **options), domain("b", seed=1, shape=(3, 5, 5), count=30)]
    model = randomise(small_net(norm=False)) if net is None else net
    return dg.Study(model.float(), sources=sources, name="net")


def training_batch(study: dg.Study, images: int | None = None) -> tuple[Tensor, Tensor]:
    taken = [source.take(source.rows("train", images)) for source in study.sources]
    return torch.cat([batch.images for batch in taken]), torch.cat([batch.labels for batch in taken])  # type: ignore


@functools.cache
def exact(norm: bool) -> Exact:
    study = study_of(randomise(small_net(norm=norm)))
    study.model.train()  # which is left as it is, but not used
    net = randomise(small_net(norm=norm))  # in float64
    net.load_state_dict({name: tensor.double() for name, tensor in study.model.state_dict().items()})
    weights = {name: tensor.detach() for name, tensor in net.named_parameters()}
    images, labels = training_batch(study)

    def loss(vector: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        parts = zip(weights.items(), vector.split([tensor.numel() for tensor in weights.values()]), strict=True)
        moved = {name: part.view(tensor.shape) for (name, tensor), part in parts}
        return F.cross_entropy(torch.func.functional_call(net, moved, (images.double(),)), labels)

    vector = torch.cat([tensor.flatten() for tensor in weights.values()])
    hessian = torch.func.jacrev(torch.func.jacrev(loss))(vector, images, labels)
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(vector, images[:, None], labels[:, None])
    return study, hessian, each, vector


def values(frame: Any, metric: str) -> Any:
    return frame[frame.metric == metric].value.to_numpy()


@pytest.mark.parametrize("norm", [False, True])
def test_the_numbers_are_those_of_the_exact_hessian(norm: bool) -> None:
    study, hessian, gradients, vector = exact(norm)
    before = fingerprint(study.model)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore
    frame = flatness(study, top=3, draws=2, steps=[-0.1, 0.0, 0.2])
    assert torch.equal(state[0], torch.get_rng_state()) and (state[1] == np.random.get_state()[1]).all()  # type: ignore
    eigenvalues, eigenvectors = torch.linalg.eigh(hessian)
    found = values(frame, "hessian_eigenvalue")
    assert len(vector) > 20 and found == pytest.approx(eigenvalues.flip(0)[:3].numpy(), rel=1e-4)
    assert values(frame, "hessian_top_sum") == pytest.approx([found.sum()])
    assert abs(found.sum() / float(hessian.trace()) - 1) > 0.05, "the sum of the largest is not the trace"
    squares = gradients.square().sum(1)
    assert values(frame, "gradient_covariance_trace") == pytest.approx([float(squares.mean())], rel=1e-4)
    along = frame[(frame.metric == "loss") & (frame["rank"] == 2)].set_index("step").value
    axis = eigenvectors[:, -2] * eigenvectors[:, -2][eigenvectors[:, -2].abs().argmax()].sign()
    net = randomise(small_net(norm=norm))
    images, labels = training_batch(study)
    for step in (-0.1, 0.0, 0.2):
        nn.utils.vector_to_parameters(vector + step * vector.norm() * axis, net.parameters())
        net.load_state_dict({**study.model.state_dict(), **dict(net.named_parameters())})
        assert along[step] == pytest.approx(float(F.cross_entropy(net(images.double()), labels).detach()), rel=1e-3)
    assert frame.weight_norm.to_numpy() == pytest.approx(float(vector.norm()))
    assert frame.training_loss.to_numpy() == pytest.approx(along[0.0])
    assert set(frame.batchnorm.dropna()) == ({"as_is"} if norm else set())
    assert fingerprint(study.model) == before
    again = flatness(study, top=3, draws=2, steps=[-0.1, 0.0, 0.2])
    assert again.equals(frame)


def test_the_trace_is_estimated_without_bias_and_its_interval_covers() -> None:
    study, hessian, *_ = exact(True)
    curvature, trace = Curvature(study.model, study.sources, split="train", images=None), float(hessian.trace())
    drain(curvature.losses(torch.ones(len(hessian))))  # elsewhere, and back
    whole = drain(curvature.product(torch.eye(len(hessian))))
    assert torch.allclose(whole.double(), hessian, atol=1e-5)
    estimates = drain(curvature.trace(draws=96, seed=0))
    assert abs(estimates.mean() - trace) < 3 * estimates.std() / 96**0.5 < 0.5 * trace
    intervals = [trace_cells(part) for part in np.split(estimates, 24)]
    assert 0.83 <= np.mean([cells["low"] < trace < cells["high"] for cells in intervals]) <= 1
    table = hessian_trace(study, draws=3, seed=4)
    row, drawn = table.iloc[0], drain(curvature.trace(draws=3, seed=4))
    assert row.value == pytest.approx(drawn.mean()) and row.better_direction == "lower" and row.interval == "draws"
    flat = flatness(study, draws=3, seed=4, steps=())
    assert values(flat, "hessian_trace") == [row.value]
    assert all(name in dg.cite(flat) for name in ("hutchinson1989", "dangel2025", "bartoldson2020"))
    assert hessian_trace(study, draws=1).low.isna().all(), "one estimate has no interval"


def test_the_trace_weighs_batches_by_their_images() -> None:
    def shades(name: str, count: int, brightness: float) -> dg.Domain:
        images, labels = brightness * drawn_images(count, 3, 5, 5), [k % 4 for k in range(count)]
        return dg.Domain.from_arrays(name, images=images, labels=labels, splits={"train": range(count)})

    dark, bright, net = shades("dark", 96, 0.1), shades("bright", 4, 1.0), randomise(small_net(norm=False)).float()
    curves = [Curvature(net, sources, split="train", images=None) for sources in ([dark], [bright], [dark, bright])]
    first, second, both = (float(drain(each.product(torch.eye(len(each.weights)))).trace()) for each in curves)
    estimates = drain(curves[2].trace(draws=200, seed=0))
    error = estimates.std() / 200**0.5
    assert abs((first + second) / 2 - both) > 10 * error, "equal weights would give another number"
    assert abs(estimates.mean() - both) < 3 * error


def test_all_eigenvalues_are_the_spectrum_and_add_up_to_the_trace() -> None:
    study, hessian, _, vector = exact(False)
    frame, spectrum = flatness(study, top=len(vector), draws=2, steps=()), torch.linalg.eigvalsh(hessian).flip(0)
    assert spectrum[-1] < -0.01 * spectrum[0], "it has directions in which the loss curves down"
    assert values(frame, "hessian_eigenvalue") == pytest.approx(spectrum.numpy(), abs=1e-4 * float(spectrum[0]))
    assert values(frame, "hessian_top_sum") == pytest.approx([float(hessian.trace())], rel=1e-3)


def test_sam_sharpness_is_the_rise_one_step_up_the_gradient_of_all_images() -> None:
    study, _, gradients, vector = exact(True)
    table = sam_sharpness(study, radius=0.2)
    row = table.iloc[0]
    assert "foret2021" in dg.cite(table)
    gradient = gradients.mean(0)
    net, (images, labels) = randomise(small_net(norm=True)), training_batch(study)
    net.load_state_dict(study.model.state_dict())
    losses = []
    for moved in (vector, vector + 0.2 * gradient / gradient.norm()):
        nn.utils.vector_to_parameters(moved, net.parameters())
        losses.append(F.cross_entropy(net(images.double()), labels, reduction="none").detach())
    rise = (losses[1] - losses[0]).numpy()
    assert row.value == pytest.approx(rise.mean(), rel=1e-3) and row.training_loss == pytest.approx(
        float(losses[0].mean())
    )
    draws = np.random.default_rng(9).integers(0, len(rise), (4000, len(rise)))
    ends = np.percentile(rise[draws].mean(1), [2.5, 97.5])
    assert (row.low, row.high) == pytest.approx(ends, abs=0.1 * (ends[1] - ends[0]))
    assert row.better_direction == "lower" and row.unit == "nats" and row.images == len(rise)
    nn.utils.vector_to_parameters(vector, net.parameters())
    some, few = training_batch(study, 5), sam_sharpness(study, images=5).iloc[0]
    assert few.training_loss == pytest.approx(float(F.cross_entropy(net(some[0].double()), some[1]).detach()), rel=1e-4)
    assert few.images == 10
    first = 0.2 * float(gradient.norm())
    assert 0.5 * first < row.value < 2 * first, "near its first-order value"


def test_the_pruned_network_is_where_pruning_puts_it() -> None:
    study, _, _, vector = exact(True)
    mask = dg.allocate(study.score("l1"), ratio=0.5)
    frame = flatness(study, top=3, steps=(), draws=2, mask=mask)
    small = dg.prune(study.model, mask).eval()
    images, labels = training_batch(study)
    assert values(frame, "pruned_loss") == pytest.approx(
        [float(F.cross_entropy(small(images), labels).detach())], rel=1e-4
    )
    kept = sum(float(tensor.detach().double().square().sum()) for tensor in small.parameters())
    distance = float((1 - kept / vector.square().sum()).sqrt())
    assert values(frame, "pruned_distance") == pytest.approx([distance], rel=1e-4)
    steps, off = values(frame, "pruned_step"), values(frame, "pruned_off_plane")
    assert np.hypot(off, np.hypot(*steps[:2])) == pytest.approx([distance]) and (np.abs(steps) > 0).any()
    pruned = frame[frame.metric.str.startswith("pruned")]
    assert set(pruned.ratio_requested) == {0.5} and frame[frame.metric == "hessian_trace"].ratio_requested.isna().all()


class Once(torch.autograd.Function):
    """A square whose backward pass is told to be differentiable once only."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        ctx.save_for_backward(*inputs)
        return inputs[0] * inputs[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Any) -> Any:
        return 2 * slopes[0] * ctx.saved_tensors[0]


class Squares(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return Once.apply(images)  # type: ignore


class Cut(nn.Module):
    """Rounds the logits, whose gradient is 0 everywhere, or cuts the autograd graph."""

    def __init__(self, cut: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.cut = nn.Linear(75, 4), cut

    def forward(self, images: Tensor) -> Tensor:
        return self.cut(self.linear(images.flatten(1)))


@pytest.mark.parametrize("cut", [lambda logits: (9 * logits).round(), torch.detach], ids=["round", "detach"])
@pytest.mark.parametrize("measure", [flatness, hessian_trace, sam_sharpness], ids=lambda measure: measure.name)
def test_a_loss_that_shows_no_gradient_is_not_called_flat(measure: Any, cut: Any) -> None:
    with pytest.raises(
        dg.DgpruneError, match=r"the weights is (0|cut off) .*, although the loss is .*, so its curvature cannot"
    ):
        measure(study_of(randomise(nn.Sequential(nn.Conv2d(3, 3, 1), Cut(cut)))))


def test_what_cannot_be_measured_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of()
    once = study_of(randomise(nn.Sequential(nn.Conv2d(3, 2, 5), Squares(), nn.Flatten(), nn.Linear(2, 4))))
    diverged = study_of(randomise(small_net(norm=False)))
    nn.init.constant_(diverged.model.get_parameter("0.weight"), 1e38)
    mask, other = (dg.allocate(each.score("l1"), ratio=0.5) for each in (study, exact(True)[0]))
    for ask, message in (
        (
            lambda: flatness(study, top=200),
            "top must be at most the number of parameters, which is 139 in this network",
        ),
        (lambda: flatness(study_of(labelled=False)), "source 'a' has no labels"),
        (lambda: hessian_trace(study_of(labelled=False)), "source 'a' has no labels"),
        (lambda: flatness([]), "flatness needs at least one study"),
        (lambda: flatness(once, steps=()), "PyTorch has none for an operation of this network: .*once_differentiable"),
        (lambda: hessian_trace(once), "PyTorch has none for an operation of this network: .*once_differentiable"),
        (lambda: flatness(diverged), "the training loss of 'net' is not finite"),
        (lambda: sam_sharpness(diverged), "the training loss of 'net' is not finite"),
        (lambda: flatness([study, once], mask=mask), "mask belongs to one network; got 2 studies"),
        (lambda: flatness(study, mask=other), "mask"),
        (lambda: flatness(study, steps=[float("nan")]), "steps"),
        (lambda: sam_sharpness(study, radius=0), "radius must be above 0"),
    ):
        with pytest.raises(dg.DgpruneError, match=message):
            ask()
    assert sam_sharpness(once).value.notna().all(), "it needs no second derivative"
    curvature = Curvature(study.model, study.sources, split="train", images=5)
    monkeypatch.setattr("dgprune_lab.measurement.curvature.EIGENVECTOR_BYTES", 20 * 139 * 4 - 1)
    with pytest.raises(
        dg.DgpruneError, match=r"2 eigenvectors of 139 parameters would hold 20 vectors, .* GB; the limit"
    ):
        next(curvature.top(2, seed=0))


def test_a_loss_of_zero_is_flat() -> None:
    source = dg.Domain.from_arrays(
        "a", images=drawn_images(20, 3, 5, 5), labels=[0] * 20, splits={"train": range(20)}, classes=1
    )
    net = randomise(nn.Sequential(nn.Conv2d(3, 2, 5), nn.Flatten(), nn.Linear(2, 1)), dtype=torch.float32)
    study = dg.Study(net, sources=[source])
    frame = flatness(study, steps=[0.1])
    assert not values(frame, "hessian_eigenvalue").any() and not values(frame, "hessian_trace").any()
    assert not values(frame, "gradient_covariance_trace").any() and not values(frame, "loss").any()
    assert frame[frame.interval == "images"].empty, "the interval of a proportion says nothing of nats"
    with pytest.warns(dg.DgpruneNote, match="the gradient of the training loss is 0"):
        assert sam_sharpness(study).value.isna().all()


def test_the_search_can_be_left_at_any_step() -> None:
    study = exact(False)[0]
    before = set(threading.enumerate())
    steps = flatness.steps(study, steps=())
    for done, total, what in steps:
        assert 0 < done <= total
        if what == "eigenvalues" and len(set(threading.enumerate()) - before):
            break
    (search,) = set(threading.enumerate()) - before
    steps.close()
    search.join(60)
    assert not search.is_alive()


def view_of(study: dg.Study, ratio: float = 0.5, *, images: int | None = None) -> View:
    mask = dg.allocate(study.score("l1"), ratio=ratio)
    about: Any = {"study": study, "scorer": dg.SCORERS["l1"], "batchnorm": "as_is", "images": images}
    return View(mask=mask, seconds=lambda count: count / 100, **about)


def last(frames: Any, name: str) -> Any:
    return [frame[name] for frame in frames if name in frame][-1]


def test_the_panel_measures_when_asked_and_goes_on_after_a_move_of_the_slider() -> None:
    study = exact(True)[0]
    panel, view = FlatnessPanel(), view_of(study)
    first = list(panel.tick(view))
    announced = " on 18 training images .* about 26 products with the Hessian, about .* s"
    assert re.search(announced, last(first, "text")) and last(first, "hidden") == ["flatness"]
    assert list(panel.background(view)) == [], "nothing runs before the button is pressed"
    panel.selected = {"pressed": last(first, "actions")[0]["message"]["name"]}
    assert last(panel.tick(view), "actions")[0]["label"] == "Stop"
    work: Any = panel.background(view)
    said = [next(work)["text"] for _ in range(25)]
    work.close()
    list(panel.tick(view_of(study, 0.3)))
    resumed: Any = next(panel.background(view_of(study, 0.3)))
    assert int(re.findall(r"(\d+)%", resumed["text"])[0]) > int(re.findall(r"(\d+)%", said[0])[0]), "it goes on"
    done = list(panel.background(view))
    assert last(done, "hidden") == [] and "their sum" in last(done, "text") and last(done, "actions") == []
    assert last(done, "flatness")["pruned"] != (marked := last(panel.tick(view_of(study, 0.3)), "flatness"))["pruned"]
    table = flatness(study, mask=dg.allocate(study.score("l1"), ratio=0.3))
    assert [row["loss"] for row in marked["pruned"]] == pytest.approx(2 * [values(table, "pruned_loss")[0]])
    assert [row["step"] for row in marked["pruned"]] == pytest.approx(100 * values(table, "pruned_step"))
    assert [row["loss"] for row in marked["curves"]] == pytest.approx(values(table, "loss"))
    assert "Measures the 2" in last(panel.tick(view_of(exact(False)[0])), "text"), "another network, measured anew"


def test_the_panel_stops_follows_the_images_of_the_explorer_and_says_what_fails() -> None:
    study = exact(True)[0]
    panel = FlatnessPanel()
    assert panel.unavailable(study) is None and "no labels" in (panel.unavailable(study_of(labelled=False)) or "")
    assert "on 10 training images (the first 5 of each source)" in last(panel.tick(view_of(study, images=5)), "text")
    for end in ("stop", "close"):
        panel.selected = {"pressed": "measure"}
        list(panel.tick(view_of(study)))
        next(panel.background(view_of(study)))
        panel.selected = {"pressed": "stop"} if end == "stop" else None
        panel.close() if end == "close" else None
        assert last(panel.tick(view_of(study)), "actions")[0]["label"] == "Measure"
        assert list(panel.background(view_of(study))) == []
    once = study_of(randomise(nn.Sequential(nn.Conv2d(3, 2, 5), Squares(), nn.Flatten(), nn.Linear(2, 4))))
    panel.selected = {"pressed": "measure"}
    list(panel.tick(view_of(once)))
    with pytest.raises(dg.DgpruneError, match="curvature needs the second derivative"):
        list(panel.background(view_of(once)))
    assert last(panel.tick(view_of(once)), "actions")[0]["label"] == "Measure"


def test_the_chart_draws_two_eigenvectors_and_the_pruned_network() -> None:
    study = exact(True)[0]
    table: Any = flatness(study, top=3, steps=[-0.1, 0.0, 0.1], mask=dg.allocate(study.score("l1"), ratio=0.5))
    data = flatness_data(table)
    assert len(data["curves"]) == 6 and {row["shape"] for row in data["pruned"]} == {"circle", "square"}
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", dg.charts.svg(dg.charts.flatness(table)))
    off = 100 * values(table, "pruned_off_plane")[0]
    assert any(f"{off:.3g} % off the plane of the eigenvectors" in text for text in texts)
    assert any("the pruned network (" in text and "removed by l1), loss" in text for text in texts)
    assert sum(text.startswith("eigenvector ") for text in texts) == 2
    plain = flatness_data(table[~table.metric.str.startswith("pruned")])
    assert plain["curves"] == data["curves"] and plain["pruned"] == plain["words"] == []
    for frame, message in (
        (pd.concat([table, table.assign(network="other")]), "frame holds the surroundings of 2 networks"),
        (table[table.metric != "loss"], "frame is a table of another kind"),
        (hessian_trace(study), "frame is a table of another kind"),
    ):
        with pytest.raises(dg.DgpruneError, match=message):
            dg.charts.flatness(frame)


def test_it_is_on_the_explorers_row_and_alone() -> None:
    alone = Flatness(exact(True)[0])
    try:
        assert alone.wait_idle(120)  # until the button is there
        alone.handle_message({"type": "press", "name": "measure"})
        assert alone.wait_idle(120)
        assert alone.panels["open"] == "flatness" and alone.panels["error"] is None
        assert len(alone.panels["data"]["flatness"]["pruned"]) == 2
    finally:
        alone.close()
    assert FlatnessPanel in dg.Explorer._built_in
