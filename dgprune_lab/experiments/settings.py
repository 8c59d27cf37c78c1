"""Settings as plain data: grids of them, and hashes that are the same in every process."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..core import DgpruneError, public

Plain = str | int | float | bool | None | tuple[Any, ...]
Settings = Mapping[str, Any]  # of plain values


@public
def grid(**axes: Sequence[Plain]) -> tuple[dict[str, Plain], ...]:
    """Return all combinations of values, as settings of the runs of an experiment; the first axis varies slowest.

    Where not every combination makes sense, add several grids with `+`.

    Args:
        axes: name of a setting = its values.

    Raises:
        DgpruneError: an axis that is not a list, or is empty.

    >>> grid(training_seed=[0, 1], scorer=["l1"]) + grid(scorer=["dense"])
    ({'training_seed': 0, 'scorer': 'l1'}, {'training_seed': 1, 'scorer': 'l1'}, {'scorer': 'dense'})
    """
    for name, values in axes.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not len(values):
            raise DgpruneError(f"{name} must be a list of at least one value; got {values!r}. Write {name}=[...].")
    return tuple(dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))


def tupled(value: Any) -> Any:
    """Return settings or a value from JSON with its lists as tuples, so that a table can be grouped by them."""
    if isinstance(value, dict):
        return {name: tupled(setting) for name, setting in value.items()}
    return tuple(map(tupled, value)) if isinstance(value, list) else value


def key_of(settings: Settings) -> str:
    """Return a hash of plain values, the same in every process and on every machine.

    Raises:
        DgpruneError: a value that is not plain.
    """
    try:
        text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
        json.dumps(settings, ensure_ascii=False).encode()  # refuses text that UTF-8 cannot hold
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
    except (TypeError, ValueError) as error:  # UnicodeEncodeError is a ValueError
        raise DgpruneError(
            f"settings must be plain values (text, numbers, True, False, None and tuples of these): {error} in "
            f"{dict(settings)!r}. Numbers of numpy and torch are converted with .item()."
        ) from None
