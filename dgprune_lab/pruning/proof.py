"""The proof that copies of a network are independent: they use only their own weights and do not change the original.

`copies.rebuild` replaces what is registered in the module tree. A layer that is reached in another way (from a plain
list, a closure, a bound method of the original) would remain the original's: a pruned copy would give the dense
network's outputs, and training it would change the original's BatchNorm statistics.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..core import DgpruneError, Observer, full_precision, preserved_rng
from .copies import device_of, plain_tensors, rebuild, shared_copy, with_hooks_of
from .elements import tensors_of
from .holders import find_holder, outside_reference, refuse_uncopyable, unregistered
from .refusals import RANDOM, input_error
from .tracing import in_parts, note_probabilities

_TOLERANCE = 1e-3
_HOOK_TABLES = ("_forward_hooks", "_forward_pre_hooks")


def prove_copies(model: nn.Module, example: Tensor, *, training: bool = False) -> None:
    """Refuse a network whose copies would not be independent of it; the network itself is never run or changed.

    A copy with perturbed weights runs on one image, given twice, and every tensor that enters an operation is
    checked: all weights must belong to the copy, and no tensor from outside may be written to. Its logits must differ
    from those of a copy with equal weights, whose logits must be the same in every pass, also with hooks.

    Args:
        model: the network; it stays unchanged.
        example: (N, C, H, W) images of the size the network takes; the first is used.
        training: True if the copies will be trained: then they are checked in train mode too.

    Raises:
        DgpruneError: a layer or tensor of the original that a copy would still use; compiled or scripted layers,
            weights computed by a hook, layers without size or values; hooks that change the output; logits that are
            random or independent of the weights; images that the network does not take, or writes to.
    """
    refuse_uncopyable(model)
    images = _repeated_image(model, example)
    with preserved_rng(), torch.no_grad(), full_precision(images.device), in_parts(model):
        perturbed = _run(_perturbed_copy(model).eval(), images, original=model)
        logits = _run(shared_copy(model), images)
        if not logits.isfinite().any():
            problem = "are NaN or infinite; check its weights"
            if not len(logits):
                problem = "are missing: its forward returns no tensor"
            raise DgpruneError(f"the logits of this network {problem}.")
        note_probabilities(shared_copy(model), images)
        if torch.equal(perturbed, logits) and any(p.ndim > 1 for p in model.parameters()):
            constant = torch.equal(_run(shared_copy(model), torch.rand_like(images)), logits)
            raise DgpruneError(
                f"the logits of this network {'do not depend on its input or' if constant else 'do not depend on'} its "
                "parameters (copies with other weights give the same ones); give the network itself, not a wrapper "
                "around an exported or compiled one."
            )
        if not _agree(*logits.chunk(2)) and not _agree(_run(shared_copy(model), images), logits):
            raise DgpruneError(RANDOM)
        if has_hooks(model):
            _refuse_hooks(model, images, logits=logits)
        if training:
            _refuse_in_train_mode(model, images)


def prove_copies_if_suspect(model: nn.Module, example: Tensor | None, *, training: bool = False) -> None:
    """Run `prove_copies` only if something outside the module tree refers to layers, or hooks exist.

    For callers that must be fast or have no images: if `example` is None, such a network is refused.
    """
    refuse_uncopyable(model)
    reference = outside_reference(model, tensors=example is not None)
    if reference is None and not has_hooks(model) and not (training and _has_backward_hooks(model)):
        return
    if example is None:
        problem = "has hooks" if reference is None else f"refers to layers from outside its module tree ({reference})"
        raise DgpruneError(
            f"this network {problem}, so images are needed to test whether a copy of it computes the same; remove them "
            "first, or mask filters (dg.Mask) instead of single weights."
        )
    prove_copies(model, example, training=training)


def has_hooks(model: nn.Module) -> bool:
    """Return whether any layer has hooks that run before or after it."""
    return any(getattr(module, table) for module in model.modules() for table in _HOOK_TABLES)


def _has_backward_hooks(model: nn.Module) -> bool:
    return any(module._backward_hooks or module._backward_pre_hooks for module in model.modules())


def _repeated_image(model: nn.Module, example: Tensor) -> Tensor:
    """Return a batch of the first image, twice, on the network's device and in its type."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), example.dtype)
    image = example[:1].detach().to(device_of(model), dtype)
    return torch.cat([image, image])


def _perturbed_copy(model: nn.Module) -> nn.Module:
    """Return a copy with perturbed parameters and equal buffers, since some buffers hold indices."""
    names = {name for name, p in model.named_parameters(remove_duplicate=False) if p.is_floating_point()}
    return rebuild(model, lambda name, tensor: (tensor * 1.1).add_(0.01) if name in names else tensor.clone())


def _run(twin: nn.Module, images: Tensor, *, original: nn.Module | None = None, hooked: bool = False) -> Tensor:
    """Return a copy's output as one tensor; refuse a copy that uses tensors of `original`, if given."""
    watch = None if original is None else _Watch(twin, original=original, images=images, writes_only=hooked)
    try:
        with watch or nullcontext():
            batch = images.clone()
            output = twin(batch)
    except DgpruneError:
        raise
    except torch.OutOfMemoryError:
        text = "the device has too little memory for two images; use a smaller network or the CPU."
        raise DgpruneError(text) from None
    except Exception as error:
        if original is not None and watch is not None:
            _refuse_shared(original, watch)
            if "type" in str(error) and (where := unregistered(original)):  # model.double() does not reach them
                raise DgpruneError(
                    f"a copy of this network would still compute with the original's weights: {where}"
                ) from None
        raise input_error(error, twin, images=images) from error
    if original is not None and watch is not None:  # the network may have caught the error that stopped it
        _refuse_shared(original, watch)
    if not torch.equal(batch, images):
        raise DgpruneError(
            "the forward of this network writes to the images that it is given, so the next pass over them would see "
            "others; write x = x * 2 in place of x.mul_(2) or x *= 2."
        )
    return _as_tensor(output)


