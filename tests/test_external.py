"""Data sets in the folder of a user; the recipe of MNIST-M against the published images, byte for byte."""

from __future__ import annotations

import bz2
import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dgprune_lab import data
from dgprune_lab.core.errors import DgpruneError
from dgprune_lab.data import external
from dgprune_lab.data.blending import blend_patch

DATA = os.environ.get("DGPRUNE_DATA", "")


def there(*names: str) -> pytest.MarkDecorator:
    """Skips a test where the data folder lacks these files."""
    missing = [name for name in names if not DATA or not Path(DATA, name).exists()]
    return pytest.mark.skipif(bool(missing), reason=f"DGPRUNE_DATA names no folder with {', '.join(missing)}")


class TestPublished:
    @there("mnist_m.npz", "MNIST/raw", "BSDS500/train")
    def test_byte_for_byte_the_published_images(self) -> None:
        """Outside the strokes a published image is its patch: found there, the recipe must give the whole image."""
        files = sorted(Path(DATA, "BSDS500", "train").glob("*.jpg"))
        photographs = [np.array(Image.open(path).convert("RGB")) for path in files]
        raw = [photograph.tobytes() for photograph in photographs]
        with np.load(Path(DATA, "mnist_m.npz"), allow_pickle=False) as file:
            published, rows = file["x_train"], file["train_index"]  # train_index: row numbers in MNIST's train split
        numbers = Path(DATA, "MNIST", "raw", "train-images-idx3-ubyte").read_bytes()[16:]
        mnist = np.frombuffer(numbers, np.uint8).reshape(-1, 28, 28)
        for number in range(0, len(published), len(published) // 60):
            image, digit = published[number], mnist[rows[number]]
            ground = ~np.pad(digit > 0, 2)
            patches = candidates(image, ground, photographs, raw)
            assert patches, f"no photograph holds the ground of published image {number}"
            for patch in patches:
                assert np.array_equal(blend_patch(digit, patch), image)


def candidates(
    image: np.ndarray, ground: np.ndarray, photographs: list[np.ndarray], raw: list[bytes]
) -> list[np.ndarray]:
    """Patches of the photographs that equal the image wherever there is no stroke.

    The top and bottom rows never hold a stroke, so the liveliest of them is looked for as bytes, then all is checked.
    """
    row = max((0, 1, 30, 31), key=lambda k: len(np.unique(image[k])))
    needle = image[row].tobytes()
    found = []
    for photograph, content in zip(photographs, raw, strict=True):
        width = photograph.shape[1] * 3
        at = content.find(needle)
        while at >= 0:
            top, left = at // width - row, at % width // 3
            patch = photograph[max(top, 0) : top + 32, left : left + 32]
            if at % 3 == 0 and top >= 0 and patch.shape == image.shape and np.array_equal(patch[ground], image[ground]):
                found.append(patch)
            at = content.find(needle, at + 1)
    return found


def write_idx(folder: Path, *, pack: Callable[[bytes], bytes], suffix: str) -> None:
    """Twenty training and ten test images in MNIST's format."""
    folder.mkdir(parents=True)
    for split, count in (("train", 20), ("t10k", 10)):
        images = np.arange(count, dtype=np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2)
        header = b"\0\0\x08\x03" + np.array(images.shape, ">u4").tobytes()
        (folder / f"{split}-images-idx3-ubyte{suffix}").write_bytes(pack(header + images.tobytes()))
        labels = b"\0\0\x08\x01" + np.array([count], ">u4").tobytes() + bytes(k % 10 for k in range(count))
        (folder / f"{split}-labels-idx1-ubyte{suffix}").write_bytes(pack(labels))


class TestExternal:
    @pytest.fixture
    def root(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("DGPRUNE_DATA", str(tmp_path))
        return tmp_path

    @pytest.mark.parametrize("name", external.NAMES)
    def test_a_missing_set_names_what_where_and_how(self, name: str, root: Path) -> None:
        if name == "fashion_mnist" and {n: f for n, f, _ in data.available()}[name]:
            pytest.skip("Debian's dataset-fashion-mnist is installed")
        with pytest.raises(DgpruneError) as caught:
            data.load(name)
        sentence = str(caught.value)
        assert sentence.startswith(f"data set {name!r} is not there: looked for ")
        assert f"the folder {root} has none of them" in sentence and "Get it: " in sentence

    def test_without_the_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DGPRUNE_DATA", raising=False)
        with pytest.raises(DgpruneError, match=r"usps.npz or ./usps.bz2.*variable DGPRUNE_DATA is not set. Get it: py"):
            data.load("usps")
        assert not {name: found for name, found, _ in data.available()}["mnist_full"]

    def test_unknown(self) -> None:
        with pytest.raises(DgpruneError, match=r"unknown data set 'cifar'.*Did you mean 'cifar10'?"):
            external.load("cifar")

    def test_available_tells_place_or_command(self, root: Path) -> None:
        write_idx(root / "MNIST" / "raw", pack=bytes, suffix="")
        lines = {name: (found, where) for name, found, where in data.available()}
        assert tuple(lines) == external.NAMES
        assert lines["mnist_full"] == (True, str(root / "MNIST" / "raw"))
        assert lines["usps"][0] is False and "torchvision.datasets.USPS" in lines["usps"][1]

    @pytest.mark.parametrize(("pack", "suffix"), [(bytes, ""), (gzip.compress, ".gz")])
    def test_idx_files_plain_and_packed(self, pack: Callable[[bytes], bytes], suffix: str, root: Path) -> None:
        write_idx(root / "MNIST" / "raw", pack=pack, suffix=suffix)
        write_idx(root / "FashionMNIST" / "raw", pack=pack, suffix=suffix)
        for name in ("mnist_full", "fashion_mnist"):
            domain = data.load(name)
            assert {split: len(rows) for split, rows in domain.splits.items()} == {
                "train": 16,
                "score": 2,
                "report": 2,
                "test": 10,
            }
            assert domain.shape == (3, 28, 28) and domain.images.dtype == torch.uint8
            assert sorted(domain.splits["test"].tolist()) == list(range(20, 30))
            pixels = [int(domain.images[row, 1, 5, 5]) for row in domain.splits["test"]]
            assert pixels == [row - 20 for row in domain.splits["test"].tolist()]

    def test_debians_fashion_mnist(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DGPRUNE_DATA", raising=False)
        write_idx(tmp_path / "fashion-mnist", pack=gzip.compress, suffix=".gz")
        layout = external._SETS["fashion_mnist"].layouts[1]
        assert str(layout.root) == "/usr/share/datasets" and layout.searched.endswith("ubyte ...")
        object.__setattr__(layout, "root", tmp_path)
        try:
            assert "Debian" in data.load("fashion_mnist").origin
        finally:
            object.__setattr__(layout, "root", Path("/usr/share/datasets"))

    def test_usps_as_torchvision_keeps_it(self, root: Path) -> None:
        for name, count in (("usps.bz2", 20), ("usps.t.bz2", 10)):
            lines = [
                f"{k % 10 + 1} " + " ".join(f"{i + 1}:{-1 + 0.1 * k:.4f}" for i in range(256)) for k in range(count)
            ]
            (root / name).write_bytes(bz2.compress("\n".join(lines).encode()))
        domain = data.load("usps")
        assert domain.labels is not None and domain.shape == (3, 28, 28)
        assert domain.labels[:10].tolist() == list(range(10))
        assert domain.images[0].max() == 0 and domain.images[10].min() == domain.images[10].max() == 127

    def test_cifar_binary_and_never_the_pickles(self, root: Path) -> None:
        (root / "cifar-10-batches-py").mkdir()
        (root / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"\x80\x04.")
        with pytest.raises(DgpruneError, match=r"cifar-10-batches-py holds pickles.*not read"):
            data.load("cifar10")
        folder = root / "cifar-10-batches-bin"
        folder.mkdir()
        for number, name in enumerate((*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin")):
            record = bytes([number]) + b"\x0a" * 1024 + b"\x14" * 1024 + b"\x1e" * 1024
            (folder / name).write_bytes(record * 4)
        domain = data.load("cifar10")
        assert len(domain) == 24 and len(domain.splits["test"]) == 4 and domain.shape == (3, 32, 32)
        assert domain.images[0, :, 0, 0].tolist() == [10, 20, 30]
        assert domain.labels is not None and domain.labels[-1] == 5

    def test_mnist_m_as_its_authors_packed_it(self, root: Path) -> None:
        for split, count in (("train", 20), ("test", 10)):
            folder = root / "mnist_m" / f"mnist_m_{split}"
            folder.mkdir(parents=True)
            for k in range(count):
                Image.new("RGB", (32, 32), (k, 0, 255)).save(folder / f"{k:08d}.png")
            text = "".join(f"{k:08d}.png {k % 10}\n" for k in range(count))
            (root / "mnist_m" / f"mnist_m_{split}_labels.txt").write_text(text)
        domain = data.load("mnist_m_published")
        assert "archive of PNG" in domain.origin and domain.shape == (3, 28, 28)
        assert domain.images[7, :, 0, 0].tolist() == [7, 0, 255] and len(domain.splits["test"]) == 10

    def test_damaged_files_are_refused(self, root: Path) -> None:
        np.savez(root / "usps.npz", x_train=np.zeros((2, 16, 16), np.uint8))
        with pytest.raises(DgpruneError, match=r"could not be read .it has no array y_train, x_test, y_test; it has x"):
            data.load("usps")
        (root / "cifar10_25k.npz").write_bytes(b"PK\x03\x04 cut off")
        with pytest.raises(DgpruneError, match=r"cifar10_25k.npz could not be read .*Remove it and get it again"):
            data.load("cifar10")
        write_idx(root / "MNIST" / "raw", pack=lambda content: b"<html>" + content, suffix="")
        with pytest.raises(DgpruneError, match=r"train-images-idx3-ubyte is not an idx file"):
            data.load("mnist_full")

    def test_an_npz_with_pickles_is_refused(self, root: Path) -> None:
        buffer = io.BytesIO()
        pickled = np.array([{}], dtype=object)
        np.savez(buffer, x_train=pickled, y_train=pickled, x_test=pickled, y_test=pickled)
        (root / "usps.npz").write_bytes(buffer.getvalue())
        with pytest.raises(DgpruneError, match=r"allow_pickle=False"):
            data.load("usps")

    @pytest.mark.parametrize(
        ("name", "shape", "sizes"),
        [
            pytest.param("mnist_full", (3, 28, 28), (48000, 6000, 6000, 10000), marks=there("MNIST/raw")),
            pytest.param("mnist_m_published", (3, 28, 28), (8000, 1000, 1000, 9001), marks=there("mnist_m.npz")),
            pytest.param("usps", (3, 28, 28), (5832, 729, 730, 2007), marks=there("usps.npz")),
            pytest.param("cifar10", (3, 32, 32), (16000, 2000, 2000, 5000), marks=there("cifar10_25k.npz")),
        ],
    )
    def test_the_real_sets(self, name: str, shape: tuple[int, ...], sizes: tuple[int, ...]) -> None:
        domain = data.load(name)
        assert domain.shape == shape and domain.images.dtype == torch.uint8 and domain.classes == 10
        assert tuple(len(domain.splits[split]) for split in ("train", "score", "report", "test")) == sizes
        assert torch.equal(torch.cat(list(domain.splits.values())).sort().values, torch.arange(len(domain)))
        assert domain.labels is not None
        whole = domain.labels[torch.cat([domain.splits[split] for split in ("train", "score", "report")])].bincount()
        for split in ("train", "score", "report"):
            rows = domain.splits[split]
            counts = domain.labels[rows].bincount(minlength=10)
            assert (counts - whole * len(rows) / whole.sum()).abs().max() <= 1.5
        batch = next(domain.batches("test", images=32))
        assert batch.images.dtype == torch.float32 and batch.images.max() > 0.9
