"""Save, load and download the session of an explorer, and return its view as code."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import torch
from torch import nn

from ...core import DgpruneError, Scores, note, public
from ...scorers import SCORERS, Scorer
from ...study import Study
from ..panels.menu_scores import name_of
from ..panels.protocol import Item, Panel
from ..worker import EXACT, Job
from .choices import CONTROLS, Choices
from .code import as_code
from .controls import Controls
from .history import entry_of
from .network_file import safe_name
from .pins import MOST
from .saved_session import SavedSession, session_of, session_values, step_network
from .session_folder import Opened, check_folder, open_session, session_content, write_session, zipped
from .tried import view_of

_PATIENCE = 10.0  # seconds in which a view that is still being measured may arrive


@public
class SessionActions(Controls):
    """Save, load and download a session; copy it as code."""

    _key = ""  # tells sessions apart; one that is loaded goes on under its key
    _awaited: tuple[Mapping[str, Any], ...] = ()  # pins of a loaded session that are not measured yet

    def code(self) -> str:
        """Return the code of a cell that rebuilds the current view and the steps before it.

        It names the versions and the hash of the data, and what you must supply: a study or scorer of your own.
        """
        return self._code(all_steps=False)

    def save(self, folder: str | Path, *, replace: bool = False) -> Path:
        """Save the session into a folder, which `Explorer.load` continues and `dgprune-lab report` turns into a page.

        It holds the network of each step and of the present view (safetensors), the masks with filter indices of the
        full network, choices, pins and history (session.json), tables (CSV, and Parquet where pyarrow is installed),
        charts and the filter grid (SVG), the code that repeats it (repeat.py), versions, and a SHA-256 of the network,
        of each domain and of each file. The folder is written as a whole: an interruption leaves the earlier session
        whole.

        Args:
            folder: a new or empty folder, or one that holds an earlier state of this session.
            replace: whether to replace the session of another explorer, too.

        Returns:
            The folder.

        Raises:
            DgpruneError: a folder with other files, with the session of another explorer, or with files that were
                added or changed since; a place where nothing can be written.
        """
        self._key = self._key or uuid4().hex
        path = check_folder(folder, session=self._key, replace=replace)
        self._session.renew()
        self._session.worker.wait("exact", timeout=_PATIENCE)
        return write_session(path, self._content(), values=self._values())

    @classmethod
    def load(
        cls,
        folder: str | Path,
        study: Study,
        *,
        scorers: Sequence[Scorer | Scores] = (),
        panels: Sequence[Panel] | None = None,
        device: torch.device | str | None = None,
    ) -> Self:
        """Return an explorer that goes on from a saved session: the same steps, choices, pins and history.

        Args:
            folder: a folder that `save` wrote, or a zip file that the page's Download made.
            study: the study that the session was made with.
            scorers: your own scorers that the session used, as given to `Explorer`; each must give the scores that it
                gave on the full network.
            panels, device: see `Explorer`.

        Raises:
            DgpruneError: no session; another network or other data (the message says which hash differs); a file that
                is missing or was changed; a session of another format; a scorer of your own that was not passed, or
                another one of its name.
        """
        opened = open_session(folder)
        study = study if device is None else study.on(device)
        saved = session_of(opened.card, study=study, name=opened.name)
        start = {name: saved.choice[name] for name in ("scorer", "ratio", "scope", "budget", "batchnorm")}
        counts = {"images": saved.images, "calibration": saved.calibration}
        explorer = cls(study, **start, **counts, scorers=_scorers(saved, scorers, study), panels=panels)
        try:
            explorer._restore(saved, opened, study)
        except BaseException:
            explorer.close()
            raise
        return explorer

    def download(self) -> None:
        """Send the session to the page as a zip file, in the background: on Binder nothing else survives."""
        self._session.workbench.check_open()
        self._session.renew()
        self._session.worker.put("download", self._download, priority=EXACT)

    def _retry(self) -> None:
        """Do again what failed last; measure the present view if nothing else failed."""
        session, bench = self._session, self._session.workbench
        jobs = {"download": self.download, "save": session.save, "pin": session.pin}
        jobs |= {"apply": bench.apply, "finetune": bench.again}
        session.say(error=None)
        jobs.get(session.failed_job, lambda: session.measure(ack=self._number()))()

    def _download(self) -> Job:
        self._key = self._key or uuid4().hex
        self._session.say(work="collecting the files of the session")
        yield
        name = safe_name(f"{self._session.study.name}-session", most=80)
        data = zipped(name, self._content(), values=self._values())
        self.send({"type": "file", "name": f"{name}.zip", "mime": "application/zip"}, buffers=[data])
        self._session.say(work="")

    def _content(self) -> Iterator[tuple[str, str | bytes | nn.Module]]:
        session = self._session
        networks = {step.number: partial(session.steps.network, step.number) for step in session.steps}
        tables = {"steps": self.steps, "pins": session.board.table(session.view)}
        view = view_of(session, None)
        return session_content(networks, view, code=self._code(all_steps=True), tables=tables)

    def _values(self) -> Mapping[str, Any]:
        session, load = self._session, self._session.measurements.load
        pins = (*(entry_of(view) for view, _ in session.board), *self._awaited)[:MOST]
        history = session.history.to_json()
        choices = [entry_of(session.view), *pins, *history["undo"], *history["redo"]]
        made = [step.made for step in session.steps if step.kind == "prune"]
        menu = session.steps.full.menu
        saved = SavedSession(
            id=self._key,
            steps=tuple(session.steps),
            choice=choices[0],
            pins=pins,
            history=history,
            scorers={
                name: _maker(menu[name], session.study) for name in {choice["scorer"] for choice in (*choices, *made)}
            },
            images=load.images,
            calibration=load.calibration,
        )
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        return {**session_values(saved, session.study), "saved": now}

    def _code(self, *, all_steps: bool) -> str:
        measured, steps = self._session.measurements, list(self._session.steps)
        counts: Any = {"images": measured.load.images, "calibration": measured.load.calibration, "all_steps": all_steps}
        view: Choices = {**self.view, "ratio": measured.possible_ratio(self.view)}
        return as_code(self._session.study, view, steps=steps, menu=measured.menu, **counts)

    def _restore(self, saved: SavedSession, opened: Opened, study: Study) -> None:
        """Take over the steps, choices, pins and history of a saved session."""
        session, self._key = self._session, saved.id
        session.steps[0].table = saved.steps[0].table
        for step in saved.steps[1:]:
            network = step_network(step, study, read=opened.read)
            about: Any = {"parent": step.parent, "kind": step.kind, "label": step.label, "made": step.made}
            session.steps.add(network, step.mask, **about).table = step.table
        self.choose(**{name: saved.choice[name] for name in CONTROLS if name in saved.choice})
        session.history.settle(session.view)
        known = set(session.steps.full.menu) - _absent(saved, session.steps.full.menu)
        session.history.restore(*(_possible(saved.history[name], known) for name in ("undo", "redo")))
        session.show_tree()
        self._awaited = tuple(saved.pins)
        if saved.pins:
            session.worker.put("pins", partial(_pinned_again, self), priority=EXACT)


def _pinned_again(explorer: SessionActions) -> Job:
    """Measure the views that were pinned, and pin them again."""
    session = explorer._session
    for pin in explorer._awaited:
        view: Choices = session.steps.full.checked({"id": 0, "by": "kernel", **pin}, steps=range(len(session.steps)))
        measured = session.steps.apart(view.get("step", 0))
        yield from measured.scoring(view)
        if measured.exact(view) is None:
            yield from measured.measure(view)
        yield from session.board.add(measured, view)
        explorer._awaited = explorer._awaited[1:]
    yield from session.board.compare(session.measurements, session.view)
    session.send_pins()


def _maker(item: Item, study: Study) -> dict[str, Any]:
    """Return how to make a scorer again, from the menu or by its user's code; see `SavedSession.scorers`."""
    base = item if isinstance(item, Scores) else item.base or item
    if isinstance(item, Scorer) and isinstance(base, Scorer) and dict(SCORERS).get(base.name) is base:
        return {"base": base.name, "options": dict(item.preset)}
    code = {"code": item.code} if isinstance(item, Scorer) and item.code else {}
    return {**code, "scores": _scored(item, study)}


