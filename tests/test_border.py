"""The decorator of public functions: what is taken, what is refused, in which words, and what it leaves alone."""

from __future__ import annotations

import importlib
import inspect
import itertools
import random
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from dgprune_lab.core import Columns, Count, DgpruneError, Ratio, Stepwise, public, resolved_hints

if TYPE_CHECKING:
    from decimal import Decimal

Way = Literal["layer", "global"]


@dataclass(frozen=True, eq=False)
class Thing:
    name: str = "a"


@public
def work(
    thing: Thing,
    *,
    number: float = 0.5,
    count: int = 1,
    flag: bool = False,
    text: str = "",
    way: Way = "layer",
    ways: Sequence[Way] = ("layer",),
    things: Sequence[Thing] = (),
    numbers: Sequence[float] = (0.5,),
    some: int | Sequence[int] = 1,
    several: Count | Sequence[int] = 1,
    names: str | Sequence[str] | None = None,
    rows: tuple[int, ...] = (),
    pair: tuple[str, str] | None = None,
    table: Mapping[str, Thing] | None = None,
    any_order: Iterable[int] = (),
    path: str | Path = ".",
    folder: Path = Path("."),
    tensor: Tensor | None = None,
    network: nn.Module | None = None,
    frame: Annotated[pd.DataFrame, Columns(("metric", "value"))] | None = None,
    device: torch.device | str | None = None,
    function: Callable[..., Any] | None = None,
    ratio: Ratio = 0.5,
    images: Count | None = None,
    exact: Decimal | None = None,
    free: Any = None,
) -> dict[str, Any]:
    """Return what arrived."""
    return locals()


THING = Thing()


def given(value: Any) -> Any:
    """A value whose type the checker of this file does not know."""
    return value


ARRIVES: dict[str, tuple[dict[str, Any], Any]] = {
    "whole number for a number": ({"number": 1}, 1.0),
    "numpy float": ({"number": np.float32(0.25)}, 0.25),
    "0-d tensor": ({"number": torch.tensor(0.25)}, 0.25),
    "0-d array": ({"count": np.array(3)}, 3),
    "numpy int": ({"count": np.int64(3)}, 3),
    "1e3 images": ({"images": 1e3}, 1000),
    "numpy bool": ({"flag": np.bool_(True)}, True),
    "one of a list": ({"things": THING}, [THING]),
    "tuple": ({"things": (THING,)}, (THING,)),
    "dict of objects": ({"things": {"a": THING}}, [THING]),
    "None where the default is empty": ({"things": None}, ()),
    "generator": ({"numbers": (x / 4 for x in (1, 2))}, [0.25, 0.5]),
    "array": ({"numbers": np.array([0.25, 0.5])}, [0.25, 0.5]),
    "series": ({"numbers": pd.Series([0.25, 0.5])}, [0.25, 0.5]),
    "1-d tensor": ({"numbers": torch.tensor([0.25, 0.5])}, [0.25, 0.5]),
    "range of whole numbers for numbers": ({"numbers": range(2)}, [0.0, 1.0]),
    "one number of a list": ({"numbers": 0.25}, [0.25]),
    "one string of a list": ({"ways": "global"}, ["global"]),
    "keys": ({"names": {"a": 1}.keys()}, ["a"]),
    "several": ({"some": np.array([1, 2])}, [1, 2]),
    "list for a tuple": ({"rows": [1, 2]}, (1, 2)),
    "list for a pair": ({"pair": ["a", "b"]}, ("a", "b")),
    "set where order does not matter": ({"any_order": {3}}, [3]),
    "device by name": ({"device": "cpu"}, torch.device("cpu")),
    "string for a path": ({"folder": "x"}, Path("x")),
    "anything": ({"free": 3}, 3),
}


@pytest.mark.parametrize("case", ARRIVES)
def test_what_is_plainly_meant_arrives(case: str) -> None:
    given, wanted = ARRIVES[case]
    ((name, _),) = given.items()
    got = work(THING, **given)[name]
    assert got == wanted and type(got) is type(wanted)


