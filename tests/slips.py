"""Slips of users, as data: for a public function and one of its arguments, values that are wrong in different ways.

`CALLS` holds a right call of each public function; a slip is that call with one argument changed, and must be
answered by a sentence that names the argument. `test_slips.py` makes the calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd
import torch
from material import domain, norm_net, plain_net, randomise
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab import stats
from dgprune_lab.core import collect_notes

D, C, W, N = dg.diagnostics, dg.charts, dg.widgets, dg.models.networks
NAN, INF = float("nan"), float("inf")


class Slip(NamedTuple):
    """A call that must be refused; the sentence must contain `names`."""

    function: str
    call: Callable[[], Any]
    names: str


def undecorated(view: Any) -> Tensor:
    """A scorer without the decorator."""
    return view.weight.abs().amax(1)


NET = randomise(norm_net(), dtype=torch.float32)
A, B, T = domain("a"), domain("b", count=48, seed=1), domain("t", seed=2)
STUDY = dg.Study(NET, sources=[A, B], targets=[T])
OTHER = dg.Study(randomise(plain_net(), dtype=torch.float32), sources=[A], name="other")
GRAPH, L1 = STUDY.graph, STUDY.score("l1")
MASK, FOREIGN = dg.allocate(L1, ratio=0.5), dg.allocate(OTHER.score("l1"), ratio=0.5)
SPLITS = {"train": [0, 1, 2], "score": [3, 4, 5], "report": [6, 7, 8]}
SCHEDULE = dg.PruneSchedule.everywhere(start=1, end=3, every=1, ratio=0.5)
FRAME = dg.sweep(STUDY, scorers=["l1"], ratios=[0.0, 0.5])
EMPTY = pd.DataFrame({"x": [1]})
MAP = D.feature_shift(STUDY, embedding="linear", ratios=[0.5], images=12)
MIXED = pd.concat([FRAME, dg.sweep(STUDY, scorers=["l1"], ratios=[0.0, 0.5], scope="global")])
ROWS, KINDS = A.images[:20].flatten(1)[:, :4], torch.arange(20).numpy() % 2
REMOVAL = {"scorers": ["l1"], "ratios": [0.5]}
with collect_notes(lambda _: None):  # of few images
    GCNET = dg.gc_net(STUDY)

# The function, with arguments that are right.
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "Study": (dg.Study, {"model": NET, "sources": [A]}),
    "Study.on": (STUDY.on, {"device": "cpu"}),
    "Study.domain": (STUDY.domain, {"name": "a"}),
    "Study.score": (STUDY.score, {"scorer": "l1"}),
    "Study.score_all": (STUDY.score_all, {"scorers": ["l1"]}),
    "Study.unavailable": (STUDY.unavailable, {"scorer": dg.SCORERS["l1"]}),
    "Study.statistics": (STUDY.statistics, {"domain": "a", "needs": ["moments"]}),
    "Study.outcomes": (STUDY.outcomes, {"mask": MASK, "domain": "a"}),
    "Study.steps": (STUDY.steps, {"mask": MASK, "domain": "a"}),
    "Study.feature_steps": (STUDY.feature_steps, {"mask": MASK, "domain": "a", "layer": "0"}),
    "Study.network": (STUDY.network, {"mask": MASK}),
    "Domain.from_arrays": (dg.Domain.from_arrays, {"name": "x", "images": A.images[:9], "splits": SPLITS}),
    "Domain.from_dataset": (dg.Domain.from_dataset, {"name": "x", "dataset": torch.utils.data.TensorDataset(A.images)}),
    "Domain.rows": (A.rows, {"split": "report"}),
    "Domain.batches": (lambda **given: list(A.batches(**given)), {"split": "report"}),
    "Domain.take": (A.take, {"rows": torch.tensor([0])}),
    "Domain.padded": (A.padded, {"size": 16}),
    "Domain.to": (A.to, {"device": "cpu"}),
    "Domain.as_role": (A.as_role, {"role": "source"}),
    "Mask": (dg.Mask, {"keep": MASK.keep, "ratio_requested": 0.5, "graph": GRAPH}),
    "Mask.by_hand": (dg.Mask.by_hand, {"graph": GRAPH, "removed": {"0": [0]}}),
    "Mask.from_json": (dg.Mask.from_json, {"value": MASK.to_json(), "graph": GRAPH}),
    "Mask.kept": (MASK.kept, {"layer": "0"}),
    "Mask.then": (MASK.then, {"inner": MASK}),
    "Mask.with_filters": (MASK.with_filters, {}),
    "Scores": (dg.Scores, {"scorer": "x", "values": L1.values, "graph": GRAPH}),
    "Scores.from_frame": (dg.Scores.from_frame, {"frame": L1.to_frame(), "graph": GRAPH}),
    "WeightMask": (dg.WeightMask, {"keep": {}, "ratio_requested": 0.5}),
    "WeightScores": (dg.WeightScores, {"scorer": "x", "values": {}}),
    "Provenance": (dg.Provenance, {}),
    "Provenance.seen": (STUDY.provenance.seen, {"stage": "scorer", "domain": "a", "split": "score"}),
    "Provenance.from_json": (dg.Provenance.from_json, {"value": STUDY.provenance.to_json()}),
    "summary": (dg.summary, {"frame": FRAME}),
    "answer": (dg.answer, {"frame": FRAME.query("metric == 'accuracy' and ratio_requested == 0.5"), "of": "domain"}),
    "latex": (dg.latex, {"frame": FRAME}),
    "cite": (dg.cite, {"frame": FRAME}),
    "tidy": (dg.tidy, {"rows": [{"value": 1.0}]}),
    "allocate": (dg.allocate, {"scores": L1, "ratio": 0.5}),
    "prune": (dg.prune, {"model": NET, "mask": MASK}),
    "masked": (dg.masked, {"model": NET, "mask": MASK}),
    "read_groups": (dg.read_groups, {"model": NET, "example": A.images[:1]}),
    "evaluate": (dg.evaluate, {"model": NET, "domain": A}),
    "measure": (dg.measure, {"model": NET, "domains": [A], "latency": False}),
    "recalibrate": (dg.recalibrate, {"model": NET, "domains": [A]}),
    "save": (dg.save, {"model": NET, "path": "never_written"}),
    "load": (dg.load, {"path": "nowhere"}),
    "leave_one_out": (dg.leave_one_out, {"domains": [A, B], "train": lambda sources, seed: NET}),
    "load_weights": (dg.load_weights, {"model": NET, "weights": NET.state_dict()}),
    "scorer": (dg.scorer, {"name": "x"}),
    "hybrid": (dg.hybrid, {"a": "l1", "b": "l2", "by": "depth"}),
    "reverse": (dg.reverse, {"scorer": "l1"}),
    "from_torch_pruning": (dg.from_torch_pruning, {"importance": lambda group: None}),
    "Scorer.using": (dg.SCORERS["dss"].using, {"site": "conv_output"}),
    "demo": (dg.demo, {}),
    "training_seeds": (dg.training_seeds, {}),
    "gc_net": (dg.gc_net, {"study": STUDY}),
    "GCNet.scores": (GCNET.scores, {}),
    "GCNet.rho": (GCNET.rho, {"name": GCNET.pairs[0].name}),
    "FilterGraph.cost": (GRAPH.cost, {}),
    "stats.auroc": (stats.auroc, {"first": ROWS, "second": ROWS, "labels": (KINDS, KINDS)}),
    "stats.cka": (stats.cka, {"first": ROWS, "second": ROWS}),
    "stats.mmd": (stats.mmd, {"first": ROWS, "second": ROWS, "bandwidth": 1.0, "ids": (range(20), range(20))}),
    "GCNet.pruned": (GCNET.pruned, {"mask": dg.allocate(GCNET.scores(), ratio=0.5, scope="global")}),
    "TrainingOptions": (dg.TrainingOptions, {}),
    "LayerSchedule": (dg.LayerSchedule, {"layer": "0", "start": 1, "end": 3, "every": 1, "ratio": 0.5}),
    "PruneSchedule": (dg.PruneSchedule, {"layers": {"0": (1, 3, 1, 0.5)}}),
    "PruneSchedule.everywhere": (dg.PruneSchedule.everywhere, {"start": 1, "end": 3, "every": 1, "ratio": 0.5}),
    "prune_and_tune": (dg.prune_and_tune, {"study": STUDY, "scorer": "l1", "ratio": 0.5}),
    "train_treatments": (dg.train_treatments, {"build": lambda seed: NET, "sources": [A], "schedule": SCHEDULE}),
    "train_with_pruning": (dg.train_with_pruning, {"network": NET, "sources": [A], "schedule": SCHEDULE}),
    "grid": (dg.grid, {"start": 0, "stop": 0.9, "count": 4}),
    "sweep": (dg.sweep, {"study": STUDY, **REMOVAL}),
    "find": (dg.find, {"study": STUDY, "keep": 0.5}),
    "drop": (D.drop, {"study": STUDY, **REMOVAL}),
    "flips": (D.flips, {"study": STUDY, **REMOVAL}),
    "agreement": (D.agreement, {"study": STUDY, "scorers": ["l1", "l2"]}),
    "compare": (D.compare, {"study": STUDY, "a": MASK, "b": None}),
    "compare_scorers": (D.compare_scorers, {"study": STUDY, **REMOVAL}),
    "compare_networks": (D.compare_networks, {"studies": [STUDY, OTHER]}),
    "stability": (D.stability, {"study": STUDY, "scorers": ["l1", "taylor"]}),
    "sensitivity": (D.sensitivity, {"study": STUDY}),
    "feature_shift": (D.feature_shift, {"study": STUDY, "embedding": "linear"}),
    "map_agreement": (D.map_agreement, {"first": MAP, "second": MAP}),
    "shift_change": (D.shift_change, {"frame": MAP, "ratio": 0.5}),
    "mean_map": (D.mean_map, {"study": STUDY, "layer": "0", "filters": [0]}),
    "attribution_maps": (D.attribution_maps, {"study": STUDY, "domain": "a", "layer": "0"}),
    "prunability": (D.prunability, {"studies": STUDY, "step": 0.1}),
    "generalization_measures": (D.generalization_measures, {"studies": STUDY}),
    "flatness": (D.flatness, {"studies": STUDY, "images": 4, "steps": ()}),
    "sam_sharpness": (D.sam_sharpness, {"studies": STUDY}),
    "hessian_trace": (D.hessian_trace, {"studies": STUDY, "images": 4}),
    "sharpness": (D.sharpness, {"studies": STUDY}),
    "random_perturbation": (D.random_perturbation, {"studies": STUDY}),
    "margin": (D.margin, {"studies": STUDY}),
    "l2_norm": (D.l2_norm, {"studies": STUDY}),
    "after_finetuning": (D.after_finetuning, {"studies": STUDY, "scorers": ["l2"]}),
    "diagnostics.gc_net": (D.gc_net, {"study": STUDY}),
    "gradients_against_removal": (D.gradients_against_removal, {"study": STUDY}),
    "instability": (D.instability, {"runs": []}),
    "pruning_events": (D.pruning_events, {"run": None}),
    "run_ends": (D.run_ends, {"runs": {}}),
    "predicted_order": (D.predicted_order, {"frame": FRAME}),
    "data_access": (D.data_access, {"study": STUDY}),
    "diagnostic": (D.diagnostic, {"name": "x"}),
    "charts.sweep": (C.sweep, {"frame": FRAME}),
    "charts.drop": (C.drop, {"frame": D.drop(STUDY)}),
    **{f"charts.{name}": (getattr(C, name), {"frame": FRAME}) for name in ("drop_curve", "flips", "agreement")},
    **{f"charts.{name}": (getattr(C, name), {"frame": FRAME}) for name in ("layers", "stability", "sensitivity")},
    **{f"charts.{name}": (getattr(C, name), {"frame": FRAME}) for name in ("prunability", "mean_map", "instability")},
    "charts.flatness": (C.flatness, {"frame": FRAME}),
    **{
        f"charts.{name}": (getattr(C, name), {"frame": FRAME})
        for name in ("training", "size_and_cost", "feature_shift")
    },
    "charts.after_finetuning": (C.after_finetuning, {"frame": FRAME}),
    "charts.differences": (C.differences, {"frame": FRAME}),
    "charts.shift_by_ratio": (C.shift_by_ratio, {"frame": FRAME}),
    "charts.generalization_measures": (C.generalization_measures, {"frame": FRAME}),
    "charts.gc_net": (C.gc_net, {"table": GCNET}),
    "charts.images": (C.images, {"domains": [A]}),
    "charts.overlays": (C.overlays, {"images": A.images[:2], "maps": A.images[:2, 0], "words": ["a", "b"]}),
    "charts.svg": (C.svg, {"chart": C.sweep(FRAME)}),
    "data.load": (dg.data.load, {"name": "mnist"}),
    "data.halves": (dg.data.halves, {"domain": A}),
    "data.from_folder": (dg.data.from_folder, {"root": "nowhere"}),
    "data.blur": (dg.data.blur, {"domain": A}),
    "data.rotate": (dg.data.rotate, {"domain": A}),
    "data.noise": (dg.data.noise, {"domain": A}),
    "data.pixelate": (dg.data.pixelate, {"domain": A}),
    "models.shipped": (dg.models.shipped, {"name": "digits"}),
    "models.pair": (dg.models.pair, {"name": "digits"}),
    "networks.lenet": (N.lenet, {}),
    "networks.digits_net": (N.digits_net, {}),
    "networks.build": (N.build, {"name": "lenet"}),
    "Explorer": (W.Explorer, {"study": STUDY}),
    "widgets.Flips": (W.Flips, {"study": STUDY}),
    "widgets.Tuning": (W.Tuning, {"study": STUDY, "scorer": "l1", "ratio": 0.5}),
    "widgets.Training": (W.Training, {"network": NET, "schedule": SCHEDULE, "sources": [A]}),
    "widgets.Live": (W.Live, {"steps": iter(())}),
    "widgets.LiveChart": (W.LiveChart, {"chart": C.sweep(FRAME)}),
    "report": (dg.report, {"study": STUDY, "path": "never_written.html"}),
    "predict": (W.predict, {"question": "?", "options": ["a", "b"]}),
    "tally": (W.tally, {"lines": "dg-"}),
    "glossary": (W.glossary, {}),
}

WHOLE = (2.5, "3", True, None, [3])
"""Wrong where a whole number is wanted."""
SCORERS = (3, undecorated, ["l1", 3], {"l1", "l2"}, [], "l11", dg.Scorer)
RATIOS = ("0.5", [1.0], [-0.1], [NAN], [0.5, "x"], [], True, {0.5})
STUDIES = (None, NET, FRAME, "digits", dg.Study, [NET])
TABLES = (None, STUDY, "table.csv", EMPTY, [FRAME], {"a": 1})

# function -> argument -> values that must be refused with a sentence that names the argument.
WRONG: dict[str, dict[str, tuple[Any, ...]]] = {
    "Study": {
        "model": (None, "net", nn.Linear, STUDY, 3),
        "sources": (None, "mnist", A.images, [A, 3], FRAME, STUDY, {"a": 3}, [NET]),
        "targets": (3, "mnist", [None], {T}),
        "name": (3, None),
        "layers": ("al", "convs", None, 1),
        "device": ("gpu", 0, "cuda:77"),
        "sourcse": ([A],),
    },
    "Study.on": {"device": ("gpu", 0, None)},
    "Study.domain": {"name": (A, None, 0)},
    "Study.score": {
        "scorer": (None, 3, undecorated, L1.values, "l11"),
        "seed": (0.5, -1, "1", None),
        "options": (3, ["a"]),
    },
    "Study.score_all": {"scorers": (3, ["l1", None], undecorated), "split": (3, None, "scores")},
    "Study.unavailable": {"scorer": ("l1", None)},
    "Study.statistics": {"domain": (A, None, "mnits"), "needs": (["moment"], 3, None), "split": ("scores", None)},
    "Study.outcomes": {
        "mask": (L1, 0.5, "l1", FOREIGN, {"0": [1]}),
        "domain": (A, None, "c"),
        "split": ("test", 3),
        "batchnorm": ("recalibrated", True, "fold"),
        "images": (0, -5, 1.5, "all", NAN),
        "calibration": (0, 2.5, None),
    },
    "Study.steps": {"mask": (0.5,), "domain": (None,), "images": (0,)},
    "Study.feature_steps": {"mask": (0.5,), "layer": (0, None)},
    "Study.network": {"mask": (0.5, L1), "batchnorm": ("yes",)},
    "Domain.from_arrays": {
        "name": (3, None),
        "images": (torch.empty(9, 3, 12, 12, device="meta"), {"a": 1}),
        "labels": (dict.fromkeys(range(9), 0), ["a", 1, 2] * 3),
        "splits": ([1, 2], "train", 3),
        "classes": (-1, 0, 2.5),
        "seed": (1.5, "0", -1),
        "label": ([1, 2],),
    },
    "Domain.from_dataset": {"name": (None,), "seed": (0.5,)},
    "Domain.rows": {"split": ("tarin", 0), "images": (0, -1, 1.5)},
    "Domain.batches": {"size": (0, -1, 2.5), "images": (0,), "device": ("gpu",)},
    "Domain.take": {
        "rows": (
            0.5,
            None,
            torch.tensor(True),
            torch.tensor([True, False]),
            torch.rand(2),
            torch.tensor([999]),
            torch.tensor([-1]),
        )
    },
    "Domain.padded": {"size": (0, 12.5, 10**9, None)},
    "Domain.to": {"device": ("gpu", None)},
    "Domain.as_role": {"role": ("sources", None)},
    "Mask": {
        "keep": (None, [1], {"0": [True] * 6}),
        "ratio_requested": ("0.5", NAN, 1.5, -0.1),
        "graph": (NET, STUDY, None),
        "scope": ("layers",),
        "budget": ("filter",),
    },
    "Mask.by_hand": {"graph": (NET, STUDY), "removed": ([0, 1], 3, {"0": [0.5]}, {"0": ["a"]})},
    "Mask.from_json": {"value": ("{}", None, [1]), "graph": (None, NET)},
    "Mask.kept": {"layer": (0, None, "conv1")},
    "Mask.then": {"inner": (None, 0.5, L1)},
    "Scores": {
        "values": ([1.0], None, {"0": [1.0] * 6}, {**L1.values, "9": L1.values["0"]}),
        "graph": (NET,),
        "scorer": (3,),
        "reads": ({"t": "images"}, {"t/": "images"}),
    },
    "Scores.from_frame": {"frame": (*TABLES[:4], L1), "graph": (NET,)},
    "WeightMask": {"keep": ([1], None), "ratio_requested": ("0.5", -1, 2)},
    "WeightScores": {"values": ([1.0], None, {}, {"w": torch.tensor([NAN])}, {"w": torch.tensor([1j])})},
    "Provenance": {"training": ("labels", {"a/train": "label"}, {"a": "labels"}), "stage": ("none",)},
    "Provenance.seen": {"stage": ("scoring", None), "domain": (A,), "split": (None,)},
    "Provenance.from_json": {"value": ("{}", 3)},
    "Mask.with_filters": {"remove": ([0], "0", {"0": [99]}), "keep": ({"0": ["a"]}, 3), "reads": ({"a": "images"}, 3)},
    "latex": {"frame": TABLES, "metric": (3, "acuracy"), "caption": (3,), "label": (3,)},
    "cite": {"frame": TABLES},
    "answer": {"frame": TABLES, "of": (3, "scorers", None), "metric": ("acuracy",), "lowest": ("yes",)},
    "summary": {"frame": TABLES, "metric": (3, "acuracy"), "domain": ("c", 3), "verdict": ("better", ("a",))},
    "tidy": {"rows": (3, "rows", [3]), "extra": (3,)},
    "allocate": {
        "scores": ("l1", None, MASK, STUDY, 0.5),
        "ratio": ("0.5", None, 1, -0.1, NAN, [0.5], True),
        "layers": (0.2, [0.2], {"0": 1.0}, {"0": "x"}, {"9": 0.2}),
        "max_layer_ratio": (1.5, "0.9", -1),
        "remove": ([0], {"0": [99]}, {"0": range(6)}),
        "keep": (3, {"0": [0.5]}),
        "reads": (3,),
        "scope": ("globl", None),
        "budget": ("flops", 0),
    },
    "prune": {"model": (STUDY, None, nn.Linear), "mask": (0.5, L1, None, {"0": [1]})},
    "masked": {"model": (STUDY, None), "mask": (0.5, L1, "mask")},
    "read_groups": {"model": (STUDY, None), "example": (A, None, "image", (1, 3, 12, 12)), "layers": ("al", None)},
    "evaluate": {
        "model": (STUDY, None),
        "domain": ("a", A.images, None),
        "split": ("reports",),
        "images": (0, 1.5),
        "size": (0, -1),
    },
    "measure": {
        "model": (STUDY, None),
        "domains": ("a", A.images, [3], {"a": 3}),
        "batchnorm": ("yes",),
        "images": (0, "all"),
        "latency": (3, "no"),
    },
    "recalibrate": {"model": (None, STUDY), "domains": (None, 3, "a"), "images": (0, -1, 2.5)},
    "save": {
        "model": (STUDY, None, NET.state_dict()),
        "path": (None, 3, "..", "a\0b", "x" * 300),
        "card": ("notes", 3),
    },
    "load": {"path": (None, NET), "model": (STUDY, "lenet", nn.Linear)},
    "scorer": {
        "name": (None, undecorated),
        "needs": (("weight",), 3),
        "level": ("layer",),
        "draws": ("yes",),
        "gathers": (3,),
    },
    "hybrid": {"a": (3, L1), "b": (None,), "by": ("layer", None), "start": (1.5, -1, "x")},
    "reverse": {"scorer": (undecorated, L1, None)},
    "from_torch_pruning": {"importance": ("l1", None), "gradients": ("no",)},
    "Scorer.using": {"site": ("door", 3, None)},
    "demo": {"name": ("digit", None, 3), "device": ("gpu", 0, "cuda:77")},
    "training_seeds": {"name": ("paper", None, 3), "device": ("gpu", 0, "cuda:77")},
    "gc_net": {"study": STUDIES[:5], "by_class": ("yes", 3), "split": (3,)},
    "GCNet.rho": {"name": ("conv9",)},
    "FilterGraph.cost": {"keep": (3, {}, {"0": torch.ones(6)})},
    "stats.auroc": {"first": (None, "x", [["a"]], {"a": 1}, STUDY), "labels": (None, "x", (KINDS,))},
    "stats.cka": {"first": (None, "x", ROWS.numpy().astype(str)), "seed": (-1, None, 0.5), "seeds": (1,)},
    "stats.mmd": {"bandwidth": (0, "median", NAN), "ids": (None, (range(20),))},
    "GCNet.scores": {"weights": ("l3", 3), "start": (0,)},
    "GCNet.pruned": {"mask": (MASK, 0.5, None)},
    "TrainingOptions": {
        "epochs": (1.5, 0, "20", None, True),
        "batch_size": (0, 2.5, "64"),
        "optimiser": ("adamw", None),
        "lr": ("0.1", -1.0, NAN, INF, None),
        "momentum": (2.0, "0.9"),
        "schedule": ("step", None),
        "milestones": ((1.5,), "x"),
        "dropout": (1.0, "0.5"),
        "double_softmax": ("yes", 1),
        "objective": ("dro", None, "ERM"),
        "weight": (-1.0, NAN, "0.1"),
        "annealing": (-1, 0.5, None),
        "balanced": ("yes", 1),
        "seed": (0.5, None),
        "learning_rate": (0.1,),
    },
    "LayerSchedule": {"layer": (0, None), "start": (1.5, -1, "1"), "every": (0, 1.5), "ratio": (1.0, "0.5", NAN)},
    "PruneSchedule": {"layers": (None, 3, "0", {"0": (1, 3)}, [(1, 3, 1, 0.5)], {"0": 0.5})},
    "PruneSchedule.everywhere": {"start": (1.5, None), "end": ("3",), "every": (0,), "ratio": (1.0, "0.5")},
    "prune_and_tune": {
        "study": STUDIES,
        "scorer": (3, undecorated, "l11"),
        "ratio": ("0.5", 1.0, None, [0.5]),
        "rounds": (0, 1.5, 10**9),
        "epochs": (1.5, -1, "1"),
        "options": ({"epochs": 3}, 3),
        "measure": ("round",),
        "images": (0,),
        "seed": ("0",),
    },
    "train_treatments": {
        "build": (NET, None),
        "schedule": (None, 3),
        "treatments": (["small"], []),
        "seeds": ([], [0, 0]),
    },
    "train_with_pruning": {
        "network": (STUDY, None, nn.Linear),
        "sources": (None, "mnist", [NET]),
        "schedule": ({"0": (1, 3, 1, 0.5)}, 3, dg.PruneSchedule({})),
        "options": ({"epochs": 3},),
        "scorer": (undecorated, "l33"),
        "remove": ("small", None),
        "how": ("noise ", 3),
        "batches": (0, 1.5),
        "checkpoint": (3,),
    },
    "grid": {"start": ("0", -1, NAN), "stop": (2, None), "count": (0, -1, 2.5, 10**9)},
    "sweep": {
        "study": STUDIES,
        "scorers": SCORERS,
        "ratios": RATIOS,
        "seeds": (0, 2.5, [0.5], "1", -1, [3, 3]),
        "scope": ("layers",),
        "budget": ("flops",),
        "batchnorm": ("recalibrated", True),
        "split": ("tests", 3),
        "images": (0, 1.5, "all"),
        "progress": ("yes", 1),
        "ratio": (0.5,),
        "scorer": ("l1",),
    },
    "find": {
        "study": STUDIES[:4],
        "keep": (None, "0.9", 1.5, -0.1, NAN),
        "within": (3, {"flops": 3}, {"macs": 0}, {"macs": "x"}, {"macs": 3}),
        "on": ("t", "c", 3),
        "scorer": (3, undecorated, "l11"),
        "ratios": (["x"], [1.0], []),
        "images": (0,),
    },
    "drop": {"study": STUDIES, "scorers": SCORERS, "ratios": RATIOS, "by": ("layers", None), "seed": (0.5, -1)},
    "flips": {"study": STUDIES[:4], "scorers": (3, undecorated), "ratios": RATIOS[:4], "scope": (None,)},
    "agreement": {"study": STUDIES[:4], "scorers": (3, ["l1"], undecorated), "ratio": (1.0, "0.5", [0.5])},
    "compare": {
        "study": STUDIES[:4],
        "a": ("l1", 0.5, L1),
        "b": (FRAME, FOREIGN),
        "split": (3, "tests"),
        "images": (0,),
    },
    "compare_scorers": {
        "study": STUDIES[:4],
        "scorers": (*SCORERS[:3], ["random"]),
        "against": (3, ["l1"]),
        "draws": (2.5, 0, 10**9),
        "keep_silent": ("no",),
    },
    "compare_networks": {"studies": (None, [NET], STUDY), "domains": ("c", [3])},
    "stability": {
        "study": STUDIES[:4],
        "scorers": (3, L1, []),
        "over": ("half",),
        "draws": (2.5, 0, 10**9),
        "images": (0,),
    },
    "sensitivity": {
        "study": STUDIES[:4],
        "method": ("gradient",),
        "between": (("a",), "a", ("a", "c")),
        "layers": (["conv9"], 3),
        "images": (0, 2.5),
    },
    "feature_shift": {
        "study": STUDIES[:4],
        "layer": (3, "conv9"),
        "scorer": (3, ["l1"]),
        "ratios": RATIOS[:4],
        "embedding": ("pca", None),
        "neighbours": (0, 2.5),
    },
    "map_agreement": {"first": TABLES[:4], "second": (None, EMPTY), "ratio": (1.0,), "neighbours": (0, 1.5)},
    "mean_map": {"study": STUDIES[:4], "layer": (0, "conv9"), "filters": (["a"], [99], [0.5], [])},
    "attribution_maps": {
        "study": STUDIES[:4],
        "domain": (A, "c"),
        "layer": (0, "conv9"),
        "image": (1.5, -1, 999),
        "filters": (0, 2.5, [0]),
    },
    "prunability": {
        "studies": (None, NET, [NET], []),
        "tolerance": (0, "0.1", -1, NAN),
        "scorer": (3, undecorated),
        "granularity": ("filters", 3),
        "search": ("quick",),
        "step": (0, -0.1, "0.01"),
    },
    "generalization_measures": {"studies": (None, NET), "draws": (2.5, 0), "tolerance": (0,)},
    "flatness": {
        "studies": (None, NET, []),
        "top": (0, 1.5, 10**9),
        "draws": (0, 1.5),
        "steps": (["x"], [NAN]),
        "mask": (0.5, NET, L1),
    },
    "sam_sharpness": {"studies": (None, NET), "radius": (0, "0.05", NAN)},
    "hessian_trace": {"studies": (None, NET), "draws": (0, 2.5), "seed": (-1,)},
    "sharpness": {"studies": (None, NET), "draws": (2.5, 0, 10**9), "tolerance": (0, NAN)},
    "random_perturbation": {"studies": (None,), "draws": (1.5,), "step": (0, NAN)},
    "margin": {"studies": (None, FRAME), "images": (0, 1.5), "split": (3,)},
    "l2_norm": {"studies": (None, NET, [])},
    "after_finetuning": {
        "studies": (None, NET),
        "scorers": (3, [3]),
        "ratios": (1.0, ["x"]),
        "epochs": (1.5, -1),
        "baseline": (3,),
        "options": ("paper",),
    },
    "diagnostics.gc_net": {"study": STUDIES[:4], "connections": ("yes",)},
    "gradients_against_removal": {"study": STUDIES[:4], "beta": ("1", NAN, -1)},
    "instability": {"runs": (3, [STUDY], FRAME)},
    "pruning_events": {"run": (None, [STUDY], FRAME)},
    "run_ends": {"runs": ([STUDY], None, {"a": STUDY}), "epoch": ("lst",)},
    "predicted_order": {"frame": TABLES[:4]},
    "data_access": {"study": STUDIES[:4], "scorers": (3, [undecorated], "l11")},
    "diagnostic": {"name": (None, undecorated), "extra": (3,)},
    "charts.sweep": {
        "frame": (
            *TABLES,
            MIXED,
            pd.concat([FRAME, FRAME]),
            pd.concat([FRAME, FRAME[["value"]]], axis=1),
            FRAME.assign(value="0,5"),
            FRAME.set_index("scorer"),
        ),
        "now": ("0.5", 2),
        "chance": (10, "x"),
        "step": (0, "x"),
        "metric": (3, "acuracy"),
        "width": (0, -5, "wide", 2.5),
        "pinned": ([FRAME], 3),
    },
    **{f"charts.{name}": {"frame": TABLES[:4]} for name in ("drop_curve", "flips", "agreement", "layers")},
    **{f"charts.{name}": {"frame": TABLES[:4]} for name in ("sensitivity", "prunability", "feature_shift", "flatness")},
    **{f"charts.{name}": {"frame": (*TABLES[:4], dg.tidy([]))} for name in ("stability", "mean_map")},
    **{f"charts.{name}": {"frame": TABLES[:4]} for name in ("training", "size_and_cost", "after_finetuning")},
    "charts.drop": {"frame": TABLES[:4], "metric": (3, "drop"), "height": (0, NAN)},
    "charts.instability": {"frame": TABLES[:4], "metric": ("acc", 3)},
    "charts.gc_net": {"table": (None, STUDY, L1), "mask": (MASK, 0.5), "links": (0, 1.5)},
    "charts.images": {"domains": ("a", A.images, 3), "images": (0, 1.5), "split": ("tests",), "size": (0,)},
    "charts.overlays": {"images": (A, None), "maps": ("m",), "words": (3,), "columns": (0,)},
    "charts.svg": {"chart": (FRAME, None, "chart")},
    "data.load": {"name": ("mnits", None, A)},
    "data.halves": {"domain": ("mnist", None, A.images), "split": ("tests", 3)},
    "data.from_folder": {
        "root": (None, 3),
        "size": (0, "224", 2.5),
        "resize": ("squash", None),
        "splits": ("domainbd", 3, {"train": "most"}),
        "hold_out": (3, 0.5),
        "broken": ("ignore",),
        "seed": (0.5,),
    },
    "data.blur": {"domain": ("mnist", A.images, None, STUDY), "sigma": (-1, "1", NAN)},
    "data.rotate": {"domain": (None,), "degrees": ("30", NAN)},
    "data.noise": {"domain": (A.images,), "sigma": (-1, None)},
    "data.pixelate": {"domain": (3,), "block": (0, 2.5)},
    "models.shipped": {"name": ("digit", None)},
    "models.pair": {"name": ("digit", 3)},
    "networks.lenet": {
        "classes": (0, -1, 2.5, 10**9, "10"),
        "widths": ("x", (1.5, 2), (4,)),
        "std": (0, "1"),
        "seed": (-1, 0.5),
    },
    "networks.digits_net": {"classes": (0,), "gamma": ("x", NAN)},
    "networks.build": {"name": ("lnet", None)},
    "Explorer": {
        "study": STUDIES[:4],
        "scorer": (3, undecorated, "l11", OTHER.score("l1")),
        "ratio": ("0.5", 1.0, NAN),
        "scope": ("layers",),
        "batchnorm": ("yes",),
        "panels": ([3], "flips"),
        "device": ("gpu",),
        "rato": (0.5,),
    },
    "widgets.Flips": {"study": (NET, None), "rato": (0.5,), "panels": ([],)},
    "widgets.Tuning": {"study": (NET,), "ratio": (1.0, "0.5"), "rounds": (0,), "epochs": (1.5,)},
    "widgets.Training": {"network": (STUDY,), "schedule": (3,), "how": ("zeros",)},
    "widgets.Live": {"steps": (3, undecorated, lambda: 3)},
    "widgets.LiveChart": {"chart": (FRAME, None)},
    "report": {
        "study": (3, None, NET, "digit"),
        "path": (None, 3, "."),
        "scorers": (3, ["l11"], [undecorated]),
        "seconds": (-1, NAN, "60"),
    },
    "predict": {"question": (3,), "options": (3, ["a"], ["a", "a"])},
    "tally": {"lines": (3, None, [3], [], "no guess"), "guess": (3, "digits")},
    "glossary": {"word": (3, ["domain"], "domian")},
}

# What the sentence calls an argument where it does not use its name.
CALLED: Mapping[tuple[str, str], str] = {
    ("Mask.by_hand", "removed"): "removed|filters of layer",
    ("Mask.from_json", "value"): "value|mask",
    ("Explorer", "scorer"): "scorer|scores of 'l1'|unknown scorer 'l11'",
    ("WeightScores", "values"): "values|scores in parameter",
    ("Scores", "values"): "values|unknown layer '9'",
    ("predicted_order", "frame"): "frame|table",
    ("Study", "sourcse"): "has no argument 'sourcse'.*Did you mean 'sources'",
    ("sweep", "ratio"): "has no argument 'ratio'.*Did you mean 'ratios'",
    ("sweep", "scorer"): "has no argument 'scorer'.*Did you mean 'scorers'",
    ("Explorer", "rato"): "has no argument 'rato'.*Did you mean 'ratio'",
}


def slips() -> Iterator[Slip]:
    """Every slip, made from `CALLS` and `WRONG`."""
    for function, arguments in WRONG.items():
        call, right = CALLS[function]
        for argument, values in arguments.items():
            for value in values:
                given = {**right, argument: value}
                yield Slip(function, lambda call=call, given=given: call(**given), _names(function, argument, value))


def _names(function: str, argument: str, value: Any) -> str:
    """A pattern for the argument: its name, its singular, or the unknown name that was given."""
    if (function, argument) in CALLED:
        return CALLED[function, argument]
    singular = f"{argument[:-3]}y" if argument.endswith("ies") else argument.removesuffix("s")
    given = [item for item in (value if isinstance(value, list | tuple) else [value]) if isinstance(item, str)]
    return "|".join([argument, singular, *(f"unknown [a-z -]+ {re.escape(repr(item))}" for item in given)])
