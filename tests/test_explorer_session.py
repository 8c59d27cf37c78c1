"""A session of the explorer: saved as a whole, loaded with the same numbers, and refused in words."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
import torch
from material import domain, norm_net, plain_net, randomise
from torch import nn
from typer.testing import CliRunner

import dgprune_lab as dg
from dgprune_lab.charts.renderer import vegalite_to_svg
from dgprune_lab.commands.cli import app
from dgprune_lab.commands.session_report import write_session_report
from dgprune_lab.core import files
from dgprune_lab.pruning import read_groups
from dgprune_lab.widgets.explorer import session_folder
from dgprune_lab.widgets.explorer.code import as_code
from dgprune_lab.widgets.explorer.history import History, entry_of
from dgprune_lab.widgets.explorer.measurements import Measurements
from dgprune_lab.widgets.explorer.network_file import file_name
from dgprune_lab.widgets.explorer.pictures import filters_kept_svg, view_charts
from dgprune_lab.widgets.explorer.saved_session import (
    SavedSession,
    SavedStep,
    refuse_other_study,
    session_of,
    session_values,
    step_network,
    study_values,
)
from dgprune_lab.widgets.explorer.session_folder import CARD, check_folder, open_session, write_session, zipped
from dgprune_lab.widgets.explorer.tried import view_of

CHOICE = {"id": 3, "by": "kernel", "ratio": 0.25, "scorer": "l1", "scope": "layer", "budget": "filters"}
CHOICE |= {"batchnorm": "recalibrate", "step": 2, "layers": {"0": 0.0}, "forced": {"remove": {"4": [1]}, "keep": {}}}

TUNED = {"epochs": 1, "options": dg.TrainingOptions(lr=0.01).to_json(), "batchnorm": "recalibrate"}


def make_study(*, seed: int = 0, shift: int = 1) -> dg.Study:
    model = randomise(norm_net(), seed=seed, dtype=torch.float32)
    return dg.Study(model, sources=[domain("a")], targets=[domain("b", seed=shift)])


@pytest.fixture(scope="module")
def study() -> dg.Study:
    return make_study()


@pytest.fixture(scope="module")
def networks(study: dg.Study) -> list[nn.Module]:
    """The full network, a pruned one, and that one with other weights."""
    mask = dg.allocate(study.score("l1"), ratio=0.5)
    pruned, tuned = (dg.prune(study.model, mask).eval() for _ in range(2))
    with torch.no_grad():
        tuned.get_parameter("0.weight").mul_(1.5)
    return [study.model, pruned, tuned]


@pytest.fixture(scope="module")
def session(study: dg.Study, networks: list[nn.Module]) -> SavedSession:
    everything = dg.Mask.by_hand(study.graph, reads={})
    mask, tuned = dg.allocate(study.score("l1"), ratio=0.5), networks[2]
    table = dg.measure(tuned, study.domains, latency=False).assign(calibration=500)
    shared: dict[str, Any] = {"made": {**CHOICE, "step": 0}, "mask": mask}
    steps = (
        SavedStep(number=0, parent=None, kind="full", label="full", made={}, mask=everything),
        SavedStep(number=1, parent=0, kind="prune", label="L1 </norm>, 50 %", **shared),
        SavedStep(number=2, parent=1, kind="finetune", label="1 epoch", made=TUNED, mask=mask, table=table),
    )
    return SavedSession(id="one", steps=steps, choice=CHOICE, pins=({**CHOICE, "ratio": 0.5},))


Content = list[tuple[str, str | nn.Module]]
Save = Callable[..., Path]


@pytest.fixture(scope="module")
def content(networks: list[nn.Module]) -> Content:
    files = [(f"networks/step_{number}.safetensors", network) for number, network in enumerate(networks)]
    return [*files, ("tables/networks.csv", "a,b\n1,2\n"), ("repeat.py", "import dgprune_lab as dg\n")]


@pytest.fixture(scope="module")
def save(study: dg.Study, content: Content) -> Save:
    def save(folder: Path, session: SavedSession, *, replacing: bool = False, content: Content = content) -> Path:
        folder = check_folder(folder, session=session.id, replace=replacing)
        return write_session(folder, content, values={**session_values(session, study), "saved": "2026-11-27T11"})

    return save


def load(path: Path, study: dg.Study) -> tuple[SavedSession, list[nn.Module]]:
    opened = open_session(path)
    session = session_of(opened.card, study=study, name=opened.name)
    return session, [step_network(step, study, read=opened.read) for step in session.steps]


def signed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a session's card, and make its hash fit."""
    card = json.loads((folder / CARD).read_text())
    change(card)
    card["sha256"] = session_folder._card_hash({key: value for key, value in card.items() if key != "sha256"})
    (folder / CARD).write_text(json.dumps(card))


def tensors(network: nn.Module) -> dict[str, list[Any]]:
    return {name: tensor.tolist() for name, tensor in network.state_dict().items()}


@pytest.fixture
def folder(tmp_path: Path, session: SavedSession, save: Save) -> Path:
    return save(tmp_path / "mine", session)


