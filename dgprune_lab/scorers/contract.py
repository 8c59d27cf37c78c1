"""What a scorer and a diagnostic promise, and the decorators that check it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar, get_args

from torch import Tensor

from ..core import APART, LABELLED, DgpruneError, Need, unknown

Kind = Literal["weights", "training", "target", "control"]
Level = Literal["group", "network"]
Function = Callable[..., Any]


@dataclass(frozen=True)
class Scorer:
    """A function that gives one number per filter, with what it needs, what it reads and where it comes from.

    Attributes:
        name: as written in tables and calls.
        function: takes a view of one group (of every group, for level "network") and keyword-only options.
        needs: what of the view it may use.
        reads: role -> "images" or "labels": what its numbers depend on.
        level: "group" (a (C,) tensor per call) or "network" (a dict of them, by group name).
        instead: a scorer, or its name, that asks a like question without looking at the target.
        cite: where it comes from.
        label: plain words for a menu.
        draws: whether it is random, so that its seed counts.
        gathers: which of `needs` the one pass must leave for given options; all of them where None.
        refuses: a sentence that says why it cannot run here, or None; it gets the views, before any pass, and options.
        control: whether it is there to be beaten.
        given: the options that `using` has set.
        plain: what `using` was called on first.
        code: the expression that makes it from scorers of the menu, where it was made so.
    """

    name: str
    function: Function = field(repr=False)
    needs: tuple[Need, ...]
    reads: Mapping[str, Literal["images", "labels"]]
    level: Level
    instead: str | Scorer | None
    cite: str
    label: str
    draws: bool
    gathers: Callable[..., tuple[Need, ...]] | None = field(default=None, repr=False)
    refuses: Callable[..., str | None] | None = field(default=None, repr=False)
    control: bool = False
    given: Mapping[str, Any] = field(default_factory=dict)
    plain: Scorer | None = field(default=None, repr=False)
    code: str = ""

    @property
    def kind(self) -> Kind:
        """The part of the menu it stands in: from the weights, from training images, uses the target, control."""
        if "target" in self.reads:
            return "target"
        return "control" if self.draws or self.control else "training" if self.reads else "weights"

    def gathered(self, options: Mapping[str, Any]) -> set[Need]:
        """What the one pass over a domain must leave for it to run with these options."""
        wanted = self.needs if self.gathers is None else self.gathers(**options)
        return {need for need in wanted if need not in APART}

    def takes_labels(self, options: Mapping[str, Any]) -> bool:
        """Whether the labels it declares are needed with these options too, as far as what it gathers tells."""
        gathered = self.gathered(options)
        sure = self.gathers is not None and gathered and "removal" not in self.needs
        return "labels" in self.reads.values() and not (sure and not gathered & LABELLED)

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (self.function.__doc__ or "").strip().split("\n")[0]

    @property
    def formula(self) -> str:
        """What the docstring says after its first line and before what it returns."""
        rest = " ".join((self.function.__doc__ or "").strip().split("\n")[1:]).split("Returns")[0].split("Source:")[0]
        return " ".join(rest.split())

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """Its keyword-only parameters."""
        return {
            key: value
            for key, value in inspect.signature(self.function).parameters.items()
            if value.kind is inspect.Parameter.KEYWORD_ONLY
        }

    def using(self, **options: Any) -> Scorer:
        """The same scorer with other defaults, under a name that tells them: `dss[site=conv]`.

        Raises:
            DgpruneError: an option it does not take.
        """
        self.settled(options)
        plain = self.plain or self
        given = {**self.given, **options}
        given = {key: value for key, value in given.items() if value != plain.options[key].default}
        if not given:
            return plain
        words = ", ".join(f"{key}={value}" for key, value in given.items())
        function = functools.partial(plain.function, **given)
        function.__doc__ = plain.function.__doc__
        written = ", ".join(f"{key}={value!r}" for key, value in given.items())
        code = f"{plain.code}.using({written})" if plain.code else f"dg.SCORERS[{plain.name!r}].using({written})"
        return replace(
            plain,
            name=f"{plain.name}[{words}]",
            label=f"{plain.label} ({words})",
            function=function,
            given=given,
            plain=plain,
            code=code,
        )

    def settled(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options it runs with, its defaults filled in.

        Raises:
            DgpruneError: an option it does not take.
        """
        known = self.options
        for key in options:
            if key not in known:
                takes = ", ".join(known) or "none"
                raise DgpruneError(f"scorer {self.name!r} has no option {key!r}; it takes: {takes}.")
        return {key: options.get(key, parameter.default) for key, parameter in known.items()}

    def __call__(self, view: Any, **options: Any) -> Any:
        return self.function(view, **options)


