"""The page's own code, without a browser: what it computes equals what Python draws."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from js_fixture import PATH, fixture

from dgprune_lab.core.rounding import percent, rounded, whole_percent
from dgprune_lab.widgets.page.static import FOLDER

TESTS = sorted((Path(__file__).parent / "js").glob("*.test.mjs"))


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal, numbers within rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == pytest.approx(other) if isinstance(one, float) else one == other


def test_the_fixture_is_what_python_draws() -> None:
    written = json.loads(PATH.read_text(encoding="utf-8"))
    assert same(written, json.loads(json.dumps(fixture()))), "run python tests/js_fixture.py"


def test_python_and_the_page_round_alike() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    shares = sorted(
        {k / n for n in range(1, 201) for k in range(n + 1)} | {1 - k / n for n in range(1, 201) for k in range(n)}
    )
    changes = sorted({100 * (k - j) / n for n in (8, 20, 64, 80, 200) for k in range(n + 1) for j in (0, n // 3, n)})
    code = f"""
        import {{ percent, rounded }} from {json.dumps((FOLDER / "rounding.js").as_uri())};
        import {{ readFileSync }} from "node:fs";
        const [shares, changes] = JSON.parse(readFileSync(0, "utf-8"));
        const texts = shares.map((share) => [0, 1, 2].map((decimals) => percent(share, decimals)));
        const numbers = changes.map((change) => [0, 1].map((decimals) => rounded(change, decimals)));
        console.log(JSON.stringify([texts, numbers]));
    """
    run = [node, "--input-type=module", "-e", code]
    asked = json.dumps([shares, changes])
    done = subprocess.run(run, input=asked, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    texts, numbers = json.loads(done.stdout)
    assert texts == [[percent(share, decimals=decimals) for decimals in (0, 1, 2)] for share in shares]
    assert [row[0] for row in texts] == [f"{whole_percent(share)} %" for share in shares]
    assert numbers == [[rounded(change, decimals) for decimals in (0, 1)] for change in changes]


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_javascript(path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    done = subprocess.run([node, "--test", str(path)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