def test_what_is_saved_is_loaded(
    folder: Path, session: SavedSession, networks: list[nn.Module], study: dg.Study
) -> None:
    again, loaded = load(folder, study)
    assert list(map(tensors, loaded)) == list(map(tensors, networks))
    assert [net.dgprune_masks for net in loaded[1:]] == [net.dgprune_masks for net in networks[1:]]
    assert (again.id, again.choice, again.pins) == (session.id, session.choice, session.pins)
    for one, other in zip(session.steps, again.steps, strict=True):
        assert one.mask.key == other.mask.key
        about = ("number", "parent", "kind", "label", "made")
        assert [getattr(one, name) for name in about] == [getattr(other, name) for name in about]
    assert again.steps[1].table is None and session.steps[2].table is not None
    pd.testing.assert_frame_equal(again.steps[2].table, session.steps[2].table)  # type: ignore[arg-type]
    measured = [dg.measure(net, study.domains, latency=False) for net in (loaded[2], networks[2])]
    assert measured[0].equals(measured[1])
    listed = json.loads((folder / CARD).read_text())["files"]
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} == {*listed, CARD}


def test_a_zip_file_is_loaded_as_the_folder(
    tmp_path: Path, session: SavedSession, study: dg.Study, content: Content
) -> None:
    path = tmp_path / "mine.zip"
    path.write_bytes(zipped("mine", content, values={**session_values(session, study), "saved": "today"}))
    assert load(path, study)[0].choice == session.choice
    with zipfile.ZipFile(path) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"mine"}
        archive.extractall(tmp_path)
    assert load(tmp_path / "mine", study)[0].choice == session.choice


class Killed(BaseException):
    """Stands for the end of the process."""


def dies_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """From the step-th change of the disk on, no change happens any more; returns the number of changes."""
    count = 0

    def fatal(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*given: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count > step:
                raise Killed
            return change(*given, **named)

        return changed

    for owner, name in ((os, "replace"), (os, "rename"), (files.shutil, "rmtree"), (Path, "mkdir")):
        monkeypatch.setattr(owner, name, fatal(getattr(owner, name)))
    return lambda: count


def test_a_save_that_is_killed_anywhere_leaves_one_whole_session(
    tmp_path: Path, session: SavedSession, study: dg.Study, save: Save, content: Content
) -> None:
    """Each rename, each new folder and each removal can be the last thing that a process did."""
    tiny = replace(session, steps=session.steps[:1], pins=(), choice={**CHOICE, "step": 0})
    later, seen = replace(tiny, choice={**tiny.choice, "ratio": 0.75}), []
    first = [content[0], *content[3:]]
    save(tmp_path / "mine", tiny, content=first)
    for step in range(100):
        with pytest.MonkeyPatch.context() as patch:
            count = dies_at(step, patch)
            try:
                save(tmp_path / "mine", later, content=first)
                break
            except Killed:
                assert count() == step + 1 or count() == step + 2  # the clean-up of a dead process does nothing either
        seen.append(load(tmp_path / "mine", study)[0].choice["ratio"])
        if seen[-1] == 0.75:
            save(tmp_path / "mine", tiny, content=first)
    assert seen == sorted(seen) and set(seen) == {0.25, 0.75} and len(seen) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_is_no_session_stays(tmp_path: Path, folder: Path, session: SavedSession, save: Save) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").write_text("mine")
    with pytest.raises(dg.DgpruneError, match="photos is a folder with other files, not a saved session; name another"):
        save(tmp_path / "photos", session)
    with pytest.raises(dg.DgpruneError, match=r"me.png is a file; name"):
        save(tmp_path / "photos" / "me.png", session)
    other = replace(session, id="two")
    with pytest.raises(
        dg.DgpruneError, match="holds the session of another explorer with 3 steps, saved 2026-11-27T11"
    ):
        save(folder, other)
    save(folder, other, replacing=True)
    assert open_session(folder).card["id"] == "two"
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / "tables" / "notes.txt").write_text("mine")
    with pytest.raises(dg.DgpruneError, match=r"also holds tables/notes.txt, which saving would delete"):
        save(folder, other, replacing=True)
    (folder / "tables" / "notes.txt").unlink()
    (folder / "repeat.py").write_text("edited")
    with pytest.raises(dg.DgpruneError, match=r"mine/repeat.py was changed after it was saved"):
        save(folder, other, replacing=True)
    (tmp_path / "empty").mkdir()
    save(tmp_path / "empty", session)
    assert open_session(tmp_path / "empty").card["id"] == "one"
    with pytest.raises(dg.DgpruneError, match="folder must have a name"):
        save(Path("/"), session)
    for use in (lambda path: save(path, session), open_session):
        with pytest.raises(
            dg.DgpruneError, match=r"^~nobody_here/x: this machine has no home directory '~nobody_here'"
        ):
            use(Path("~nobody_here/x"))


