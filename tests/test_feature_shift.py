"""Where the features go: planted truth along the ratio, one map for all, and what is refused."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from material import ResidualNet, fingerprint, norm_net, randomise
from material import domain as random_domain
from scipy.spatial.distance import cdist, pdist

import dgprune_lab as dg
from dgprune_lab.core.errors import DgpruneError
from dgprune_lab.core.steps import drain
from dgprune_lab.diagnostics._features import features_steps

WIDE = {"report": range(200), "score": range(200, 230), "train": range(230, 260)}


def wide(name: str, *, seed: int = 0, dark: float = 0.0, labelled: bool = True) -> dg.Domain:
    """260 random images, 200 of them reported; `dark` takes the first channel down."""
    base = random_domain(name, count=260, seed=seed, splits=cast(Any, WIDE), labelled=labelled)
    pixels = base.images.clone()
    pixels[:, 0] *= 1 - dark
    return dg.Domain.from_arrays(name, images=pixels, labels=base.labels, splits=WIDE, classes=base.classes or None)


def study_of(dark: float = 0.0, *, net: Any = norm_net, **kinds: Any) -> dg.Study:
    model = randomise(net(), dtype=torch.float32)
    return dg.Study(model, sources=[wide("a")], targets=[wide("t", seed=2, dark=dark, **kinds)])


def numbers(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    return cast(pd.DataFrame, frame[frame.metric == metric])


def table(study: dg.Study, **options: Any) -> pd.DataFrame:
    return dg.diagnostics.feature_shift(study, **{"ratios": [0.5], "embedding": "linear", **options})


def test_two_samples_of_one_distribution_do_not_differ_and_a_dark_one_does() -> None:
    same, dark = table(study_of(), layer="0"), table(study_of(0.6), layer="0")
    for metric in ("mmd", "coral", "proxy_a_distance"):
        for row in numbers(same, metric).to_dict("records"):
            assert row["low"] <= 0 <= row["high"], (metric, row["ratio_requested"])
        full = numbers(dark, metric).iloc[0]
        assert full.ratio_requested == 0 and full.low > 0 and (full.domain, full.other) == ("t", "a")
    assert numbers(same, "silhouette_domains").value.abs().max() < 0.05


def test_alignment_is_one_if_only_inactive_filters_are_removed() -> None:
    study = study_of()
    with torch.no_grad():
        cast(Any, study.model)[5].weight[:4] = 0  # of the second layer's 8 filters four never answer
        cast(Any, study.model)[5].bias[:4] = 0
    keep = {"0": torch.ones(6, dtype=torch.float64), "4": torch.tensor([0.0] * 4 + [1.0] * 4, dtype=torch.float64)}
    dead = dg.Scores("dead", keep, study.graph, options={}, reads={})
    mask = dg.Mask.by_hand(study.graph, removed={"4": [0, 1, 2, 3]})
    features = drain(features_steps(study, "4", masks=[mask], batchnorm="as_is", images=None, split="report"))
    assert (
        np.allclose(features.values[0]["t"], features.values[1]["t"], atol=1e-4)
        and np.abs(features.values[0]["t"]).max() > 0.5
    )
    frame = table(study, layer="4", scorer=dead)
    result = numbers(frame, "cka")
    assert set(result.domain) == {"a", "t"} and (result.low <= result.value).all() and (result.value < 1.01).all()
    assert (result.ratio_requested == 0.5).all(), "the full network is what is compared with"


def test_removed_filters_are_columns_of_zeros_and_the_source_sets_the_units() -> None:
    study = study_of(0.3, net=ResidualNet)
    mask = dg.allocate(study.score("l1"), ratio=0.5)
    for layer in study.graph.names:
        features = drain(features_steps(study, layer, masks=[mask], batchnorm="as_is", images=150, split="report"))
        full, pruned = features.values
        removed = ~mask.keep[layer].numpy()
        assert not pruned["t"][:, removed].any() and full["t"].shape == pruned["t"].shape == (150, len(removed))
        moving = full["a"].std(0) > 0
        assert np.allclose(full["a"].mean(0), 0, atol=1e-6) and np.allclose(full["a"].std(0, ddof=1)[moving], 1)
        assert features.stacked.shape == (600, len(removed))


def test_bandwidth_and_alignment_refer_to_the_full_network() -> None:
    def alignment(x: np.ndarray, y: np.ndarray) -> float:
        """Linear CKA without bias (Song et al. 2012, equation 5)."""
        k, m = (z @ z.T * others for z in (x, y))

        def hsic(k: np.ndarray, m: np.ndarray) -> float:
            n = len(k)
            corrected = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k @ m).sum() / (n - 2)
            return float(((k * m).sum() + corrected) / (n * (n - 3)))

        return hsic(k, m) / (hsic(k, k) * hsic(m, m)) ** 0.5

    study = study_of(0.3)
    mask, options = dg.allocate(study.score("l1"), ratio=0.5), {"images": 60, "split": "report"}
    rows = table(study, layer="4", embedding="none", images=60)
    frame, cka = numbers(rows, "mmd").set_index("ratio_requested").value, numbers(rows, "cka").set_index("domain").value
    features = drain(features_steps(study, "4", masks=[mask], batchnorm="recalibrate", **cast(Any, options)))
    width, others = np.median(pdist(np.concatenate([*features.values[0].values()]))), ~np.eye(60, dtype=bool)
    for ratio, values in zip((0.0, 0.5), features.values, strict=True):
        a, t = values["a"], values["t"]
        same, other, across = (
            np.exp(-(cdist(x, y) ** 2) / (2 * width**2))[others].mean() for x, y in ((a, a), (t, t), (a, t))
        )
        assert frame[ratio] == pytest.approx(same + other - 2 * across, abs=1e-9)
    aligned = {name: alignment(full, features.values[1][name]) for name, full in features.values[0].items()}
    assert dict(cka) == pytest.approx(aligned) and max(aligned.values()) < 0.99


def test_one_map_of_the_same_images_that_no_ratio_rotates() -> None:
    study = study_of(0.5)
    first, second = table(study, ratios=[0.5]), table(study, ratios=[0.25, 0.5])
    for axis in ("map_1", "map_2"):
        a, b = numbers(first, axis), numbers(second, axis)
        assert len(a) == 2 * 2 * 200 and len(b) == 3 * 2 * 200 and set(a.embedding) == {"linear"}
        key = ["ratio_requested", "domain", "image"]
        both = a.set_index(key).value.to_frame("a").join(b.set_index(key).value.to_frame("b"), how="left")
        assert np.allclose(both.a, both.b)
    images = numbers(first, "map_1").query("domain == 't' and ratio_requested == 0")
    assert images.image.tolist() == study.domain("t").rows("report").tolist()
    labels = study.domain("t").labels
    assert labels is not None and images["class"].tolist() == labels[study.domain("t").rows("report")].tolist()


def test_the_linear_map_is_pca() -> None:
    from sklearn.decomposition import PCA

    study = study_of(0.5)
    features = drain(features_steps(study, "4", masks=[], batchnorm="as_is", images=None, split="report"))
    expected = PCA(2).fit_transform(features.stacked)
    result = features.linear()
    assert np.allclose(np.abs(result), np.abs(expected), atol=1e-6)


def test_one_seeded_fit_of_all_rows() -> None:
    study = study_of(0.5)
    first, again = (table(study, embedding="umap", images=40, neighbours=8) for _ in range(2))
    assert set(numbers(first, "map_1").embedding) == {"umap"} and len(numbers(first, "map_1")) == 160
    assert np.array_equal(numbers(first, "map_1").value, numbers(again, "map_1").value)
    trust = numbers(first, "trustworthiness").iloc[0]
    assert 0.5 < trust.low < trust.value < trust.high <= 1 and trust.images == 160
    nothing = table(study, embedding="none")
    assert not set(nothing.metric) & {"map_1", "map_2", "trustworthiness"}


def test_rows_of_a_target_aware_choice_are_marked() -> None:
    study = study_of(0.5)
    frame = table(study, scorer="sensitivity", batchnorm="recalibrate", layer=["0", "4"])
    pruned = frame[(frame.ratio_requested == 0.5) & (frame.metric == "mmd")]
    assert pruned.target_aware.all() and (pruned.batchnorm == "recalibrate").all()
    assert not frame[frame.ratio_requested == 0].target_aware.any()
    assert set(frame.group) == {"0", "4"} and (pruned.scorer == "sensitivity").all() and (pruned.role == "target").all()
    assert min(pruned.ratio_achieved) > 0.4 and all(np.isfinite(pruned.low))


def test_a_joint_map_with_a_target_aware_mask_is_target_aware() -> None:
    study = study_of(0.5)
    linear = table(study, scorer="sensitivity")
    assert numbers(linear, "trustworthiness").target_aware.tolist() == [True]
    assert numbers(linear, "trustworthiness").scorer.tolist() == ["sensitivity"]
    full = numbers(linear, "map_1").query("ratio_requested == 0")
    assert not full.target_aware.any(), "its axes hang on no mask"
    joint = numbers(table(study, scorer="sensitivity", embedding="umap", images=30, neighbours=8), "map_1")
    assert joint.target_aware.all(), "in one fit every place depends on all masks"


def test_an_undefined_number_is_left_out_and_the_others_stay() -> None:
    own = [
        dg.Domain.from_arrays(name, images=base.images, labels=torch.arange(260) + start, classes=520, splits=WIDE)
        for name, start, base in (("a", 0, wide("a")), ("t", 260, wide("t", seed=2)))
    ]
    study = dg.Study(randomise(norm_net(520), dtype=torch.float32), sources=own[:1], targets=own[1:])
    result = set(table(study, layer="0", embedding="none").metric)
    assert "silhouette_classes" not in result and {"mmd", "coral", "silhouette_domains"} <= result
    quiet = study_of(0.5)
    pixels = quiet.domain("a").images
    with torch.no_grad():
        norm = cast(Any, quiet.model)[1]
        norm.weight.fill_(1e-3)
        norm.bias.fill_(-10.0)
        norm.bias[0] = 0.0
        strongest_exposure = cast(Any, quiet.model)[0](pixels).amax((2, 3))[:, 0]
        norm.weight[0], norm.running_mean[0] = (
            1.0,
            float(strongest_exposure.quantile(0.9)),
        )  # nine images of ten stay silent
    with pytest.warns(dg.DgpruneNote, match="layer '0' has no MMD: the median distance of these 400") as notes:
        result = set(table(quiet, layer="0", embedding="none").metric)
    assert "mmd" not in result and "coral" in result and len(notes) == 1


def test_a_target_without_labels_is_on_the_map_and_in_the_numbers() -> None:
    study = study_of(0.5, labelled=False)
    before = fingerprint(study.model)
    frame = table(study)
    places = numbers(frame, "map_1").query("domain == 't'")
    assert len(places) == 400 and all(pd.isna(label) for label in places["class"])
    assert len(numbers(frame, "mmd")) == 2 and len(numbers(frame, "silhouette_classes")) == 2
    assert fingerprint(study.model) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "conv9"}, "unknown layer 'conv9'; known: 0, 4"),
        ({"embedding": "tsne"}, "embedding must be one of"),
        ({"embedding": "umap", "images": 8, "ratios": []}, "16"),
        ({"images": 3}, "has 3 images in its split 'report'"),
        ({"ratios": [1.5]}, "ratio"),
        ({"ratios": [-0.5]}, "ratios must lie in"),
        ({"layer": []}, "at least one layer"),
        ({"split": "test"}, "no split 'test'"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DgpruneError, match=message):
        table(study_of(), **options)


def test_constant_features_are_refused_with_the_layer() -> None:
    study = study_of()
    with torch.no_grad():
        cast(Any, study.model)[5].weight.zero_()
    with pytest.raises(DgpruneError, match="layer '4': every filter responds to all images alike"):
        table(study, layer="4")
