"""A UMAP fit in a child process: it is reproducible, can be stopped, and leaves nothing behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest

import dgprune_lab as dg
from dgprune_lab.stats import umap_child, umap_process
from dgprune_lab.stats.umap_process import Fit, embed, fit_steps

EACH = 120
FOLDER = str(Path(umap_process.__file__).parent)
PATIENCE = 60.0  # seconds; a child that ends at all ends in a fraction of one


class Ran(NamedTuple):
    steps: list[tuple[str, float]]
    places: Any
    longest_pause: float


def two_clusters() -> np.ndarray:
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(2 * EACH, 8))
    rows[EACH:, 0] += 12
    return rows


@pytest.fixture(scope="module")
def ran() -> Ran:
    """One fit, with another thread that runs Python all the time; a pause counts the processor time of this process."""
    over, pauses = threading.Event(), []

    def runs() -> None:
        last = time.process_time()
        while not over.is_set():
            time.sleep(0.005)
            now = time.process_time()
            pauses.append(now - last)
            last = now

    beside = threading.Thread(target=runs)
    beside.start()
    steps, work = [], fit_steps(two_clusters())
    try:
        while True:
            steps.append(next(work))
    except StopIteration as end:
        return Ran(steps, end.value, max(pauses))
    finally:
        over.set()
        beside.join()


def child(monkeypatch: pytest.MonkeyPatch, work: str) -> None:
    """Replace UMAP in the child by other work; everything around it is real."""
    code = (
        "import os, sys, time, threading; sys.path.append(sys.argv[1]); import umap_child as e\n"
        f"def places(rows, report, **options):\n    {work}\n"
        "e._places = places; e.serve()"
    )
    monkeypatch.setattr(umap_process, "_CHILD", code)


def ended(pid: int) -> bool:
    """Whether a process ends; an orphan that is not reaped yet stays as a zombie."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    psutil.Process(pid).kill()
    return False


def python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )
    assert done.stderr == "", done.stderr
    return done.stdout.strip()


def test_planted_clusters_stay_apart_and_neighbours_together(ran: Ran) -> None:
    places = ran.places
    assert places.shape == (2 * EACH, 2) and places.dtype == np.float32
    way = places[EACH:].mean(0) - places[:EACH].mean(0)
    along = places @ way
    assert along[:EACH].max() < along[EACH:].min()


def test_progress_reports_stages_and_shares(ran: Ran) -> None:
    stages = list(dict.fromkeys(words.split(" (")[0] for words, _ in ran.steps))
    known = ["starting", "comparing images", "drawing", "done"]  # the second and the last may pass between two looks
    assert stages == [stage for stage in known if stage in stages] and {"starting", "drawing"} <= set(stages)
    shares = [share for _, share in ran.steps]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] <= 1
    assert any("of 500)" in words for words, _ in ran.steps)


def test_this_process_continues_meanwhile(ran: Ran) -> None:
    assert ran.longest_pause < 1


@pytest.mark.slow
def test_same_rows_and_seed_give_the_same_positions_in_any_unit(ran: Ran, capfd: pytest.CaptureFixture[str]) -> None:
    rows = 4 * two_clusters()  # a power of two: not a bit of the scaled rows may differ
    before = rows.copy()
    np.testing.assert_array_equal(embed(rows), ran.places)
    np.testing.assert_array_equal(rows, before)
    assert not np.array_equal(embed(rows, seed=1), ran.places)
    assert capfd.readouterr() == ("", "")


def test_a_ring_stays_a_ring() -> None:
    """Each row's nearest in the map are its nearest on the ring; a map that shuffled the rows would find none."""
    angles = np.linspace(0, 2 * np.pi, 150, endpoint=False)
    fit = Fit(np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1).astype(np.float32), neighbours=8, min_dist=0.3)
    with pytest.raises(dg.DgpruneError, match="not ready yet"):
        _ = fit.places
    assert fit.wait(PATIENCE) and fit.done and fit.progress == ("done", 1.0)
    far = np.linalg.norm(fit.places[:, None] - fit.places[None], axis=2)
    steps = np.abs(np.argsort(far, axis=1)[:, 1:5] - np.arange(150)[:, None])
    assert (np.minimum(steps, 150 - steps) <= 8).mean() > 0.9
    fit.close()
    assert fit.places.shape == (150, 2)  # what is there stays