@pytest.mark.parametrize("name", [".", "", ".."])
def test_the_working_directory_and_what_holds_it_are_not_replaced(
    name: str, tmp_path: Path, session: SavedSession, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "inside" if name == ".." else tmp_path
    place.mkdir(exist_ok=True)
    monkeypatch.chdir(place)
    with pytest.raises(dg.DgpruneError, match="in which this process works"):
        save(Path(name), session)
    assert Path.cwd() == place and list(tmp_path.iterdir()) == [place] * (name == "..")


def test_another_study_is_refused_by_name(folder: Path, study: dg.Study) -> None:
    with pytest.raises(
        dg.DgpruneError, match=r"with another network \(SHA-256 \w{12} in the session, \w{12} here\)\. P"
    ):
        load(folder, make_study(seed=1))
    with pytest.raises(dg.DgpruneError, match=r"with other images, labels or splits of 'b' \(hash \w+, here \w+\)\."):
        load(folder, make_study(shift=2))
    with pytest.raises(dg.DgpruneError, match=r"with a domain 'b'\. Pass the study that it was made with"):
        load(folder, dg.Study(study.model, sources=study.sources))


def test_a_changed_or_missing_file_is_refused_by_name(folder: Path, study: dg.Study) -> None:
    path = folder / "networks" / "step_1.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(dg.DgpruneError, match=r"mine/networks/step_1.safetensors was changed after it was saved"):
        load(folder, study)
    path.unlink()
    with pytest.raises(dg.DgpruneError, match=r"mine lacks networks/step_1.safetensors"):
        load(folder, study)
    path.write_bytes(data)
    text = (folder / CARD).read_text()
    (folder / CARD).write_text(text.replace("1 epoch", "9 epochs"))
    with pytest.raises(dg.DgpruneError, match=r"mine/session.json was changed after it was saved"):
        load(folder, study)
    (folder / CARD).unlink()
    for missing in (folder, folder / "nowhere"):
        with pytest.raises(dg.DgpruneError, match=r"name a folder that explorer.save wrote"):
            load(missing, study)


def test_hostile_cards_are_refused_in_words(folder: Path, study: dg.Study, tmp_path: Path) -> None:
    def step(number: int, **values: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda card: card["steps"][number].update(values)

    def rename(card: dict[str, Any]) -> None:
        card["files"]["../outside"] = "0"

    def swap(card: dict[str, Any]) -> None:
        kept = card["steps"][2]["mask"]["keep"]["0"]
        kept[0] = next(index for index in range(6) if index not in kept)

    (tmp_path / "outside").write_text("secret")
    cases: dict[str, Callable[[dict[str, Any]], Any]] = {
        r"session.json has format 3, .*Update dgprune-lab": lambda card: card.update(format=3),
        r"session.json has format 1, .*Load it with the version that wrote it": lambda card: card.update(format=1),
        r"scorer 'own', has str where named values belong": lambda card: card["scorers"].update(own="x"),
        r"scorer 'own', has dict under '0'": lambda card: card["scorers"].update(own={"scores": {"0": {}}}),
        r"scorer 'own', has other values than numbers": lambda c: c["scorers"].update(own={"scores": {"0": ["x"]}}),
        r"is not the card of a session": lambda card: card.update(kind="network"),
        r"lists '../outside', which does not lie in its folder": rename,
        r"lacks its list of files": lambda card: card.update(files=[]),
        r"has str under 'steps'": lambda card: card.update(steps="none"),
        r"has no full network": lambda card: card.update(steps=[]),
        r"step 1 has list where named values belong": lambda card: card["steps"].__setitem__(1, []),
        r"step 1 lacks 'mask'": lambda card: card["steps"][1].pop("mask"),
        r"step 1, cannot be a step of a session \(number 1, kind 'prune', parent 1\)": step(1, parent=1),
        r"step 1, cannot be a step of a session \(number 1, kind 'full'": step(1, kind="full"),
        r"the tensors do not fit this network": lambda c: step(2, mask=c["steps"][0]["mask"])(c),
        r"step_2.safetensors: the masks of its network are not": swap,
        r"step 1: this is not a mask that to_json wrote": step(1, mask={"keep": {}}),
        r"has int where named values belong": lambda card: card.update(pins=[1]),
        r"has a choice that no explorer makes: it lacks 'ratio'": lambda card: card["choice"].pop("ratio"),
        r"has a choice that no explorer makes: step must be": lambda card: card["pins"][0].update(step=3),
        r"no explorer makes: forced must name filters": lambda card: card["choice"].update(forced={"remove": [1]}),
        r"step 1 has a choice that no explorer makes: budget must be": lambda c: c["steps"][1]["made"].update(
            budget="b"
        ),
        r"step 2: its table .* a table row names the column 'x'": lambda card: card["steps"][2]["table"][0].update(x=1),
        r"step 2: its table .* rows must be": lambda card: card["steps"][2].update(table=[1]),
        r"step 2: its table has other rows .*'high'": lambda card: card["steps"][2]["table"][0].update(value="high"),
        r"unknown training option 'x'": lambda card: card["steps"][2]["made"]["options"].update(x=1),
        r"does not list networks/step_1.safetensors": lambda card: card["files"].pop("networks/step_1.safetensors"),
    }
    text = (folder / CARD).read_text()
    for words, change in cases.items():
        signed(folder, change)
        with pytest.raises(dg.DgpruneError, match=words):
            load(folder, study)
        (folder / CARD).write_text(text)
    for broken in ("[" * 100_000, "[]", "{}", '"', ""):
        (folder / CARD).write_text(broken)
        with pytest.raises(dg.DgpruneError, match=r"mine/session.json is not"):
            load(folder, study)


def rebuilt(code: str, **supplied: Any) -> dict[str, Any]:
    """What a cell of code makes; its last line is the table for people."""
    names = dict(supplied)
    *lines, last = code.split("\n")
    exec("\n".join(lines), names)
    return {**names, "shown": eval(last, names)}


@pytest.mark.filterwarnings("ignore:connections are correlations|risk_variance. the variance")
def test_code_makes_the_mask_of_every_scorer(study: dg.Study) -> None:
    for name, scorer in dg.SCORERS.items():
        if study.unavailable(scorer) is None:
            view: Any = {**CHOICE, "scorer": name, "step": 0}
            code = as_code(study, view, steps=(), menu=dg.SCORERS, images=None, calibration=500)
            names: dict[str, Any] = {"study": study}
            exec(code[: code.index("small = ")], names)
            mask = dg.allocate(study.score(name), ratio=0.25, layers={"0": 0.0}, remove={"4": [1]})
            assert names["mask"].key == mask.key and names["mask"].layer_ratios == {"0": 0.0}


def test_code_makes_the_network_below_a_step(study: dg.Study) -> None:
    """Filters by hand below a step: the view has their indices in the full network, the code those in the step's."""
    taken = dg.allocate(study.score("l2"), ratio=0.34)
    forced = {"remove": {"4": [taken.kept("4")[1]]}, "keep": {"0": [taken.kept("0")[2]]}}
    made: Any = {**CHOICE, "ratio": 0.34, "scorer": "l2", "step": 0, "layers": {}, "forced": {}, "batchnorm": "as_is"}
    small = dg.prune(study.model, taken)
    steps = (SavedStep(number=1, parent=0, kind="prune", label="L2\n1", made=made, mask=taken),)
    view: Any = {**CHOICE, "ratio": 0.4, "step": 1, "layers": {"0": 0.5}, "forced": forced}
    names = rebuilt(as_code(study, view, steps=steps, menu=dg.SCORERS, images=None, calibration=500), study=study)
    below = dg.Study(small, sources=study.sources, targets=study.targets)
    by_hand: Any = {"layers": {"0": 0.5}, "remove": {"4": [1]}, "keep": {"0": [2]}}
    inner = dg.allocate(below.score("l1"), ratio=0.4, **by_hand)
    assert names["mask"].key == inner.key
    table = dg.measure(dg.prune(small, inner), study.domains, batchnorm="recalibrate", latency=False)
    assert names["table"].value.equals(table.value) and list(names["shown"].domain) == ["a", "b"]
    assert {"value", "low", "high"} & set(names["shown"].columns) == {"value"} and "metric" in names["shown"]


def test_code_says_what_to_supply(study: dg.Study, session: SavedSession) -> None:
    own = dg.reverse("l1")
    made: Any = {**CHOICE, "step": 0, "layers": {}, "forced": {}, "scorer": "a\nb"}
    steps = (replace(session.steps[1], made=made), session.steps[2], replace(session.steps[1], number=3, parent=0))
    view: Any = {**CHOICE, "step": 1, "layers": {}, "forced": {}, "ratio": 0.0, "scorer": "x", "batchnorm": "as_is"}
    menu = {"x": replace(own, name="x", code=""), **dg.SCORERS}
    code = as_code(study, view, steps=steps, menu=menu, images=8, calibration=20)
    assert "# Supply `study`: dg.Study(" in code and "network_2" not in code
    assert "# Supply `scorer`: the Scorer of step 1, named 'a\\nb'.\n" in code
    supplied = {"study": study, "scorer": dg.SCORERS["l1"], "negated": own}
    names = rebuilt(code, **supplied)
    first = dg.recalibrate(dg.prune(study.model, dg.allocate(study.score("l1"), ratio=0.25)), study.sources, images=20)
    assert tensors(names["network_1"]) == tensors(first) == tensors(names["small"])
    whole = as_code(study, view, steps=steps, menu=menu, images=8, calibration=20, all_steps=True)
    assert "network_2 = tuned.network" in whole and "network_3 = " in whole and compile(whole, "repeat.py", "exec")


PICTURE = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def test_a_report_shows_steps_trade_off_pins_and_code(
    tmp_path: Path, session: SavedSession, study: dg.Study, content: Content
) -> None:
    hostile = "<img src=http://example.invalid/x onerror=alert(1)>"
    named = dg.Study(study.model, sources=study.sources, targets=study.targets, name=hostile)
    made = [
        *content,
        ("tables/steps.csv", f"step,from,what,a\n1,0,{hostile},92 (90-94)\n"),
        ("tables/pins.csv", "pin,choice\na,L1 norm\n"),
        ("charts/trade_off.svg", PICTURE),
    ]
    values = {**session_values(session, named), "saved": "2026-11-27T11:32:05+00:00"}
    folder = write_session(tmp_path / "mine", made, values=values)
    result = CliRunner().invoke(app, ["report", str(folder), "-o", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "page.html").read_text()
    assert "<img src=http" not in text and "<script" not in text and text.count("data:image/svg+xml;base64,") == 1
    assert "default-src &#x27;none&#x27;" in text and f"Pruning session: {escape(hostile)}" in text
    words = "source a; target b. Saved on 27 November 2026, 11:32 by dgprune-lab"
    for part in (words, "How to read this page", "92 (90-94)", "L1 norm", "import dgprune_lab as dg", "95 % intervals"):
        assert part in text, part
    umask = os.umask(0)
    os.umask(umask)
    assert os.name != "posix" or (tmp_path / "page.html").stat().st_mode & 0o777 == 0o666 & ~umask
    assert "The last view" not in text, "there is no chart of it"


def test_a_report_that_cannot_be_written_or_read_is_a_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(dg.DgpruneError, match=r"the page must name a file"):
        write_session_report(tmp_path, tmp_path / "nowhere")
    result = CliRunner().invoke(app, ["report", str(tmp_path / "nowhere"), "-o", str(tmp_path / "page.html")])
    assert result.exit_code == 2 and "does not exist: name a folder that explorer.save wrote" in result.output
    (folder / "repeat.py").write_text("other")
    with pytest.raises(dg.DgpruneError, match=r"mine/repeat.py was changed"):
        write_session_report(tmp_path / "page.html", folder)
    assert not (tmp_path / "page.html").exists()


def waited(explorer: dg.Explorer) -> dg.Explorer:
    assert explorer.wait_idle(timeout=300)
    return explorer


def told(explorer: dg.Explorer) -> dict[str, Any]:
    """What an explorer shows and says, without the numbers of its requests."""
    choices = {name: value for name, value in explorer.view.items() if name not in ("id", "by")}
    tree = [{**step, "stored": ""} for step in explorer.tree["steps"]]
    labels = {name: explorer.tree[name] for name in ("current", "undo", "redo")}
    pins = [{name: value for name, value in pin.items() if name != "points"} for pin in explorer.pins]
    return {"choices": choices, "steps": tree, "pins": pins, "code": explorer.code(), **labels}


@dg.scorer("largest weight", needs=("weights",))
def largest(view: Any) -> torch.Tensor:
    """Largest absolute weight of each filter."""
    return view.weight.flatten(1).abs().amax(1)


@pytest.fixture(scope="module")
def explorer(study: dg.Study) -> Iterator[dg.Explorer]:
    """Two filters forced, applied, fine-tuned, pruned further by an option of a scorer; one choice undone; two pins."""
    one = dg.Explorer(study, ratio=0.3, panels=[], scorers=[largest], calibration=20)
    one.choose(layers={"0": 0.0}, forced={"remove": {"4": [1, 3]}, "keep": {"4": [0]}})
    waited(one).pin()
    one.apply()
    one.finetune(options=dg.TrainingOptions(batch_size=10))
    waited(one).choose(ratio=0.4, scorer=dg.SCORERS["dss"].using(site="conv_output"))
    waited(one).pin()
    one.scorer = "largest weight"
    waited(one).undo()
    yield waited(one)
    one.close()


def without_ids(svg: str) -> str:
    """An SVG without the numbers of its clip paths, which count all charts that a process draws."""
    return re.sub(r"clip\d+", "clip", svg)


def test_an_explorer_goes_on_from_its_folder(explorer: dg.Explorer, tmp_path: Path) -> None:
    folder = explorer.save(tmp_path / "mine")
    with pytest.warns(dg.DgpruneNote, match=r"undo and redo leave out choices by largest weight; pass it"):
        waited(dg.Explorer.load(folder, make_study(), panels=[])).close()
    with pytest.raises(dg.DgpruneError, match=r"^Explorer.load\(\): study must be a Study"):
        dg.Explorer.load(folder, "digits")  # type: ignore[arg-type]
    with pytest.raises(dg.DgpruneError, match="another network"):
        dg.Explorer.load(folder, make_study(seed=1))
    again = waited(dg.Explorer.load(folder, make_study(), panels=[], scorers=[largest]))
    try:
        assert told(again) == told(explorer) and again.mask.key == explorer.mask.key
        pd.testing.assert_frame_equal(again.table, explorer.table)
        assert tensors(again.network) == tensors(explorer.network)
        again.redo()
        assert waited(again).scorer == "largest weight"
        assert check_folder(folder, session=again._key, replace=False) == folder, "it is the same session"
        drawn = {path.stem: without_ids(path.read_text()) for path in (folder / "charts").iterdir()}
        charts = view_charts(view_of(explorer._session, None))
        shown = {name: without_ids(vegalite_to_svg(spec)) for name, spec in charts}
        assert drawn.keys() == {*shown, "filters_kept", "trade_off"} and "accuracy" in shown
        assert {name: drawn[name] for name in shown} == shown
        for name, column in (("networks", "value"), ("steps", "label"), ("pins", "choice")):
            csv, parquet = (
                pd.read_csv(folder / f"tables/{name}.csv"),
                pd.read_parquet(folder / f"tables/{name}.parquet"),
            )
            assert len(csv) and csv[column].tolist() == parquet[column].tolist() and [*csv] == [*parquet]
        listed = json.loads((folder / "session.json").read_text())["files"]
        assert {"tables/steps.parquet", "tables/pins.parquet", "charts/filters_kept.svg"} <= {*listed}, "with a hash"
        page = write_session_report(tmp_path / "page.html", folder).read_text()
        assert page.count("data:image/svg") == 5 and "fine-tuned, 1 epoch" in page
        assert f"{100 * explorer.tree['steps'][2]['accuracy'][1]['value']:.1f}" in page
    finally:
        again.close()


def test_the_picture_of_the_grid_shows_every_filter_of_the_full_network(study: dg.Study) -> None:
    forced = {"remove": {"4": [1, 3]}, "keep": {"4": [0]}}
    mask = dg.allocate(study.score("l1"), ratio=0.5, remove=forced["remove"], keep=forced["keep"])
    text = filters_kept_svg(mask, forced=forced)
    root = ElementTree.fromstring(text)
    paths = [path.get("d", "") for path in root.iter("{http://www.w3.org/2000/svg}path")]
    kept = sum(int(keep.sum()) for keep in mask.keep.values())
    assert [path.count("M") for path in paths] == [kept, study.graph.free - kept, 2, 0], "kept, removed, crosses, slits"
    assert paths[0].count("z") == 1, "one square"
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words[:2] == ["0", f"{int(mask.keep['0'].sum())} of {study.graph['0'].filters}"]
    assert words[-1] == "disc: kept, ring: removed · square: kept by hand · cross: removed by hand"
    assert filters_kept_svg(mask, forced={}).count("by hand") == 0


def test_the_picture_of_the_grid_marks_silent_filters_and_shortens_names_at_their_beginning() -> None:
    long, network = "features_of_a_rather_long_block_1", nn.Sequential()
    network.add_module(long, nn.Conv2d(3, 6, 3))
    network.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)])
    graph = read_groups(network.eval(), torch.zeros(1, 3, 8, 8))
    keep = {long: torch.tensor([True, True, True, False, False, False])}
    mask = dg.Mask(keep, 0.5, graph)
    plain = filters_kept_svg(mask, forced={})
    assert "silent" not in plain and long not in plain and "…_rather_long_block_1<" in plain
    text = filters_kept_svg(mask, forced={"remove": {long: [3]}, "keep": {}}, silent={long: [0, 3, 4]})
    root = ElementTree.fromstring(text)
    paths = [path.get("d", "") for path in root.iter("{http://www.w3.org/2000/svg}path")]
    assert [path.count("M") for path in paths] == [3, 3, 2, 1], "of two removed silent ones, one is crossed by hand"
    assert text.count("line through: silent") == 1


