"""A session of the explorer as plain values, and the card that holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pandas as pd
import torch
from torch import nn

from ...charts.theme import records
from ...core import DgpruneError, Mask, is_missing, tidy
from ...models import fill, network_key
from ...pruning import prune
from ...study import Study
from ...training import TrainingOptions
from .choices import checked_choices
from .frames import EXTRA

StepKind = Literal["full", "prune", "finetune"]
_STEP = {"number": int, "parent": (int, type(None)), "kind": str, "label": str, "made": dict, "mask": dict}
_STEP["table"] = (list, type(None))
_CARD = {"study": dict, "steps": list, "choice": dict, "pins": list, "history": dict, "scorers": dict, "files": dict}
_PLAIN = ("id", "choice", "history", "scorers", "images", "calibration")  # of a session, the same on its card
_CARD |= {"images": (int, type(None)), "calibration": int, "id": str, "saved": str}


@dataclass(kw_only=True, eq=False)
class SavedStep:
    """A step of a session, without its network.

    Attributes:
        number: 0 for the full network, then in the order in which the steps were made.
        parent: number of the step that it was made from; None for the full network.
        kind: "full", "prune" or "finetune".
        label: what was done, in words.
        made: for "prune", the choices that were applied; for "finetune", `epochs`, `options` and `batchnorm`.
        mask: which filters of the full network are left.
        table: what was measured of the step on the `report` splits; None if nothing was.
    """

    number: int
    parent: int | None
    kind: StepKind
    label: str
    mask: Mask
    made: Mapping[str, Any] = field(default_factory=dict)
    table: pd.DataFrame | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedSession:
    """A session of the explorer.

    Attributes:
        id: tells sessions apart; a session that is continued keeps it.
        steps: the full network, then the steps in their order.
        choice: the state of the controls.
        pins: the choices of the pinned views.
        history: the choices to which undo and redo go: {"undo": [...], "redo": [...]}.
        scorers: how to make each scorer that the choices name: {name: {"base", "options"}} where it comes from the menu
            alone; {name: {"code", "scores"}} where the user's code makes it, with the scores that it gave on the full
            network, {layer: [...]}, so that another one of the same name is not taken for it.
        images, calibration: see `Explorer`.
    """

    id: str
    steps: tuple[SavedStep, ...]
    choice: Mapping[str, Any]
    pins: tuple[Mapping[str, Any], ...] = ()
    history: Mapping[str, Any] = field(default_factory=lambda: {"undo": [], "redo": []})
    scorers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    images: int | None = None
    calibration: int = 500


def network_file(number: int) -> str:
    """Return the name of the file of a step's network within a session's folder."""
    return f"networks/step_{number}.safetensors"


def session_values(session: SavedSession, study: Study) -> dict[str, Any]:
    """Return a session as plain values; the networks are files of their own."""
    plain = ("number", "parent", "kind", "label", "made")
    return {
        **{name: getattr(session, name) for name in (*_PLAIN, "pins")},
        "study": study_values(study),
        "steps": [
            {**{name: getattr(step, name) for name in plain}, "mask": step.mask.to_json(), "table": _rows(step.table)}
            for step in session.steps
        ],
    }


def study_values(study: Study) -> dict[str, Any]:
    """Return the name of a study with the hashes of its network and of each domain."""
    return {
        "name": study.name,
        "origin": study.origin,
        "layers": study.layers,
        "network": network_key(study.model),
        "domains": {domain.name: {"role": domain.role, "data": domain.key} for domain in study.domains},
    }


def session_of(card: Mapping[str, Any], *, study: Study, name: str) -> SavedSession:
    """Return the session that a card describes, for the study that it was made with.

    Raises:
        DgpruneError: a session of another network or of other data (the message says which hash differs); a card that
            `session_values` did not write; `name` begins the sentence.
    """
    check_entries(card, _CARD, name=name)
    refuse_other_study(card["study"], study, name=name)
    steps = [_step(entry, number, study=study, name=name) for number, entry in enumerate(card["steps"])]
    if not steps or steps[0].kind != "full":
        raise DgpruneError(f"{name} has no full network as its first step; save the session again.")
    check_entries(card["history"], {"undo": list, "redo": list}, name=f"{name}, history,")
    for choice in (card["choice"], *card["pins"], *card["history"]["undo"], *card["history"]["redo"]):
        _check_choice(choice, study=study, steps=range(len(steps)), name=name)
    for key, how in card["scorers"].items():
        check_entries(how, {}, name=f"{name}, scorer {key!r},")
        _check_scores(how.get("scores", {}), name=f"{name}, scorer {key!r},")
    return SavedSession(steps=tuple(steps), pins=tuple(card["pins"]), **{name: card[name] for name in _PLAIN})


def check_entries(values: Any, kinds: Mapping[str, Any], *, name: str) -> None:
    """Refuse values in which an entry is missing or of another kind; `name` begins the sentence.

    Raises:
        DgpruneError: the message names the entry.
    """
    if not isinstance(values, dict):
        raise DgpruneError(f"{name} has {type(values).__name__} where named values belong; save the session again.")
    for key, kind in kinds.items():
        if key not in values:
            raise DgpruneError(f"{name} lacks {key!r}; save the session again.")
        if not isinstance(values[key], kind) or isinstance(values[key], bool):
            raise DgpruneError(f"{name} has {type(values[key]).__name__} under {key!r}; save the session again.")


def refuse_other_study(saved: Mapping[str, Any], study: Study, *, name: str) -> None:
    """Refuse a study with another network or other data than that of a session.

    Raises:
        DgpruneError: the message names each hash, role and order that differs; `name` begins the sentence.
    """
    check_entries(saved, {"name": str, "network": str, "domains": dict, "layers": str}, name=name)
    current, other = study_values(study), []
    if saved["network"] != current["network"]:
        other.append(
            f"another network (SHA-256 {saved['network'][:12]} in the session, {current['network'][:12]} here)"
        )
    if saved["layers"] != current["layers"]:
        other.append(f"layers={saved['layers']!r}, here {current['layers']!r}")
    for domain in {**saved["domains"], **current["domains"]}:
        was, now = saved["domains"].get(domain), current["domains"].get(domain)
        if was is None or now is None:
            other.append(f"{'no' if was is None else 'a'} domain {domain!r}{' there' if was is None else ''}")
        elif was != now:
            other.append(_difference(domain, was, now))
    if not other and list(saved["domains"]) != list(current["domains"]):
        other.append(f"the domains in the order {', '.join(saved['domains'])}; here {', '.join(current['domains'])}")
    if other:
        origin = f": {saved['origin']}" if isinstance(saved.get("origin"), str) else ""
        raise DgpruneError(
            f"{name} is a session of the study {saved['name']!r} with {'; '.join(other[:4])}. Pass the study that it "
            f"was made with{origin}."
        )


def _rows(table: pd.DataFrame | None) -> list[dict[str, Any]] | None:
    """The rows of a table, without empty cells."""
    rows = None if table is None else records(table)
    return rows and [{name: cell for name, cell in row.items() if not is_missing(cell)} for row in rows]


def _table(rows: list[Any] | None) -> pd.DataFrame | None:
    """The table that `_rows` took apart.

    Raises:
        DgpruneError: rows of something else.
    """
    try:
        return None if rows is None else tidy(rows, extra=EXTRA)
    except (TypeError, ValueError, AttributeError) as error:
        raise DgpruneError(f"its table has other rows than a measurement: {error}") from error


def _difference(name: str, was: Any, now: Mapping[str, Any]) -> str:
    """What differs between a domain of a session and the domain of that name here."""
    was = was if isinstance(was, dict) else {"data": was}
    if was.get("data") != now["data"]:
        return f"other images, labels or splits of {name!r} (hash {was.get('data')!s:.12}, here {now['data']:.12})"
    return f"{name!r} as {was.get('role')!s:.20}, here as {now['role']}"


def step_network(step: SavedStep, study: Study, *, read: Callable[[str], bytes]) -> nn.Module:
    """Return the network of a step; `read` returns the content of a file by its name in the folder.

    Raises:
        DgpruneError: the file is not of this step.
    """
    file = network_file(step.number)
    network = fill(prune(study.model, step.mask), read(file), name=file)
    _check_masks(network, step.mask, study=study, name=file)
    return network


def _step(entry: Any, number: int, *, study: Study, name: str) -> SavedStep:
    name = f"{name}, step {number}"
    check_entries(entry, _STEP, name=name)
    kinds = ("full",) if number == 0 else get_args(StepKind)[1:]
    parents = (None,) if number == 0 else range(number)
    if entry["number"] != number or entry["kind"] not in kinds or entry["parent"] not in parents:
        got = f"number {entry['number']!r}, kind {entry['kind']!r}, parent {entry['parent']!r}"
        raise DgpruneError(f"{name}, cannot be a step of a session ({got:.80}); save the session again.")
    try:
        mask, table = Mask.from_json(entry["mask"], graph=study.graph), _table(entry["table"])
    except DgpruneError as error:
        raise DgpruneError(f"{name}: {error}") from error
    if entry["kind"] == "prune":
        _check_choice(entry["made"], study=study, steps=range(number), name=name)
    elif entry["kind"] == "finetune":
        check_entries(entry["made"], {"epochs": int, "options": dict, "batchnorm": str}, name=name)
        options = TrainingOptions.from_json(entry["made"]["options"]).to_json()
        entry = {**entry, "made": {**entry["made"], "options": options}}
    about = {key: entry[key] for key in ("number", "parent", "kind", "label", "made")}
    return SavedStep(**about, mask=mask, table=table)


def _check_choice(choice: Any, *, study: Study, steps: Iterable[int], name: str) -> None:
    """Refuse choices that no explorer can have made."""
    check_entries(choice, {"scorer": str, "batchnorm": str}, name=name)
    try:
        checked_choices({"id": 0, "by": "kernel", **choice}, scorer=choice["scorer"], graph=study.graph, steps=steps)
    except (DgpruneError, KeyError, TypeError, ValueError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise DgpruneError(f"{name} has a choice that no explorer makes: {why}") from error


def _check_scores(scores: Any, *, name: str) -> None:
    """Refuse anything but {layer: [numbers]}."""
    check_entries(scores, dict.fromkeys(scores, list) if isinstance(scores, dict) else {}, name=name)
    if not all(isinstance(value, int | float) for values in scores.values() for value in values):
        raise DgpruneError(f"{name} has other values than numbers under 'scores'; save the session again.")


def _check_masks(network: nn.Module, mask: Mask, *, study: Study, name: str) -> None:
    """Refuse a network whose masks since the study's network do not combine to the mask of the step."""
    masks: Any = network.dgprune_masks
    left = {group.name: torch.arange(group.filters).tolist() for group in study.graph.groups}
    try:
        for inner in masks[len(getattr(study.model, "dgprune_masks", ())) :]:
            for layer, places in inner["keep"].items():
                left[layer] = [left[layer][place] for place in places]
    except (TypeError, KeyError, IndexError, AttributeError):
        left = {}
    if left != {layer: mask.kept(layer) for layer in mask.keep}:
        raise DgpruneError(f"{name}: the masks of its network are not the mask of the step; save the session again.")
