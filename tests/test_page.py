"""The explorer's page as it is written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from explorer_state import HOSTILE, make_frame, make_state
from material import domain, norm_net, randomise

import dgprune_lab as dg
from dgprune_lab.commands.report import study_of, write_report
from dgprune_lab.core import Provenance, set_provenance
from dgprune_lab.core.errors import DgpruneError
from dgprune_lab.widgets.page import static
from dgprune_lab.widgets.page import vega as host
from dgprune_lab.widgets.page.standalone import inlined, write_page


def test_the_page_is_one_small_file(tmp_path: Path) -> None:
    text = write_page(tmp_path / "deep" / "page.html", make_state(), title="A <title> & more").read_text(
        encoding="utf-8"
    )
    assert len(text.encode()) < 5e6
    assert "<title>A &lt;title&gt; &amp; more</title>" in text
    ours = text.replace(host.vega_bundle(kind="script").replace("</script", "<\\/script").replace("<!--", "<\\!--"), "")
    assert len(ours) < len(text) - 500_000, "the bundle stands in the page as it is"
    assert not re.search(
        r"<(script|link|img)[^>]+(src|href)\s*=|https?://(?!vega\.github\.io/schema|www\.w3\.org/)", ours
    )
    assert "default-src &#x27;none&#x27;" in text
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["page.html"]


def test_no_text_ends_a_script(tmp_path: Path) -> None:
    state = make_state(target=HOSTILE)
    text = write_page(tmp_path / "page.html", state, title=HOSTILE).read_text(encoding="utf-8")
    assert text.count("</script>") == 3 and "<img src=http" not in text
    match = re.search(r'<script type="application/json" class="state">(.*?)</script>', text, re.DOTALL)
    assert match and json.loads(match[1])[0]["static"]["domains"][2]["name"] == HOSTILE
    assert json.loads(inlined({"a": "</script><!--\u2028"})) == {"a": "</script><!--\u2028"}


def test_a_state_that_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DgpruneError, match="needs 'choice'"):
        write_page(tmp_path / "page.html", {"static": {}}, title="x")
    with pytest.raises(DgpruneError, match="unknown trait 'sttic'"):
        write_page(tmp_path / "page.html", {"sttic": {}}, title="x")


def test_the_joined_module_has_one_default_export_and_no_import() -> None:
    text = static.module()
    assert text.rstrip().endswith("export default explorer.default;")
    assert len(re.findall(r"^(?:import|export)\b", text, re.MULTILINE)) == 1
    assert "innerHTML" not in text and "insertAdjacentHTML" not in text


def test_every_focusable_element_keeps_its_keys() -> None:
    created = re.findall(r"createElement\((.*?)\)", static.module())
    assert created == ["tag"], "elements are made in one place, which marks the focusable ones"


def test_the_bundle_is_kept_and_a_broken_file_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vl_convert

    made: list[str] = []

    def bundle(snippet: str, *, vl_version: str) -> str:
        made.append(vl_version)
        return f"/* vega {vl_version} */ {snippet}"

    monkeypatch.setattr(vl_convert, "javascript_bundle", bundle)
    monkeypatch.setattr(host, "vega_bundle", cache(host.vega_bundle.__wrapped__))
    monkeypatch.setattr(host.platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    first = host.vega_bundle()
    path = host.cache_path(kind="module")
    assert path.read_text(encoding="utf-8") == first and "initialize" in first and len(made) == 1
    host.vega_bundle.cache_clear()
    assert host.vega_bundle() == first and len(made) == 1
    host.vega_bundle.cache_clear()
    path.write_text(first[:20], encoding="utf-8")
    assert host.vega_bundle() == first and len(made) == 2
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vl_convert

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda snippet, vl_version: snippet)
    monkeypatch.setattr(host, "vega_bundle", cache(host.vega_bundle.__wrapped__))
    monkeypatch.setattr(host.platformdirs, "user_cache_dir", lambda name: str(tmp_path / "file" / name))
    assert "window.vegaEmbed" in host.vega_bundle(kind="script")


@pytest.mark.slow
def test_one_host_per_kernel() -> None:
    code = "from dgprune_lab.widgets.page.vega import vega_host as h; a = h()\n"
    code += "assert a is h() and a.ref[:10] == 'anywidget:'"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


@pytest.fixture(scope="module")
def study() -> dg.Study:
    model = randomise(norm_net(), dtype=torch.float32)
    set_provenance(model, Provenance(training={"a/train": "labels", "b/train": "labels"}))
    sources = [domain(name, count=60, seed=k) for k, name in enumerate("ab")]
    return dg.Study(model, sources=sources, targets=[domain(HOSTILE, count=60, seed=2)], name=HOSTILE)


def state_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" class="state">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])[0]


@pytest.fixture
def few_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, ratios in (("_COARSE", [0.0, 0.25, 0.5, 0.75]), ("_FINE", [0.0, 0.25, 0.37, 0.5, 0.75])):
        monkeypatch.setattr(f"dgprune_lab.widgets.study_report.{name}", ratios)


@pytest.mark.usefixtures("few_ratios")
def test_a_report_shows_what_was_measured_and_how_to_read_it(study: dg.Study, tmp_path: Path) -> None:
    path = dg.report(study, tmp_path / "r.html", scorers=["l1", "dss"], seconds=1e9, progress=False)
    text = path.read_text("utf-8")
    assert path.stat().st_size < 5_000_000 and "<img src=http" not in text and text.count("</script>") == 3
    for curve in state_of(text)["curves"]:
        scorer, setting = curve["key"][0], curve["key"][3]
        assert [row["ratio"] for row in curve["rows"]] == [0.0, 0.25, 0.37, 0.5, 0.75]
        mask = dg.allocate(study.score(scorer), ratio=0.37)
        dots = {dot["domain"]: dot["value"] for dot in curve["rows"][2]["dots"]}
        for name, value in dots.items():
            assert value == pytest.approx(100 * study.outcomes(mask, domain=name, batchnorm=setting).accuracy)
    images = re.findall(r"<figure>.*?</figure>", text)
    assert [figure.count('<img src="data:image/png') for figure in images] == [4, 4, 4], "an image of each class"
    full = 100 * study.outcomes(None, domain="a").accuracy
    first = re.search(r"full network</th><td>0 %</td><td>100 %</td><td>(\d+) ", text)
    assert first is not None and int(first[1]) == round(full)
    words = [
        "labels of a (train), b (train)",
        "DSS (source vs target) ◇</th><td>images of a (score)",
        "without fine-tuning",
    ]
    words += [f"dgprune-lab {dg.__version__}", "How to read this page", "◇</b> Target-aware", "60 reported images"[1:]]
    assert [part for part in words if part not in text] == []
    marks = re.findall(r'<th scope="row">([^<]*)</th>(?:<td>[^<]*</td>){4}<td>([^<]*)</td></tr>', text)
    aware = {name: cell.endswith("◇") for name, cell in marks}
    assert aware == {"full network": False, "L1 norm (weights)": False, "DSS (source vs target) ◇": True}
    if os.name == "posix":
        os.umask(umask := os.umask(0))
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.usefixtures("few_ratios")
def test_the_bar_of_a_report_knows_the_total_of_each_stage(
    study: dg.Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dg.report(study, tmp_path / "r.html", scorers=["l1"], seconds=1e9)
    shown = re.findall(r"(\d+)/(\d+) \[[^\]]*(steps of [^\]]*)\]", capsys.readouterr().err)
    assert {(int(total), stage) for _, total, stage in shown} == {
        (8, "steps of 5 %"),
        (1, "steps of 1 %, curve 1 of up to 2"),
        (1, "steps of 1 %, curve 2 of up to 2"),
    }
    assert shown[-1][0] == "1" and all(int(done) <= int(total) for done, total, _ in shown)


@pytest.mark.usefixtures("few_ratios")
def test_a_report_in_haste_has_large_steps_alone(study: dg.Study, tmp_path: Path) -> None:
    text = dg.report(study, tmp_path / "r.html", scorers=["random"], seconds=0, progress=False).read_text("utf-8")
    assert [len(curve["rows"]) for curve in state_of(text)["curves"]] == [4, 4]
    assert "Target-aware" not in text.split("</noscript>")[1].split("<script")[0]


MINE = """
import beside
import dgprune_lab as dg
def make():
    import beside_too
    return beside.build()
