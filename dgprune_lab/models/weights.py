"""Weights of other tools, loaded into a network: checkpoints of DomainBed, Lightning, timm, torchvision and others."""

from __future__ import annotations

import argparse
import difflib
import io
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core import DgpruneError, Provenance, at_home, note, public, set_provenance, unknown
from ..pruning import deep_copy, refuse_uncopyable
from .building import Normalise
from .container import tensors_from_bytes
from .foreign import KEY, header_of, is_pickle, refuse_foreign
from .weight_names import MAX_LISTED, Fit, Tensors, find_fits, first_few, is_equal, is_in, layers_of

_ENDS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar", ".pkl")  # ends of files that hold weights, mostly
_REPARAMETRISED = re.compile(r"\.parametrizations\.|_(orig|mask|g|v|u)$|fake_quant|activation_post_process")
# Types that trainers store beside the weights and that hold only values.
_REBUILD: dict[str, Any] = {"scalar": np.float64(0).__reduce__()[0], "_reconstruct": np.zeros(0).__reduce__()[0]}
_VALUES: list[Any] = [
    *(argparse.Namespace, PosixPath, np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in "?bhilqBHILQefdSU")),
    *((make, f"numpy.{place}.multiarray.{name}") for name, make in _REBUILD.items() for place in ("core", "_core")),
]


@public
def load_weights(
    model: nn.Module,
    weights: str | Path | Mapping[str, Any],
    *,
    key: str | None = None,
    prefix: str | Mapping[str, str] | None = None,
    skip: Sequence[str] = (),
) -> nn.Module:
    """Return a copy of a network with the weights of a checkpoint that another tool wrote, in eval mode.

    The weights may lie under a key of the file and begin with a prefix, as those of DomainBed (`model_dict`,
    `network.0.`, with the classifier at `network.1.`), Lightning (`state_dict`, `model.`), torchvision and timm
    (`model`, `state_dict_ema`), nn.DataParallel (`module.`) and torch.compile (`_orig_mod.`). The key and prefix that
    fit every tensor of the network are found; a note names them and what else the file holds. The network may be in a
    wrapper that the saved one lacked; a normalisation before it keeps its values if the file has none. Values of
    another type (half precision) are converted to the network's. What the weights were trained on is then unknown;
    `dg.Study(..., trained_on=...)` declares it.

    Args:
        model: a network of the same architecture; it stays unchanged.
        weights: path of a file of torch.save or safetensors, or a dict of tensors or arrays. A pickle is only read for
            its tensors and plain values (`weights_only=True`): nothing in it is executed.
        key: key of the weights in the file, with a dot between nested keys; None finds it.
        prefix: what precedes the network's names in the file; or a dict, layer of the network -> prefix in the file
            ({"": "backbone.", "fc": "classifier."}). None finds it.
        skip: layers of the network that keep their own weights, such as a head for other classes, and layers of the
            file that are left out, by their dotted names.

    Raises:
        DgpruneError: a file that is missing, holds no tensors or a whole pickled network (the message says how to
            convert it); weights that fit in two ways; weights that do not fit: the message names missing, different
            and additional tensors.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3))
    >>> trained = {"module.0.weight": torch.ones(3, 2), "module.0.bias": torch.zeros(3)}
    >>> load_weights(net, trained, prefix="module.")[0].weight.sum()
    tensor(6., grad_fn=<SumBackward0>)
    """
    refuse_uncopyable(model)
    name = "the dict" if isinstance(weights, Mapping) else Path(weights).name
    file = Tensors.collect(weights if isinstance(weights, Mapping) else _read_file(at_home(weights)))
    if not file.values:
        raise DgpruneError(f"{name} holds no tensors by name; wanted the state_dict of a network, or a dict of one.")
    if key is not None:
        known, file = file, file.under(key)
        if not file.values:
            raise unknown("key", key, sorted({place or "''" for place in known.keys.values()}))
    network = deep_copy(model)
    state = {n: tensor for n, tensor in network.state_dict().items() if isinstance(tensor, Tensor)}
    left_out = [*skip, *_missing_normalisations(network, file)]
    own = {n: tensor for n, tensor in state.items() if not any(is_in(n, layer) for layer in left_out)}
    fit = _choose_fit(own, file, prefix=prefix, skip=skip, name=name)
    _check_skip(skip, fit, file=file, own=list(state))
    with torch.no_grad():
        for to, source in fit.names.items():
            own[to].copy_(_checked_values(file.values[source], like=own[to], what=f"{source} in {name}"))
    for to, source in fit.names.items():
        if not is_equal(own[to].cpu(), file.values[source].to(own[to].dtype)):
            raise DgpruneError(
                f"{to} of this network could not take its values from {name}: it shares memory with another tensor, to "
                "which the file gives other values. Use a network built like the one that was saved."
            )
    decisions = _describe_decisions(fit, file, own=own, searched=prefix is None)
    if unchanged := layers_of(n for n in state if n not in own):
        decisions.append(f"left as they were: {first_few(unchanged)}")
    if decisions:
        note(f"load_weights: {name}: {'; '.join(decisions)}.")
    set_provenance(network, Provenance())
    if (builder := getattr(network, "dgprune_builder", None)) is not None:  # its seed is not that of these weights
        options = {name: value for name, value in builder[1].items() if name != "seed"}
        network.dgprune_builder = (builder[0], options)  # type: ignore[assignment]
    return network.eval()