def test_an_array_arrives_as_a_tensor_of_its_own() -> None:
    array = np.ones((2, 2), dtype=">f4")
    got = work(THING, tensor=array)["tensor"]  # type: ignore[arg-type]
    got.zero_()
    assert got.dtype == torch.float32 and array.sum() == 4


def test_what_fits_arrives_as_the_same_object() -> None:
    things, numbers, table = [THING], [0.25, 0.5], {"a": THING}
    got = work(THING, things=things, numbers=numbers, table=table)
    assert got["things"] is things and got["numbers"] is numbers and got["table"] is table


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "text for a number": ({"number": "0.5"}, r"number must be a number; got '0\.5' \(str\)\. Write it without quotes"),
    "bool for a number": ({"number": True}, r"number must be a number; got True \(bool\)"),
    "bool for a whole number": ({"count": True}, r"count must be a whole number; got True"),
    "None for a number": ({"number": None}, r"number must be a number; got None\. Leave it out for the default, 0\.5"),
    "half an epoch": ({"count": 1.5}, r"count must be a whole number; got 1\.5"),
    "NaN": ({"number": float("nan")}, r"number must be a finite number; got nan"),
    "infinite": ({"number": float("inf")}, r"number must be a finite number; got inf"),
    "an array for a number": ({"number": np.ones(2)}, r"number must be a number; got a ndarray of shape \(2,\)"),
    "number for a flag": ({"flag": 1}, r"flag must be True or False; got 1"),
    "number for a string": ({"text": 1}, r"text must be a string; got 1"),
    "misspelled": ({"way": "layr"}, r"way must be one of 'layer', 'global'; got 'layr' \(str\)\. Did you mean 'layer'"),
    "misspelled in a list": (
        {"ways": ["layer", "globl"]},
        r"ways must be .*'globl'.* position 1\. Did you mean 'global'",
    ),
    "wrong item": ({"things": [THING, 3]}, r"things must be a list of Things; got 3 \(int\) at position 1"),
    "no list": ({"things": 3}, r"things must be a list of Things; got 3"),
    "a set for a list": ({"things": {THING}}, r"things .*; got a set of 1\. A set has no order; give a list"),
    "a dict of numbers": ({"numbers": {"a": 1.0}}, r"numbers must be a list of numbers; got a dict of 1"),
    "endless": ({"numbers": itertools.count()}, r"numbers .*more than 100,000 items"),
    "list for a dict": (
        {"table": [THING]},
        r"table must be a dict of Things by name or None; got a list of 1\. Give each a name",
    ),
    "wrong value": ({"table": {"a": 3}}, r"table must be .*; got 3 \(int\) at 'a'"),
    "three for two": ({"pair": ("a", "b", "c")}, r"pair must be two strings or None; got \('a', 'b', 'c'\)"),
    "a class": ({"thing": Thing}, r"thing must be a Thing; got the class Thing\. .*make one with Thing\(\.\.\.\)"),
    "one number out of bounds": ({"several": 0}, r"several must be at least 1; got 0"),
    "another table": (
        {"frame": pd.DataFrame({"x": [1]})},
        r"frame must be a table .*columns metric, value; it lacks metric",
    ),
    "no device": ({"device": 0}, r"device must be a device such as 'cpu' or 'cuda' or None; got 0"),
    "no function": ({"function": 3}, r"function must be a function or None; got 3"),
    "ratio": ({"ratio": 1.5}, r"ratio must lie in \[0, 1\): the share removed, so 0\.5 is half; got 1\.5"),
    "no image": ({"images": 0}, r"images must be at least 1; got 0"),
    "a list of a network": (
        {"network": [nn.ReLU()]},
        r"network must be a network \(nn\.Module\) or None; got a list of",
    ),
    "no frame": ({"frame": Thing()}, r"frame must be a table \(DataFrame\) or None; got a Thing"),
    "a name under TYPE_CHECKING": ({"exact": 3}, r"exact must be a Decimal or None; got 3"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_named(case: str) -> None:
    given, words = REFUSED[case]
    with pytest.raises(DgpruneError, match=rf"^work\(\): {words}") as raised:
        work(**{"thing": THING, **given})
    assert not re.search(r"typing|Union|Optional|Sequence\[|dgprune_lab|torch\.nn|<", str(raised.value))
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: work(), r"work\(\) needs the argument 'thing': a Thing"),  # type: ignore[call-arg]
        (lambda: work(THING, rato=0.5), r"work\(\) has no argument 'rato'; it takes thing, .* Did you mean 'ratio'\?"),  # type: ignore[call-arg]
        (lambda: work(THING, 0.5), r"work\(\) takes only thing by position; got 2\. .*by keyword: number="),  # type: ignore[call-arg]
        (lambda: work(THING, device="gpu"), r"unknown device 'gpu'; known: cpu, cuda, mps"),
        (lambda: work(THING, thing=THING), r"work\(\) got thing twice"),  # type: ignore[call-arg]
    ],
)  # fmt: skip
def test_unknown_missing_and_repeated_arguments_are_named(call: Callable[[], object], words: str) -> None:
    with pytest.raises(DgpruneError, match=words):
        call()