study = beside.build()
nothing = 3
def needs(size): pass
"""


def test_a_report_of_a_study_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "beside.py").write_text("from test_page import *\ndef build(): return small()\n")
    (tmp_path / "beside_too.py").write_text("")
    file = str(tmp_path / "mine.py")
    assert all(isinstance(study_of(file, name), dg.Study) for name in ("make", "study"))
    monkeypatch.chdir(tmp_path)
    assert isinstance(study_of("mine", "make"), dg.Study), "a module of the folder in which one works"
    with pytest.raises(DgpruneError, match=r"unknown study 'digit'.*Did you mean 'digits'"):
        write_report("digit", tmp_path / "page.html")
    asked = {}
    monkeypatch.setattr(
        "dgprune_lab.commands.report.report", lambda study, path, **more: asked.update({path: study.name})
    )
    for what in (file, f"{file}:make", "mine:study"):
        write_report(what, tmp_path / f"{len(asked)}.html")
    assert [*asked.values()] == ["small"] * 3
    wrong = {
        f"{file}:mak": "has no 'mak'",
        f"{file}:nothing": "nothing in .*mine.py is int, not a Study",
        "mine.py.gone.py": "there is no file",
        "nowhere.to:be": "there is no module 'nowhere.to'",
        "../mine:study": r"'\.\./mine' is not the name of a module",
        ":make": "'' is not the name of a module",
        f"{file}:needs": "needs in .*mine.py needs arguments .*'size'",
        "lacking.py": "lacking.py cannot be run: No module named 'not_there'",
        "lacking:study": "lacking cannot be run: No module named 'not_there'",
        "slip.py": "slip.py cannot be run: .*slip.py, line 1",
        "raises.py:make": r"raises.py stops with KeyError: 'a' \(at line 1 of raises.py, def make\(\): .*\)",
    }
    (tmp_path / "lacking.py").write_text("import not_there")
    (tmp_path / "slip.py").write_text("study = (")
    (tmp_path / "raises.py").write_text("def make(): return {}['a']")
    for what, words in wrong.items():
        with pytest.raises(DgpruneError, match=words):
            write_report(what, tmp_path / "page.html")
    with pytest.raises(DgpruneError, match="--output must name a file"):
        write_report("never_imported:x", tmp_path)


@pytest.mark.usefixtures("few_ratios")
def test_a_report_says_what_is_not_recorded_and_what_agreement_is(study: dg.Study, tmp_path: Path) -> None:
    def page(network: Any, **given: Any) -> str:
        made = dg.Study(network, sources=study.sources, targets=[domain("t", labelled=False)], **given)
        return dg.report(made, tmp_path / "r.html", scorers=["l1"], seconds=0, progress=False).read_text("utf-8")

    stages = r">(Training|Fine-tuning|Choice of the network)</th><td>([^<]*)<"
    foreign = page(randomise(norm_net(), dtype=torch.float32), trained_on=["a"])
    said = {"Training": "labels of a (any split)", "Fine-tuning": "not recorded"}
    assert dict(re.findall(stages, foreign)) == {**said, "Choice of the network": "not recorded"}
    assert "Agreement.</b> The share of images" in foreign and "Accuracy or agreement in percent" in foreign
    known = dict(re.findall(stages, page(study.model)))
    assert known["Fine-tuning"] == known["Choice of the network"] == "nothing"


def test_a_report_without_a_scorer_that_can_run_is_refused_with_the_reasons(tmp_path: Path) -> None:
    for scorers, reason in ((["dss"], "dss: .*target"), ([], "got none")):
        with pytest.raises(DgpruneError, match=rf"scorers must hold one that can run on this study \({reason}"):
            dg.report(small(), tmp_path / "page.html", scorers=scorers)
    assert not list(tmp_path.iterdir())


def small() -> dg.Study:
    return dg.Study(randomise(norm_net(), dtype=torch.float32), sources=[domain("a", count=12)], name="small")


def test_a_long_name_in_chart_d_keeps_its_mark_within_the_room_beside_the_plot() -> None:
    label = make_frame("dss", 0.5, target="art_painting").payload["drops"][-1]["label"]
    assert label == "art_pain… ◇"