def _choose_fit(
    own: Mapping[str, Tensor], file: Tensors, *, prefix: str | Mapping[str, str] | None, skip: Sequence[str], name: str
) -> Fit:
    """Return the only way in which the file fits the whole network."""
    candidates = find_fits(own, file, prefix=prefix, skip=skip)
    if not candidates:
        raise DgpruneError(
            f"no tensor of this network is in {name}{'' if prefix is None else f' with prefix={prefix!r}'}: the "
            f"network has {first_few(list(own))}; the file has {first_few(list(file.values))}. Build the network that "
            "was saved, or say what the names begin with in the file: prefix='...'."
        )
    if not candidates[0].is_whole:
        raise DgpruneError(_describe_misfit(candidates[0], own=own, file=file, name=name))
    first, *others = [fit for fit in candidates if fit.is_whole]
    if any(
        not is_equal(file.values[first.names[n]], file.values[fit.names.get(n, first.names[n])])
        for fit in others
        for n in first.names
    ):
        places = [_describe_fit(fit, file) for fit in (first, *others)]
        raise DgpruneError(
            f"{name} holds different weights for this network in {len(places)} places: {'; '.join(places)}. Choose one "
            "by these arguments."
        )
    return first


def _describe_misfit(fit: Fit, *, own: Mapping[str, Tensor], file: Tensors, name: str) -> str:
    """Describe which tensors do not fit, and what to do."""
    extra = [extra[len(fit.prefix) :] for extra in fit.extra]
    shapes = [
        f"{n} is {tuple(own[n].shape)} in the network, {tuple(file.values[other].shape)} in the file"
        for n, other in fit.different.items()
    ]
    reasons = [f"the file lacks {first_few(fit.missing)}"] * bool(fit.missing)
    reasons += [first_few(shapes)] * bool(shapes)
    reasons += [f"the network lacks {first_few(extra)}"] * bool(extra)
    layers = layers_of([*fit.missing, *fit.different, *extra])
    skip = "name the layers to leave out: skip=[...]"
    if len(layers) <= MAX_LISTED:
        skip = f"leave these layers out: skip={layers}"
    advice = f"Build the network that the file was saved from, or {skip}"
    if fit.missing and any(map(_REPARAMETRISED.search, extra)):
        advice = (
            "The network that was saved computes these weights from other tensors. Make them permanent in it "
            "(torch.nn.utils.prune.remove, remove_weight_norm, parametrize.remove_parametrizations) and save it again"
        )
    return (
        f"{name} does not fit this network as a whole ({_describe_fit(fit, file)}: "
        f"{len(fit.names)} of {len(own)} tensors): {'; '.join(reasons)}. {advice}."
    )


def _describe_fit(fit: Fit, file: Tensors) -> str:
    """Return the arguments `key` and `prefix` of a fit as text."""
    keys = {file.keys[name] for name in fit.names.values()}
    key = keys.pop() if len(keys) == 1 else ""
    prefixes = {layer: start.removeprefix(f"{key}." if key else "") for layer, start in fit.prefixes.items()}
    prefix = prefixes[""] if list(prefixes) == [""] else prefixes
    return f"key={key!r}, prefix={prefix!r}" if key else f"prefix={prefix!r}"


