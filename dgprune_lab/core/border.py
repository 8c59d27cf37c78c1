"""Argument checking: public functions check their arguments against their type hints; errors say what to do."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import types
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, TypeVar, cast, get_type_hints

import torch

from .errors import DgpruneError, did_you_mean
from .hints import kind_of
from .kinds import Kind, Refused

Public = TypeVar("Public", bound=Callable[..., Any])

_DEVICES = ("cpu", "cuda")
_UNCHECKED = ("forward", "extra_repr")
"""Methods that stay unchecked, because PyTorch calls and traces them."""
_BY_NAME = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

# What to do next, by the wanted kind: for a given kind that is related to it, then for any other.
_INSTEAD = {
    ("Module", "Study"): "Pass its network, study.model.",
    ("Domain", "Study"): "Pass its domains, study.domains.",
    ("DataFrame", "Study"): "Make the table first with the diagnostic of this name.",
    ("Study", "Module"): "Make a study first: dg.Study(model, sources=[...]).",
    ("Mask", "Scores"): "Choose filters first: dg.allocate(scores, ratio=0.5).",
    ("Mask", "float"): "Choose filters first: dg.allocate(scores, ratio=0.5).",
    ("Mask", "WeightMask"): "Filters are removed, single weights only masked: use masked.",
    ("Scores", "str"): "Score first: study.score('l1').",
    ("Scores", "Mask"): "Pass the scores that it was made from.",
    ("Domain", "str"): "Load it first: dg.data.load('mnist').",
    ("Domain", "Tensor"): "Make a domain first: dg.Domain.from_arrays('name', images=...).",
    ("Scorer", "Scores"): "Ready Scores belong to one network and its images; name the scorer instead.",
    ("Scorer", "function"): "Decorate the function with @dg.scorer('name').",
    ("FilterGraph", "Study"): "Pass its groups, study.graph.",
    ("FilterGraph", "Module"): "Read its groups first: dg.read_groups(model, images).",
    ("str", "Domain"): "Pass its name.",
}
_MADE = {
    "Study": "Make one with dg.Study(model, sources=[...]) or dg.demo().",
    "Domain": "Make one with dg.Domain.from_arrays('name', images=...) or dg.data.load('mnist').",
    "DataFrame": "Pass the table that a diagnostic returns.",
    "Mask": "Make one with dg.allocate(scores, ratio=0.5).",
    "WeightMask": "Make one with dg.allocate of scores of single weights.",
    "Scores": "Make them with study.score('l1').",
    "Scorer": "The names are in list(dg.SCORERS).",
    "FilterGraph": "Pass study.graph or dg.read_groups(model, images).",
    "Module": "Pass the network itself, such as study.model.",
    "PruningRun": "Make one with dg.train_with_pruning(...).",
    "TrainingOptions": "Make them with dg.TrainingOptions(epochs=...).",
    "PruneSchedule": "Make one with dg.PruneSchedule.everywhere(...).",
    "Tensor": "Convert it with torch.as_tensor(...).",
}


class Border:
    """The compiled type hints of one function: the `Kind` and the default of each argument."""

    def __init__(self, function: Callable[..., Any]) -> None:
        parameters = inspect.signature(function).parameters
        self.function = function
        self.method = next(iter(parameters), "") in ("self", "cls")
        self.defaults = {name: p.default for name, p in parameters.items()}
        kinds = [p.kind for p in parameters.values()]
        self.has_var_keyword = inspect.Parameter.VAR_KEYWORD in kinds
        self.has_var_positional = inspect.Parameter.VAR_POSITIONAL in kinds
        self.positional = [name for name, p in parameters.items() if p.kind in _BY_POSITION]
        self.names = [name for name, p in parameters.items() if p.kind in _BY_NAME][int(self.method) :]
        self.required = [name for name in self.names if self.defaults[name] is inspect.Parameter.empty]
        hints = resolved_hints(function)
        self.kinds = {name: kind_of(hints[name]) for name in self.positional + self.names if name in hints}

    def take(self, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and the named arguments, each converted as its type hint requires.

        Raises:
            DgpruneError: an unknown, missing, repeated or wrong argument.
        """
        if len(args) > len(self.positional) and not self.has_var_positional:
            raise DgpruneError(self._text(args, self._too_many(args)))
        bound = self.positional[: len(args)]
        for name in options:
            if name in bound:
                raise DgpruneError(self._text(args, f" got {name} twice: give it once."))
            if name not in self.kinds and name not in self.names and not self.has_var_keyword:
                raise DgpruneError(self._text(args, self._unknown(name)))
        for name in self.required:
            if name not in options and name not in bound:
                wanted = self.kinds[name].phrase if name in self.kinds else "see its help"
                raise DgpruneError(self._text(args, f" needs the argument {name!r}: {wanted}."))
        values = [self.checked(name, value, args) for name, value in zip(bound, args, strict=False)]
        return (*values, *args[len(bound) :]), {n: self.checked(n, value, args) for n, value in options.items()}

    def checked(self, name: str, value: Any, args: tuple[Any, ...] = ()) -> Any:
        """Return one argument, converted as its type hint requires."""
        kind = self.kinds.get(name)
        if kind is None:
            return value
        default = self.defaults.get(name, inspect.Parameter.empty)
        if value is default or (value is None and isinstance(default, tuple | list | dict) and not default):
            return default
        try:
            return kind.take(value)
        except Refused as refused:
            raise DgpruneError(self._text(args, self._sentence(name, kind, refused, self._name(args)))) from None

    def _sentence(self, name: str, kind: Kind, refused: Refused, caller: str) -> str:
        requirement = refused.must or f"be {kind.phrase}"
        advice = refused.advice or _advice(kind, refused, self.defaults.get(name))
        if not advice and not refused.must:
            advice = f"See help({caller})."
        return f": {name} must {requirement}; got {short_text(refused.value)}{refused.where}. {advice}".rstrip()

    def _unknown(self, name: str) -> str:
        hint = did_you_mean(name, self.names, cutoff=0.55)
        return f" has no argument {name!r}; it takes {', '.join(self.names) or 'none'}.{hint}"

    def _too_many(self, args: tuple[Any, ...]) -> str:
        positional, rest = self.positional[int(self.method) :], [n for n in self.names if n not in self.positional]
        count, others = len(args) - int(self.method), f" Pass the others by keyword: {rest[0]}=...." if rest else ""
        if not positional:
            return f" takes {'every argument by keyword' if rest else 'no argument'}; got {count} by position."
        return f" takes only {' and '.join(positional)} by position; got {count}.{others}"

    def _text(self, args: tuple[Any, ...], sentence: str) -> str:
        return f"{self._name(args)}(){sentence}"

    def _name(self, args: tuple[Any, ...]) -> str:
        name = self.function.__qualname__.rpartition("<locals>.")[2]
        if self.method and args:  # the class may have inherited the method
            owner = args[0] if isinstance(args[0], type) else type(args[0])
            name = f"{owner.__name__}.{self.function.__name__}"
        return name.removesuffix(".__init__")


