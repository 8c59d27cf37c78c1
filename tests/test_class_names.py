"""Where classes have names, tables, charts and cards show them; where they have none, their indices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from material import domain, norm_net
from read_study import lively

import dgprune_lab as dg
from dgprune_lab.core import drain
from dgprune_lab.diagnostics._attributions import attribution_steps, attributor
from dgprune_lab.widgets import FlipsPanel, View
from dgprune_lab.widgets.panels.filter_card import picture_rows

pytestmark = pytest.mark.filterwarnings("ignore::dgprune_lab.core.errors.DgpruneNote")
NAMES = ["cat", "dog", "elephant", "hippopotamus"]


@pytest.fixture(scope="module")
def study() -> dg.Study:
    named = []
    for k, name in enumerate("at"):
        plain = domain(name, seed=k, count=90)
        named.append(
            dg.Domain.from_arrays(
                name, images=plain.images, labels=plain.labels, splits=dict(plain.splits), classes=NAMES
            )
        )
    return dg.Study(lively(norm_net, seed=3), sources=named[:1], targets=named[1:])


def test_a_class_has_its_name_or_its_index_as_text(study: dg.Study) -> None:
    assert [study.sources[0].class_label(k) for k in range(4)] == NAMES
    assert domain("plain").class_label(2) == "2"


def test_the_drop_per_class_names_the_class(study: dg.Study) -> None:
    frame = dg.diagnostics.drop(study, ratios=[0.5], by="class")
    rows = frame.loc[frame["class"].notna()]
    assert rows.class_name.tolist() == [NAMES[k] for k in rows["class"]] and len(rows) == 16
    assert frame.loc[frame["class"].isna(), "class_name"].isna().all()


def test_pictures_of_flips_name_what_is_predicted(study: dg.Study) -> None:
    mask = dg.allocate(study.score("l1"), ratio=0.5)
    panel, view = FlipsPanel(), View(study=study, mask=mask, scorer=dg.SCORERS["l1"], batchnorm="as_is")
    shown: Any = [frames for frames in panel.tick(view) if frames][-1]
    pictures = shown["flips"]["pictures"]
    assert pictures and all({row["before"], row["now"], row["truth"]} <= set(NAMES) for row in pictures)
    assert {len(row["top"]) <= 11 and row["bottom"].startswith("→ ") for row in pictures} == {True}
    assert any("hippopot" in row["top"] + row["bottom"] for row in pictures)
    assert "its true class" not in shown["text"]


def test_the_card_of_a_filter_names_the_classes_of_its_images(study: dg.Study) -> None:
    steps = attribution_steps(
        study, method="gradient_x_activation", between=("a", "t"), layers=None, images=20, split="score"
    )
    data = drain(steps)
    both = torch.cat([values.abs() for values in data.values["0"]])
    strongest = int(both.sum(0).argmax())  # others may contribute nothing
    words = picture_rows(study, attributor(study), data, layer="0", filter=strongest)["words"]
    shown = [row["text"].split(":")[0] for row in words if row["text"].startswith("true ")]
    assert shown and set(shown) <= {f"true {name}" for name in NAMES}


def test_the_map_of_features_names_the_classes(study: dg.Study) -> None:
    frame = dg.diagnostics.feature_shift(study, ratios=[0.5], images=30, embedding="linear")
    places = frame.loc[frame.metric == "map_1"]
    assert places.class_name.tolist() == [NAMES[k] for k in places["class"]]
    spec = dg.charts.feature_shift(frame).to_json()
    assert '"text": "hippopotamus"' in spec and '"class": "elephant"' in spec


def test_sample_images_carry_the_names(study: dg.Study) -> None:
    assert '"label": "cat"' in dg.charts.images(study.domains, images=20, split="score").to_json()
