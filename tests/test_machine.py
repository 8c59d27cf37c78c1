"""The thread probe, the device, memory within a container, and randomness that leaves the global generators alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from dgprune_lab.core import machine, memory
from dgprune_lab.core import random as seeds
from dgprune_lab.core.errors import DgpruneError


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No thread count chosen yet, none asked for, and torch's own put back afterwards."""
    before = torch.get_num_threads()
    monkeypatch.setattr(machine, "_chosen", None)
    monkeypatch.setattr(machine, "_local", threading.local())
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("DGPRUNE_THREADS", raising=False)
    yield
    torch.set_num_threads(before)


def test_two_threads_are_taken_when_clearly_and_steadily_faster() -> None:
    result = machine.decide({1: [10.0] * 20, 2: [6.0] * 19 + [12.0]})
    assert result.count == 2
    assert result.reason.startswith("2 threads: ")


def test_two_threads_are_refused_when_only_a_little_faster() -> None:
    assert machine.decide({1: [10.0] * 20, 2: [8.0] * 20}).count == 1
    assert machine.decide({1: [10.0] * 20, 2: [7.9] * 20}).count == 2


def test_two_threads_are_refused_when_unsteady_however_fast_their_best_run() -> None:
    result = machine.decide({1: [0.033] * 20, 2: [0.015] * 19 + [0.204]})
    assert result.count == 1
    assert "up to 204.0 ms" in result.reason


def test_larger_counts_stop_at_the_first_refusal() -> None:
    assert machine.decide({1: [16.0] * 5, 2: [8.0] * 5, 4: [4.0] * 5}).count == 4
    assert machine.decide({1: [16.0] * 5, 2: [15.0] * 5, 4: [4.0] * 5}).count == 1


def test_one_timing_needs_no_comparison() -> None:
    assert machine.decide({1: [1.0]}).count == 1


def test_the_probe_tries_more_threads_only_while_they_win(undecided: None, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[int, int]] = []
    seconds = {1: 8.0, 2: 4.0, 4: 3.9, 8: 0.1}

    def timings(one: int, other: int) -> dict[int, list[float]]:
        tried.append((one, other))
        return {one: [seconds[one]], other: [seconds[other]]}

    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "_timings", timings)
    assert machine.threads().count == 2
    assert tried == [(1, 2), (2, 4)]


def test_one_core_is_not_probed(undecided: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 1)
    assert machine.threads() == machine.Threads(1, "1 thread: there is only one core to use")


