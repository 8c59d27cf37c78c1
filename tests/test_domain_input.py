"""Labels and splits as people give them: names, bool vectors, shares, slices."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from material import norm_net, randomise

import dgprune_lab as dg

COUNT = 20
IMAGES = torch.rand(COUNT, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(COUNT) % 4
SPLITS = {"train": range(8), "score": range(8, 12), "report": range(12, COUNT)}


def made(name: str = "a", **options: Any) -> dg.Domain:
    return dg.Domain.from_arrays(name, **{"images": IMAGES, "labels": LABELS, "splits": SPLITS, **options})


def where(rows: range) -> np.ndarray:
    mask = np.zeros(COUNT, bool)
    mask[list(rows)] = True
    return mask


WAYS: dict[str, Any] = {
    "bool arrays": {key: where(rows) for key, rows in SPLITS.items()},
    "bool tensors": {key: torch.from_numpy(where(rows)) for key, rows in SPLITS.items()},
    "bool lists": {key: where(rows).tolist() for key, rows in SPLITS.items()},
    "bool Series": {key: pd.Series(where(rows)) for key, rows in SPLITS.items()},
    "slices": {key: slice(rows.start, rows.stop) for key, rows in SPLITS.items()},
    "indices": {key: pd.Index(rows) for key, rows in SPLITS.items()},
    "columns": {key: torch.tensor(rows)[:, None] for key, rows in SPLITS.items()},
    "sets": {key: set(rows) for key, rows in SPLITS.items()},
    "iterators": {key: iter(rows) for key, rows in SPLITS.items()},
    "small integers": {key: np.array(rows, np.uint8) for key, rows in SPLITS.items()},
    "big-endian": {key: np.array(rows, ">i4") for key, rows in SPLITS.items()},
}


@pytest.mark.parametrize("way", WAYS)
def test_splits_are_taken_as_they_are_given(way: str) -> None:
    domain = made(splits=WAYS[way])
    assert {key: rows.tolist() for key, rows in domain.splits.items()} == {k: list(r) for k, r in SPLITS.items()}
    assert all(rows.dtype == torch.int64 for rows in domain.splits.values())


def test_splits_as_shares_are_cut_stratified_and_seeded() -> None:
    shares = {"train": 0.6, "score": np.float32(0.2), "report": torch.tensor(0.2)}
    one, same, other = (made(splits=shares, seed=seed).splits for seed in (0, 0, 1))
    assert {key: len(rows) for key, rows in one.items()} == {"train": 12, "score": 4, "report": 4}
    assert all(torch.equal(one[key], same[key]) for key in shares)
    assert any(not torch.equal(one[key], other[key]) for key in shares)
    assert torch.cat(list(one.values())).sort().values.tolist() == list(range(COUNT))
    assert all(LABELS[rows].bincount(minlength=4).tolist() == [len(rows) // 4] * 4 for rows in one.values())
    assert len(made(splits={"report": 1.0}).splits["report"]) == COUNT


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ({"train": 0.6, "report": 0.6}, r"add up to 1.*got train 0\.6, report 0\.6, together 1\.2"),
        ({"train": 0.6, "report": 0.3}, r"add up to 1.*together 0\.9"),
        ({"train": 1.2, "report": -0.2}, r"above 0"),
        ({"train": 0.6, "report": range(3)}, r"given for every split.*got train 0\.6 of train, report"),
        ({"train": 12, "report": 8}, r"split 'train' must be row numbers.*share such as 0\.2; got 12"),
        ({"train": where(range(8))[:7]}, r"split 'train' is a bool vector of 7; the domain has 20 images"),
        ({"train": [0.0, 1.0]}, r"split 'train' must be whole row numbers or a bool vector.*float64"),
        ({"train": ["0", "1"]}, r"split 'train' must be whole row numbers"),
        ({"train": where(range(8)), "score": where(range(7, 9))}, r"is in two splits"),
        ({"train": torch.zeros(3, 2, dtype=torch.int64)}, r"one axis; got shape \(3, 2\)"),
        ({"train": [1, 1]}, r"split 'train' names an image twice"),
        ({"train": [-1]}, r"rows outside 0 to 19"),
        ({"train": None}, r"split 'train' must be row numbers"),
    ],
)
def test_other_splits_are_refused(splits: Any, words: str) -> None:
    with pytest.raises(dg.DgpruneError, match=words):
        made(splits=splits)


WORDS = np.array(["cat", "dog", "emu", "fox"])
NAMES: dict[str, Any] = {
    "a list": WORDS[LABELS].tolist(),
    "an array": WORDS[LABELS],
    "bytes": WORDS[LABELS].astype("S"),
    "objects": WORDS[LABELS].astype(object),
    "a Series": pd.Series(WORDS[LABELS]),
    "a categorical": pd.Categorical(WORDS[LABELS]),
}


@pytest.mark.parametrize("kind", NAMES)
def test_labels_as_names(kind: str) -> None:
    with pytest.warns(dg.DgpruneNote, match=r"0 cat, 1 dog, 2 emu, 3 fox\. Pass classes="):
        domain = made(labels=NAMES[kind])
    assert domain.labels is not None and torch.equal(domain.labels, LABELS)
    assert domain.classes == 4 and domain.class_names == tuple(WORDS)
    reverse = made(labels=NAMES[kind], classes=list(WORDS[::-1]))
    assert reverse.labels is not None and torch.equal(reverse.labels, 3 - LABELS)


NUMBERS: dict[str, Any] = {
    "big-endian": LABELS.numpy().astype(">i4"),
    "objects": LABELS.numpy().astype(object),
    "floats": LABELS.numpy().astype(float),
    "texts of numbers": [str(int(label)) for label in LABELS],
    "a list of tensors": list(LABELS),
    "a column": LABELS[:, None],
    "unsigned": LABELS.numpy().astype(np.uint16),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_labels_as_numbers(kind: str) -> None:
    domain = made(labels=NUMBERS[kind])
    assert domain.labels is not None and torch.equal(domain.labels, LABELS) and domain.class_names == ()


def test_texts_of_numbers_are_not_sorted_as_text() -> None:
    domain = made(labels=[str(k) for k in range(COUNT)])
    assert domain.labels is not None and domain.labels.tolist() == list(range(COUNT))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": torch.eye(COUNT)}, r"one label; got shape \(20, 20\)\. One-hot labels: labels\.argmax\(1\)"),
        ({"labels": [None, *range(COUNT - 1)]}, r"whole numbers or names, one for each image; got None"),
        ({"labels": [float("nan"), *range(COUNT - 1)]}, r"whole numbers from 0; got nan"),
        ({"labels": set(range(COUNT))}, r"list or an array in the images' order"),
        ({"labels": "names"}, r"list or an array in the images' order; got 'names'"),
        ({"labels": 3}, r"labels must be \(N,\)"),
        ({"classes": ["a", "a"]}, r"different class names"),
        ({"classes": ["a", "b"]}, r"classes must cover all labels, 0 to 3; got classes=2 names"),
    ],
)
def test_other_labels_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(dg.DgpruneError, match=words):
        made(**options)


def test_names_of_classes_go_with_their_numbers() -> None:
    domain = made(classes=["a", "b", "c", "d", "e"])
    assert domain.classes == 5 and domain.class_names == ("a", "b", "c", "d", "e")
    assert dg.data.invert(domain).class_names == domain.class_names
    assert dg.data.halves(domain)[0].class_names == domain.class_names
    assert made(labels=None, classes=["a", "b"]).classes == 2 and made(labels=None, classes=3).classes == 3


def test_domains_that_number_their_classes_differently_make_no_study() -> None:
    model = randomise(norm_net(), dtype=torch.float32)
    words = [["cat", "dog", "emu", "fox"], ["dog", "emu", "fox", "gnu"], ["cat", "dog", "emu", "fox", "gnu"]]
    cats, dogs, more = (made(name, classes=names) for name, names in zip("abc", words, strict=True))
    with pytest.raises(dg.DgpruneError, match=r"class 0 is 'cat' in domain 'a' and 'dog' in domain 'b'.*classes="):
        dg.Study(model, sources=[cats], targets=[dogs])
    assert len(dg.Study(model, sources=[cats, made("plain")], targets=[more]).domains) == 3


def test_a_dict_of_domains_names_them_as_they_are_named() -> None:
    model = randomise(norm_net(), dtype=torch.float32)
    assert dg.Study(model, sources={"a": made("a")}).sources[0].name == "a"  # type: ignore[arg-type]
    with pytest.raises(dg.DgpruneError, match=r"sources must be .*The item with the key 'z' has the name 'a'; give a"):
        dg.Study(model, sources={"z": made("a")})  # type: ignore[arg-type]


def test_images_of_a_target_that_are_images_of_a_source_are_noted() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (40, 3, 16, 16), generator=generator, dtype=torch.uint8)
    images[7] = 9
    other = torch.randint(0, 255, (20, 3, 16, 16), generator=generator, dtype=torch.uint8)
    nearly = images[30:].clone()
    nearly[:, 0, 0, 0] += 1  # outside the places that are compared first
    mixed = torch.cat([other[:10], images[[3, 3, 7]], nearly])
    source = dg.Domain.from_arrays("photo", images=images, labels=torch.arange(40) % 2, splits={"train": range(40)})
    kinds = {"mixed": mixed, "all": images, "none": other, "float": images.float() / 255}
    targets = {
        name: dg.Domain.from_arrays(name, images=each, labels=torch.arange(len(each)) % 2, splits={"report": 1.0})
        for name, each in kinds.items()
    }
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 2, 14), torch.nn.Flatten())
    for name, count in {"mixed": "2 of the 23", "all": "39 of the 40"}.items():
        with pytest.warns(dg.DgpruneNote, match=f"{count} images of target '{name}' are images of source 'photo' too"):
            dg.Study(net, sources=[source], targets=[targets[name]])
    for name in ("none", "float"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            study = dg.Study(net, sources=[source], targets=[targets[name]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("digits", "fashion", "paper"):
            dg.demo(name)
        dg.Study(net, sources=study.sources, targets=study.targets)


def test_a_given_split_that_is_sorted_by_class_is_noted() -> None:
    images, labels = torch.rand(120, 3, 4, 4), torch.arange(120) // 30
    with pytest.warns(dg.DgpruneNote, match=r"split 'train' is sorted by class.*Shuffle the rows, or give a share"):
        dg.Domain.from_arrays("a", images=images, labels=labels, splits={"train": slice(0, 120)})
    mixed = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    for splits in ({"train": mixed}, {"train": 1.0}, {"train": range(0, 120, 6)}):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dg.Domain.from_arrays("a", images=images, labels=labels, splits=splits)