@public
class Held:
    """Public methods and the constructor are checked, private ones are not."""

    def __init__(self, count: int = 1) -> None:
        self.count = count

    def more(self, by: int) -> int:
        return self.count + by

    @classmethod
    def of(cls, *, count: int) -> Held:
        return cls(count)

    @staticmethod
    def twice(count: int) -> int:
        return 2 * count

    @property
    def half(self) -> float:
        return self.count / 2

    def _inner(self, by: int) -> int:
        return by


@public
@dataclass(frozen=True, kw_only=True)
class Values:
    count: int
    rows: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Held(given("1")), r"Held\(\): count must be a whole number"),  # type: ignore[arg-type]
        (lambda: Held(1).more("1"), r"Held\.more\(\): by must be a whole number"),  # type: ignore[arg-type]
        (lambda: Held(1).more(1, 2), r"Held\.more\(\) takes only by by position; got 2"),  # type: ignore[call-arg]
        (lambda: Held.of(count="1"), r"Held\.of\(\): count must be"),  # type: ignore[arg-type]
        (lambda: Held.twice(None), r"Held\.twice\(\): count must be"),  # type: ignore[arg-type]
        (lambda: type("Under", (Held,), {})(given("1")), r"Under\(\): count must be"),
        (lambda: Values(count=1.5), r"Values\(\): count must be a whole number; got 1\.5"),  # type: ignore[arg-type]
    ],
)
def test_constructors_and_methods_are_checked(call: Callable[[], object], words: str) -> None:
    with pytest.raises(DgpruneError, match=words):
        call()


def test_a_class_works_as_before() -> None:
    assert Held(2).more(by=np.int64(1)) == 3 and Held.of(count=2).half == 1 and Held.twice(2) == 4  # type: ignore[arg-type]
    assert Held()._inner("x") == "x"  # type: ignore[arg-type]
    assert Values(count=1, rows=[2]) == Values(count=1, rows=(2,))  # type: ignore[arg-type]


def test_signature_and_docstring_stay() -> None:
    assert work.__doc__ == "Return what arrived." and work.__name__ == "work" and work.__module__ == __name__
    assert list(inspect.signature(work).parameters)[:3] == ["thing", "number", "count"]
    assert work.__globals__ is globals()  # doctest finds its examples
    assert inspect.getsource(work).startswith("@public")


def test_other_decorators_may_stand_below() -> None:
    @public
    @contextmanager
    def block(count: int) -> Any:
        yield count

    @lru_cache
    @public
    def kept(count: int = 1) -> int:
        return count

    with block(np.int64(2)) as count:  # type: ignore[arg-type]
        assert count == 2
    with pytest.raises(DgpruneError, match=r"block\(\): count"):
        block(given("2"))
    with pytest.raises(DgpruneError, match=r"kept\(\): count"):
        kept(given("2"))


