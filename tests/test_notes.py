"""Notes: warnings that can be filtered, passed to a handler, issued once where asked, plain lines in a notebook."""

from __future__ import annotations

import sys
import warnings
from types import SimpleNamespace

import pytest

import dgprune_lab as dg
from dgprune_lab.core.errors import collect_notes, note, note_once


def test_a_note_is_a_warning_that_names_the_toolkit() -> None:
    with pytest.warns(dg.DgpruneNote, match="a thing") as notes:
        note("a thing")
    assert notes[0].filename == "dgprune_lab"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.DgpruneNote)
        note("not noted")
    with pytest.raises(dg.DgpruneNote), warnings.catch_warnings():
        warnings.simplefilter("error")
        note("raised")


def test_a_handler_gets_the_notes_of_its_block() -> None:
    notes: list[str] = []
    with collect_notes(notes.append):
        note("inside")
        with collect_notes(None), pytest.warns(dg.DgpruneNote, match="as a warning"):
            note("as a warning")
    assert notes == ["inside"]
    with pytest.warns(dg.DgpruneNote, match="outside"):
        note("outside")


def test_what_repeats_is_note_once_whatever_its_numbers() -> None:
    notes: list[str] = []
    with collect_notes(notes.append):
        with note_once():
            for count in (14, 15, 2.5):
                note(f"only {count} images")
            note("another thing")
        note("only 3 images")
    assert notes == ["only 14 images", "another thing", "only 3 images"]


def test_in_a_notebook_it_is_a_plain_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=object))
    monkeypatch.setattr("dgprune_lab.core.errors._printed", set())
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for text in ("a thing", "a thing", "another"):
            note(text)
        assert capsys.readouterr() == ("Note: a thing\nNote: another\n", "")
        warnings.simplefilter("ignore", dg.DgpruneNote)
        note("filtered")
        assert capsys.readouterr().out == ""
        warnings.simplefilter("error")
        with pytest.raises(dg.DgpruneNote):
            note("raised")
