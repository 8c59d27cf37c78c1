"""The folder of a saved session, which is written as a whole and read only if no file has changed."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
from torch import nn

from ...charts import trade_off
from ...charts.renderer import Drawing
from ...core import (
    DgpruneError,
    at_home,
    card_text,
    check_writable_folder,
    parse_card,
    parse_json,
    settled_folder,
    tidy,
    whole_folder,
    write_file,
    written,
)
from ...models import save
from ..panels.protocol import View
from ..panels.trade_off import distinct, table_of
from .frames import EXTRA, is_labelled
from .pictures import filters_kept_svg, view_charts
from .saved_session import network_file

CARD, CODE, STEPS, PINS = "session.json", "repeat.py", "tables/steps.csv", "tables/pins.csv"
CHARTS = "charts/{}.svg"
_WIDE = 760  # pixels of the chart of the trade-off
_LEFT_BEHIND = {".ipynb_checkpoints", "__pycache__"}  # of an editor that looked at a file
_LEFT_BEHIND |= {".DS_Store", "Thumbs.db", "desktop.ini"}  # of a file manager that showed the folder
_UNREADABLE = (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, EOFError)

Content = Iterable[tuple[str, str | bytes | nn.Module]]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A saved session, of which every file is as it was saved.

    Attributes:
        name: name of the folder or zip file.
        card: the content of session.json.
        read: returns the content of a file by its name in the folder.
    """

    name: str
    card: dict[str, Any]
    read: Callable[[str], bytes]


def session_content(
    networks: Mapping[int, Callable[[], nn.Module]], view: View, *, code: str, tables: Mapping[str, pd.DataFrame]
) -> Iterator[tuple[str, str | bytes | nn.Module]]:
    """Yield (name in the folder, text, bytes or network) of a session's files, each made when it is asked for.

    Tables are written as CSV, and as Parquet too where pyarrow is installed (extra `[parquet]`): pyarrow takes
    100 MB on disk, which nobody who reads CSV should have to download.

    Args:
        networks: number of a step -> function that returns its network.
        view: the present view, with everything that was tried.
        code: the code that repeats it.
        tables: "steps" and "pins", tables for people.
    """
    with Drawing() as drawing:
        tried = distinct(view.tried)
        table = table_of(tried) if tried else tidy([], extra=EXTRA)
        charts = dict(view_charts(view))
        if tried and is_labelled(view.study):
            charts = {"trade_off": trade_off(table, width=_WIDE).to_dict(validate=False), **charts}
        drawing.begin(list(charts.values()))
        yield CODE, code + "\n"
        for name, file in (("steps", STEPS), ("pins", PINS)):
            if len(tables[name]):
                yield from _table(tables[name].reset_index(), file)
        for number, network in networks.items():
            yield network_file(number), network()
        if tried:
            yield from _table(table, "tables/networks.csv")
        if view.present is not None:
            yield "networks/present.safetensors", view.present.network()
            forced = view.present.choice.get("forced") or {}
            yield CHARTS.format("filters_kept"), filters_kept_svg(view.present.mask, forced=forced, silent=view.silent)
        for name, svg in zip(charts, drawing.finish(), strict=True):
            yield CHARTS.format(name), svg


def _table(table: pd.DataFrame, file: str) -> Iterator[tuple[str, str | bytes]]:
    yield file, table.to_csv(index=False)
    if find_spec("pyarrow"):
        yield file.replace(".csv", ".parquet"), table.to_parquet(index=False)


def check_folder(path: str | Path, *, session: str, replace: bool) -> Path:
    """Return the folder for a session, or refuse it before anything is computed.

    Raises:
        DgpruneError: a folder that holds anything but a session; a session in which files were added or changed; one of
            another explorer, without `replace`; a folder inside a session; a place where nothing can be written.
    """
    folder = at_home(path).resolve()
    if not folder.name:
        raise DgpruneError(f"folder must have a name; got {str(path)!r}.")
    if Path.cwd().resolve().is_relative_to(folder):
        raise DgpruneError(f"saving would replace {folder}, in which this process works; name another folder.")
    if outer := next(filter(_is_session, folder.parents), None):
        raise DgpruneError(f"{folder} is inside the saved session {outer}; choose a folder outside it.")
    check_writable_folder(folder.parent, argument="folder")
    settled_folder(check_writable_folder(folder, argument="folder"))
    if not folder.exists() or not any(folder.iterdir()):
        return folder
    if not (folder / CARD).is_file():
        raise DgpruneError(f"{folder} is a folder with other files, not a saved session; name another folder.")
    opened = open_session(folder)
    inside = (path.relative_to(folder) for path in folder.rglob("*"))
    files = {path.as_posix() for path in inside if not _LEFT_BEHIND & set(path.parts)}
    known = {CARD, *opened.card["files"]}
    known |= {str(parent) for name in known for parent in PurePosixPath(name).parents}
    if added := sorted(files - known):
        raise DgpruneError(
            f"{folder} also holds {', '.join(added[:4])}, which saving would delete: a session's folder is replaced as "
            "a whole. Move it elsewhere, or name another folder."
        )
    if opened.card.get("id") != session and not replace:
        steps = opened.card.get("steps")
        count = f" with {len(steps)} steps" if isinstance(steps, list) else ""
        raise DgpruneError(
            f"{folder} holds the session of another explorer{count}, saved {opened.card.get('saved')!s:.16}. Name "
            "another folder, go on from it with dg.Explorer.load, or pass replace=True to delete it."
        )
    return folder


