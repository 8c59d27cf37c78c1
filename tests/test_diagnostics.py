"""The contract of diagnostics: one signature, called to its end or driven in steps, and a tidy table."""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Generator
from typing import Any

import pandas as pd
import pytest

import dgprune_lab as dg
from dgprune_lab.core.steps import drain
from dgprune_lab.diagnostics._contract import Steps

DIAGNOSTICS = {
    name: item for name in dir(dg.diagnostics) if isinstance(item := getattr(dg.diagnostics, name), dg.Diagnostic)
}
PLAIN: Any = getattr(pydoc, "plaintext")  # noqa: B009 (typeshed lacks it)
ROW = {"scorer": "l1", "metric": "accuracy", "value": 1.0, "unit": "share"}


@dg.diagnostic("plain", extra=("group",))
def plain(study: Any, *, value: float = 1.0) -> pd.DataFrame:
    """Return one row."""
    return dg.tidy([{**ROW, "group": study, "value": value}], extra=("group",))


@dg.diagnostic("stepped")
def stepped(study: Any, *, count: int = 3, progress: bool = False) -> Steps:
    """Return one row after some steps."""
    for done in range(count):
        yield done + 1, count
    return dg.tidy([ROW])


@dg.diagnostic("eager")
def eager(study: Any, *, count: int = 3, progress: bool = False) -> Steps:
    """Check the count, and return the steps."""
    if count < 1:
        raise dg.DgpruneError(f"count must be at least 1; got {count}.")
    return stepped.steps(study, count=count)


def test_a_call_and_its_steps_return_the_same_table() -> None:
    cases: list[tuple[Any, dict[str, Any]]] = [(plain, {"value": 2.0}), (stepped, {"count": 4}), (eager, {"count": 2})]
    for item, options in cases:
        steps = item.steps("x", **options)
        assert isinstance(steps, Generator)
        pd.testing.assert_frame_equal(drain(steps), item("x", **options))
    assert list(plain.steps("x")) == [] and list(stepped.steps("x", count=2)) == [(1, 2), (2, 2)]


def test_arguments_are_checked_before_the_first_step() -> None:
    with pytest.raises(dg.DgpruneError, match="got 0"):
        eager.steps("x", count=0)


def test_progress_draws_a_bar_only_when_called(capsys: pytest.CaptureFixture[str]) -> None:
    drain(stepped.steps("x", progress=True))
    stepped("x")
    assert capsys.readouterr().err == ""
    stepped("x", count=5, progress=True)
    assert "5/5" in capsys.readouterr().err


def test_a_table_without_the_declared_columns_is_refused() -> None:
    @dg.diagnostic("short", extra=("group",))
    def short(study: Any) -> pd.DataFrame:
        """Return a table without its column."""
        return dg.tidy([ROW])

    with pytest.raises(dg.DgpruneError, match=r"'short' must return a table from tidy.*lacks group"):
        short("x")
    with pytest.raises(dg.DgpruneError, match="'bare' needs a docstring"):
        dg.diagnostic("bare")(lambda study: dg.tidy([ROW]))


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_signature_and_docstring_are_those_of_the_function(name: str) -> None:
    item = DIAGNOSTICS[name]
    function = inspect.unwrap(item)  # type: ignore[arg-type]
    assert inspect.isfunction(function) and function.__name__ == item.name == name
    signature = inspect.signature(item)
    assert signature.parameters == inspect.signature(item.steps).parameters == inspect.signature(function).parameters
    assert signature.return_annotation == "pd.DataFrame" and item.__doc__ == function.__doc__
    assert f"{name}{signature}" in pydoc.render_doc(item, renderer=PLAIN)