def public(thing: Public) -> Public:
    """Check the arguments of a public function, or of a class's constructor and methods, against the type hints.

    An argument whose meaning is unambiguous is converted: a single item, the values of a dict, an array or a
    generator to a list, numpy and torch numbers to Python numbers, a string to a path, None to an empty default.

    Raises:
        DgpruneError: on a call with an unknown, missing or wrong argument. The message names the argument, what was
            wanted, what was got and what to do next.

    >>> from dgprune_lab.core import public
    >>> @public
    ... def half(*, ratios: list[float]) -> list[float]:
    ...     return [ratio / 2 for ratio in ratios]
    >>> half(ratios=1)
    [0.5]
    >>> half(ratio=1)
    Traceback (most recent call last):
    dgprune_lab.core.errors.DgpruneError: half() has no argument 'ratio'; it takes ratios. Did you mean 'ratios'?
    """
    if not isinstance(thing, type):
        return _checked(thing)
    members: dict[str, Any] = dict(vars(thing))
    for name, member in members.items():
        if name == "__init__" or not (name.startswith("_") or name in _UNCHECKED):
            if isinstance(member, classmethod | staticmethod):
                setattr(thing, name, type(member)(_checked(member.__func__)))
            elif isinstance(member, types.FunctionType):
                setattr(thing, name, _checked(member))
    return cast(Public, thing)


