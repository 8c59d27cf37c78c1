"""Pictures under a limit of address space: drawn by a child process, or refused in a sentence; never an abort."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

resource = pytest.importorskip("resource", reason="limits of POSIX")

_SCRIPT = """
import resource, sys
import altair as alt, pandas as pd
import dgprune_lab as dg
from dgprune_lab.charts import renderer
from dgprune_lab.charts.theme import finish

soft, hard = 24 * 2**30, int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
chart = alt.Chart(pd.DataFrame({"a": [1, 2]})).mark_point().encode(x="a:Q")
chart = finish(alt.layer(chart), width=50, height=50, padding={"left": 9, "right": 9, "top": 9, "bottom": 9})
for draw in (lambda: dg.charts.svg(chart), lambda: chart._repr_mimebundle_()["image/svg+xml"]):
    try:
        print(draw()[:4])
    except dg.DgpruneError as error:
        print("refused:", error)
    except KeyError:
        print("text:", chart._repr_mimebundle_()["text/plain"])
"""


def drawn(hard: int) -> list[str]:
    command = [sys.executable, "-c", _SCRIPT, str(hard)]
    child = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert child.returncode == 0, child.stderr
    return child.stdout.splitlines()


def test_under_a_limit_that_may_be_lifted_a_child_draws() -> None:
    assert drawn(resource.RLIM_INFINITY) == ["<svg", "<svg"]


def test_under_a_hard_limit_a_sentence_says_what_to_do() -> None:
    refused, text = drawn(24 * 2**30)
    for line in (refused, text):
        assert "the picture could not be drawn: this process may use 24 GB of address space (ulimit -v)" in line
        assert "ulimit -v unlimited" in line
