"""The record of what each stage of a network's life has looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from .tables import Seen

Stage = Literal["training", "scorer", "tuning", "selection"]


@dataclass(frozen=True)
class Record:
    """Per stage, what was read of each part: {"mnist/train": "labels"}; None where nobody knows.

    A bare network from elsewhere is unknown in its training, never "none". Stages that have not happened are empty.
    """

    training: Mapping[str, Seen] | None = None
    scorer: Mapping[str, Seen] | None = field(default_factory=dict)
    tuning: Mapping[str, Seen] | None = field(default_factory=dict)
    selection: Mapping[str, Seen] | None = field(default_factory=dict)

    def seen(self, stage: Stage, domain: str, split: str) -> Seen:
        """What this stage has read of this part of this domain."""
        entries: Mapping[str, Seen] | None = getattr(self, stage)
        return "unknown" if entries is None else entries.get(f"{domain}/{split}", "none")

    def columns(self, domain: str, split: str) -> dict[str, Seen]:
        """The four seen_by_* cells of a table row about this part."""
        stages: tuple[Stage, ...] = ("training", "scorer", "tuning", "selection")
        return {f"seen_by_{stage}": self.seen(stage, domain, split) for stage in stages}

    def adding(self, stage: Stage, entries: Mapping[str, Seen] | None) -> Record:
        """The record with more reading in one stage; reading labels covers reading images, unknown covers all."""
        before: Mapping[str, Seen] | None = getattr(self, stage)
        if before is None or entries is None:
            return replace(self, **{stage: None})
        merged = dict(before)
        for key, value in entries.items():
            merged[key] = "labels" if "labels" in (value, merged.get(key)) else value
        return replace(self, **{stage: merged})

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, for a card or a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Record:
        """The record a file holds; a file without one gives an unknown training."""
        return cls() if value is None else cls(**value)


def record_of(model: Any) -> Record:
    """What each stage of this network's life has looked at; unknown for a bare network from elsewhere."""
    return getattr(model, "dgprune_record", Record())


def set_record(model: Any, record: Record) -> None:
    """Attach the record that `record_of` reads."""
    model.dgprune_record = record
