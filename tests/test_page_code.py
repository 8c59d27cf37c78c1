"""The page's own code, without a browser: what it computes equals what Python draws."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from js_fixture import PATH, fixture

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


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_javascript(path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    done = subprocess.run([node, "--test", str(path)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