def test_pins_of_a_loaded_session_are_never_lost(study: dg.Study, tmp_path: Path) -> None:
    one = dg.Explorer(study, ratio=0.5, panels=[])
    waited(one).apply()
    waited(one).pin()  # the step itself: two tables of one ratio
    waited(one).save(tmp_path / "mine")
    told_before = told(one)["pins"]
    one.close()
    again = dg.Explorer.load(tmp_path / "mine", make_study(), panels=[])
    try:
        assert len(again.pins_table) == 1, "it waits for the pins"
        assert waited(again) and told(again)["pins"] == told_before
    finally:
        again.close()
    at_once = dg.Explorer.load(tmp_path / "mine", make_study(), panels=[])
    at_once.close()  # before its pins are measured again
    at_once.save(tmp_path / "mine")
    assert len(open_session(tmp_path / "mine").card["pins"]) == 1


def test_a_scorer_that_the_view_needs_must_be_passed(folder: Path) -> None:
    signed(folder, lambda card: card["choice"].update(scorer="largest weight"))
    with pytest.raises(dg.DgpruneError, match=r"used the scorer 'largest weight', which is not the menu's; pass it"):
        dg.Explorer.load(folder, make_study())


def test_copied_code_makes_what_the_explorer_shows(explorer: dg.Explorer, study: dg.Study) -> None:
    names = rebuilt(explorer.code(), study=study)
    assert tensors(names["network_2"]) == tensors(explorer._session.steps.network(2))
    shown = explorer.table
    for name in ("a", "b"):
        values = [t[(t.domain == name) & (t.metric == "accuracy")].value.item() for t in (shown, names["table"])]
        assert values[0] == values[1]
    assert max(map(len, explorer.code().splitlines())) < 130


