"""The charts of pruning with fine-tuning, as data: who wins over training seeds, and a run from cut to cut."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from dgprune_lab import charts
from dgprune_lab.charts.after_finetuning import detectable_lines, difference_rows
from dgprune_lab.charts.theme import FIRST_SOURCE, FIRST_TARGET, TARGET_AWARE
from dgprune_lab.charts.training import training_data
from dgprune_lab.core import DgpruneError
from dgprune_lab.core.tables import tidy
from dgprune_lab.diagnostics.after_finetuning import EXTRA as SEED_COLUMNS
from dgprune_lab.training import EXTRA

HOSTILE = "a.b['c'][0]\\.<b onload=x>\n{{datum}} \"q\" 数字"
DOMAINS = (("mnist", "source", 0.97), ("mnist_m", "target", 0.6))


def differences(*, ratios: tuple[float, ...] = (0.5,), scorer: str = "dss") -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for ratio in ratios:
        for name, role, top in DOMAINS:
            shared = {"ratio_requested": ratio, "domain": name, "role": role, "unit": "share"}
            rows.append({**shared, "scorer": "l1", "metric": "accuracy", "value": top, "target_aware": False})
            for k, (named, aware) in enumerate((("random", False), (scorer, True))):
                value, half = -0.02 + 0.03 * k, 0.004 + 0.06 * k * (role == "target")
                rows.append(
                    {
                        **shared,
                        "scorer": named,
                        "metric": "difference",
                        "value": value,
                        "low": value - half,
                        "high": value + half,
                        "interval": "seeds",
                        "seeds": "0, 1, 2",
                        "minimum_detectable_effect": half,
                        "p_value": 0.02,
                        "p_holm": 0.04,
                        "target_aware": aware,
                    }
                )
    return tidy(rows, extra=SEED_COLUMNS)


def panel(frame: pd.DataFrame, place: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    found = charts.after_finetuning(frame).to_dict()["hconcat"][place]
    return found, next(layer["data"]["values"] for layer in found["layer"] if "values" in layer["data"])


def test_differences_stand_around_zero_in_points_with_a_panel_per_domain() -> None:
    spec, rows = panel(differences(), 0)
    assert spec["title"]["text"] == "mnist (source)" and spec["title"]["color"] == FIRST_SOURCE
    assert [(row["scorer"], row["text"]) for row in rows] == [("random", "−2.0"), ("dss", "+1.0")]
    assert (rows[0]["low"], rows[0]["high"]) == pytest.approx((-2.4, -1.6))
    ends = [panel(differences(), k)[0]["layer"][1]["encoding"]["x"]["scale"]["domain"] for k in range(2)]
    assert ends == [[-5, 2], [-10, 10]]
    assert spec["layer"][0]["encoding"]["x"]["datum"] == 0
    assert {row["shape"] for row in rows} == {"circle"} and rows[1]["fill"] == FIRST_SOURCE
    assert charts.after_finetuning(differences()).to_dict()["usermeta"]["embedOptions"] == {"actions": False}


def test_the_minimum_detectable_effect_stands_under_each_panel() -> None:
    titles = [panel(differences(), k)[0]["layer"][1]["encoding"]["x"]["title"] for k in range(2)]
    start = "Minimum detectable effect, 3 training seeds:"
    assert titles[0] == ["Points of accuracy against l1", start, "0.4 points"]
    assert titles[1] == ["Points of accuracy against l1", start, "0.4 (random) to 6.4 points (dss)"]
    some = [{"scorer": "a", "smallest": 1.0, "seeds": "0, 1"}, {"scorer": "b", "smallest": 1.0, "seeds": "0, 1, 2"}]
    assert detectable_lines(some) == ["Minimum detectable effect, 2 to 3 training seeds:", "1.0 points"]


def test_what_looked_at_the_target_is_a_hollow_diamond_and_said() -> None:
    source, target = (difference_rows(differences(), domain=name)[1] for name, _, _ in DOMAINS)
    assert (target["ring"], target["fill"], target["colour"]) == (TARGET_AWARE, FIRST_TARGET, FIRST_TARGET)
    assert source["label"] == target["label"] == "dss ◇ target-aware"
    assert difference_rows(differences(), domain="mnist_m")[0]["colour"] == FIRST_TARGET


def test_several_ratios_are_named_and_zero_has_no_sign() -> None:
    rows = difference_rows(differences(ratios=(0.3, 0.5)), domain="mnist")
    assert [row["label"] for row in rows][:2] == ["random, 30 %", "dss, 30 % ◇ target-aware"]
    frame = differences()
    frame.loc[frame.metric == "difference", "value"] = -1e-17
    assert {row["text"] for row in difference_rows(frame, domain="mnist")} == {"0.0"}


def run(*, target: str = "mnist_m", budget: str = "filters", epochs: int = 2) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    stages = [(0, 0, "full", 0.0, False)]
    for number, got in ((1, 0.29), (2, 0.5)):
        stages.append((number, (number - 1) * epochs, "cut", got, True))
        stages += [(number, (number - 1) * epochs + k + 1, "tuned", got, True) for k in range(epochs)]
    for number, epoch, stage, got, aware in stages:
        for name, role, top in DOMAINS:
            value = top - 0.1 * (stage == "cut")
            rows.append(
                {
                    "scorer": "dss",
                    "domain": target if role == "target" else name,
                    "role": role,
                    "metric": "accuracy",
                    "value": value,
                    "low": value - 0.02,
                    "high": value + 0.02,
                    "unit": "share",
                    "ratio_achieved": got,
                    "budget": budget,
                    "round": number,
                    "epoch": epoch,
                    "stage": stage,
                    "target_aware": aware,
                }
            )
        rows.append({"metric": "macs", "value": 9, "round": number, "epoch": epoch, "stage": stage})
    return tidy(rows, extra=EXTRA)


def test_a_run_is_a_line_per_domain_that_falls_at_every_cut() -> None:
    data = training_data(run(), epochs=6)
    curve = [row for row in data["curves"] if row["domain"] == "mnist"]
    assert [row["epoch"] for row in curve] == [0, 0, 1, 2, 2, 3, 4]
    assert [row["when"] for row in curve][:3] == ["the full network", "right after a cut", "fine-tuned"]
    assert [row["step"] for row in curve] == sorted(row["step"] for row in curve)
    assert (curve[1]["value"], curve[1]["low"], curve[1]["high"]) == pytest.approx((87, 85, 89))
    assert [row["round"] for row in curve] == [0, 1, 1, 1, 2, 2, 2], "a band per round"
    cuts = [(0, "29 % of filters removed"), (2, "50 % of filters removed")]
    assert [(row["epoch"], row["label"]) for row in data["cuts"]] == cuts
    assert data["ends"] == [{"epoch": 0}, {"epoch": 6}] and training_data(run())["ends"][1] == {"epoch": 4}
    assert training_data(run(budget="macs"))["cuts"][0]["label"] == "29 % of MACs removed"


def test_lines_are_named_and_a_scorer_that_looked_is_marked_from_its_cut_on() -> None:
    data = training_data(run())
    assert [row["label"] for row in data["names"]] == ["mnist (source)", "mnist_m (target-aware)"]
    target = [row for row in data["curves"] if row["domain"] == "mnist_m"]
    assert target[0]["ring"] is None and {row["ring"] for row in target[1:]} == {TARGET_AWARE}
    assert {row["colour"] for row in target} == {FIRST_TARGET}, "one line, one colour"


def test_the_titles_say_the_batchnorm_setting() -> None:
    frame = run()
    assert "title" not in charts.training(frame).to_dict()
    frame["batchnorm"] = "as_is"
    assert charts.training(frame).to_dict()["title"]["text"] == "Accuracy during training, BatchNorm as is"
    frame = differences().assign(batchnorm="recalibrate")
    assert charts.after_finetuning(frame).to_dict()["title"]["text"].endswith(", BatchNorm re-estimated")


def test_the_page_can_be_given_the_chart_before_there_are_rows() -> None:
    spec = charts.training(tidy([], extra=EXTRA)).to_dict()
    data = {layer["data"]["name"]: layer["data"].get("values") for layer in spec["layer"] if "values" in layer["data"]}
    assert data == {"curves": [], "cuts": [], "names": [], "ends": [{"epoch": 0}, {"epoch": 1}], "unit": []}
    assert spec["autosize"] == {"type": "none"} and set(spec["padding"]) == {"left", "right", "top", "bottom"}
    values = [
        layer["encoding"]["y"]["scale"]["domain"]
        for layer in spec["layer"]
        if "scale" in layer["encoding"].get("y", {})
    ]
    assert values and all(value == [0, 100] for value in values)


@pytest.mark.parametrize("name", ["after_finetuning", "training"])
def test_vega_draws_it_and_a_users_text_is_only_a_value(name: str) -> None:
    import vl_convert

    frame = differences(scorer=HOSTILE, ratios=(0.3, 0.5)) if name == "after_finetuning" else run(target=HOSTILE)
    spec = getattr(charts, name)(frame).to_dict()
    svg = vl_convert.vegalite_to_svg(spec)
    assert svg.startswith("<svg") and "NaN" not in svg and "<b onload" not in svg

    def fields(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["field"]] if isinstance(node.get("field"), str) else []
            return own + [field for key, value in node.items() if key != "values" for field in fields(value)]
        return [field for part in node for field in fields(part)] if isinstance(node, list) else []

    assert all(field.replace("_", "").isalnum() for field in fields(spec))


def compared(**changes: Any) -> pd.DataFrame:
    """Two scorers at two ratios on a source and a target, against random; the second scorer read the target."""
    rows: list[dict[str, Any]] = []
    for ratio in (0.2, 0.4):
        for k, (scorer, aware) in enumerate((("l1", False), ("dss", True))):
            for name, role, _ in DOMAINS:
                about = {"scorer": scorer, "domain": name, "role": role, "ratio_requested": ratio, "unit": "share"}
                value = 0.01 * (1 + k) * (1 if role == "source" else -1)
                ends = {"value": value, "low": value - 0.02, "high": value + 0.02, "interval": "images"}
                about |= {"target_aware": aware, "against": "random", "batchnorm": "recalibrate"}
                if aware and role == "target":
                    about["seen_by_scorer"] = "labels"
                rows.append({**about, **ends, "metric": "difference", **changes})
    return tidy(rows, extra=("against", "network", "draws"))


def test_differences_from_a_reference_have_one_axis_and_a_row_per_scorer_and_ratio() -> None:
    spec = charts.differences(compared()).to_dict()
    assert "BatchNorm" in spec["title"]["text"]
    panels = [
        next(layer["data"]["values"] for layer in found["layer"] if "values" in layer["data"])
        for found in spec["hconcat"]
    ]
    assert [row["label"].split(" ◇")[0] for row in panels[0]] == ["l1, 20 %", "l1, 40 %", "dss, 20 %", "dss, 40 %"]
    assert ["◇" in row["label"] for row in panels[0]] == [False, False, True, True]
    assert [row["change"] for row in panels[1]] == pytest.approx([-1, -1, -2, -2])
    ends = [found["layer"][1]["encoding"]["x"]["scale"]["domain"] for found in spec["hconcat"]]
    assert ends == [[-5, 5], [-5, 5]] and "'random'" in str(spec["hconcat"][0]["layer"][1]["encoding"]["x"]["title"])
    assert {row["shape"] for row in panels[0]} != {row["shape"] for row in panels[1]}, "a mark belongs to a domain"


def test_differences_are_drawn_in_points_with_the_interval_of_their_row() -> None:
    frame = compared().query("metric == 'difference'")
    spec = charts.differences(frame).to_dict()
    for found, (name, _, _) in zip(spec["hconcat"], DOMAINS, strict=True):
        rows = next(layer["data"]["values"] for layer in found["layer"] if "values" in layer["data"])
        of = frame.query(f"domain == '{name}'").sort_values("scorer", ascending=False, kind="stable")
        drawn = [[row["change"], row["low"], row["high"]] for row in rows]
        assert drawn == [pytest.approx(list(100 * ends)) for ends in of[["value", "low", "high"]].to_numpy()]
        assert [row["text"] for row in rows] == [f"{100 * value:+.1f}".replace("-", "−") for value in of.value]
        assert rows[0]["ends"] == ("−1.0 to +3.0" if rows[0]["change"] > 0 else "−3.0 to +1.0")
    assert max(row["change"] for row in rows) == -1, "the target loses"


def test_the_panel_of_a_target_carries_the_mark_where_all_of_its_rows_do() -> None:
    def head(frame: pd.DataFrame) -> str:
        return charts.differences(frame).to_dict()["hconcat"][1]["title"]["text"]

    frame = compared()
    assert "◇" not in head(frame) and "◇" in head(frame.query("scorer == 'dss'"))


@pytest.mark.parametrize(
    "changes", [{"value": float("nan")}, {"value": float("inf")}, {"high": float("inf")}, {"unit": "correlation"}]
)
def test_differences_that_cannot_be_drawn_in_points_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DgpruneError, match="finite differences of the unit 'share'"):
        charts.differences(compared(**changes))


def test_a_chart_wider_than_any_page_is_refused() -> None:
    with pytest.raises(DgpruneError, match="width must lie in 1 to 10,000 pixels"):
        charts.differences(compared(), width=10**9)


def test_differences_of_networks_are_named_after_the_network_and_two_references_are_refused() -> None:
    networks = compared(scorer=None, ratio_requested=None, network="B", against="A", batchnorm=None).iloc[:2]
    spec = charts.differences(networks).to_dict()
    rows = next(layer["data"]["values"] for layer in spec["hconcat"][0]["layer"] if "values" in layer["data"])
    assert [row["label"] for row in rows] == ["B"] and spec["title"]["text"].startswith("Difference")
    with pytest.raises(DgpruneError, match="several references, random, l2"):
        charts.differences(pd.concat([compared(), compared(against="l2")]))
    with pytest.raises(DgpruneError, match="differ in no setting"):
        charts.differences(pd.concat([compared(), compared()]))
    with pytest.raises(DgpruneError, match="compare_scorers"):
        charts.differences(compared(metric="accuracy"))