def _as_tensor(output: Any) -> Tensor:
    """Join all tensors of an output (a tensor, or nested lists and dicts of tensors) into one tensor."""
    parts = [part.detach().double().flatten() for part in tensors_of(output)]
    return torch.cat(parts) if parts else torch.empty(0)


def _agree(first: Tensor, second: Tensor) -> bool:
    """Return whether two outputs agree within 0.1 % of the largest value; NaN agrees with NaN."""
    if first.shape != second.shape:
        return False
    size = second.abs().nan_to_num(0, posinf=0).max() if len(second) else second.new_zeros(())
    return torch.allclose(first, second, rtol=0, atol=_TOLERANCE * float(size), equal_nan=True)


def _refuse_hooks(model: nn.Module, images: Tensor, *, logits: Tensor) -> None:
    """Refuse a network whose hooks change its output, since a pruned copy has no hooks."""
    hooked = with_hooks_of(model, shared_copy(model))
    if not _agree(_run(hooked, images, original=model, hooked=True), logits):
        raise DgpruneError(
            "hooks on this network change its output, and a pruned copy has no hooks; remove them first."
        )


def _refuse_in_train_mode(model: nn.Module, images: Tensor) -> None:
    """Refuse a network whose copy in train mode would affect the original, or that has hooks in the backward pass."""
    if _has_backward_hooks(model):
        raise DgpruneError(
            "this network has hooks of the backward pass, and the copy that is trained has none; remove them first."
        )
    twin = _perturbed_copy(model).train()
    watch = _Watch(twin, original=model, images=images)
    try:
        with watch:
            twin(images.clone())
    except Exception:  # training reports its own errors; here only use of the original matters
        pass
    _refuse_shared(model, watch)


def _refuse_shared(model: nn.Module, watch: _Watch) -> None:
    """Raise an error if the watch stopped the copy at a tensor from outside."""
    if watch.shared is not None and watch.writes_only:
        raise DgpruneError("hooks on this network write to its tensors when a copy runs; remove them first.") from None
    if watch.shared is not None:
        where, advice = find_holder(model, watch.shared)
        what = "change the original" if watch.written else "compute with the original's weights"
        raise DgpruneError(f"a copy of this network would still {what}: {where}. {advice}") from None


class _OutsideTensor(Exception):
    """An operation of the copy received a tensor of the original."""


class _Watch(Observer):
    """Stops a copy before an operation that would use a weight that is not its own, or write to a tensor from outside.

    A tensor is from outside if it neither belongs to the copy nor was computed in the pass: weights and statistics of
    layers that were not copied, and constants, which may be read. With `writes_only` such weights may be read too.

    Attributes:
        shared: the first forbidden tensor from outside, or None.
        written: whether that tensor would have been written to.
    """

    def __init__(self, twin: nn.Module, *, original: nn.Module, images: Tensor, writes_only: bool = False) -> None:
        super().__init__()
        self.shared: Tensor | None = None
        self.written = False
        self.writes_only = writes_only
        tensors = [*twin.parameters(), *twin.buffers(), *plain_tensors(twin), images]
        self._own = {0, *map(_address, tensors)}
        self._original = set(map(_address, [*original.parameters(), *original.buffers()]))
        self._weights = {} if twin.training else {_address(p): name for name, p in twin.named_parameters()}
        self._outside: dict[int, Tensor] = {}  # referenced, so that their memory is not reused

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for number, argument in enumerate(func._schema.arguments):
            writes = argument.alias_info is not None and argument.alias_info.is_write
            for tensor in tensors_of(args[number] if number < len(args) else kwargs.get(argument.name)):
                if (address := _address(tensor)) not in self._own:
                    self._outside[address] = tensor
                    self._check(tensor, func=func, written=writes)
                elif writes and address in self._weights:
                    raise DgpruneError(
                        f"this network writes to its parameter {self._weights[address]} while it runs in eval mode, so "
                        "its output would depend on how often it has run; keep what changes in a buffer."
                    )
        output = func(*args, **kwargs)
        created = {_address(tensor) for tensor in tensors_of(output)}
        if "lift_fresh" in func.__name__:  # torch.tensor(...) within the pass
            self._outside = {address: tensor for address, tensor in self._outside.items() if address not in created}
        self._own |= created - set(self._outside)
        return output

    def _check(self, tensor: Tensor, *, func: Any, written: bool) -> None:
        is_weight = isinstance(tensor, nn.Parameter) or tensor.requires_grad or _address(tensor) in self._original
        # Some BatchNorm operations write to their statistics without declaring it.
        if written or (not self.writes_only and (is_weight or "batch_norm" in func.__name__)):
            self.shared, self.written = tensor, written
            raise _OutsideTensor


def _address(tensor: Tensor) -> int:
    """Return the address of a tensor's memory; 0 if it has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # sparse tensors have no storage
        return 0