def _describe_decisions(fit: Fit, file: Tensors, *, own: Mapping[str, Tensor], searched: bool) -> list[str]:
    """Describe what was decided for the user; empty if the file is a plain state_dict of this network."""
    plain = dict(fit.prefixes) == {"": ""} and set(file.keys.values()) == {""}
    parts = [f"read with {_describe_fit(fit, file)}"] * (searched and not plain)
    types = {
        file.values[source].dtype for to, source in fit.names.items() if file.values[source].dtype != own[to].dtype
    }
    parts += [f"converted from {str(dtype).removeprefix('torch.')}" for dtype in sorted(types, key=str)]
    used = [file.values[name] for name in fit.names.values()]
    unused = [n for n, value in file.values.items() if not any(value is u or is_equal(value, u) for u in used)]
    return parts + [f"not used: {first_few(unused)}"] * bool(unused)


def _missing_normalisations(network: nn.Module, file: Tensors) -> list[str]:
    """Return the names of the network's normalisations that the file lacks."""
    names = [name for name, module in network.named_modules() if isinstance(module, Normalise)]
    return [name for name in names if not any(f".{key}".endswith(f".{name}.mean") for key in file.values)]


def _check_skip(skip: Sequence[str], fit: Fit, *, file: Tensors, own: list[str]) -> None:
    known = [*own, *(name.removeprefix(fit.prefix) for name in file.values)]
    for layer in skip:
        if not any(is_in(name, layer) for name in known):
            near = [f" Did you mean {match!r}?" for match in difflib.get_close_matches(layer, layers_of(own), n=1)]
            raise DgpruneError(
                f"skip: neither the network nor the file has a layer {layer!r}; layers are {first_few(layers_of(own))}."
                + "".join(near)
            )


def _checked_values(value: Tensor, *, like: Tensor, what: str) -> Tensor:
    """Return a tensor of the file, checked to hold values that the network's tensor can take."""
    if value.is_meta or value.layout != torch.strided:
        how = "has no numbers (it is on the meta device)" if value.is_meta else "is sparse; save it after to_dense()"
        raise DgpruneError(f"{what} {how}.")
    counts = not like.is_floating_point() and not value.is_quantized and value.is_floating_point()
    if counts and torch.equal(value, value.round()) and bool(value.isfinite().all()):
        return value  # BatchNorm's counter, which {name: value.half() for ...} converts too
    if value.is_quantized or value.is_floating_point() != like.is_floating_point():
        raise DgpruneError(
            f"{what} is {str(value.dtype).removeprefix('torch.')}, the network's is "
            f"{str(like.dtype).removeprefix('torch.')}; use the checkpoint from before quantisation."
        )
    if not bool(value.to(like.dtype).isfinite().all()):
        raise DgpruneError(f"{what} holds numbers that are infinite or not a number; use another checkpoint.")
    return value


def _read_file(path: Path) -> Any:
    """Return the tensors of a file and the plain values around them; nothing in the file is executed."""
    if not path.is_file():
        if not path.is_dir():
            raise DgpruneError(f"{path} is not a file; check the path.")
        files = sorted(inner.name for inner in path.glob("*") if inner.is_file() and not inner.name.startswith("."))
        if not files:
            raise DgpruneError(f"{path} is a folder; there is not a file in it, so check the path.")
        likely = next((name for name in files if name.endswith(_ENDS)), files[0])
        raise DgpruneError(f"{path} is a folder; name a file in it, such as {likely}.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DgpruneError(f"{path} cannot be read: {error.strerror or error}.") from error
    if (header := header_of(data)) is not None:
        if KEY in str(header[0].get("__metadata__")):
            raise DgpruneError(
                f"dg.save wrote {path.name}, with its provenance; load it with dg.load(path, model=...)."
            )
        return tensors_from_bytes(data, path.name)
    if not is_pickle(data):
        refuse_foreign(data, path.name)
    try:
        with torch.serialization.safe_globals(_VALUES):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)  # whatever the file's suffix
    except Exception as error:
        names = re.findall(r"GLOBAL ([\w.]+)", str(error))
        if not names and not isinstance(error, pickle.UnpicklingError):
            raise DgpruneError(f"{path.name} is damaged or was cut short; copy or download the file again.") from error
        holds = f"objects of {names[0]}" if names else "more than tensors"
        raise DgpruneError(
            f"{path.name} holds {holds}, and loading these can run any code, so it is not read. Where you trust the "
            "file and have its code, convert it once: content = torch.load(path, weights_only=False); then "
            "torch.save(content.state_dict(), 'weights.pth') if it is a network, or torch.save(content['state_dict'], "
            "'weights.pth') with the key of its weights, if it is a dict."
        ) from None
