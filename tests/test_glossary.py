"""The glossary: every word has a picture and names what exists; both show in a notebook."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

import dgprune_lab as dg
from dgprune_lab.widgets.glossary.entry import PICTURES, Entry

ENTRIES = list(dg.glossary())
HOLD = 0.6  # width of a letter, in units of its size; a wide estimate


@pytest.fixture(params=ENTRIES, ids=[entry.word for entry in ENTRIES])
def entry(request: pytest.FixtureRequest) -> Entry:
    return request.param


def test_words_are_found_as_people_write_them() -> None:
    assert 20 <= len(dg.glossary()) == len({entry.word for entry in ENTRIES}) == len(PICTURES)
    assert dg.glossary("Target_Aware") == dg.glossary("target-aware") != dg.glossary("target")
    with pytest.raises(dg.DgpruneError, match=r"unknown word 'domian'.*Did you mean 'domain'"):
        dg.glossary("domian")


def test_what_stands_in_code_exists(entry: Entry) -> None:
    names = re.findall(r"dg((?:\.\w+)+)", f"{entry.where} {entry.text}")
    assert names
    for name in names:
        thing = dg
        for part in name[1:].split("."):
            thing = getattr(thing, part)
    for scorer in re.findall(r'SCORERS\["(\w+)"\]', entry.where):
        assert scorer in dg.SCORERS


def test_a_scorer_is_explained_by_its_own_docstring() -> None:
    doc = dg.SCORERS["dss"].function.__doc__ or ""
    assert doc.splitlines()[0] in dg.glossary("dss").text


def test_a_picture_is_drawn_in_the_colours_of_the_page_and_holds_its_words(entry: Entry) -> None:
    root = ElementTree.fromstring(entry.picture)
    colours = {element.get(name) for element in root.iter() for name in ("fill", "stroke")}
    assert colours <= {None, "none", "currentColor", "var(--dg-source)", "var(--dg-target)"}
    for words in (element for element in root.findall("text")):
        size, text = float(words.get("font-size") or 0), words.text or ""
        width = HOLD * size * len(text)
        left = (
            float(words.get("x") or 0) - {"start": 0, "middle": width / 2, "end": width}[words.get("text-anchor") or ""]
        )
        assert left >= -10 and left + width <= 210 and 6 <= float(words.get("y") or 0) <= 98, text


def test_a_notebook_shows_picture_and_words_as_html_and_as_text(entry: Entry) -> None:
    shown = entry._repr_mimebundle_()
    assert shown["text/html"].count("<svg") == 1 and "<style>" in shown["text/html"]
    assert entry.text in shown["text/plain"]
    assert not re.search(r"<(?!/?(style|div|svg|p|strong|code|rect|g|text|polyline|path|circle)\b)", shown["text/html"])


def test_all_words_are_one_page() -> None:
    shown = dg.glossary()._repr_mimebundle_()
    assert shown["text/html"].count("<svg") == len(ENTRIES) and shown["text/html"].count("<style>") == 1
    assert all(entry.word in shown["text/plain"] for entry in ENTRIES)
