"""The outputs of a network's blocks, and the last of its layers to run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..core import CONV, preserved_rng
from ..pruning import shared_copy
from .pool import Pool


def layers_that_run(model: nn.Module, pool: Pool) -> tuple[str, dict[str, Tensor]]:
    """Return the name of the last layer that runs, and each block's output on two images; see `blocks_of`."""
    order: list[str] = []
    outputs: dict[str, Tensor] = {}
    named = [name for name, module in model.named_modules() if isinstance(module, (*CONV, nn.Linear))]
    twin, images = shared_copy(model), pool.take(torch.arange(2), next(model.parameters()).device)[0]
    with (
        torch.no_grad(),
        preserved_rng(),
        watch_outputs(twin, named, lambda name, _: order.append(name)),
        watch_outputs(twin, blocks_of(twin), lambda name, y: outputs.update({name: y})),
    ):
        twin(images)
    return (order or [""])[-1], outputs


def blocks_of(model: nn.Module) -> list[str]:
    """Return the names of the outermost modules that hold convolutions.

    A module that holds all convolutions of the network is replaced by its parts, and so is one that is never called
    itself (nn.ModuleList). For a ResNet these are the first convolution and its four stages; for layers in a row, each
    convolution.
    """
    blocks = [("", model)] if any(isinstance(inner, CONV) for inner in model.modules()) else []
    while True:
        opened = []
        for name, module in blocks:
            parts = [
                (f"{name}.{part}".lstrip("."), child)
                for part, child in module.named_children()
                if any(isinstance(inner, CONV) for inner in child.modules())
            ]
            uncalled = type(module).forward is nn.Module.forward
            opened += parts if parts and (uncalled or len(blocks) == 1) else [(name, module)]
        if opened == blocks:
            return [name for name, _ in blocks]
        blocks = opened


@contextmanager
def watch_outputs(model: nn.Module, names: Iterable[str], receive: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Within the block, call receive(name, output) whenever one of these modules returns a tensor (N, C, ...)."""

    def pass_on(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.ndim > 1:
            receive(name, output)

    with ExitStack() as stack:
        for name in names:
            stack.callback(model.get_submodule(name).register_forward_hook(partial(pass_on, name)).remove)
        yield
