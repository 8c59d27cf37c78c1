"""Domains backed by data sets: what people have is taken, what would give wrong numbers is refused in words."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torchvision import transforms
from torchvision.datasets import FakeData, ImageFolder

import dgprune_lab as dg

COUNT = 12
BYTES = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 10, 10), dtype=np.uint8)
FLOATS = torch.from_numpy(BYTES) / 255
LABELS = torch.arange(COUNT) % 3
SPLITS = {"train": range(4), "score": range(4, 8), "report": range(8, COUNT)}
PICTURES = [Image.fromarray(image.transpose(1, 2, 0).copy()) for image in BYTES]


class Items(Dataset[Any]):
    """What a function makes of a position, with further attributes."""

    def __init__(self, item: Any, *, count: int = COUNT, **attributes: Any) -> None:
        self.item, self.count = item, count
        vars(self).update(attributes)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.item(index)


class HuggingFace(Items):
    """The parts of a Hugging Face data set that are used."""

    def __init__(self, *, image: str = "image", label: str = "label") -> None:
        super().__init__(lambda i: {image: PICTURES[i], label: int(LABELS[i])})
        self.column_names = [image, label]
        self.features = {image: object(), label: SimpleNamespace(names=["cat", "dog", "emu"])}

    def __getitem__(self, index: Any) -> Any:
        return LABELS.tolist() if isinstance(index, str) else self.item(index)


def made(dataset: Any, **options: Any) -> dg.Domain:
    return dg.Domain.from_dataset("mine", dataset, **{"splits": SPLITS, **options})


def images_of(domain: dg.Domain) -> Tensor:
    return domain.take(torch.arange(len(domain))).images


TAKEN: dict[str, Any] = {
    "tensors": lambda: TensorDataset(FLOATS, LABELS),
    "uint8": lambda: TensorDataset(torch.from_numpy(BYTES), LABELS),
    "arrays": lambda: Items(lambda i: (BYTES[i], LABELS[i])),
    "PIL images": lambda: Items(lambda i: (PICTURES[i], int(LABELS[i]))),
    "a list of pairs": lambda: [(PICTURES[i], int(LABELS[i])) for i in range(COUNT)],
    "a list of lists": lambda: [[PICTURES[i], int(LABELS[i])] for i in range(COUNT)],
    "more than two parts": lambda: Items(lambda i: (PICTURES[i], int(LABELS[i]), {"camera": 3})),
    "dicts": lambda: Items(lambda i: {"image": PICTURES[i], "label": int(LABELS[i])}),
    "dicts of nested lists": lambda: Items(lambda i: {"img": FLOATS[i].tolist(), "label": int(LABELS[i])}),
    "Hugging Face": HuggingFace,
    "Hugging Face, other names": lambda: HuggingFace(image="img", label="fine_label"),
    "a DataLoader": lambda: DataLoader(TensorDataset(FLOATS, LABELS), batch_size=5, shuffle=True),
    "a subset": lambda: Subset(TensorDataset(FLOATS, LABELS), range(COUNT)),
    "joined": lambda: ConcatDataset([Subset(HuggingFace(), range(5)), Subset(HuggingFace(), range(5, COUNT))]),
    "labels in arrays of one": lambda: Items(lambda i: (BYTES[i], LABELS[i : i + 1].numpy())),
    "bytes and floats": lambda: Items(lambda i: (BYTES[i] if i % 2 else FLOATS[i], LABELS[i])),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_data_sets_of_every_kind_give_the_same_domain(kind: str) -> None:
    domain = made(TAKEN[kind]())
    torch.testing.assert_close(images_of(domain), FLOATS)
    assert domain.labels is not None and domain.labels.tolist() == LABELS.tolist()
    named = "Hugging" in kind or kind == "joined"
    assert domain.classes == 3 and domain.class_names == (("cat", "dog", "emu") if named else ())


def test_items_without_a_label_make_a_domain_without_labels() -> None:
    unlabelled = (
        Items(lambda i: PICTURES[i]),
        Items(lambda i: {"image": PICTURES[i]}),
        Items(lambda i: (FLOATS[i], None)),
    )
    for dataset in (TensorDataset(FLOATS), *unlabelled):
        domain = made(dataset)
        assert domain.labels is None and domain.classes == 0
        torch.testing.assert_close(images_of(domain), FLOATS)


def test_an_image_folder_without_a_transform(tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for k in range(3):
            Image.new("RGB", (10, 8), (40 * k, 0, 200 * number)).save(tmp_path / name / f"{k}.png")
    domain = made(ImageFolder(tmp_path), splits={"report": range(6)})
    assert domain.shape == (3, 8, 10) and domain.class_names == ("cat", "dog")
    assert (images_of(domain)[:, 2, 0, 0] * 255).round().tolist() == [0, 0, 0, 200, 200, 200]
    Image.new("RGB", (11, 8)).save(tmp_path / "dog" / "2.png")
    with pytest.raises(dg.DgpruneError, match=r"'mine'.*one size; the first is 3 x 8 x 10.*Resize"):
        images_of(made(ImageFolder(tmp_path), splits={"report": range(6)}))
    (tmp_path / "dog" / "2.png").write_bytes(b"nothing")
    with pytest.raises(dg.DgpruneError, match=r"item 5 \(.*dog.2\.png\) could not be read.*repair or remove it"):
        images_of(made(ImageFolder(tmp_path), splits={"report": range(6)}))


def unnormalised(i: int) -> Any:
    return FLOATS[i] * 4 - 2, LABELS[i]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([(FLOATS[0], 0)])


REFUSED: dict[str, tuple[Any, str]] = {
    "normalised": (
        lambda: Items(unnormalised),
        r"item 0: float images must lie in \[0, 1\].*leave normalisation to the network",
    ),
    "0 to 255": (lambda: Items(lambda i: (FLOATS[i] * 255, 0)), r"item 0: float images must lie.*Divide by 255"),
    "whole numbers": (lambda: Items(lambda i: (BYTES[i].astype(int), 0)), r"whole numbers be uint8 or uint16"),
    "NaN": (lambda: Items(lambda i: (FLOATS[i] * float("nan"), 0)), r"item 0: it holds NaN"),
    "one image out of range": (
        lambda: Items(lambda i: (FLOATS[i] * (3 if i == 3 else 1), 0)),
        r"'mine': the image of item 3: float images must lie in \[0, 1\]",
    ),
    "sizes": (lambda: Items(lambda i: (FLOATS[i][:, : 10 - i % 2], 0)), r"first is 3 x 10 x 10, image 1 3 x 9 x 10"),
    "channels last": (lambda: Items(lambda i: (BYTES[i].transpose(1, 2, 0), 0)), r"channels at the end.*\(2, 0, 1\)"),
    "grey without channel": (lambda: Items(lambda i: (FLOATS[i][0], 0)), r"three axes \(C, H, W\)"),
    "a stream": (Stream, r"'mine': Stream cannot be read by position.*list\(dataset\)"),
    "a loader of a stream": (lambda: DataLoader(Stream()), r"Stream cannot be read by position"),
    "a generator": (lambda: ((FLOATS[i], 0) for i in range(3)), r"generator cannot be read by position"),
    "a dict of data sets": (
        lambda: {"train": [], "test": []},
        r"a dict of 'train', 'test' is no data set.*\['train'\]",
    ),
    "other columns": (
        lambda: Items(lambda i: {"photo": 1, "k": 2}),
        r"dict of 'photo', 'k'; its image.*'image', 'img'",
    ),
    "label first": (lambda: Items(lambda i: (3, FLOATS[i])), r"must be \(image, label\).*first entry is int"),
    "a table": (lambda: pd.DataFrame({"image": [1], "label": [2]}), r"got DataFrame.*from_folder"),
    "a folder": (lambda: "photos/art", r"got str\. Folders of images are read by dg\.data\.from_folder"),
    "nothing": (lambda: None, r"NoneType cannot be read by position"),
    "paths": (lambda: Items(lambda i: ("a.png", 3)), r"first entry is str\. Open files"),
    "empty": (list, r"the data set is empty"),
    "data sets": (lambda: [TensorDataset(FLOATS, LABELS)], r"item 0 is itself a data set.*make a domain of each"),
    "arrays in a tuple": (lambda: (BYTES, LABELS.numpy()), r"all images in one array.*from_arrays"),
    "arrays in a dict": (lambda: {"image": torch.from_numpy(BYTES), "label": LABELS}, r"all images in one array"),
    "one-hot labels": (
        lambda: Items(lambda i: (BYTES[i], torch.eye(3)[LABELS[i]]), classes=["a", "b", "c"]),
        r"each image needs one label; got shape \(12, 3\).*argmax",
    ),
    "an error of its own": (lambda: Items(lambda i: [][i]), r"item 0 could not be read \(IndexError"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_data_sets_that_would_give_wrong_numbers_are_refused(kind: str) -> None:
    make, words = REFUSED[kind]
    with pytest.raises(dg.DgpruneError, match=words):
        images_of(made(make()))


AUGMENTED: dict[str, Any] = {
    "torch": lambda i: (transforms.RandomCrop(10, padding=4)(FLOATS[i]), 0),
    "seldom": lambda i: (transforms.RandomHorizontalFlip(0.2)(FLOATS[i]), 0),
    "numpy": lambda i: (np.clip(FLOATS[i].numpy() + 0.1 * np.random.randn(3, 10, 10), 0, 1), 0),
    "random": lambda i: (FLOATS[i] if random.random() < 0.5 else FLOATS[i].flip(2), 0),
}


@pytest.mark.parametrize("kind", AUGMENTED)
def test_random_augmentation_is_refused_and_the_generators_stay(kind: str) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[union-attr,index]
    with pytest.raises(dg.DgpruneError, match=r"changes when it is read again.*transform for evaluation"):
        made(Items(AUGMENTED[kind]))
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[2]
    assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[index]


def test_joined_parts_that_number_their_classes_differently_are_refused() -> None:
    parts = [Items(lambda i: (BYTES[i], i % 2), classes=names) for names in (["cat", "dog"], ["ape", "cat"])]
    with pytest.raises(dg.DgpruneError, match=r"number their classes differently, 0 cat, 1 dog and 0 ape, 1 cat"):
        made(ConcatDataset(parts))
    assert made(ConcatDataset([parts[0], parts[0]])).class_names == ("cat", "dog")


def test_a_data_set_that_draws_without_effect_is_taken() -> None:
    domain = made(Items(lambda i: (transforms.RandomHorizontalFlip(0.0)(FLOATS[i]), LABELS[i])))
    torch.testing.assert_close(images_of(domain), FLOATS)


def test_labels_of_a_target_transform_are_those_of_the_items() -> None:
    renamed = Items(lambda i: (FLOATS[i], 2 - int(LABELS[i])), targets=LABELS, classes=["a", "b", "c"])
    domain = made(renamed)
    assert domain.labels is not None and domain.labels.tolist() == (2 - LABELS).tolist() and domain.class_names == ()


def test_listed_labels_are_taken_without_reading_every_image() -> None:
    seen: list[int] = []

    def item(i: int) -> Any:
        seen.append(i)
        return FLOATS[i % COUNT], i % 3

    domain = made(Items(item, count=5000, targets=[i % 3 for i in range(5000)], classes=["a", "b", "c"]), splits={})
    assert len(set(seen)) < 20 and domain.class_names == ("a", "b", "c")


def test_torchvisions_data_sets_are_taken() -> None:
    fake = FakeData(size=6, image_size=(3, 10, 10), num_classes=2)
    domain = made(fake, splits={"report": range(6)})
    assert domain.shape == (3, 10, 10) and domain.classes <= 2


def test_the_key_of_a_data_set_follows_all_its_images_and_its_length() -> None:
    def key(images: Tensor, **options: Any) -> str:
        labels = torch.arange(len(images)) % 3
        made = dg.Domain.from_dataset("a", TensorDataset(images, labels), splits=options or {"train": range(6)})
        return made.key

    later = FLOATS.clone()
    later[9:] = 0
    keys = [key(FLOATS), key(later), key(FLOATS[:-1]), key(FLOATS, train=range(4))]
    assert len(set(keys)) == 4 and key(FLOATS.clone()) == keys[0]


def test_a_loader_of_a_part_gives_this_part_and_what_has_no_effect_is_said() -> None:
    everything, part = TensorDataset(FLOATS, LABELS), [7, 2, 11]
    chosen = made(DataLoader(everything, sampler=SubsetRandomSampler(part)), splits={"report": range(3)})
    torch.testing.assert_close(images_of(chosen), FLOATS[sorted(part)])
    assert chosen.labels is not None and chosen.labels.tolist() == LABELS[sorted(part)].tolist()
    assert len(made(DataLoader(everything, batch_size=None))) == COUNT, "without a note"
    batches = BatchSampler(SubsetRandomSampler(part), 2, False)
    assert len(made(DataLoader(everything, batch_sampler=batches), splits={"report": range(3)})) == 3
    weighted = WeightedRandomSampler([1.0] * COUNT, 4)
    for options, words in (
        ({"sampler": weighted}, r"WeightedRandomSampler has no effect"),
        ({"batch_sampler": [[0, 1], [5]]}, r"list has no effect"),
        ({"batch_sampler": BatchSampler(SequentialSampler(range(5)), 2, False)}, r"SequentialSampler of 5 items"),
        ({"sampler": RandomSampler(everything, num_samples=4)}, r"RandomSampler of 4 items has no effect"),
        ({"collate_fn": list}, r"collate_fn has no effect"),
    ):
        with pytest.warns(dg.DgpruneNote, match=words):
            assert len(made(DataLoader(everything, **options))) == COUNT  # type: ignore[arg-type]


def test_names_as_labels_keep_the_class_names() -> None:
    words = ["dog", "cat", "emu"]
    named = Items(lambda i: (FLOATS[i], words[LABELS[i]]))
    with pytest.warns(dg.DgpruneNote, match=r"labels are names, numbered in sorted order: 0 cat, 1 dog, 2 emu"):
        domain = made(named)
    assert domain.class_names == ("cat", "dog", "emu") and domain.labels is not None
    assert domain.labels.tolist() == [[1, 0, 2][label] for label in LABELS]
    listed = made(named, classes=words)
    assert listed.labels is not None and listed.labels.tolist() == LABELS.tolist()
    with pytest.raises(dg.DgpruneError, match=r"no class is named 'emu'; known: dog, cat"):
        made(named, classes=["dog", "cat"])