def outside_inference() -> AbstractContextManager[object]:
    """Return a context in which new tensors are created on the CPU and can be trained, and autocast is off.

    This package places its tensors explicitly; a default device set by the user would spread them over two devices.
    """
    stack = ExitStack()
    if torch.empty(0).device.type != "cpu":
        stack.enter_context(torch.device("cpu"))
    if torch.is_inference_mode_enabled():
        stack.enter_context(torch.inference_mode(False))
    for kind in filter(torch.is_autocast_enabled, _DEVICES):
        stack.enter_context(torch.autocast(kind, enabled=False))
    return stack


def _has_default_modes() -> bool:
    """Return whether inference mode and autocast are off and the default device is the CPU."""
    modes = torch.is_inference_mode_enabled() or any(map(torch.is_autocast_enabled, _DEVICES))
    return not modes and torch.empty(0).device.type == "cpu"


def _checked(function: Any) -> Any:
    compiled, border, has_default_modes, outside = border_of, None, _has_default_modes, outside_inference

    def checked(*args: Any, **options: Any) -> Any:
        nonlocal border
        if border is None:
            border = compiled(function)
        args, options = border.take(args, options)
        if has_default_modes():
            return function(*args, **options)
        with outside():
            return function(*args, **options)

    # The wrapper gets the globals of the function itself, where doctest and tools that resolve hints look.
    wrapper = types.FunctionType(checked.__code__, inspect.unwrap(function).__globals__, closure=checked.__closure__)
    functools.update_wrapper(wrapper, function)
    wrapper.is_public = True  # pyright: ignore[reportFunctionMemberAccess]
    return wrapper


@functools.lru_cache(maxsize=256)
def border_of(function: Callable[..., Any]) -> Border:
    """Return the compiled hints of a function."""
    return Border(function)


def resolved_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the resolved type hint of each parameter; names imported under TYPE_CHECKING are resolved too.

    A hint that cannot be resolved is left out: that argument is not checked.
    """
    base, hints = inspect.unwrap(function), {}
    annotations = {name: hint for name, hint in getattr(base, "__annotations__", {}).items() if name != "return"}
    for name, hint in annotations.items():
        carrier = types.SimpleNamespace(__annotations__={name: hint})
        for names in (dict, functools.partial(_typing_names, base.__module__)):
            try:
                space = {**names(), **base.__globals__}
                hints[name] = get_type_hints(carrier, space, include_extras=True)[name]
                break
            except (NameError, AttributeError, TypeError):
                continue
    return hints


def _typing_names(module: str) -> dict[str, Any]:
    """Return name -> object for what a module imports under TYPE_CHECKING."""
    names = {"__package__": sys.modules[module].__package__, "__name__": module}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            exec(compile(ast.Module(node.body, []), module, "exec"), names)
    return names


def _advice(kind: Kind, refused: Refused, default: object) -> str:
    """Return the last sentence of an error message: what the caller should do next."""
    value = refused.value
    type_name = "function" if isinstance(value, types.FunctionType) else type(value).__name__
    ancestors = [type_name, *(base.__name__ for base in type(value).__mro__)]
    for wanted in kind.names:
        for name in ancestors:
            if (wanted, name) in _INSTEAD:
                return _INSTEAD[wanted, name]
    if isinstance(value, type) and value.__name__ in kind.names:
        return f"This is the class: make one with {value.__name__}(...)."
    if value is None and default is not inspect.Parameter.empty:
        return f"Leave it out for the default, {short_text(default)}."
    if isinstance(value, list | tuple) and "dict" in kind.names and not refused.where:
        return "Give each a name: {'first': ...}."
    return next((_MADE[wanted] for wanted in sorted(kind.names) if wanted in _MADE), "")


def short_text(value: object) -> str:
    """Return a short text about a value for a message, never a whole array or network.

    >>> short_text("0.5"), short_text(None), short_text([1, 2])
    ("'0.5' (str)", 'None', '[1, 2]')
    """
    name = type(value).__name__
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return f"the function {value.__name__}"
    if isinstance(value, str | bytes | int | float | complex):
        text = repr(value)
        return f"{text if len(text) <= 60 else f'{text[:57]}...'} ({name})"
    if isinstance(value, list | tuple) and len(value) <= 4 and all(isinstance(v, str | int | float) for v in value):
        return repr(value)
    article = "an" if name[0] in "AEIOUaeiou" else "a"
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"{article} {name} of shape {tuple(shape)}"
    return f"{article} {name} of {len(value)}" if isinstance(value, list | tuple | dict | set) else f"{article} {name}"
