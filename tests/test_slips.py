"""Every slip of `slips.py` is answered in words, and changes nothing."""

from __future__ import annotations

import random
import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from material import fingerprint
from slips import NET, Slip, slips

import dgprune_lab as dg

SLIPS = list(slips())
CODE = re.compile(
    r"typing|Union|Optional|(Sequence|Mapping|Literal|Callable)\[|dgprune_lab\.|torch\.nn\.|<class|<function| at 0x|\n"
)


def state() -> dict[str, Any]:
    """What a refused call must leave as it is."""
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.random.get_state()[1].tobytes(),  # type: ignore[index,union-attr]
        "random": random.getstate(),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "warnings": list(warnings.filters),
        "network": fingerprint(NET),
    }


@pytest.mark.parametrize(
    "slip", SLIPS, ids=[f"{n}-{slip.function}-{slip.names.split('|')[0].split()[0]}" for n, slip in enumerate(SLIPS)]
)
def test_a_slip_is_answered_in_words_and_changes_nothing(slip: Slip) -> None:
    before = state()
    with pytest.raises(dg.DgpruneError) as raised:
        slip.call()
    text = str(raised.value)
    assert re.search(rf"(?<![a-z_])({slip.names})(?![a-z_])", text), text
    assert len(text) < 500 and text.rstrip().endswith((".", "?")) and not CODE.search(text), text
    assert state() == before