def test_the_neighbours_are_exact_and_each_row_is_its_own_first() -> None:
    rows = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    rows[40:] = rows[40]  # more equal rows than neighbours
    indices, distances = umap_child._nearest(rows, 6)
    slow = np.linalg.norm(rows[:, None].astype(float) - rows[None], axis=2)
    np.testing.assert_array_equal(indices[:, 0], np.arange(60))
    np.testing.assert_allclose(distances, np.sort(slow, axis=1)[:, :6], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(slow, indices.astype(int), 1), distances, atol=1e-6)
    assert all(len(set(row)) == 6 for row in indices.tolist())


@pytest.mark.slow
def test_the_child_reports_each_stage_and_imports_no_torch_and_the_parent_no_numba() -> None:
    output = python(
        "import sys, warnings; warnings.simplefilter('ignore'); import numpy as np\n"
        "import dgprune_lab.stats; print('numba' in sys.modules, 'umap' in sys.modules)"
    )
    assert output == "False False"
    output = python(
        f"import sys, warnings; warnings.simplefilter('ignore'); sys.path.append({FOLDER!r}); import numpy as np\n"
        "import umap_child\n"
        "rows, stages = np.random.default_rng(0).normal(size=(40, 3)).astype('f4'), []\n"
        "umap_child._places(rows, lambda stage, _: stages.append(stage), seed=0, neighbours=5, min_dist=0.1)\n"
        "print('umap' in sys.modules, 'torch' in sys.modules)\n"
        "print(*stages[:3], stages[-1], sep='; ')"
    )
    inside, stages = output.splitlines()
    assert inside == "True False"
    assert stages == "starting; comparing images; drawing (epoch 0 of 500); drawing (epoch 500 of 500)"


def test_closing_ends_the_child_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, "time.sleep(600)")
    others = set(psutil.Process().children())
    steps = fit_steps(two_clusters())
    assert next(steps) == ("starting", 0.0)
    next(steps)
    (started,) = set(psutil.Process().children()) - others
    assert os.name == "nt" or os.getpgid(started.pid) != os.getpgid(0)  # an interrupt of the notebook passes it by
    steps.close()
    assert not psutil.pid_exists(started.pid)
    assert all(thread.name != "dgprune-map" for thread in threading.enumerate())
    fit = Fit(two_clusters())
    fit.close()
    assert fit.done and not psutil.pid_exists(fit._process.pid)
    with pytest.raises(dg.DgpruneError, match="stopped before it was drawn"):
        _ = fit.places


def test_an_unreferenced_fit_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, "time.sleep(600)")
    fit = Fit(two_clusters())
    pid = fit._process.pid
    del fit
    gc.collect()
    assert ended(pid)


@pytest.mark.parametrize("end", ["os._exit(1)", "pass", "os.kill(os.getpid(), 9)"])
def test_the_child_does_not_outlive_its_parent(end: str) -> None:
    """A busy child, so that nothing but the end of its input can stop it."""
    code = (
        "import os, time; import numpy as np; from dgprune_lab.stats import umap_process\n"
        "umap_process._CHILD = 'import sys; sys.path.append(sys.argv[1]); import umap_child as e\\n'"
        "'def places(rows, report, **options):\\n    report(\"busy\", 0.5)\\n    while True: pass\\n'"
        "'e._places = places; e.serve()'\n"
        "fit = umap_process.Fit(np.random.default_rng(0).normal(size=(40, 3)))\n"
        "while fit.progress[0] != 'busy': time.sleep(0.01)\n"
        f"print(fit._process.pid, flush=True); {end}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stderr == "" and ended(int(done.stdout))


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        ("raise ValueError('k >= N\\nmore')", r"could not draw these rows: ValueError: k >= N\. Repeat with another"),
        ("raise RuntimeError('cannot cache: no locator available')", "Set NUMBA_CACHE_DIR to a folder"),
        ("raise e._Refused('Just this. Do that.')", r"^Just this\. Do that\.$"),
        ("os._exit(3)", r"ended early \(code 3\)"),
        ("os.write(1, b'{'); print('noise'); raise ValueError('after noise')", "after noise"),
        ("import numpy; return numpy.array([{}])", "Object arrays cannot be saved"),  # no pickle,
    ],
)
def test_errors_in_the_child_become_messages(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], work: str, sentence: str
) -> None:
    child(monkeypatch, work)
    with pytest.raises(dg.DgpruneError, match=sentence) as raised:
        embed(two_clusters())
    assert "Traceback" not in str(raised.value) and capfd.readouterr() == ("", "")