def _scored(item: Item, study: Study) -> dict[str, list[float]]:
    """The scores of a scorer on the full network, rounded; {} if it gives none there."""
    try:
        scores = study.score(item)
    except Exception:  # a user's own scorer may raise anything, or run on the network of a later step alone
        return {}
    return {layer: [float(f"{value:.6g}") for value in values.tolist()] for layer, values in scores.values.items()}


def _scorers(saved: SavedSession, passed: Sequence[Item], study: Study) -> list[Item]:
    """The scorers of a saved session: the user's own, and those that the menu makes.

    Raises:
        DgpruneError: one that the present choice or a pin names is missing; one that is given is another one.
    """
    items = {name_of(item): item for item in passed}
    for name, how in saved.scorers.items():
        made = _made(name, how)
        if name in items:
            _check_same(name, items[name], how, made=made, study=study)
        elif made is not None and name not in SCORERS:
            items[name] = made
    absent = _absent(saved, {**SCORERS, **items})
    steps = [step.made for step in saved.steps if step.kind == "prune" and step.made["scorer"] in SCORERS]
    for choice in (saved.choice, *saved.pins, *steps):
        if (name := choice["scorer"]) in absent or name not in {**SCORERS, **items}:
            code = saved.scorers.get(name, {}).get("code", f"... (named {name!r})")
            raise DgpruneError(
                f"this session used the scorer {name!r}, which is not the menu's; pass it: "
                f"dg.Explorer.load(folder, study, scorers=[{code}])."
            )
    return list(items.values())