def test_the_probe_runs_once_sets_torch_and_leaves_the_generators(undecided: None) -> None:
    state = torch.get_rng_state()
    first = machine.threads()
    assert torch.get_num_threads() == first.count
    assert machine.threads() is first
    assert machine.threads(force=True) is not first
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("environment", "count", "word"),
    [
        ({"DGPRUNE_THREADS": "3"}, 3, "DGPRUNE_THREADS"),
        ({"OMP_NUM_THREADS": "2"}, 2, "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "3,1"}, 3, "OMP_NUM_THREADS"),
        ({"DGPRUNE_THREADS": "2", "OMP_NUM_THREADS": "1"}, 2, "DGPRUNE_THREADS"),
    ],
)
def test_the_environment_comes_before_the_probe(
    undecided: None, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], count: int, word: str
) -> None:
    monkeypatch.setattr(machine, "_measure_threads", lambda: pytest.fail("probed although a count was asked for"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = machine.threads()
    assert result.count == count == torch.get_num_threads()
    assert word in result.reason


def test_off_leaves_torch_as_it_is(undecided: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    monkeypatch.setenv("DGPRUNE_THREADS", "off")
    assert machine.threads().count == 2 == torch.get_num_threads()


@pytest.mark.parametrize("wish", ["0", "-1", "many", "1.5"])
def test_an_invalid_count_is_refused(undecided: None, monkeypatch: pytest.MonkeyPatch, wish: str) -> None:
    monkeypatch.setenv("DGPRUNE_THREADS", wish)
    with pytest.raises(DgpruneError, match=f"DGPRUNE_THREADS must be a number from 1 or \"off\"; got '{wish}'"):
        machine.threads()


def test_a_thread_that_ran_before_gets_the_count_when_it_asks(undecided: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    started, chosen, seen = threading.Event(), threading.Event(), []

    def work() -> None:
        seen.append(torch.get_num_threads())
        started.set()
        chosen.wait(10)
        machine.threads()
        seen.append(torch.get_num_threads())

    worker = threading.Thread(target=work)
    worker.start()
    started.wait(10)
    monkeypatch.setenv("DGPRUNE_THREADS", "1")
    machine.threads()
    chosen.set()
    worker.join(10)
    assert seen == [2, 1]


def test_device_by_name_and_by_default() -> None:
    assert machine.device("cpu") == torch.device("cpu")
    assert machine.device().type in {"cpu", "cuda", "mps"}


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_a_missing_device_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DgpruneError, match=f"device '{name}' was requested, but .* device='cpu'"):
        machine.device(name)


def test_a_gpu_number_too_high_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert machine.device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(DgpruneError, match="there are 1 GPUs"):
        machine.device("cuda:1")


def test_an_unknown_device_gets_the_nearest_name() -> None:
    with pytest.raises(DgpruneError, match=r"unknown device 'cdua'; known: cpu, cuda, mps\. Did you mean 'cuda'"):
        machine.device("cdua")


def test_memory_follows_the_limit_of_a_v2_group_above(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/user/job\n")
    job = tmp_path / "user" / "job"
    job.mkdir(parents=True)
    (job / "memory.max").write_text("max\n")
    (job / "memory.current").write_text("900000000\n")
    (job.parent / "memory.max").write_text("2000000000\n")
    (job.parent / "memory.current").write_text("1500000000\n")
    (job.parent / "memory.stat").write_text("anon 1\ninactive_file 400000000\n")
    result = memory.memory(cgroups=tmp_path, own=own)
    assert (result.total, result.available) == (2_000_000_000, 900_000_000)
    assert 0 < result.used == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert "2.0 GB available" in str(result)


def test_memory_follows_the_limit_of_a_v1_group_that_the_container_sees_as_its_root(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("9:cpu,cpuacct:/docker/12ab\n5:memory:/docker/12ab\n0::/\n")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("2147483648\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("1600000000\n")
    (tmp_path / "memory" / "memory.stat").write_text("inactive_file 7\ntotal_inactive_file 300000000\n")
    result = memory.memory(cgroups=tmp_path, own=own)
    assert (result.total, result.available) == (2**31, 2**31 - 1_300_000_000)


def test_memory_over_its_limit_leaves_nothing_available(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/box\n")
    (tmp_path / "memory.max").write_text("1000000000\n")
    (tmp_path / "memory.current").write_text("1200000000\n")
    result = memory.memory(cgroups=tmp_path, own=own)
    assert (result.total, result.available) == (1_000_000_000, 0)


@pytest.mark.parametrize("limit", ["9223372036854771712", "max", "spoiled"])
def test_memory_without_a_limit_is_the_machine_s(tmp_path: Path, limit: str) -> None:
    own = tmp_path / "own"
    own.write_text("0::/\n")
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("1")
    total = psutil.virtual_memory().total
    assert memory.memory(cgroups=tmp_path, own=own).total == total
    assert memory.memory(cgroups=tmp_path, own=tmp_path / "absent").total == total


def test_cuda_is_not_started_to_look_at_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (5, 6))
    assert memory.memory().gpu_free is None and memory.memory(gpu=True).gpu_free == 5


def test_generators_depend_on_their_parts_only() -> None:
    def draw(*parts: int | str) -> list[float]:
        return torch.rand(4, generator=seeds.generator(*parts)).tolist()

    state = torch.get_rng_state()
    assert draw("conv1", 0) == draw("conv1", 0)
    assert len({tuple(draw(*parts)) for parts in [("conv1", 0), ("conv1", "0"), ("conv1", 1), ("conv10",), (0,)]}) == 5
    assert torch.equal(torch.get_rng_state(), state)
    assert seeds.seed("conv1", 0) == 4068696045938659225  # the same in every process and release


def test_preserved_rng_puts_back_all_three_even_after_an_error() -> None:
    def peek() -> list[float]:
        states = torch.get_rng_state(), np.random.get_state(), random.getstate()
        drawn = [torch.rand(()).item(), float(np.random.rand()), random.random()]
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        return drawn

    before = peek()
    with pytest.raises(RuntimeError, match="half-way"), seeds.preserved_rng():
        torch.manual_seed(5)
        np.random.seed(5)
        seeds.seed(5)
        raise RuntimeError("half-way")
    assert peek() == before


@pytest.mark.gpu
def test_preserved_rng_puts_back_cuda() -> None:
    torch.cuda.init()
    before = torch.cuda.get_rng_state()
    with seeds.preserved_rng():
        torch.rand(3, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), before)
    gpu_free = memory.memory(gpu=True).gpu_free
    assert gpu_free is not None and gpu_free > 0


def test_of_overlapping_blocks_of_full_precision_the_last_one_restores_the_setting() -> None:
    """A worker thread measures while another one does, and the one that began first ends first."""
    cudnn: Any = torch.backends.cudnn
    owner, name = (cudnn.conv, "fp32_precision") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32")
    before = getattr(owner, name)
    exact = "ieee" if name == "fp32_precision" else False
    first, second = machine.full_precision(torch.device("cuda")), machine.full_precision(torch.device("cuda"))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert getattr(owner, name) == exact
    second.__exit__(None, None, None)
    assert getattr(owner, name) == before
    with machine.full_precision(torch.device("cpu")):
        assert getattr(owner, name) == before