def write_session(folder: Path, content: Content, *, values: Mapping[str, Any]) -> Path:
    """Write a session's files and its card into a folder, which takes the place of an earlier one at the end.

    Args:
        folder: as `check_folder` returned it.
        content: (name in the folder, text, bytes or network), made one after the other.
        values: what the card holds besides the names and hashes of the files.

    Raises:
        DgpruneError: the disk is full, or the folder cannot be written for another reason.
    """
    with written(folder), whole_folder(folder) as new:
        for name, what in content:
            if isinstance(what, str | bytes):
                write_file(new / name, what)
            else:
                save(what, new / name)
        paths = sorted(path for path in new.rglob("*") if path.is_file())
        files = {path.relative_to(new).as_posix(): _sha256(path.read_bytes()) for path in paths}
        card = json.loads(card_text({**values, "files": files}, kind="session"))
        write_file(new / CARD, card_text({**card, "sha256": _card_hash(card)}, kind="session"))
    return folder


def zipped(name: str, content: Content, *, values: Mapping[str, Any]) -> bytes:
    """Return a session's folder as a zip file, in which everything lies in the folder `name`."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_session(Path(temporary) / name, content, values=values)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(folder.parent))
    return buffer.getvalue()


def open_session(path: str | Path) -> Opened:
    """Open a saved session, a folder or its zip file, after comparing every file with its hash.

    Raises:
        DgpruneError: no session at this path; one of another format; a file that is missing or was changed; the message
            names it.
    """
    path = at_home(path)
    root = _zip_root(path) if path.is_file() else settled_folder(path.resolve())
    card_name = f"{path.name}/{CARD}"
    if root is None or not (root / CARD).is_file():
        what = "is no saved session" if path.exists() else "does not exist"
        raise DgpruneError(f"{path} {what}: name a folder that explorer.save wrote, or a zip file of the page.")

    def read(name: str) -> bytes:
        try:
            return (root / name).read_bytes()
        except _UNREADABLE as error:
            raise DgpruneError(f"{path.name}/{name} cannot be read: {error}.") from error

    card = parse_card(read(CARD), name=card_name, kind="session")
    unsigned = {key: value for key, value in card.items() if key != "sha256"}
    if card.get("sha256") != _card_hash(unsigned):
        raise DgpruneError(f"{card_name} was changed after it was saved (another SHA-256); copy the session again.")
    for name, key in _files(card, card_name).items():
        if not (root / name).is_file():
            raise DgpruneError(f"{path.name} lacks {name}, which belongs to the session; copy the session again.")
        if _sha256(read(name)) != key:
            raise DgpruneError(f"{path.name}/{name} was changed after it was saved (another SHA-256 than {CARD} says).")
    return Opened(name=card_name, card=card, read=lambda name: _known(name, card, read))


def _known(name: str, card: Mapping[str, Any], read: Callable[[str], bytes]) -> bytes:
    """A file of the session; nothing else is read, as only these were compared with their hashes."""
    if name not in card["files"]:
        raise DgpruneError(f"{CARD} does not list {name}, which belongs to the session; save the session again.")
    return read(name)


def _files(card: Mapping[str, Any], name: str) -> dict[str, str]:
    """The files that a card lists, each of which lies in the folder."""
    files = card.get("files")
    if not isinstance(files, dict):
        raise DgpruneError(f"{name} lacks its list of files; save the session again.")
    for file in files:
        parts = file.split("/")
        if "\\" in file or ":" in file or any(part in ("", ".", "..") for part in parts):
            raise DgpruneError(f"{name} lists {file!r}, which does not lie in its folder; it was not read.")
    return files


def _zip_root(path: Path) -> zipfile.Path | None:
    """The folder in a zip file that holds the card."""
    try:
        root = zipfile.Path(path)
        return next((place for place in (root, *root.iterdir()) if (place / CARD).is_file()), None)
    except _UNREADABLE:
        return None


def _is_session(folder: Path) -> bool:
    """Whether a session was saved in this folder; a session.json of another program does not count."""
    try:
        return parse_json((folder / CARD).read_bytes(), name=CARD).get("kind") == "session"
    except (OSError, DgpruneError):
        return False


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _card_hash(card: Mapping[str, Any]) -> str:
    return _sha256(json.dumps(card, sort_keys=True).encode())
