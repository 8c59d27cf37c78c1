"""Scores of a scorer of one's own follow the variables that it reads."""

from __future__ import annotations

import functools
import os
import random
import types
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from material import domain, norm_net, randomise
from torch import nn

import dgprune_lab as dg
from dgprune_lab.core import drain
from dgprune_lab.study.fingerprint import fingerprint
from dgprune_lab.widgets.explorer.measurements import Measurements
from dgprune_lab.widgets.panels.menu_scores import MenuScores

CELLS = """
import numpy as np, torch, settings
from functools import partial

alpha = 1.0
factors = {"deep": [torch.ones(3), np.ones(2)]}

def helper(x):
    return [alpha * value for value in [x]][0]

class Weigher:
    beta = 1.0
    def __init__(self):
        self.gamma = 1.0
    def __call__(self, x):
        return x * self.gamma * delta

delta = 1.0
weigher = Weigher()

def scale(view):
    "Scaled norm. Source: ours."
    return view.weight.abs().sum(1) * helper(1.0) * factors["deep"][0][0] * weigher(1.0) * settings.epsilon + shift

shift = 0.0
"""


@dataclass(slots=True)
class Slotted:
    value: float = 1.0


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The variables of a notebook after its first cells."""
    import sys

    settings = types.ModuleType("settings")
    settings.epsilon = 1.0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "settings", settings)
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(CELLS, space)
    return space


EDITS = {
    "a number that a helper reads in a comprehension": "alpha = 2.0",
    "a tensor in a list in a dict, in place": "factors['deep'][0][0] = 2.0",
    "an attribute of an object": "weigher.gamma = 2.0",
    "a number that a method reads": "delta = 2.0",
    "a number of a module": "settings.epsilon = 2.0",
    "a helper": "def helper(x): return 2 * x",
    "a number that is added": "shift = 1.0",
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_variable_gives_new_scores(edit: str, cells: dict[str, Any]) -> None:
    study = dg.Study(randomise(norm_net(), dtype=torch.float32), sources=[domain("a")])
    scorer = dg.scorer("scale")(cells["scale"])
    before = study.score(scorer).values["0"].clone()
    combined = study.score(dg.reverse(scorer)).values["0"].clone()
    assert study.score(scorer) is study.score(scorer), "nothing changed: from the cache"
    exec(EDITS[edit], cells)
    after = study.score(scorer).values["0"]
    assert torch.allclose(after, before + 1 if "added" in edit else 2 * before)
    assert not torch.equal(study.score(dg.reverse(scorer)).values["0"], combined)


def test_an_explorer_measures_anew_what_an_edited_variable_changes(cells: dict[str, Any]) -> None:
    study = dg.Study(randomise(norm_net(), dtype=torch.float32), sources=[domain("a")])
    scorer = dg.scorer("scale")(cells["scale"])
    measurements = Measurements(study, scorers=[scorer])
    choices = measurements.checked(
        {"id": 0, "by": "kernel", "ratio": 0.5, "scorer": "scale", "scope": "layer", "budget": "filters"}
        | {"batchnorm": "as_is"}
    )
    before, kept = measurements.plan(choices), measurements.mask(choices).kept("0")
    drain(measurements.fill(choices))
    assert measurements.plan(choices) == before and measurements.exact(choices) is not None
    cells["weigher"].gamma = -1.0  # reverses the order
    assert measurements.plan(choices) != before and measurements.exact(choices) is None
    assert not set(measurements.mask(choices).kept("0")) & set(kept)


def test_the_panels_score_anew_what_an_edited_variable_changes(cells: dict[str, Any]) -> None:
    study = dg.Study(randomise(norm_net(), dtype=torch.float32), sources=[domain("a")])
    scorer, held = dg.scorer("scale")(cells["scale"]), MenuScores()
    assert held.add(study, scorer) and not held.add(study, scorer)
    before = held.get(scorer)
    cells["alpha"] = 2.0
    assert held.get(scorer) is None and held.add(study, scorer)
    after = held.get(scorer)
    assert isinstance(before, dg.Scores) and isinstance(after, dg.Scores)
    assert torch.allclose(after.values["0"], 2 * before.values["0"])


def test_an_enclosing_variable_and_an_option_count_by_content() -> None:
    study = dg.Study(randomise(norm_net(), dtype=torch.float32), sources=[domain("a")])
    weights = torch.ones(2000)

    def by(view: Any, *, table: Any = None) -> Any:
        """Weighted norm. Source: ours."""
        factor = weights[1000] * (1.0 if table is None else table[1000])
        return view.weight.abs().sum(1) * factor

    scorer = dg.scorer("by")(by)
    before = study.score(scorer).values["0"].clone()
    weights[1000] = 3.0
    assert torch.allclose(study.score(scorer).values["0"], 3 * before)
    tables = [np.ones(2000), np.ones(2000)]
    tables[1][1000] = 5.0  # the same text when it is printed
    one, other = (study.score(scorer, options={"table": table}).values["0"] for table in tables)
    assert torch.allclose(other, 5 * one)


def changes() -> dict[str, tuple[Any, Any]]:
    class Holder:
        number = 0

    def in_place(value: Any, change: Any) -> tuple[Any, Any]:
        return value, lambda: change(value)

    def first(value: Any) -> None:
        value[0] = 7

    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    objects = np.array([1, [2]], dtype=object)
    layer = nn.Linear(2, 2)
    return {
        "list": in_place([1, 2], first),
        "bytearray": in_place(bytearray(3), first),
        "deque": in_place(deque([1, 2]), first),
        "set": in_place({1, 2}, lambda value: value.add(3)),
        "array": in_place(np.zeros(3), first),
        "objects": in_place(objects, first),
        "half": in_place(torch.zeros(3, dtype=torch.bfloat16), first),
        "scalar tensor": in_place(torch.tensor(1.0), lambda value: value.fill_(2)),
        "table": in_place(frame, lambda value: value.__setitem__("a", [5.0, 6.0])),
        "namespace": in_place(types.SimpleNamespace(a=[1]), lambda value: value.a.append(2)),
        "object": in_place(Holder(), lambda value: setattr(value, "number", 3)),
        "slots": in_place(Slotted(), lambda value: setattr(value, "value", 3)),
        "network": in_place(layer, lambda value: nn.init.zeros_(value.weight)),
        "partial": in_place(functools.partial(max, [1]), lambda value: value.args[0].append(2)),
        "code of a function": in_place(
            lambda x: x + 1, lambda value: setattr(value, "__code__", (lambda x: x + 2).__code__)
        ),
        "code of a function inside": in_place(
            lambda: lambda x: x + 1, lambda value: setattr(value, "__code__", (lambda: lambda x: x + 2).__code__)
        ),
        "default": in_place(with_defaults(), lambda value: setattr(value, "__defaults__", (2,))),
        "keyword default": in_place(with_defaults(), lambda value: value.__kwdefaults__.update(by=2)),
        "cached": in_place(functools.lru_cache(lambda: CHANGING[0]), lambda _: first(CHANGING)),
    }


def with_defaults() -> Any:
    def function(x: int = 1, *, by: int = 1) -> int:
        return x * by

    return function


CHANGING = [0]


@pytest.mark.parametrize("kind", changes())
def test_values_count_by_content(kind: str) -> None:
    value, change = changes()[kind]
    before = fingerprint(value).key
    assert fingerprint(value).key == before
    change()
    assert fingerprint(value).key != before


def test_equal_contents_have_equal_hashes_and_kinds_are_told_apart() -> None:
    def make() -> list[Any]:
        return [1, 1.5, "a", (2, {"x": np.arange(3)}), torch.eye(2), {3, 4}, None]

    assert fingerprint(make()).key == fingerprint(make()).key
    different = [1, 1.0, True, "1", b"1", [1], (1,), {1}, {1: 1}, np.array(1), torch.tensor(1), np.int64(1), [[1]]]
    assert len({fingerprint(value).key for value in different}) == len(different)


def test_objects_that_contain_themselves_end_and_generators_stay() -> None:
    loop: list[Any] = []
    loop.append(loop)
    node = types.SimpleNamespace()
    node.next = node
    states = torch.get_rng_state(), random.getstate()
    assert fingerprint(loop, node, lambda: loop, np.random.default_rng(0), torch.Generator()).objects
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]


def test_a_function_of_a_library_is_quick_to_hash() -> None:
    read = fingerprint(dg.SCORERS["dss"].function, torch.nn.functional.interpolate, np.linspace)
    assert len(read.objects) < 20


def test_classes_properties_and_modules_that_a_scorer_reads_count() -> None:
    class Config:
        alpha = 1.0

        @classmethod
        def doubled(cls) -> float:
            return 2 * factor[0]

    class Inherited(Config):
        pass

    factor = [1.0]
    helpers: Any = types.ModuleType("helpers")
    exec("beta = 1.0\ndef weight():\n    return beta", helpers.__dict__)
    layer: Any = nn.Linear(2, 2)
    layer.scale = 1.0
    names: dict[str, Any] = {"Inherited": Inherited, "helpers": helpers, "layer": layer}
    exec("def score():\n    return Inherited.alpha, Inherited.doubled(), helpers.weight(), layer.scale", names)
    score, seen = names["score"], set()

    def changed() -> int:
        key = fingerprint(score).key
        assert fingerprint(score).key == key
        seen.add(key)
        return len(seen)

    assert changed() == 1
    Config.alpha = 2.0
    assert changed() == 2
    factor[0] = 3.0
    assert changed() == 3
    helpers.beta = 4.0
    assert changed() == 4
    helpers.weight = lambda: 5.0
    assert changed() == 5
    layer.scale = 6.0
    assert changed() == 6


@pytest.mark.parametrize(
    "read",
    [
        "globals()['alpha']",
        "eval('2 * alpha')",
        "getattr(settings, 'alpha')",
        "vars(settings)['alpha']",
        "os.environ['DGPRUNE_ALPHA']",
        "float(os.getenv('DGPRUNE_ALPHA'))",
        "[getattr(settings, 'alpha') for _ in range(2)]",
    ],
)
def test_variables_that_are_read_by_their_name_in_a_text_count(read: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: Any = types.ModuleType("settings")
    cells: dict[str, Any] = {"settings": settings, "os": os}
    exec(f"def score():\n    return {read}", cells)
    keys = []
    for value in (1.0, 2.0, 2.0):
        cells["alpha"] = settings.alpha = value
        monkeypatch.setenv("DGPRUNE_ALPHA", str(value))
        cells["other"] = settings.other = len(keys)
        keys.append(fingerprint(cells["score"]).key)
    assert keys[0] != keys[1] == keys[2], "alpha counts, what is not named does not"
