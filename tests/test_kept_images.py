"""Decoded images are kept in memory or in a file: none is decoded twice, and no pixel is ever another's."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import pickle
import re
import resource
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from material import norm_net, randomise
from PIL import Image
from torch.utils.data import Dataset

import dgprune_lab as dg
from dgprune_lab.core import kept_images, memory
from dgprune_lab.data import image_files

SIDE, COUNT = 8, 30
BYTES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (COUNT, 3, SIDE, SIDE), dtype=np.uint8))
SPLITS = {"train": range(10), "score": range(10, 20), "report": range(20, COUNT)}
ROWS = torch.arange(COUNT)


class Counted(Dataset[Any]):
    """Images whose readings are counted; `content` names them where it is given."""

    def __init__(self, images: torch.Tensor = BYTES, *, content: str | None = None) -> None:
        self.images, self.reads, self.targets = images, Counter[int](), [k % 3 for k in range(len(images))]
        if content is not None:
            self.content = partial(str, content)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.reads[index] += 1
        return self.images[index], index % 3


def domain_of(dataset: Any, name: str = "mine") -> dg.Domain:
    domain = dg.Domain.from_dataset(name, dataset, splits=SPLITS)
    if isinstance(dataset, Counted):
        dataset.reads.clear()
    return domain


def images_of(domain: dg.Domain) -> torch.Tensor:
    return (domain.take(ROWS).images * 255).round().to(torch.uint8)


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No image fits into memory; files go into this folder."""
    monkeypatch.setattr(kept_images, "SHARE", 0.0)
    monkeypatch.setenv("DGPRUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def test_an_image_is_read_once_whatever_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_images, "_CHUNK", 7 * BYTES[0].numel())  # several chunks of memory
    dataset = Counted()
    domain = domain_of(dataset)
    for rows in (torch.tensor([3, 29, 3, 7]), ROWS.flip(0), ROWS[::3], torch.tensor([], dtype=torch.int64)):
        torch.testing.assert_close(domain.take(rows).images * 255, BYTES[rows].float())
    assert set(dataset.reads) == set(range(COUNT)) and max(dataset.reads.values()) == 1


def test_labels_that_no_list_holds_are_read_together_with_the_images() -> None:
    dataset = Counted()
    del dataset.targets
    domain = domain_of(dataset)
    assert torch.equal(images_of(domain), BYTES) and not dataset.reads


def test_a_float_image_after_bytes_makes_all_images_float() -> None:
    domain = domain_of([(BYTES[k] if k < 20 else BYTES[k] / 255, 0) for k in range(COUNT)])
    for rows in (ROWS[:5], ROWS[15:], ROWS):
        torch.testing.assert_close(domain.take(rows).images, BYTES[rows] / 255)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="files without a name cannot be opened again here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("content", [None, "a"])
def test_a_copy_and_a_pickle_do_not_decode_again(
    content: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DGPRUNE_CACHE", str(tmp_path))
    domain = domain_of(Counted(content=content))
    domain.take(ROWS[:20])
    domain.images.dataset.reads.clear()
    copied, sent = copy.deepcopy(domain), pickle.dumps(domain)

    def read() -> None:
        received = pickle.loads(sent)
        same = torch.equal(images_of(received), BYTES)
        os._exit(not same or set(received.images.dataset.reads) != set(range(20, COUNT)))

    child = multiprocessing.get_context("fork").Process(target=read)
    child.start()
    child.join(20)
    assert child.exitcode == 0
    for twin in (copied, domain):  # the child has decoded the rest
        assert torch.equal(images_of(twin), BYTES) and not twin.images.dataset.reads
    del domain, twin, copied
    gc.collect()
    late = pickle.loads(sent)
    assert torch.equal(images_of(late), BYTES) and len(late.images.dataset.reads) == (0 if content else COUNT)


def test_without_a_folder_for_files_a_pickle_decodes_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGPRUNE_CACHE", "off")
    domain = domain_of(Counted())
    images_of(domain)
    twin = pickle.loads(pickle.dumps(domain))
    twin.images.dataset.reads.clear()
    assert torch.equal(images_of(twin), BYTES) and len(twin.images.dataset.reads) == COUNT


@pytest.mark.filterwarnings("ignore:domain .* decoded images take")
class TestFiles:
    def test_images_that_do_not_fit_into_memory_go_to_a_file(self, no_memory: Path) -> None:
        dataset = Counted(content="a")
        with pytest.warns(dg.DgpruneNote, match=r"'mine': 30 decoded images take .* GB.*kept in .*DGPRUNE_CACHE"):
            domain = domain_of(dataset)
            assert torch.equal(images_of(domain), BYTES)
        assert torch.equal(images_of(domain), BYTES) and max(dataset.reads.values()) == 1
        assert len(list(no_memory.iterdir())) == 1

    def test_a_later_process_finds_them_by_their_content(self, no_memory: Path) -> None:
        images_of(domain_of(Counted(content="a")))
        again, other = Counted(content="a"), Counted(255 - BYTES, content="b")
        assert torch.equal(images_of(domain_of(again)), BYTES) and not again.reads
        assert torch.equal(images_of(domain_of(other)), 255 - BYTES) and len(other.reads) == COUNT

    def test_without_a_content_nothing_is_shared_and_no_file_stays(self, no_memory: Path) -> None:
        first, second = Counted(), Counted(255 - BYTES)
        domains = [domain_of(first), domain_of(second)]
        for _ in range(2):
            assert [torch.equal(images_of(d), x) for d, x in zip(domains, (BYTES, 255 - BYTES), strict=True)] == [
                True
            ] * 2
        assert max(first.reads.values()) == max(second.reads.values()) == 1
        assert not list(no_memory.iterdir())

    def test_damaged_pixels_are_decoded_again(self, no_memory: Path) -> None:
        images_of(domain_of(Counted(content="a")))
        (file,) = no_memory.iterdir()
        with file.open("r+b") as stream:
            stream.seek(4 * BYTES[0].numel() + 5)
            stream.write(bytes([int(BYTES[4].flatten()[5]) ^ 1]))
        again = Counted(content="a")
        assert torch.equal(images_of(domain_of(again)), BYTES) and set(again.reads) == {4}
        with file.open("r+b") as stream:
            stream.truncate(100)  # cut short: made anew
        assert torch.equal(images_of(domain_of(Counted(content="a"))), BYTES)

    @pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
    def test_two_processes_fill_one_file_at_once(self, no_memory: Path) -> None:
        domains = [domain_of(Counted(content="a")) for _ in range(2)]
        fork = multiprocessing.get_context("fork")
        barrier = fork.Barrier(2)

        def fill(rows: torch.Tensor, domain: dg.Domain) -> None:
            domain.take(rows[:1])  # opens the file
            barrier.wait(10)
            for row in rows:
                domain.take(row[None])
            os._exit(not torch.equal(images_of(domain), BYTES))

        children = [fork.Process(target=fill, args=each) for each in zip((ROWS, ROWS.flip(0)), domains, strict=True)]
        for child in children:
            child.start()
        for child in children:
            child.join(20)
        assert [child.exitcode for child in children] == [0, 0]
        after = Counted(content="a")
        assert torch.equal(images_of(domain_of(after)), BYTES) and not after.reads

    def test_the_files_used_longest_ago_leave_first(self, no_memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for k, content in enumerate("abc"):
            images_of(domain_of(Counted(content=content)))
            for file in no_memory.iterdir():
                if file.stat().st_mtime > 1e9:
                    os.utime(file, (k, k))
        images_of(domain_of(Counted(content="a")))  # used again: now the youngest
        taken = sum(kept_images._disk_usage(file) for file in no_memory.iterdir())
        monkeypatch.setattr(kept_images, "DISK", taken)
        with pytest.warns(dg.DgpruneNote):
            images_of(domain_of(Counted(content="d")))
        reads = {}
        for content in "acd":
            dataset = Counted(content=content)
            images_of(domain_of(dataset))
            reads[content] = len(dataset.reads)
        assert reads == {"a": 0, "c": 0, "d": 0}
        assert sum(kept_images._disk_usage(file) for file in no_memory.iterdir()) <= taken

    @pytest.mark.parametrize("reason", ["a file in its place", "off", "too little room"])
    def test_without_a_file_the_images_are_decoded_each_time_and_it_is_said(
        self, no_memory: Path, monkeypatch: pytest.MonkeyPatch, reason: str
    ) -> None:
        if reason == "a file in its place":
            no_memory.parent.write_text("")
        elif reason == "off":
            monkeypatch.setenv("DGPRUNE_CACHE", "off")
        else:
            monkeypatch.setattr(kept_images, "DISK", 100)
        dataset = Counted(content="a")
        words = r"'mine': decoded images cannot be kept in" if reason != "off" else r"0 of 30 decoded images are kept"
        with pytest.warns(dg.DgpruneNote) as notes:
            domain = domain_of(dataset)
            assert torch.equal(images_of(domain), BYTES)
        assert any(re.search(words, str(note.message)) for note in notes)
        assert torch.equal(images_of(domain), BYTES) and set(dataset.reads.values()) == {2}

    def test_a_full_disk_leaves_the_numbers_right(self, no_memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        domain = domain_of(Counted(content="a"))
        domain.take(ROWS[:10])
        monkeypatch.setattr(kept_images, "_write_at", full)
        with pytest.warns(dg.DgpruneNote, match="further decoded images cannot be kept .No space left on device"):
            assert torch.equal(images_of(domain), BYTES)


def test_memory_holds_as_many_as_fit_and_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 10 * BYTES[0].numel()
    monkeypatch.setattr(kept_images, "_CHUNK", size)
    monkeypatch.setattr(kept_images, "_reserved", 0)
    monkeypatch.setattr(kept_images, "memory", lambda: SimpleNamespace(available=8 * size - kept_images._reserved))
    monkeypatch.setenv("DGPRUNE_CACHE", "off")
    dataset = Counted()

    def twice() -> None:
        domain = domain_of(dataset)
        with pytest.warns(dg.DgpruneNote, match=r"20 of 30 decoded images are kept, .* 25 % of the available memory"):
            assert torch.equal(images_of(domain), BYTES)
        dataset.reads.clear()
        assert torch.equal(images_of(domain), BYTES) and sum(dataset.reads.values()) == 10
        assert kept_images._reserved == 2 * size

    twice()
    gc.collect()
    assert kept_images._reserved == 0


@pytest.mark.filterwarnings("ignore:domain .* decoded images take")
def test_room_is_taken_before_it_is_filled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    size = BYTES.numel()
    monkeypatch.setenv("DGPRUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(kept_images, "_reserved", 0)
    monkeypatch.setattr(kept_images, "memory", lambda: SimpleNamespace(available=6 * size - kept_images._reserved))
    first, second = (domain_of(Counted(), name) for name in "ab")
    first.take(ROWS[:1])
    assert torch.equal(images_of(second), BYTES) and second.images._kept._file is not None
    assert torch.equal(images_of(first), BYTES) and first.images._kept._file is None


def test_a_limit_of_the_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    used = psutil.Process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda which: (used + 10**9, resource.RLIM_INFINITY))
    assert 0.9e9 < memory.memory().available < 1.1e9
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY,) * 2)
    assert memory.memory().total == psutil.virtual_memory().total


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two domains of two classes, 24 JPEG files each."""
    for name in ("photo", "sketch"):
        for k, word in enumerate(("dog", "emu")):
            (tmp_path / name / word).mkdir(parents=True)
            for number in range(12):
                shade = (20 * number, 100 * k, 50 if name == "photo" else 200)
                Image.new("RGB", (20, 16), shade).save(tmp_path / name / word / f"{number}.jpg")
    return tmp_path


def study_of(root: Path) -> dg.Study:
    """The first domain is the source; the second is held out."""
    shares = {"train": 0.5, "score": 0.25, "report": 0.25}
    domains = dg.data.from_folder(root, size=16, splits=shares, hold_out="sketch")
    model = randomise(norm_net(), dtype=torch.float32)
    return dg.Study(model, sources=[domains["photo"]], targets=[domains["sketch"]])


def test_a_scorer_reads_a_held_out_domain_only_when_told_to_and_the_table_says_so(root: Path) -> None:
    study = study_of(root)
    assert "'sketch' has no image in its split 'score', only in report" in str(study.unavailable(dg.SCORERS["dss"]))
    frame = dg.sweep(study, scorers=[study.score("dss", split="report"), "l1"], ratios=[0.5])
    rows = frame.loc[(frame.domain == "sketch") & (frame.metric == "accuracy")].set_index("scorer")
    assert rows.loc["dss", "seen_by_scorer"] == "images" and rows.loc["dss", "target_aware"]
    assert rows.loc["l1", "seen_by_scorer"] == "none" and rows.images.tolist() == [24, 24]


def test_nothing_is_decoded_after_the_first_pass(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: Counter[str] = Counter()
    read = image_files.read_image

    def counted(path: Path, **options: Any) -> torch.Tensor:
        decoded[str(path)] += 1
        return read(path, **options)

    monkeypatch.setattr(image_files, "read_image", counted)
    study = study_of(root)
    decoded.clear()
    dg.measure(study.model, study.domains, batchnorm="recalibrate")
    study.score("taylor")
    assert decoded and max(decoded.values()) == 1
    decoded.clear()
    dg.measure(study.model, study.domains, batchnorm="recalibrate")
    dg.sweep(study, scorers=["l1", "taylor"], ratios=[0.0, 0.25, 0.5])
    explorer = dg.Explorer(study, ratio=0.25)
    try:
        explorer.wait_idle()
        explorer.ratio = 0.5
        assert explorer.wait_idle() and len(explorer.table)
    finally:
        explorer.close()
    assert not decoded
