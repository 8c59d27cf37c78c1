"""The charts of a study as data: what is significant, what looked at a target, what a claim came to."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import vl_convert

from dgprune_lab import DgpruneError, DgpruneNote, charts, tidy
from dgprune_lab.charts.claims import claim_rows
from dgprune_lab.charts.experiment import cells
from dgprune_lab.charts.theme import FIRST_SOURCE, FIRST_TARGET, TARGET_AWARE
from dgprune_lab.experiments import (
    Claim,
    claims_in_words,
    claims_view,
    shipped,
    shipped_claims,
    shipped_comparison,
    verdict,
    verdict_sentences,
)

HOSTILE = "a.b['c'][0]\\.<b onload=x>\n{{datum}} \"q\" 数字"
EXTRA = ("seeds", "pairs", "minimum_detectable_effect", "p_value", "p_holm", "baseline", "finetuned", "rounds")
DOMAINS = (("mnist", "source"), ("mnist_m", "target"))


def compared(*, scorer: str = "dss", finetuned: tuple[bool, ...] = (True,), metric: str = "difference") -> pd.DataFrame:
    """Differences to l1 at 40 and 80 %: of `scorer` significant at 80 %, of random nowhere; more rounds at 80 %."""
    rows: list[dict[str, Any]] = []
    for name, aware in ((scorer, True), ("random", False)):
        for domain, role in DOMAINS:
            for tuned in finetuned:
                for ratio in (0.4, 0.8):
                    value, half = (0.03 if aware and ratio == 0.8 else 0.01), 0.02
                    about = {"scorer": name, "domain": domain, "role": role, "ratio_requested": ratio, "unit": "share"}
                    about |= {"metric": metric, "value": value, "low": value - half, "high": value + half}
                    about |= {"minimum_detectable_effect": half, "p_holm": 0.01 if value > half else 0.4}
                    about |= {"target_aware": aware, "seen_by_scorer": "none", "baseline": "l1", "seeds": "0, 1, 2"}
                    rows.append({**about, "finetuned": tuned, "rounds": 2 if ratio == 0.4 else 3})
    return tidy(rows, extra=EXTRA)


def drawn(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return cells(frame, of="scorer", over="ratio_requested")


def faceted(spec: dict[str, Any]) -> dict[str, Any]:
    return spec["hconcat"][0]


def test_a_difference_is_in_points_with_its_interval_and_what_could_have_been_seen() -> None:
    first = drawn(compared())[0]
    assert (first["at"], first["value"]) == pytest.approx((40, 1.0))
    assert (first["low"], first["high"]) == pytest.approx((-1.0, 3.0))
    assert (first["least"], first["most"], first["smallest"]) == pytest.approx((-2.0, 2.0, 2.0))
    spec = charts.experiment(compared()).to_dict()
    assert spec["title"]["text"] == "Accuracy minus that of l1 (points)"
    assert faceted(spec)["spec"]["layer"][0]["mark"]["type"] == "bar"
    assert faceted(spec)["spec"]["layer"][1]["encoding"]["y"]["axis"]["gridOpacity"]["condition"]["test"]
    assert faceted(spec)["spec"]["layer"][1]["encoding"]["y"]["scale"]["zero"] is True


def test_only_a_significant_dot_is_filled() -> None:
    fills = {(row["row"], row["column"], row["at"]): row["fill"] for row in drawn(compared())}
    assert fills["dss ◇", "mnist (source)", 80.0] == FIRST_SOURCE
    assert fills["dss ◇", "mnist_m (target)", 80.0] == FIRST_TARGET
    assert sum(fill == "transparent" for fill in fills.values()) == 6
    unknown = compared().assign(p_holm=float("nan"), minimum_detectable_effect=float("nan"))
    assert {row["fill"] for row in drawn(unknown)} == {"transparent"}, "one pair proves nothing"
    assert {row["least"] for row in drawn(unknown)} == {None}


def test_the_style_is_the_domains_and_a_look_at_the_target_is_marked() -> None:
    rows = drawn(compared())
    assert {(row["column"], row["colour"]) for row in rows} == {
        ("mnist (source)", FIRST_SOURCE),
        ("mnist_m (target)", FIRST_TARGET),
    }
    assert {row["row"] for row in rows} == {"dss ◇", "random"}
    ringed = {(row["row"], row["column"]) for row in rows if row["ring"] == TARGET_AWARE}
    assert ringed == {("dss ◇", "mnist_m (target)")}


def test_settings_make_columns_only_where_rows_would_lie_on_one_another() -> None:
    assert len({row["column"] for row in drawn(compared())}) == 2, "the rounds depend on the ratio alone"
    columns = {row["column"] for row in drawn(compared(finetuned=(True, False)))}
    assert columns == {f"{name} ({role})\nfinetuned {tuned}" for name, role in DOMAINS for tuned in (True, False)}
    halves = [compared().assign(score_split=name) for name in ("score", "report")]
    own = pd.concat([halves[0], halves[1].query("scorer == 'dss'")])
    own = pd.concat([own, own.query("scorer == 'random'").assign(scorer="taylor")])
    own.loc[own.scorer == "random", "score_split"] = None
    rows = {row["row"] for row in drawn(own)}
    assert rows == {"dss ◇\nscore split score", "dss ◇\nscore split report", "random", "taylor"}
    assert len({row["column"] for row in drawn(own)}) == 2
    many = pd.concat([compared().assign(domain=f"d{k}") for k in range(9)])
    with pytest.raises(DgpruneError, match=r"9 columns .* frame\[frame.domain == 'd0'\]"):
        charts.experiment(many)


@pytest.mark.parametrize(("width", "names"), [(105, ("fashion_mnist", "cifar10")), (150, (8 * "long_name",) * 2)])
def test_the_headings_of_neighbouring_panels_do_not_meet(width: int, names: tuple[str, str]) -> None:
    frame = pd.concat([compared().assign(data_set=f"{k}{name}") for k, name in enumerate(names)])
    panels = faceted(charts.experiment(frame, width=width).to_dict())
    room, limit = width + panels["spacing"]["column"], panels["facet"]["column"]["header"]["labelLimit"]
    assert limit < room, "a wider font is cut, and never lies on the next heading"
    assert 6 * max(len(line) for row in drawn(frame) for line in row["column"].split("\n")) <= limit


def test_the_interval_does_not_shine_through_a_hollow_dot() -> None:
    layers = faceted(charts.experiment(compared()).to_dict())["spec"]["layer"]
    assert [layer["mark"].get("style") for layer in layers] == ["track", None, None, "halo", None]
    hole, point = layers[-2:]
    assert hole["mark"]["filled"] and hole["mark"]["size"] == point["mark"]["size"]
    assert hole["encoding"]["shape"] == point["encoding"]["shape"]
    drawing = vl_convert.vegalite_to_svg(charts.experiment(compared().assign(p_holm=1.0)).to_dict())
    assert drawing.count('fill="#FFFFFF"') == len(drawn(compared())), "white below each dot"


def test_averages_have_no_zero_no_bar_and_filled_dots() -> None:
    frame = compared(metric="accuracy").assign(p_holm=float("nan"))
    spec = charts.experiment(frame).to_dict()
    assert spec["title"]["text"] == "Accuracy (%)"
    assert [layer["mark"]["type"] for layer in faceted(spec)["spec"]["layer"]] == ["line", "point", "rule", "point"]
    assert faceted(spec)["spec"]["layer"][0]["encoding"]["y"]["scale"]["zero"] is False
    assert {row["fill"] for row in drawn(frame)} == {FIRST_SOURCE, FIRST_TARGET}
    assert {row["least"] for row in drawn(frame)} == {None}


def claimed(**changes: Any) -> dict[str, Any]:
    about = {
        "claim": "DSS gains",
        "paper": "Sun 2023, arXiv:1",
        "published": "+5 points",
        "claimed": 0.05,
        "estimate": 0.01,
    }
    about |= {"low": -0.01, "high": 0.03, "minimum_detectable_effect": 0.02, "unit": "share", "seeds": "0, 1"}
    return {**about, "verdict": "no", "note": "", **changes}


def test_a_claim_is_a_row_with_its_published_size_and_verdict() -> None:
    rank = claimed(claim="Rank", unit="rank", estimate=-0.2, low=-0.5, high=0.1, claimed=None, verdict="cannot tell")
    first, second = claim_rows(pd.DataFrame([claimed(), rank]))
    assert (first["estimate"], first["bound"], first["least"], first["most"]) == pytest.approx((1, 5, -2, 2))
    assert first["lines"] == "DSS gains (Sun 2023)" and first["verdict"] == "no"
    assert second["estimate"] == -0.2 and second["bound"] is None, "a rank is no share"
    assert claim_rows(pd.DataFrame([claimed(claimed=None, margin=0.02)]))[0]["bound"] == -2, "what counts as kept"
    spec = charts.claims(pd.DataFrame([claimed(), rank, claimed(claim="again")])).to_dict()
    panels = spec["hconcat"][0]["vconcat"]
    named = [
        next(iter(layer["data"]["values"] for layer in panel["layer"] if "values" in layer["data"])) for panel in panels
    ]
    assert [[row["claim"] for row in rows] for rows in named] == [["DSS gains", "again"], ["Rank"]]


def test_tables_of_another_kind_are_refused() -> None:
    with pytest.raises(DgpruneError, match="no column 'verdict'"):
        charts.claims(pd.DataFrame([claimed()]).drop(columns="verdict"))
    with pytest.raises(DgpruneError, match="no claims"):
        charts.claims(pd.DataFrame([claimed()]).iloc[:0])
    with pytest.raises(DgpruneError, match="table of another kind"):
        charts.experiment(compared().drop(columns="seeds"))


@pytest.mark.parametrize("name", ["experiment", "claims"])
def test_vega_draws_it_and_a_users_text_is_only_a_value(name: str) -> None:
    frame = (
        compared(scorer=HOSTILE) if name == "experiment" else pd.DataFrame([claimed(claim=HOSTILE, verdict=HOSTILE)])
    )
    svg = vl_convert.vegalite_to_svg(getattr(charts, name)(frame).to_dict())
    assert svg.startswith("<svg") and "NaN" not in svg and "<b onload" not in svg
    if name == "experiment":
        assert svg.index("a.b[") < svg.index(">random<"), "the order of the table"


def test_the_claims_of_what_ships_say_which_tables_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {"mnist_m": 0.03, "mnist_m_quick": 0.5, "gc_net_quick": -0.2, "pacs": 0.0}

    def study(name: str) -> Any:
        def claims(frame: pd.DataFrame) -> list[Claim]:
            if name == "pacs":
                raise DgpruneError("there is no pair.")
            low, high = float(frame["value"].iloc[0]) - 0.01, float(frame["value"].iloc[0]) + 0.01
            about = {
                key: value for key, value in claimed(claimed=None).items() if key not in ("low", "high", "verdict")
            }
            return [Claim(**about, low=low, high=high, verdict=verdict(low, high))]

        return SimpleNamespace(claims=claims)

    module = sys.modules["dgprune_lab.experiments.shipped_claims"]
    monkeypatch.setattr(module, "shipped_names", lambda: sorted(tables))
    monkeypatch.setattr(module, "shipped", lambda name: compared().assign(value=tables[name]))
    monkeypatch.setattr(module, "shipped_card", lambda name: {"seeds": [0, 1, 2], "date": "2026-11-27"})
    monkeypatch.setattr(module, "study_named", study)
    with pytest.warns(DgpruneNote, match="pacs says nothing about the claims: there is no pair"):
        found = shipped_claims()
    assert list(found["table"]) == ["mnist_m", "gc_net_quick"] and list(found["study"]) == ["mnist_m", "gc_net"]
    assert list(found["protocol"]) == ["3 training seeds, 2026-11-27", "quick form: proves nothing"]
    with pytest.warns(DgpruneNote, match="pacs says nothing"):
        assert list(shipped_claims(quick=False)["table"]) == ["mnist_m"]
    assert list(shipped_claims(studies=["gc_net", "mnist_m"])["table"]) == ["mnist_m", "gc_net_quick"]
    assert shipped_claims(studies=["gc_net"], quick=False).empty
    with pytest.raises(DgpruneError, match=r"unknown study 'mnist'.*Did you mean 'mnist_m'"):
        shipped_claims(studies=["mnist"])
    small = "Not judged, as a quick form proves nothing (1 of 2): gc_net_quick."
    assert verdict_sentences(found) == f"{small} Holds here (1 of 1): DSS gains."
    judged = found.assign(verdict=["yes", "no"])
    assert verdict_sentences(judged) == "Holds here (1 of 2): DSS gains. Does not hold here (1 of 2): DSS gains."
    assert [row["verdict"] for row in claim_rows(found)] == ["yes", "proves nothing"]
    assert list(claims_in_words(found)["verdict"]) == ["yes", "proves nothing"]
    read = claims_in_words(found).iloc[0]
    assert (read["estimate"], read["detectable"]) == ("+1.0 points (+2.0 to +4.0)", "2.0 points")
    assert (read["table"], read["paper"], read["seeds"]) == ("mnist_m", "Sun 2023", "2")
    own = judged.assign(ours=[True, False])
    theirs, controls = verdict_sentences(own).split(" Controls and questions of ours. ")
    assert theirs == "Claimed by the papers. Does not hold here (1 of 1): DSS gains."
    assert controls == "Holds here (1 of 1): DSS gains."
    assert list(claims_in_words(own)["paper"]) == ["ours, after Sun 2023", "Sun 2023"]
    assert "(ours, after Sun 2023)" in claim_rows(own)[0]["lines"] and "ours" not in claim_rows(own)[1]["lines"]
    correlation = claims_in_words(found.assign(unit="correlation")).iloc[0]
    assert correlation["estimate"] == "+0.01 correlation (+0.02 to +0.04)", "a tenth of a correlation is too coarse"
    view = claims_view(found.assign(claim="<b>more</b>"), columns=["claim", "verdict"]).to_html()
    assert "&lt;b&gt;more" in view and "proves nothing" in view and "Sun 2023" not in view
    assert "min-width: 110px" in claims_view(found).to_html() and claims_view(found.head(0)).to_html()
    with pytest.raises(DgpruneError, match=r"unknown column 'verdit'.*Did you mean 'verdict'"):
        claims_view(found, columns=["verdit"])
    for name in (verdict_sentences, claims_in_words, claims_view):
        with pytest.raises(DgpruneError, match="claims must be a table with the columns claim, paper"):
            name(compared())
    assert "(1 of 2): DSS gains" in verdict_sentences(found.drop(columns="table")), "a quick form without its table"
    monkeypatch.setattr(module, "shipped_names", list)
    assert verdict_sentences(shipped_claims()) == "No claim was tested."
    assert shipped_claims().empty and "table" in shipped_claims()


@pytest.mark.parametrize("study", ["mnist_m", "gc_net", "pacs"])
def test_the_comparison_of_a_shipped_study_is_the_mean_of_its_runs(study: str) -> None:
    frame, table = shipped_comparison(study), shipped(study)
    row = frame[(frame["scorer"] == "random") & (frame["role"] == "target")].iloc[-1]
    same = {"metric": "accuracy", "role": "target", "ratio_requested": row["ratio_requested"], "finetuned": True}
    same |= {"level": "filter", "data_set": row.get("data_set"), "objective": "miro"}
    for name in set(same) & set(table.columns):
        table = table.loc[table[name] == same[name]]
    started = table["start"].isna() if "start" in table else table["run"].notna()
    mean = {name: rows["value"].mean() for name, rows in table[started].groupby("scorer")}
    assert row["value"] == pytest.approx(mean["random"] - mean[row["baseline"]], abs=1e-9)
    assert row["baseline"] == ("l1" if study == "gc_net" else "dense_tuned")
    assert study == "mnist_m" or row["domain"].startswith("mean of")


def test_a_study_of_which_a_quick_form_alone_ships_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["dgprune_lab.experiments.shipped_claims"], "shipped_names", lambda: ["pacs_quick"])
    with pytest.raises(DgpruneError, match="dgprune-lab experiment pacs"):
        shipped_comparison("pacs")
    with pytest.raises(DgpruneError, match="unknown study 'pcs'"):
        shipped_comparison("pcs")


def test_a_study_without_a_baseline_is_not_compared() -> None:
    with pytest.raises(
        DgpruneError, match=r"'prunability' compares no choices with a baseline; shipped\('prunability'\)"
    ):
        shipped_comparison("prunability")


def test_a_choice_without_a_domain_leaves_its_panel_empty_and_moves_no_other() -> None:
    frame = compared().query("not (scorer == 'dss' and domain == 'mnist')")
    assert [row["row"] for row in drawn(frame) if row["value"] is None] == ["dss ◇"]
    places = {(row["row"], row["column"], row["row_place"], row["column_place"]) for row in drawn(frame)}
    assert places == {
        ("dss ◇", "mnist_m (target)", 0, 0),
        ("dss ◇", "mnist (source)", 0, 1),
        ("random", "mnist_m (target)", 1, 0),
        ("random", "mnist (source)", 1, 1),
    }, "Vega draws what follows a missing panel in its place"