def test_code_repeats_what_the_layers_set_by_hand_allowed(study: dg.Study) -> None:
    one = dg.Explorer(study, ratio=0.9, panels=[])
    try:
        one.layers = dict.fromkeys(study.graph.names, 0.3)
        one.apply()
        assert rebuilt(one.code(), study=study)["study_1"].graph.full == one._session.steps[1].mask.cost
        name = study.graph.names[1]
        one.choose(layers={}, forced={"keep": {name: one.mask.kept(name)[-1:]}}, ratio=0.5)
        mask = rebuilt(one.code(), study=study)["mask"]
        assert one._session.steps[1].mask.then(mask).kept(name) == one.mask.kept(name)
    finally:
        one.close()


def test_the_page_gets_a_session_as_one_file(
    explorer: dg.Explorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[Any, Any]] = []
    monkeypatch.setattr(explorer, "send", lambda content, buffers=None: sent.append((content, buffers)))
    explorer.handle_message({"type": "download"})
    waited(explorer)
    ((content, (data,)),) = [each for each in sent if each[0]["type"] == "file"]
    assert content == {"type": "file", "name": "study-session.zip", "mime": "application/zip"}
    (tmp_path / content["name"]).write_bytes(data)
    again, networks = load(tmp_path / content["name"], make_study())
    assert [step.label for step in again.steps] == [step["label"] for step in explorer.tree["steps"]]
    assert tensors(networks[2]) == tensors(explorer._session.steps.network(2))


