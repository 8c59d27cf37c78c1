"""The explorer's page as it is written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from explorer_state import HOSTILE, make_state

from dgprune_lab.core.errors import DgpruneError
from dgprune_lab.widgets.page import static
from dgprune_lab.widgets.page import vega as host
from dgprune_lab.widgets.page.standalone import inlined, write_page


def test_the_page_is_one_small_file(tmp_path: Path) -> None:
    text = write_page(tmp_path / "deep" / "page.html", make_state(), title="A <title> & more").read_text(
        encoding="utf-8"
    )
    assert len(text.encode()) < 5e6
    assert "<title>A &lt;title&gt; &amp; more</title>" in text
    ours = text.replace(host.vega_bundle(kind="script").replace("</script", "<\\/script").replace("<!--", "<\\!--"), "")
    assert len(ours) < len(text) - 500_000, "the bundle stands in the page as it is"
    assert not re.search(
        r"<(script|link|img)[^>]+(src|href)\s*=|https?://(?!vega\.github\.io/schema|www\.w3\.org/)", ours
    )
    assert "default-src &#x27;none&#x27;" in text
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["page.html"]


def test_no_text_ends_a_script(tmp_path: Path) -> None:
    state = make_state(target=HOSTILE)
    text = write_page(tmp_path / "page.html", state, title=HOSTILE).read_text(encoding="utf-8")
    assert text.count("</script>") == 3 and "<img src=http" not in text
    match = re.search(r'<script type="application/json" class="state">(.*?)</script>', text, re.DOTALL)
    assert match and json.loads(match[1])[0]["static"]["domains"][2]["name"] == HOSTILE
    assert json.loads(inlined({"a": "</script><!--\u2028"})) == {"a": "</script><!--\u2028"}


def test_a_state_that_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DgpruneError, match="needs 'choice'"):
        write_page(tmp_path / "page.html", {"static": {}}, title="x")
    with pytest.raises(DgpruneError, match="unknown trait 'sttic'"):
        write_page(tmp_path / "page.html", {"sttic": {}}, title="x")


def test_the_joined_module_has_one_default_export_and_no_import() -> None:
    text = static.module()
    assert text.rstrip().endswith("export default explorer.default;")
    assert len(re.findall(r"^(?:import|export)\b", text, re.MULTILINE)) == 1
    assert "innerHTML" not in text and "insertAdjacentHTML" not in text


def test_every_focusable_element_keeps_its_keys() -> None:
    created = re.findall(r"createElement\((.*?)\)", static.module())
    assert created == ["tag"], "elements are made in one place, which marks the focusable ones"


def test_the_bundle_is_kept_and_a_broken_file_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vl_convert

    made: list[str] = []

    def bundle(snippet: str, *, vl_version: str) -> str:
        made.append(vl_version)
        return f"/* vega {vl_version} */ {snippet}"

    monkeypatch.setattr(vl_convert, "javascript_bundle", bundle)
    monkeypatch.setattr(host, "vega_bundle", cache(host.vega_bundle.__wrapped__))
    monkeypatch.setattr(host.platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    first = host.vega_bundle()
    path = host.cache_path(kind="module")
    assert path.read_text(encoding="utf-8") == first and "initialize" in first and len(made) == 1
    host.vega_bundle.cache_clear()
    assert host.vega_bundle() == first and len(made) == 1
    host.vega_bundle.cache_clear()
    path.write_text(first[:20], encoding="utf-8")
    assert host.vega_bundle() == first and len(made) == 2
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vl_convert

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda snippet, vl_version: snippet)
    monkeypatch.setattr(host, "vega_bundle", cache(host.vega_bundle.__wrapped__))
    monkeypatch.setattr(host.platformdirs, "user_cache_dir", lambda name: str(tmp_path / "file" / name))
    assert "window.vegaEmbed" in host.vega_bundle(kind="script")


@pytest.mark.slow
def test_one_host_per_kernel() -> None:
    code = "from dgprune_lab.widgets.page.vega import vega_host as h; a = h()\n"
    code += "assert a is h() and a.ref[:10] == 'anywidget:'"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)