def scorer(
    name: str,
    *,
    needs: tuple[Need, ...] = ("weights",),
    reads: Mapping[str, Literal["images", "labels"]] | None = None,
    level: Level = "group",
    instead: str | None = None,
    cite: str = "",
    label: str | None = None,
    draws: bool = False,
    gathers: Callable[..., tuple[Need, ...]] | None = None,
    refuses: Callable[..., str | None] | None = None,
) -> Callable[[Function], Scorer]:
    """Make a plain function a Scorer. It registers nothing: pass the result, or list it in `dg.SCORERS`.

    Args:
        name: as written in tables and calls.
        needs: parts of the view it uses: weights, mean_map, moments, gate, risk, weight_gradient, model, ...; each
            reading of the view names its need.
        reads: {"source": "images"} or "labels", and the same for "target"; nothing for a scorer of weights.
        level: "group" or "network".
        instead: a target-free scorer to offer where this one looks at the target.
        cite: the source: paper, section or equation.
        label: plain words for a menu; the name where not given.
        draws: whether it is random; it then takes `seed` as a keyword.
        gathers: options -> the needs that the one pass over each domain must leave; all where not given.
        refuses: (views, **options) -> why it cannot run here, in a sentence, or None. It is asked before any pass.

    Raises:
        DgpruneError: no docstring, an unknown need, a role that is neither source nor target, positional options.

    >>> import dgprune_lab as dg
    >>> @dg.scorer("largest_weight")
    ... def largest_weight(view):
    ...     '''Largest absolute weight of the filter.'''
    ...     return view.weight.abs().amax(1)
    >>> largest_weight.name
    'largest_weight'
    """

    def decorate(function: Function) -> Scorer:
        if not (function.__doc__ or "").strip():
            raise DgpruneError(f"scorer {name!r} needs a docstring: its first line is what people read in the menu.")
        for need in needs:
            if need not in get_args(Need):
                raise unknown("need", need, get_args(Need))
        for role, what in (reads or {}).items():
            if role not in ("source", "target") or what not in ("images", "labels"):
                raise DgpruneError(
                    f"scorer {name!r}: reads maps 'source' or 'target' to 'images' or 'labels'; got {reads}."
                )
        made = Scorer(
            name,
            function,
            tuple(needs),
            dict(reads or {}),
            level,
            instead,
            cite,
            label or name,
            draws,
            gathers,
            refuses,
        )
        positional = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY]
        if len(positional) != 1:
            raise DgpruneError(
                f"scorer {name!r} must take one positional argument, the view; options are keyword-only."
            )
        if draws and "seed" not in made.options:
            raise DgpruneError(f"scorer {name!r} draws, so it must take the keyword seed.")
        return made

    return decorate


Thing = TypeVar("Thing")


class Menu(Mapping[str, Thing], Generic[Thing]):
    """A written-out table of named things."""

    def __init__(self, kind: str, things: Mapping[str, Thing]) -> None:
        self._kind, self._things = kind, dict(things)

    def __getitem__(self, name: str) -> Thing:
        if name not in self._things:
            raise unknown(self._kind, name, self._things)
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)


def read_scores(value: Any, group_name: str) -> Tensor:
    """What a scorer returned for one group, as a float64 tensor on the CPU.

    Raises:
        DgpruneError: it is not a tensor.
    """
    if not isinstance(value, Tensor):
        raise DgpruneError(
            f"a scorer must return a tensor, one number per filter; for {group_name!r} it gave {type(value).__name__}."
        )
    return value.detach().to("cpu").double()
