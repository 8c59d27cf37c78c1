"""What a call must leave as it was: global settings of the process, and networks, domains and arrays of the user."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import torch
from material import fingerprint
from torch import nn

import dgprune_lab as dg

GLOBAL_HOOKS = [f"_global_{kind}_hooks" for kind in ("forward", "forward_pre", "backward", "backward_pre")]


def environment() -> dict[str, str]:
    """The environment without what PyTorch, OpenMP and pytest write into it."""
    return {key: text for key, text in os.environ.items() if not key.startswith(("TORCH", "KMP_", "PYTEST_"))}


def umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


def of_process() -> dict[str, Any]:
    """Every global setting that a library may be tempted to change."""
    module, numpy_state = torch.nn.modules.module, np.random.get_state()
    return {
        "generator of torch": torch.get_rng_state().numpy().tobytes(),
        "generator of numpy": repr((numpy_state[0], *numpy_state[2:])) + str(numpy_state[1].tobytes()),  # type: ignore
        "generator of Python": random.getstate(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "types": (torch.get_default_dtype(), torch.is_autocast_enabled(), torch.get_float32_matmul_precision()),
        "determinism": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark),
        "printing": (repr(torch.full((2000, 20), 1 / 3)), repr(np.get_printoptions()), np.geterr()),
        "hooks of all modules": [list(vars(module)[name]) for name in GLOBAL_HOOKS],
        "warnings": (list(warnings.filters), warnings.showwarning),
        "tables": [pd.get_option(name) for name in ("mode.string_storage", "display.max_rows", "display.precision")],
        "charts": (alt.theme.active, alt.data_transformers.active, alt.renderers.active),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "logging": (logging.getLogger().level, list(logging.getLogger().handlers)),
        "process": (os.getcwd(), environment(), umask(), list(sys.path), sys.excepthook),
    }


def of_domain(domain: dg.Domain) -> dict[str, Any]:
    """A domain's tensors, by identity and content."""
    held = {"images": domain.images, "labels": domain.labels, **domain.splits}
    return {
        name: (id(tensor), tensor._version, tensor.numpy().tobytes())
        for name, tensor in held.items()
        if isinstance(tensor, torch.Tensor)
    }


@contextmanager
def unchanged(*things: nn.Module | dg.Domain | np.ndarray | torch.Tensor) -> Iterator[None]:
    """Assert that the block leaves the process and these things as they were, whether it raises or not."""

    def now() -> dict[str, Any]:
        found: dict[str, Any] = of_process()
        for number, thing in enumerate(things):
            if isinstance(thing, nn.Module):
                parts = fingerprint(thing)
            elif isinstance(thing, dg.Domain):
                parts = of_domain(thing)
            else:
                parts = {"content": np.asarray(thing).tobytes()}
            found |= {f"{type(thing).__name__} {number}: {name}": part for name, part in parts.items()}
        return found

    before = now()
    try:
        yield
    finally:
        after = now()
        changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        assert not changed, f"changed: {', '.join(changed)}"
