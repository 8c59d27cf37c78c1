"""Errors for files that dg.save did not write: what the file is and what to do; nothing in it is executed."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from ..core import DgpruneError, parse_json

KEY = "dgprune_lab"
"""Key of a network's card in the metadata of a safetensors file."""
_OWN = "then use that network, or save it with dg.save"
_WEIGHTS = "build its network and put its weights into it: dg.load_weights(model, path)"
_LENGTH = 8  # bytes that hold the length of the header of a safetensors file
_LONGEST = 100_000_000  # the longest header that safetensors reads
_LOOK = 2**22  # bytes of a pickle in which names are looked for
_STARTS = {
    b"version https://git-lfs": "a pointer of Git LFS, and the weights are not here; fetch them with: git lfs pull",
    b"\x89HDF": "an HDF5 file (Keras); load it with the library that wrote it, set the weights of a PyTorch network, "
    + _OWN,
    b"\x93NUMPY": f"a NumPy array; set the weights of your network with torch.from_numpy, {_OWN}",
    b"GGUF": "a GGUF file of a language model, which dgprune_lab cannot use",
    b"<": "text of a web page or XML, such as a download that failed; download the file again",
    b"{": "JSON text; the weights of a network are in NAME.safetensors",
    b"[": "JSON text; the weights of a network are in NAME.safetensors",
}


def refuse_foreign(data: bytes, name: str) -> NoReturn:
    """Refuse a file that is not a network saved by dg.save; `name` begins the error message.

    Raises:
        DgpruneError: always; the message says what the file is and what to do.
    """
    raise DgpruneError(f"{name} is {_kind(data)}.")


def header_of(data: bytes) -> tuple[dict[str, Any], memoryview] | None:
    """Return the header of a safetensors file and the bytes of its tensors; None for any other file."""
    size = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    if not _LENGTH < size <= min(len(data), _LONGEST):
        return None
    try:
        return parse_json(data[_LENGTH:size], name="the header"), memoryview(data)[size:]
    except DgpruneError:
        return None


def _kind(data: bytes) -> str:
    if not data:
        return "an empty file: its download or copy was interrupted; get it again"
    if (header := header_of(data)) is not None:
        if KEY in str(header[0].get("__metadata__")):
            return "a network that dg.save wrote, under another name; rename it to NAME.safetensors"
        return _safetensors({name: entry for name, entry in header[0].items() if name != "__metadata__"})
    for start, kind in _STARTS.items():
        if data.startswith(start):
            return kind
    if data.startswith(b"PK"):
        return _archive(data)
    if is_pickle(data):
        return _pickle(data[:_LOOK])
    return (
        f"neither a safetensors file nor one of torch.save, or is damaged or cut short (it has {len(data):,} bytes); "
        "copy or download the file again, or name another one"
    )


def is_pickle(data: bytes) -> bool:
    """Return whether the bytes are a file of torch.save or another pickle, but not a TorchScript archive."""
    if not data.startswith(b"PK"):
        return data[:1] == b"\x80" and data[1:2] in (b"\x01", b"\x02", b"\x03", b"\x04", b"\x05")
    try:
        names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
    return any(name.endswith("data.pkl") for name in names) and not any("/code/" in name for name in names)


def _safetensors(tensors: Mapping[str, Any]) -> str:
    """Describe a safetensors file that has no card of this package."""
    kinds = {str(entry.get("dtype")) for entry in tensors.values() if isinstance(entry, dict)}
    half = bool(kinds) and kinds <= {"F16", "BF16"}
    return (
        f"a bare safetensors file with {len(tensors)} tensors{_origin(tensors)}{' in half precision' if half else ''}, "
        "without the card that dg.save writes, so the network and what it has seen are unknown; " + _WEIGHTS
    )


def _archive(data: bytes) -> str:
    """Describe a zip archive: made by torch.save, TorchScript, an export, or something else."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        names = archive.namelist()
        pickled = next((name for name in names if name.endswith("data.pkl")), None)
        if pickled is None:
            return "a zip archive without a network of PyTorch; unpack it and name the file in it"
        if any("/code/" in name for name in names):
            return (
                "a TorchScript archive (torch.jit.save), which can be neither copied nor cut; build the network from "
                f"its Python code, load the weights into it, {_OWN}"
            )
        with archive.open(pickled) as file:
            return _pickle(file.read(_LOOK))
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError, KeyError):
        return "a damaged zip archive; copy or download the file again"


def _pickle(content: bytes) -> str:
    """Describe a pickle by the names in it; it is not unpickled, since that can run any code."""
    names = [name.decode() for name in re.findall(rb"[\w.]+\.(?:weight|bias|running_mean)", content)]
    half = " in half precision" if re.search(rb"(?:Half|BFloat16)Storage", content) else ""
    if b"model_dict" in content and (b"model_hparams" in content or any(n.startswith("network.") for n in names)):
        return f"a checkpoint of DomainBed{half}; {_WEIGHTS}"
    if b"ctorch.nn.modules" in content or b"torch.nn.modules" in content:
        return (
            f"a whole pickled network{half} (torch.save(model)), which is never read, as loading it can run any code; "
            "where you trust it and have its code, keep its weights alone: torch.save(torch.load(path, "
            f"weights_only=False).state_dict(), 'weights.pth'); then {_WEIGHTS}"
        )
    if b"state_dict" in content:
        return f"a training checkpoint{_origin(names)}{half}; {_WEIGHTS}"
    if names:
        return f"a state_dict{_origin(names)}{half} (torch.save); {_WEIGHTS}"
    return (
        "a pickle, which is never read, as loading it can run any code; if it holds weights and you trust it, load it "
        f"yourself, {_OWN}"
    )


def _origin(names: Iterable[str]) -> str:
    """Return what wrote these names: nn.DataParallel, DomainBed, or something else ("")."""
    keys = list(names)
    if keys and all(name.startswith("module.") for name in keys):
        return " of nn.DataParallel"
    return " of DomainBed" if any(name.startswith("network.0.") for name in keys) else ""
