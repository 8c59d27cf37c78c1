"""One file per question: a study in, a tidy table out."""

from .agreement import agreement
from .companion import companion
from .drop import drop
from .ledger import ledger
from .mean_map import mean_map
from .oracle import oracle
from .stability import stability
from .tuned import tuned

__all__ = ["agreement", "companion", "drop", "ledger", "mean_map", "oracle", "stability", "tuned"]