def _check_same(name: str, item: Item, how: Mapping[str, Any], *, made: Scorer | None, study: Study) -> None:
    """Refuse a scorer with the name, but not the scores, of one that a session used."""
    now = _maker(item, study)
    if made is not None and "base" not in now:
        raise DgpruneError(f"this session used the menu's scorer {name!r}; give the one in scorers another name.")
    if made is None and how.get("scores") and not _are_near(how["scores"], now.get("scores", {})):
        raise DgpruneError(
            f"this session used another scorer {name!r}: the one in scorers gives other scores on the full network. "
            "Pass the one that the session was made with, its variables as they were, or give this one another name."
        )


def _are_near(before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]]) -> bool:
    """Return whether scores agree within 1 % of the largest of their layer, as another machine rounds differently."""
    if {layer: len(values) for layer, values in before.items()} != {layer: len(v) for layer, v in after.items()}:
        return False
    pairs = [(torch.tensor(before[layer]), torch.tensor(values)) for layer, values in after.items()]
    return all(bool((a - b).abs().max() <= 0.01 * b.abs().max()) for a, b in pairs)


def _absent(saved: SavedSession, menu: Mapping[str, Item]) -> set[str]:
    """Return the names of a session's own scorers that the menu lacks or uses for a scorer of its own."""
    own, known = {name for name, how in saved.scorers.items() if _made(name, how) is None}, dict(SCORERS)
    return {name for name in own if dict(menu).get(name) is known.get(name)}


def _possible(choices: Sequence[Mapping[str, Any]], known: Collection[str]) -> list[dict[str, Any]]:
    """Return the choices of a history whose scorers are known."""
    if missing := {str(choice["scorer"]) for choice in choices} - set(known):
        note(f"undo and redo leave out choices by {', '.join(sorted(missing))}; pass it as scorers=[...] to have them.")
    return [dict(choice) for choice in choices if choice["scorer"] in known]


def _made(name: str, how: Mapping[str, Any]) -> Scorer | None:
    """Return a scorer of the menu with a session's options; None for a user's own."""
    base, options = how.get("base"), how.get("options")
    if not isinstance(base, str) or base not in SCORERS or not isinstance(options, Mapping):
        return None
    try:
        made = SCORERS[base].using(**options)
    except DgpruneError:
        return None
    return made if made.name == name else None