def test_a_child_killed_from_outside_and_one_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, "time.sleep(600)")
    fit = Fit(two_clusters())
    fit._process.kill()
    assert fit.wait(PATIENCE)
    with pytest.raises(dg.DgpruneError, match="ended early"):
        _ = fit.places
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(dg.DgpruneError, match="No process could be started"):
        Fit(two_clusters())


def changed(at: int, value: float) -> np.ndarray:
    rows = two_clusters()
    rows[at, 0] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "options", "sentence"),
    [
        (two_clusters()[:15], {}, "needs 16 rows or more, and there are 15. Give more images"),
        (two_clusters()[:4], {"neighbours": 2}, "needs 5 rows or more, and there are 4"),
        (changed(3, np.nan), {}, "1 of 240 rows hold NaN or infinity"),
        (changed(3, -np.inf), {}, "1 of 240 rows hold NaN or infinity"),
        (np.full((30, 4), 0.1), {}, "All 30 rows are equal"),
        (np.zeros(30), {}, r"a table \(N, D\) of numbers, got shape \(30,\)"),
        (np.zeros((30, 0)), {}, r"got shape \(30, 0\)"),
        (np.full((30, 2), "a"), {}, "of <U1"),
        (two_clusters(), {"seed": -1}, "seed must be a whole number"),
        (two_clusters(), {"seed": 2**32}, "seed must be a whole number"),
        (two_clusters(), {"neighbours": 1}, "neighbours must be a whole number from 2, got 1"),
        (two_clusters(), {"min_dist": 1.5}, "min_dist must be between 0 and 1, got 1.5"),
    ],
)
def test_rows_that_cannot_be_drawn_are_refused_before_any_process(
    monkeypatch: pytest.MonkeyPatch, rows: np.ndarray, options: dict[str, Any], sentence: str
) -> None:
    monkeypatch.setattr(umap_process, "_start_child", lambda: pytest.fail("a process was started"))
    with pytest.raises(dg.DgpruneError, match=sentence):
        embed(rows, **options)


@pytest.mark.parametrize(("shift", "unit"), [(0.0, 1e-160), (1e6, 1.0), (0.0, 1e30)])
def test_rows_are_centred_and_of_mean_square_length_one(shift: float, unit: float) -> None:
    rows = umap_process._scale_rows(shift + unit * two_clusters(), seed=0, neighbours=15, min_dist=0.1)
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-6)
    assert np.square(rows).sum(1).mean() == pytest.approx(1, rel=1e-5)


def test_other_progress_bar_output_is_ignored() -> None:
    reports: list[tuple[str, float]] = []
    bar = umap_child._Epochs(lambda words, share: reports.append((words, share)))
    for text in ("\r10/40", "Epochs completed: 12%", "0/0", "", "\n"):
        bar.write(text)
    bar.flush()
    assert reports == [("drawing (epoch 10 of 40)", pytest.approx(0.475))]


def test_a_umap_that_imports_more_of_pynndescent_gets_the_real_one(tmp_path: Path) -> None:
    for name, text in {"pynndescent": "class More: pass", "umap": "from pynndescent import More"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    code = (
        f"import sys; sys.path.append({FOLDER!r}); from umap_child import _library; print(_library().More.__module__)"
    )
    assert python(code, PYTHONPATH=str(tmp_path)) == "pynndescent"
