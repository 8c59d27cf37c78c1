"""The random numbers of one training run: private streams, whose states can be saved and restored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

_PLAIN = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class Streams:
    """The random streams of one training run, with different seeds derived from one seed.

    Attributes:
        order: generator for the order of the images, on the CPU.
        augmentation: generator for the augmentation, on the network's device.
        dropout: generator for the network's dropout layers, on its device. Training in a background thread needs it,
            because other notebook cells draw from the global generators at the same time.
        noise: stream for everything else that the network draws from PyTorch's global generators. Networks with
            functional dropout or stochastic depth need it to be reproducible.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.order = torch.Generator().manual_seed(seed)
        self.augmentation = torch.Generator(device=device).manual_seed(seed + 2**32)
        self.dropout = torch.Generator(device=device).manual_seed(seed + 2**34)
        self.noise = _Noise(seed + 2**33, device)

    def state(self) -> dict[str, Tensor]:
        states = {name: getattr(self, name).get_state() for name in ("order", "augmentation", "dropout")}
        noise = {f"noise.{k}": state for k, state in enumerate(self.noise.states)}
        return {**states, **noise, "noise.used": torch.tensor(self.noise.used)}

    def resume(self, state: Mapping[str, Tensor]) -> None:
        """Set the streams to the states that `state` returned."""
        for name in ("order", "augmentation", "dropout"):
            getattr(self, name).set_state(state[name])
        self.noise.states = [state[f"noise.{k}"] for k in range(len(self.noise.states))]
        self.noise.used = bool(state["noise.used"])


class _Noise:
    """A private continuation of PyTorch's global generators."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.devices = [device] if device.type == "cuda" else []
        self.states = [torch.Generator(device=name).manual_seed(seed).get_state() for name in ("cpu", *self.devices)]
        self.used = True

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Within the block, let the global generators continue this stream; restore them afterwards.

        As soon as a step draws nothing, the global generators are left alone: restoring them would undo the draws of
        another notebook cell while training runs in a background thread.
        """
        if not self.used:
            yield
            return
        before = self.states
        with torch.random.fork_rng(devices=self.devices):
            torch.set_rng_state(self.states[0])
            for device, state in zip(self.devices, self.states[1:], strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
            self.states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self.devices)]
        self.used = not all(torch.equal(old, new) for old, new in zip(before, self.states, strict=True))


def dropouts(model: nn.Module) -> list[_DropoutNd]:
    """Return the dropout layers of a network that can draw from a private generator."""
    return [module for module in model.modules() if type(module) in _PLAIN]  # pyright: ignore[reportReturnType]


@contextmanager
def draw_from(generator: torch.Generator, layers: Sequence[_DropoutNd]) -> Iterator[None]:
    """Within the block, let these dropout layers draw from this generator instead of the global one.

    A layer in training mode is set to eval mode, where it is the identity, and a hook before it applies the dropout.
    """
    training = [layer for layer in layers if layer.training]
    with ExitStack() as stack:
        for layer in training:
            layer.training = False
            stack.callback(layer.register_forward_pre_hook(partial(_dropped, generator)).remove)
        try:
            yield
        finally:
            for layer in training:
                layer.training = True


def _dropped(generator: torch.Generator, layer: _DropoutNd, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Set single values (Dropout) or whole maps (1d to 3d) to 0 and rescale the others; a hook before a layer."""
    x = inputs[0]
    shape = x.shape if isinstance(layer, nn.Dropout) else (*x.shape[:2], *(1 for _ in x.shape[2:]))
    kept = torch.rand(shape, generator=generator, device=generator.device) >= layer.p
    scale = 1 / (1 - layer.p) if layer.p < 1 else 0.0
    return (x * kept.to(x.device) * scale, *inputs[1:])


def draws_by_itself(model: nn.Module, images: Tensor, *, training: bool) -> bool:
    """Return whether a network draws random numbers outside its dropout layers: whether two passes differ.

    Args:
        model: a private copy of the network; its mode and buffers change.
        images: a few images.
        training: whether to test in training mode instead of eval mode.
    """
    model.train(training)
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        logits = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            with draw_from(torch.Generator(device=images.device).manual_seed(0), dropouts(model)):
                logits.append(model(images))
    return not torch.equal(*logits)
