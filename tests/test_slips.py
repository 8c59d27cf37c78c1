"""Every slip of `slips.py` is answered in words, and changes nothing."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from material import fingerprint
from slips import GRAPH, L1, NET, SPLITS, STUDY, A, B, Slip, slips

import dgprune_lab as dg

SLIPS = list(slips())
CODE = re.compile(
    r"typing|Union|Optional|(Sequence|Mapping|Literal|Callable)\[|dgprune_lab\.|torch\.nn\.|<class|<function| at 0x|\n"
)


def state() -> dict[str, Any]:
    """What a refused call must leave as it is."""
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.random.get_state()[1].tobytes(),  # type: ignore[index,union-attr]
        "random": random.getstate(),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "warnings": list(warnings.filters),
        "network": fingerprint(NET),
    }


@pytest.mark.parametrize(
    "slip", SLIPS, ids=[f"{n}-{slip.function}-{slip.names.split('|')[0].split()[0]}" for n, slip in enumerate(SLIPS)]
)
def test_a_slip_is_answered_in_words_and_changes_nothing(slip: Slip) -> None:
    before = state()
    with pytest.raises(dg.DgpruneError) as raised:
        slip.call()
    text = str(raised.value)
    assert re.search(rf"(?<![a-z_])({slip.names})(?![a-z_])", text), text
    assert len(text) < 500 and text.rstrip().endswith((".", "?")) and not CODE.search(text), text
    assert state() == before


# What people plainly mean, and the call that it stands for; a checker of types would refuse the first.
loose: Any = dg
rows: Any = A.rows
TAKEN: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "one source": (lambda: loose.Study(NET, sources=A).key, lambda: loose.Study(NET, sources=[A]).key),
    "a dict of domains": (
        lambda: loose.Study(NET, sources={"a": A, "b": B}).key,
        lambda: loose.Study(NET, sources=[A, B]).key,
    ),
    "a generator of domains": (
        lambda: loose.Study(NET, sources=(d for d in (A, B))).key,
        lambda: loose.Study(NET, sources=[A, B]).key,
    ),
    "no target": (lambda: loose.Study(NET, sources=[A], targets=None).targets, lambda: ()),
    "device": (lambda: STUDY.on("cpu").device, lambda: torch.device("cpu")),
    "one scorer, one ratio": (
        lambda: loose.sweep(STUDY, scorers="l1", ratios=0.5),
        lambda: loose.sweep(STUDY, scorers=["l1"], ratios=[0.5]),
    ),
    "a tuple, an array": (
        lambda: loose.sweep(STUDY, scorers=("l1",), ratios=np.array([0.25, 0.5], dtype=np.float64)),
        lambda: loose.sweep(STUDY, scorers=["l1"], ratios=[0.25, 0.5]),
    ),
    "a series, a scorer object": (
        lambda: loose.diagnostics.drop(STUDY, scorers=loose.SCORERS["l1"], ratios=pd.Series([0.5])),
        lambda: loose.diagnostics.drop(STUDY, scorers=["l1"], ratios=[0.5]),
    ),
    "numbers of numpy": (
        lambda: loose.sweep(STUDY, scorers=["random"], ratios=[np.float64(0.5)], seeds=np.int64(2), images=np.int32(9)),
        lambda: loose.sweep(STUDY, scorers=["random"], ratios=[0.5], seeds=2, images=9),
    ),
    "seeds of an array": (
        lambda: loose.sweep(STUDY, scorers=["random"], ratios=[0.5], seeds=np.array([3, 4])),
        lambda: loose.sweep(STUDY, scorers=["random"], ratios=[0.5], seeds=[3, 4]),
    ),
    "a tensor for a ratio": (
        lambda: loose.allocate(L1, ratio=torch.tensor(0.5)).key,
        lambda: loose.allocate(L1, ratio=0.5).key,
    ),
    "1e1 images": (lambda: len(rows("report", 1e1)), lambda: 10),
    "one layer": (
        lambda: loose.diagnostics.sensitivity(STUDY, layers="0"),
        lambda: loose.diagnostics.sensitivity(STUDY, layers=["0"]),
    ),
    "one filter": (
        lambda: loose.diagnostics.mean_map(STUDY, layer="0", filters=1),
        lambda: loose.diagnostics.mean_map(STUDY, layer="0", filters=[1]),
    ),
    "one study": (lambda: loose.diagnostics.l2_norm(STUDY), lambda: loose.diagnostics.l2_norm([STUDY])),
    "a dict of studies": (
        lambda: loose.diagnostics.l2_norm({"first": STUDY}),
        lambda: loose.diagnostics.l2_norm([STUDY]),
    ),
    "domains of a dict": (
        lambda: loose.measure(NET, {"a": A, "b": B}, latency=False),
        lambda: loose.measure(NET, [A, B], latency=False),
    ),
    "images of numpy": (lambda: loose.read_groups(NET, A.images[:1].numpy()).names, lambda: GRAPH.names),
    "one filter by hand": (
        lambda: loose.Mask.by_hand(GRAPH, removed={"0": 2}).key,
        lambda: loose.Mask.by_hand(GRAPH, removed={"0": [2]}).key,
    ),
    "options": (
        lambda: loose.TrainingOptions(epochs=np.int64(3), lr=1, schedule="steps", milestones=[1, 2]),
        lambda: loose.TrainingOptions(epochs=3, lr=1.0, schedule="steps", milestones=(1, 2)),
    ),
    "a schedule of lists": (
        lambda: loose.PruneSchedule({"0": [1, 3, 1, 0.5]}).to_json(),
        lambda: loose.PruneSchedule({"0": (1, 3, 1, 0.5)}).to_json(),
    ),
    "the whole menu": (
        lambda: list(loose.diagnostics.data_access(STUDY, loose.SCORERS).scorer),
        lambda: list(loose.SCORERS),
    ),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_is_plainly_meant_is_taken(case: str) -> None:
    given, meant = (call() for call in TAKEN[case])
    if isinstance(meant, pd.DataFrame):
        pd.testing.assert_frame_equal(given, meant)
    else:
        assert given == meant


def numbers() -> list[float]:
    study = dg.Study(NET, sources=[A], targets=[B])
    taylor = [value for scores in study.score("taylor").values.values() for value in scores.tolist()]
    return [
        *dg.measure(NET, [A, B], latency=False).value,
        *dg.sweep(study, scorers=["l1"], ratios=[0.5]).value,
        *taylor,
    ]


@pytest.mark.parametrize("mode", ["autocast", "meta", "float64", "no_grad"])
def test_what_the_caller_has_set_for_tensors_changes_no_number(mode: str) -> None:
    set_to: dict[str, Callable[[], Any]] = {
        "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        "meta": lambda: torch.device("meta"),
        "float64": lambda: default_type(torch.float64),
        "no_grad": torch.no_grad,
    }
    expected = numbers()
    with set_to[mode]():
        found = numbers()
    assert found == pytest.approx(expected, rel=1e-6, nan_ok=True)


@contextmanager
def default_type(kind: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("error", [KeyError("x"), ZeroDivisionError(), AssertionError(), StopIteration()])
def test_what_a_scorer_of_the_user_raises_is_said_with_its_name_and_layer(error: Exception) -> None:
    def broken(view: Any) -> Any:
        """Fail."""
        raise error

    with pytest.raises(dg.DgpruneError, match=f"scorer 'mine' stopped at layer '0' .{type(error).__name__}") as raised:
        STUDY.score(dg.scorer("mine")(broken))
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("kind", [list, np.array, tuple])
def test_a_scorer_may_return_numbers_of_numpy_or_a_list(kind: Callable[[Any], Any]) -> None:
    def counted(view: Any) -> Any:
        """Count."""
        return kind(range(view.filters))

    assert STUDY.score(dg.scorer("counted")(counted)).values["0"].tolist() == list(map(float, range(6)))


def test_a_built_in_domain_that_was_changed_in_place_is_loaded_again() -> None:
    first = dg.data.uci_digits()
    pixels = first.images.clone()
    first.images.zero_()
    again = dg.data.uci_digits()
    assert torch.equal(again.images, pixels) and dg.data.uci_digits() is again


def test_domains_whose_class_names_disagree_are_not_measured_together() -> None:
    named = [
        dg.Domain.from_arrays(name, images=A.images, labels=A.labels, splits=SPLITS, classes=list(words))
        for name, words in (("a", "wxyz"), ("b", "vwxy"))
    ]
    with pytest.raises(dg.DgpruneError, match="class 0 is 'w' in domain 'a' and 'v' in domain 'b'"):
        dg.measure(NET, named, latency=False)


@pytest.mark.parametrize("name", ["sweep", "prune_and_tune", "leave_one_out"])
def test_an_operation_in_steps_is_pickled_by_its_name(name: str) -> None:
    operation = getattr(dg, name)
    assert pickle.loads(pickle.dumps(operation)) is operation is copy.deepcopy(operation)


def test_a_preset_can_be_copied_and_sent_to_another_process() -> None:
    preset = dg.presets.dss_mnist_m()
    for copied in (copy.deepcopy(preset), pickle.loads(pickle.dumps(preset))):
        assert dict(copied.normalisation) == dict(preset.normalisation) and copied.training == preset.training


def test_a_bar_needs_no_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    assert len(dg.sweep(STUDY, scorers=["l1"], ratios=[0.5], progress=True))


def test_a_slip_at_the_controls_of_an_explorer_is_answered_in_words() -> None:
    explorer = dg.Explorer(STUDY, panels=[])
    before = dict(explorer.view)
    wrong: dict[str, tuple[Any, ...]] = {"ratio": ("x", 1.0, None, True), "scope": ("layers",), "budget": (None,)}
    wrong |= {"batchnorm": ("yes",), "rato": (0.5,)}
    try:
        for name, values in wrong.items():
            for value in values:
                with pytest.raises(dg.DgpruneError, match=name):
                    explorer.choose(**{name: value})
        assert dict(explorer.view) == before
    finally:
        explorer.close()


def test_a_refused_explorer_prints_nothing_more(capsys: pytest.CaptureFixture[str]) -> None:
    for options in ({"ratio": "x"}, {"scorer": "l11"}, {"rato": 0.5}, {"panels": [3]}):
        with pytest.raises(dg.DgpruneError):
            dg.Explorer(STUDY, **options)  # type: ignore[arg-type]
        gc.collect()
    assert capsys.readouterr().err == ""
