"""The contract of a scorer and the decorator that checks it."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar, get_args

from ..core import APART, LABELLED, DgpruneError, Frozen, Need, border_of, public, unknown

Kind = Literal["weights", "source", "target", "control"]
Level = Literal["group", "network"]
What = Literal["images", "labels"]
Function = Callable[..., Any]


@public
@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A function that gives one number per filter, with its needs, the data it reads and its source.

    Attributes:
        name: name of the scorer in tables and calls.
        function: the function, which takes a view of one group (for level "network", a dict of views of all groups)
            and keyword-only options.
        needs: parts of the view that the function uses: weights, mean_map, moments, gate, risk, weight_gradient, model,
            ...; each method of the view names its need.
        reads: role ("source" or "target") -> "images" or "labels": the data that the scores depend on.
        level: what the function returns: "group", a (C,) tensor; "network", a dict of such tensors by group name.
        instead: a similar scorer, or its name, that does not read the target.
        cite: the source: paper, section or equation.
        label: name in a menu.
        draws: whether the scorer is random; it then takes `seed` as a keyword.
        gathers: function of the options that returns what they need measured in the one pass over each domain; None
            for all of `needs`.
        refuses: function of (views, **options) that returns a sentence on why the scorer cannot run, or None; called
            before any pass.
        control: whether it is a baseline that other scorers should beat.
        preset: the options that `using` has set.
        base: the scorer on which `using` was first called.
        code: for a scorer made from scorers of the menu, the Python expression that makes it.
    """

    name: str
    function: Function = field(repr=False)
    needs: tuple[Need, ...]
    reads: Mapping[str, What]
    level: Level = "group"
    instead: str | Scorer | None = None
    cite: str = ""
    label: str
    draws: bool = False
    gathers: Callable[..., tuple[Need, ...]] | None = field(default=None, repr=False)
    refuses: Callable[..., str | None] | None = field(default=None, repr=False)
    control: bool = False
    preset: Mapping[str, Any] = field(default_factory=dict)
    base: Scorer | None = field(default=None, repr=False)
    code: str = ""

    def __post_init__(self) -> None:
        self.__dict__.update({name: Frozen(getattr(self, name)) for name in ("reads", "preset")})

    def __hash__(self) -> int:
        return hash((self.name, self.level, self.needs))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a scorer made by `using` as its options, one in a module as its name, any other as its attributes."""
        if self.base is not None:
            return _with_options, (self.base, dict(self.preset))
        module, name = self.function.__module__, self.function.__qualname__
        if getattr(sys.modules.get(module), name, None) is self:
            return _from_module, (module, name)
        return object.__new__, (Scorer,), self.__dict__

    @property
    def kind(self) -> Kind:
        """The scorer's group in the menu: weights, source images, target-aware or controls."""
        if "target" in self.reads:
            return "target"
        return "control" if self.draws or self.control else "source" if self.reads else "weights"

    def gathered(self, options: Mapping[str, Any]) -> set[Need]:
        """Return what these options need measured in the one pass over a domain."""
        needs = self.needs if self.gathers is None else self.gathers(**options)
        return {need for need in needs if need not in APART}

    def takes_labels(self, options: Mapping[str, Any]) -> bool:
        """Return whether, according to `gathers`, these options need the labels that the scorer declares."""
        gathered = self.gathered(options)
        known = self.gathers is not None and gathered and "removal" not in self.needs
        return "labels" in self.reads.values() and not (known and not gathered & LABELLED)

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (self.function.__doc__ or "").strip().split("\n")[0]

    @property
    def formula(self) -> str:
        """The docstring between its first line and "Returns"."""
        body = " ".join((self.function.__doc__ or "").strip().split("\n")[1:]).split("Returns")[0].split("Source:")[0]
        return " ".join(body.split())

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """The keyword-only parameters of the function."""
        parameters = inspect.signature(self.function).parameters
        return {key: value for key, value in parameters.items() if value.kind is inspect.Parameter.KEYWORD_ONLY}

    def using(self, **options: Any) -> Scorer:
        """Return the same scorer with other defaults, under a name that shows them: `dss[site=conv_output]`.

        Raises:
            DgpruneError: an option that the scorer does not take.
        """
        options = {key: value for key, value in self.settled(options).items() if key in options}
        base = self.base or self
        preset = {key: value for key, value in {**self.preset, **options}.items() if value != base.options[key].default}
        if not preset:
            return base
        suffix = ", ".join(f"{key}={value}" for key, value in preset.items())
        arguments = ", ".join(f"{key}={value!r}" for key, value in preset.items())
        function = functools.partial(base.function, **preset)
        function.__doc__ = base.function.__doc__
        return replace(
            base,
            name=f"{base.name}[{suffix}]",
            label=f"{base.label} ({suffix})",
            function=function,
            preset=preset,
            base=base,
            code=f"{base.code or f'dg.SCORERS[{base.name!r}]'}.using({arguments})",
        )

    def settled(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return all options with which the scorer runs, defaults included.

        Raises:
            DgpruneError: an option that the scorer does not take, or a value that does not match its type hint.
        """
        known = self.options
        for key in options:
            if key not in known:
                names = ", ".join(known) or "none"
                raise DgpruneError(f"scorer {self.name!r} has no option {key!r}; it takes: {names}.")
        hints = border_of((self.base or self).function)
        return {
            key: hints.checked(key, options[key]) if key in options else parameter.default
            for key, parameter in known.items()
        }

    def __call__(self, view: Any, **options: Any) -> Any:
        return self.function(view, **options)


def _with_options(base: Scorer, preset: Mapping[str, Any]) -> Scorer:
    return base.using(**preset)


def _from_module(module: str, name: str) -> Scorer:
    return getattr(importlib.import_module(module), name)


@public
def scorer(
    name: str,
    *,
    needs: tuple[Need, ...] = ("weights",),
    reads: Mapping[str, What] | None = None,
    level: Level = "group",
    instead: str | None = None,
    cite: str = "",
    label: str | None = None,
    draws: bool = False,
    gathers: Callable[..., tuple[Need, ...]] | None = None,
    refuses: Callable[..., str | None] | None = None,
) -> Callable[[Function], Scorer]:
    """Turn a function into a Scorer. Nothing is registered; pass the Scorer to calls, or list it in `dg.SCORERS`.

    Args: as the attributes of `Scorer`. By default `reads` is empty, `label` the name, and `cite` the paragraph of the
    docstring from "Source:" on.

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
        result = Scorer(
            name=name,
            function=function,
            needs=tuple(needs),
            reads=dict(reads or {}),
            level=level,
            instead=instead,
            cite=cite or _cited_source(function),
            label=label or name,
            draws=draws,
            gathers=gathers,
            refuses=refuses,
        )
        _check_scorer(result)
        return result

    return public(decorate)


def _cited_source(function: Function) -> str:
    """Return the paragraph of the docstring after "Source:"."""
    paragraph = (function.__doc__ or "").partition("Source:")[2].split("\n\n")[0]
    return " ".join(paragraph.split()).rstrip(".")


def _check_scorer(scorer: Scorer) -> None:
    name, function = scorer.name, scorer.function
    if not (function.__doc__ or "").strip():
        raise DgpruneError(f"scorer {name!r} needs a docstring, whose first line the menu shows.")
    for need in scorer.needs:
        if need not in get_args(Need):
            raise unknown("need", need, get_args(Need))
    for role, what in scorer.reads.items():
        if role not in ("source", "target") or what not in get_args(What):
            raise DgpruneError(
                f"scorer {name!r}: reads maps 'source' or 'target' to 'images' or 'labels'; got {dict(scorer.reads)}."
            )
    if len(inspect.signature(function).parameters) - len(scorer.options) != 1:
        raise DgpruneError(f"scorer {name!r} must take one positional argument, the view; options are keyword-only.")
    if scorer.draws and "seed" not in scorer.options:
        raise DgpruneError(f"scorer {name!r} draws, so it must take the keyword seed.")


Entry = TypeVar("Entry")


class Menu(Mapping[str, Entry], Generic[Entry]):
    """A fixed table of named entries; the error for an unknown name suggests the nearest known one."""

    def __init__(self, kind: str, entries: Mapping[str, Entry]) -> None:
        self._kind, self._entries = kind, dict(entries)

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            raise unknown(self._kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
