"""The commands: sentences instead of tracebacks; the lab answers on this machine only and ends on a signal."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from dgprune_lab.commands import cli, doctor, lab, notebooks
from dgprune_lab.core.errors import DgpruneError


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of this machine that is in use."""
    with socket.socket() as other:
        other.bind((lab.HOST, 0))
        other.listen()
        yield other.getsockname()[1]


def test_help_lists_every_command() -> None:
    shown = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "120"}).output
    names = (
        "lab",
        "report",
        "docs",
        "doctor",
        "experiment",
        "bench",
        "zoo",
        "train",
        "recipe-search",
        "gradients-against-removal",
        "version",
    )
    assert [name for name in names if name not in shown] == [] and "Open JupyterLab on the notebooks" in shown


def test_help_loads_no_more_than_the_package_itself() -> None:
    script = (
        "import sys, dgprune_lab; before = set(sys.modules); from dgprune_lab.commands.cli import app; "
        "app(['--help'], standalone_mode=False); heavy = {'torch', 'pandas', 'altair', 'jupyterlab', 'psutil'}; "
        "print('HEAVY', (heavy | {'pdoc'}) & (set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "HEAVY set()" in done.stdout, done.stdout + done.stderr


def test_a_dgprune_error_is_one_sentence_and_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: Any, **named: Any) -> int:
        raise DgpruneError("wanted this, got that: do this next.")

    monkeypatch.setattr(lab, "serve", refuse)
    result = CliRunner().invoke(cli.app, ["lab"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "dgprune-lab: wanted this, got that: do this next.\n"


def test_another_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*words: Any, **named: Any) -> int:
        raise ValueError("a bug")

    monkeypatch.setattr(lab, "serve", fail)
    result = CliRunner().invoke(cli.app, ["lab"])
    assert isinstance(result.exception, ValueError)
    assert str(result.exception) == "a bug"


@pytest.mark.parametrize(
    ("words", "module", "name", "call"),
    [
        (
            ["report", "fashion", "-o", "a.html"],
            "dgprune_lab.commands.report",
            "write_report",
            (("fashion", Path("a.html")), {"seconds": 60.0}),
        ),
        (["docs", "--out", "a", "--no-browser"], "dgprune_lab.commands.docs", "write_docs", ((Path("a"),), {})),
        (
            ["bench", "--quick"],
            "dgprune_lab.commands.bench",
            "main",
            ((), {"json": None, "quick": True, "device": None, "parts": ()}),
        ),
        (
            ["bench", "--json", "b.json", "--device", "cuda", "--part", "live", "--part", "sweep"],
            "dgprune_lab.commands.bench",
            "main",
            ((), {"json": Path("b.json"), "quick": False, "device": "cuda", "parts": ["live", "sweep"]}),
        ),
        (
            ["experiment", "pacs", "--quick", "--seeds", "3", "--workers", "2", "--device", "cuda", "--out", "f"],
            "dgprune_lab.commands.experiment",
            "main",
            (
                ("pacs",),
                {
                    "scheduler": None,
                    "workers": 2,
                    "device": "cuda",
                    "quick": True,
                    "seeds": 3,
                    "out": Path("f"),
                    "retry": False,
                },
            ),
        ),
        (["train", "net"], "dgprune_lab.commands.train", "make", (("net",), {"folder": Path(".")})),
    ],
)
def test_a_command_passes_its_options_on(
    monkeypatch: pytest.MonkeyPatch, words: list[str], module: str, name: str, call: tuple[Any, Any]
) -> None:
    calls: list[tuple[Any, Any]] = []
    stand_in = ModuleType(module)
    setattr(stand_in, name, lambda *given, **named: calls.append((given, named)))
    monkeypatch.setitem(sys.modules, module, stand_in)
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    assert calls == [call]


def test_a_port_in_use_is_refused_before_anything_starts(taken: int, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["lab", "--port", str(taken), "--workdir", str(tmp_path / "notebooks")])
    assert result.exit_code == 2
    assert f"port {taken} cannot be used" in result.stderr
    assert "--port" in result.stderr
    assert not (tmp_path / "notebooks").exists()


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_an_invalid_port_is_refused(port: int) -> None:
    with pytest.raises(DgpruneError, match=f"from 1 to 65535; got {port}"):
        lab.free_port(port)


def test_the_next_free_port_is_taken(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    monkeypatch.setattr(lab, "FIRST_PORT", taken)
    monkeypatch.setattr(lab, "_is_free", lambda port: port >= taken + 2)
    assert lab.free_port() == taken + 2
    monkeypatch.setattr(lab, "_is_free", lambda port: False)
    with pytest.raises(DgpruneError, match="no free port"):
        lab.free_port()


def test_the_default_folder_is_found_from_inside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert lab.default_workdir() == tmp_path / "dgprune-lab"
    (tmp_path / "dgprune-lab").mkdir()
    (tmp_path / "dgprune-lab" / notebooks.RECORD).write_text("{}")
    monkeypatch.chdir(tmp_path / "dgprune-lab")
    assert lab.default_workdir() == tmp_path / "dgprune-lab"


def test_the_server_stays_on_this_machine(tmp_path: Path) -> None:
    words = lab.command(tmp_path, port=9000, browser=False)
    assert "--ServerApp.ip=127.0.0.1" in words
    assert "--ServerApp.port_retries=0" in words
    assert "--LabApp.news_url=None" in words
    assert not [word for word in words if "token" in word or "password" in word]
    assert not [word for word in words if "default_url" in word], "there is no first notebook in this folder"
    (tmp_path / lab.FIRST_NOTEBOOK).write_text("{}")
    assert "--LabApp.default_url=/lab/tree/00_start.ipynb" in lab.command(tmp_path, port=9000, browser=False)


def test_root_is_allowed_for_root_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000, raising=False)
    assert "--allow-root" not in lab.command(tmp_path, port=9000, browser=True)
    monkeypatch.setattr(os, "getuid", lambda: 0, raising=False)
    assert "--allow-root" in lab.command(tmp_path, port=9000, browser=True)


def test_the_exit_code_of_the_server_is_passed_on() -> None:
    assert lab._run_server([sys.executable, "-c", "raise SystemExit(7)"]) == 7


def test_a_server_that_ignores_signals_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deaf = (
        "import pathlib, signal, time; signal.signal(15, signal.SIG_IGN); pathlib.Path('up').touch(); time.sleep(600)"
    )
    monkeypatch.setattr(lab, "_GRACE", 0.2)
    monkeypatch.chdir(tmp_path)

    def interrupt() -> None:
        while not Path("up").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    before = signal.getsignal(signal.SIGTERM)
    assert lab._run_server([sys.executable, "-c", deaf]) == 128 + signal.SIGKILL
    assert signal.getsignal(signal.SIGTERM) is before


def get(address: str, *, token: str | None = None) -> tuple[int, bytes]:
    """Status and content of one request."""
    request = urllib.request.Request(address, headers={"Authorization": f"token {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_the_lab_serves_with_its_token_and_ends_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    place, runtime = tmp_path / "notebooks", tmp_path / "runtime"
    with socket.create_server((lab.HOST, 0)) as probe:
        port = probe.getsockname()[1]
    own = {"JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "JUPYTER_RUNTIME_DIR": str(runtime)}
    options = ["--no-browser", f"--port={port}", f"--workdir={place}"]
    words = [sys.executable, "-m", "dgprune_lab.commands.cli", "lab", *options]
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(words, env={**os.environ, **own}, stdout=log, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + 180
            while not (
                found := [text for p in runtime.glob("jpserver-*.json") if (text := p.read_text()).endswith("}")]
            ):
                assert process.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
                time.sleep(0.1)
            server = json.loads(found[0])
            assert server["hostname"] == "127.0.0.1"
            assert server["token"]
            port = server["port"]  # another one where the probed one has been taken since
            while not is_listening(port):  # the file about the server can be there first
                assert process.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
                time.sleep(0.1)
            contents = f"http://127.0.0.1:{port}/api/contents"
            assert get(contents)[0] == 403
            status, listed = get(contents, token=server["token"])
            assert status == 200
            assert b"00_start.ipynb" in listed
            settings = f"http://127.0.0.1:{port}/lab/api/settings/@jupyterlab/apputils-extension:notification"
            defaults = json.loads(get(settings, token=server["token"])[1])["schema"]["properties"]
            assert (defaults["fetchNews"]["default"], defaults["checkForUpdates"]["default"]) == ("false", False)
            process.send_signal(number)
            assert process.wait(120) == 0
        finally:
            process.kill()
            process.wait()
        said = (tmp_path / "log").read_text()
    assert "00_start.ipynb: added" in said
    assert f"Notebooks: {place}" in said
    assert "/lab/tree/00_start.ipynb?token=" in said
    with pytest.raises(ProcessLookupError):
        os.kill(server["pid"], 0)


def test_the_doctor_fits_one_screen_and_one_line() -> None:
    runner = CliRunner()
    screen = runner.invoke(cli.app, ["doctor"]).output.rstrip("\n").split("\n")
    assert len(screen) <= doctor.HEIGHT
    assert max(len(line) for line in screen) <= doctor.WIDTH
    for word in ("python", "torch", "device", "threads", "memory", "data"):
        assert any(word in line for line in screen)
    (line,) = runner.invoke(cli.app, ["doctor", "--class"]).output.splitlines()
    assert line.startswith(("ready: ", "not ready: "))


def test_the_doctor_names_every_data_set_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DGPRUNE_DATA", raising=False)
    shown = CliRunner().invoke(cli.app, ["doctor", "--data"])
    assert shown.exit_code == 0
    for name in ("mnist_full", "mnist_m_published", "usps", "fashion_mnist", "cifar10"):
        if not (name == "fashion_mnist" and Path("/usr/share/datasets/fashion-mnist").is_dir()):  # Debian's package
            assert f"{name}: not found. To get it:" in shown.output


def test_the_doctor_names_missing_and_outdated_packages_with_the_fix() -> None:
    needs = ["torch>=2.6", "numpy>=9999.1", "no-such-thing-here>=1.2", "pandas"]
    old, missing = doctor.requirements(needs)
    assert old.what.startswith("numpy ") and old.what.endswith("does not meet >=9999.1")
    assert old.fix == 'pip install -U "numpy>=9999.1"'
    assert (missing.what, missing.fix) == ("no-such-thing-here is missing", 'pip install -U "no-such-thing-here>=1.2"')


def test_the_doctor_finds_mismatched_builds() -> None:
    def load(name: str) -> None:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")

    (lack,) = doctor.matching(load)
    assert "torchvision cannot be imported (operator torchvision::nms does not exist)" in lack.what
    assert "pip install --force-reinstall torch torchvision" in lack.fix
    assert doctor.matching(lambda name: None) == []


def test_class_reads_out_what_is_missing_and_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    lack = doctor.Lack("torchvision is missing", "pip install torchvision", needed=True)
    monkeypatch.setattr(doctor, "requirements", lambda: [lack])
    result = CliRunner().invoke(cli.app, ["doctor", "--class"])
    assert result.exit_code == 1
    assert result.output == "not ready: torchvision is missing; do this: pip install torchvision\n"


def test_a_missing_browser_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("requirements", "matching", "notebooks"):
        monkeypatch.setattr(doctor, name, list)
    monkeypatch.setattr(doctor, "chromium", lambda: None)
    found = doctor.examine()
    assert found.ready and found.line.startswith("ready: ")
    assert "chromium, for the browser tests: apt-get install -y chromium (optional)" in found.screen