def test_a_hint_that_cannot_be_resolved_is_not_checked() -> None:
    def odd(first: Nowhere, second: int) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert list(resolved_hints(odd)) == ["second"]
    public(odd)(object(), 1)


def test_nothing_random_is_drawn_and_long_lists_are_not_walked() -> None:
    before, long = random.getstate(), [0.5] * 200_000
    assert work(THING, numbers=long, things=[THING] * 50)["numbers"] is long
    assert random.getstate() == before


# Not checked, and why.
EXEMPT = {
    **dict.fromkeys(("DgpruneError", "DgpruneNote"), "exceptions"),
    **dict.fromkeys(("Diagnostic", "Menu"), "made by a decorator or in one file of the package"),
    **dict.fromkeys(("FilterGraph", "FilterGroup", "Outcomes", "Tuned", "PruningRun"), "results, made by functions"),
    **dict.fromkeys(("AttributionMaps", "Available", "DomainStyle"), "results, made by functions"),
    "Panel": "a protocol; the explorer calls its methods",
    "seeded": "a block around the weights of the networks of this package",
}
CALLED_BY_OTHERS = {
    "forward": "PyTorch calls and traces it",
    "extra_repr": "PyTorch calls it",
    **dict.fromkeys(("open", "listen", "settle", "still", "views_changed", "handle_message"), "the page calls them"),
    **dict.fromkeys(("tick", "background", "unavailable", "close"), "the explorer calls them"),
}
FACES = (
    "dgprune_lab",
    *(f"dgprune_lab.{name}" for name in ("charts", "data", "diagnostics", "experiments", "models", "widgets")),
)
FACES += ("dgprune_lab.models.networks", "dgprune_lab.models.checkpoints", "dgprune_lab.data.external")


def offered(face: str) -> dict[str, Any]:
    module = importlib.import_module(face)
    names = getattr(module, "__all__", [n for n, v in vars(module).items() if getattr(v, "__module__", "") == face])
    values = {name: getattr(module, name) for name in names if not name.startswith("_")}
    return {name: value for name, value in values.items() if callable(value) and not isinstance(value, Mapping)}


def is_checked(function: Any) -> bool:
    while not getattr(function, "is_public", False) and hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return getattr(function, "is_public", False)


def unheld(name: str, thing: Any) -> list[str]:
    """The public callables of a thing that the decorator does not hold, less the exempt ones."""
    if isinstance(thing, Stepwise):
        return [] if is_checked(thing.steps) else [name]
    if not isinstance(thing, type):
        return [] if is_checked(thing) or name in EXEMPT else [name]
    own = [base for base in thing.__mro__ if base.__module__.startswith("dgprune_lab")]
    methods = {n for base in own for n, value in vars(base).items() if isinstance(value, METHODS)}
    missing = [n for n in methods if not (n.startswith("_") or n in CALLED_BY_OTHERS or is_checked(getattr(thing, n)))]
    if name not in EXEMPT and not name.endswith("Panel") and not is_checked(thing.__init__):
        missing.append("__init__")
    return [f"{name}.{method}" for method in sorted(missing)]


METHODS = (types.FunctionType, classmethod, staticmethod)


@pytest.mark.parametrize("face", FACES)
def test_every_public_function_method_and_constructor_is_checked(face: str) -> None:
    things = offered(face)
    assert len(things) >= 2
    assert [missing for name, thing in things.items() for missing in unheld(name, thing)] == []


def test_every_hint_of_a_public_function_can_be_resolved() -> None:
    for face in FACES:
        for name, thing in offered(face).items():
            function: Any = (
                thing.steps if isinstance(thing, Stepwise) else thing.__init__ if isinstance(thing, type) else thing
            )
            written = set(getattr(inspect.unwrap(function), "__annotations__", {})) - {"return"}
            assert set(resolved_hints(function)) == written, f"{face}.{name}"