def test_the_order_and_the_roles_of_domains_are_compared(study: dg.Study, tmp_path: Path) -> None:
    a, b, first, second = domain("a"), domain("b", seed=1), domain("a", seed=2), domain("c", seed=3)
    saved = json.loads(json.dumps(study_values(dg.Study(study.model, sources=[a, second], targets=[b]))))
    refuse_other_study(saved, dg.Study(study.model, sources=[a, second], targets=[b]), name="x")
    cases = {
        r"with the domains in the order a, c, b; here c, a, b\. Pass": ([second, a], [b]),
        r"with 'c' as source, here as target\. Pass": ([a], [second, b]),
        r"with other images, labels or splits of 'a' \(hash \w{12}, here \w{12}\)\. Pass": ([first, second], [b]),
    }
    for words, (sources, targets) in cases.items():
        with pytest.raises(dg.DgpruneError, match=words):
            refuse_other_study(saved, dg.Study(study.model, sources=sources, targets=targets), name="x")


def test_files_of_a_file_manager_are_no_hindrance_and_no_session_holds_another(
    folder: Path, session: SavedSession, save: Save
) -> None:
    for name in (".DS_Store", "tables/.DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).write_text("view")
    assert save(folder, session) == folder
    for inner in (folder / "new", folder / "tables" / "deeper" / "new"):
        with pytest.raises(dg.DgpruneError, match=r"new is inside the saved session .*mine; choose a folder"):
            save(inner, session)
        assert not inner.exists()
    (folder.parent / "session.json").write_text('{"kind": "of another program"}')
    assert save(folder, session) == folder


def test_a_file_name_never_says_that_everything_is_removed() -> None:
    plain = {**CHOICE, "step": 0, "layers": {}, "forced": {}}
    views: Any = [{**plain, "ratio": ratio} for ratio in (0.99999999, 0.125)]
    names = [file_name("study", view) for view in views]
    assert "-99.9999pct-" in names[0] and "-12.5pct-" in names[1]


def test_values_that_were_handed_out_can_be_changed_without_moving_anything(study: dg.Study) -> None:
    one = dg.Explorer(study, ratio=0.4, panels=[])
    try:
        own = {"0": 0.25}
        one.choose(layers=own, forced={"keep": {"4": [1]}})
        waited(one)
        before = one.mask.key
        one.layers["4"] = own["4"] = 0.5
        one.forced["keep"]["4"].append(3)
        one.view["ratio"] = 0.1
        assert (one.layers, one.forced, one.ratio) == ({"0": 0.25}, {"keep": {"4": [1]}}, 0.4)
        assert one.mask.key == before and len(one.table) and "'4': 0.5" not in one.code()
        one.pin()
        assert len(one.pins) == 1
        one.ratio = 0.45
        waited(one)
        one.undo()
        waited(one).layers["0"] = 0.75
        assert one.layers == one.choice["layers"] == {"0": 0.25}
    finally:
        one.close()


def test_history_keeps_its_own_values() -> None:
    choice: dict[str, Any] = {**CHOICE, "layers": {"0": 0.5}}
    history = History(choice, step_label=lambda before, after: "")
    choice["layers"]["0"] = 0.1
    history.settle({**choice, "layers": {"0": 0.7}})
    gone: list[dict[str, Any]] = []
    for by in (-1, 1, -1):
        assert history.move(by, go=gone.append)
        gone += history.to_json()["redo"]
        for entry in gone:
            assert entry["layers"]["0"] in (0.5, 0.7, 0.2)
            entry["layers"]["0"] = 0.2
    assert history.to_json() == {"undo": [], "redo": [{**entry_of(choice), "layers": {"0": 0.7}}]}


def test_another_scorer_of_the_same_name_is_not_taken_for_the_one_of_a_session(tmp_path: Path) -> None:
    study, name = make_study(), "largest weight"
    negated = replace(largest, function=lambda view: -largest.function(view))
    twin = replace(largest, function=lambda view: 1.0001 * largest.function(view))
    shadows = replace(largest, name="l1")
    scores = dg.Scores("l2", {layer: -values for layer, values in study.score("l2").values.items()}, study.graph)

    def saved(folder: str, scorer: Any) -> Path:
        one = dg.Explorer(study, ratio=0.5, panels=[], scorer=scorer)
        try:
            return waited(one).save(tmp_path / folder)
        finally:
            one.close()

    folders = {
        key: saved(key, item) for key, item in (("own", largest), ("l1", shadows), ("l2", scores), ("menu", "l1"))
    }
    refused = [
        ("own", [negated], f"another scorer '{name}': the one in scorers gives other scores on the full network"),
        ("l1", [], r"used the scorer 'l1', which is not the menu's; pass it"),
        ("l1", [replace(negated, name="l1")], r"another scorer 'l1'"),
        ("l1", [dg.SCORERS["l1"]], r"another scorer 'l1'"),
        ("l2", [largest], r"used the scorer 'l2', which is not the menu's; pass it"),
        ("l2", [dg.Scores("l2", study.score("l2").values, study.graph)], r"another scorer 'l2'"),
        ("menu", [shadows], r"used the menu's scorer 'l1'; give the one in scorers another name"),
    ]
    for key, scorers, words in refused:
        with pytest.raises(dg.DgpruneError, match=words):
            dg.Explorer.load(folders[key], study, panels=[], scorers=scorers)
    for key, item in (("own", twin), ("l1", shadows), ("l2", scores), ("menu", dg.SCORERS["l1"])):
        again = dg.Explorer.load(folders[key], study, panels=[], scorers=[item])
        assert again.mask.key == dg.allocate(study.score(item), ratio=0.5).key
        again.close()


def test_undo_leaves_out_a_scorer_that_has_the_name_of_the_menus(tmp_path: Path) -> None:
    one = dg.Explorer(make_study(), ratio=0.5, panels=[], scorer=replace(largest, name="l1"))
    waited(one).scorer = "l2"
    folder = waited(one).save(tmp_path / "mine")
    one.close()
    with pytest.warns(dg.DgpruneNote, match=r"undo and redo leave out choices by l1; pass it"):
        again = dg.Explorer.load(folder, make_study(), panels=[])
    assert waited(again).tree["undo"] is None
    again.close()


def test_what_is_handed_out_belongs_together_when_a_variable_of_the_scorer_changes(tmp_path: Path) -> None:
    weight, study = {"w": 1.0}, make_study()

    @dg.scorer("weighed", needs=("weights",))
    def weighed(view: Any) -> torch.Tensor:
        """Sum of the absolute weights, times a variable."""
        return weight["w"] * view.weight.flatten(1).abs().sum(1)

    one = dg.Explorer(study, ratio=0.5, panels=[], scorer=weighed)

    def measured() -> bytes | None:
        """The mask of which the explorer has numbers."""
        frame = one._session.steps.full.exact(one.view)
        return None if frame is None or frame.mask is None else frame.mask.key

    def now() -> bytes:
        return dg.allocate(study.score(weighed), ratio=0.5).key

    try:
        assert len(one.table) and one.mask.key == measured() == now()
        first = now()
        weight["w"] = -1.0
        assert measured() is None and len(one.table) and one.mask.key == measured() == now() != first
        weight["w"] = 1.0
        one.pin()
        ((_, pin),) = one._session.board
        assert pin.mask.key == measured() == first
        weight["w"] = -1.0
        one.save(tmp_path / "mine")
        assert one.mask.key == measured() == now() != first
    finally:
        one.close()


def test_labels_tell_scope_budget_and_batchnorm_apart() -> None:
    measurements, plain = Measurements(make_study(), scorers=[]), {**CHOICE, "step": 0, "layers": {}, "forced": {}}
    cases: dict[str, dict[str, Any]] = {
        "25 %": {},
        "25 %, global": {"scope": "global"},
        "25 % of the MACs, global, BatchNorm as is": {"scope": "global", "budget": "macs", "batchnorm": "as_is"},
        "25 % of the parameters, by hand, from step 2": {"budget": "parameters", "layers": {"0": 0.0}, "step": 2},
    }
    for words, changes in cases.items():
        view: Any = {**plain, **changes}
        assert measurements.label(view) == f"L1 norm (weights), {words}"
        assert measurements.label(view, tree=False) == f"L1 norm (weights), {words.removesuffix(', from step 2')}"
    bare = dg.Study(randomise(plain_net(), dtype=torch.float32), sources=[domain("a")])
    view = {**plain, "batchnorm": "as_is"}
    assert Measurements(bare, scorers=[]).label(view) == "L1 norm (weights), 25 %", "there is no BatchNorm"
