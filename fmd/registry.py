"""Parts by name, built with parameters that are checked against annotations.

Every part that a config names lies in one `Registry`: schedules, time samplers, couplings, guidance rules, grids,
methods, models, data sources, features. Each adds to its own with `register`, or as a module of `built_in` that is
imported when first asked for. What a user wrote wrong is one line that names the nearest right thing.
"""

import difflib
import importlib
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import AbstractArray

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

FLAX_FIELDS = ("parent", "name")  # Flax adds them to every module
WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a name", dict: "a block of keys"}
WORDS |= {np.floating: "a number", np.integer: "a whole number", type(None): "None"}


class UnknownName(ValueError, KeyError):
    """A name that no part has."""

    def __str__(self) -> str:
        return str(self.args[0])


class Misfit(ValueError):
    """A value that is not what its annotation asks for; the message says what that is."""


class Between(typing.NamedTuple):
    """The range of a number, for `typing.Annotated`; a limit that is `open` does not belong to it."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: Any) -> bool:
        above = self.low < value if self.open_low else self.low <= value
        return bool(above and (value < self.high if self.open_high else value <= self.high))

    def __str__(self) -> str:
        if (self.low, self.high) == (-math.inf, math.inf):
            return "finite"
        low, high = (f"{limit:.10g}" for limit in (self.low, self.high))
        if self.high == math.inf:
            return f"above {low}" if self.open_low else f"{low} or more"
        return f"in {'(' if self.open_low else '['}{low}, {high}{')' if self.open_high else ']'}"


class Registry(Generic[T]):
    """The parts of one kind, by name.

    Args:
        kind: what they are called in messages, e.g. "schedule".
        built_in: names with the module that registers each when it is imported.
        makes: their class, where other parts take one as a parameter: there a name or a block does, too.
    """

    _of_class: typing.ClassVar[dict[type, "Registry[Any]"]] = {}

    def __init__(self, kind: str, *, built_in: Mapping[str, str] | None = None, makes: type | None = None) -> None:
        self.kind = kind
        self._built_in = dict(built_in or {})
        self._made: dict[str, Callable[..., T]] = {}
        if makes is not None:
            self._of_class[makes] = self

    def register(self, name: str) -> Callable[[F], F]:
        """A decorator that adds a class or function. ValueError where the name is taken.

        The same definition may come again, as from a cell of a notebook.
        """

        def add(make: F) -> F:
            module = getattr(make, "__module__", "")
            before = self._made.get(name, make)
            again = all(getattr(before, key, "") == getattr(make, key, "") for key in ("__module__", "__qualname__"))
            if not again or self._built_in.get(name, module) != module:
                raise ValueError(f"a {self.kind} named {name!r} is already registered; choose another name")
            self._made[name] = make
            return make

        return add

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._made.keys() | self._built_in.keys())

    def __contains__(self, name: object) -> bool:
        return name in self._made or name in self._built_in

    def __getitem__(self, name: str) -> Callable[..., T]:
        """The registered class or function. Raises UnknownName, which lists the names."""
        if name not in self._made and name in self._built_in:
            importlib.import_module(self._built_in[name])
        if name not in self._made:
            near = difflib.get_close_matches(str(name), self.names(), n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UnknownName(f"unknown {self.kind} {name!r}; {hint}known: {', '.join(self.names())}")
        return self._made[name]

    def parameters(self, name: str) -> dict[str, inspect.Parameter]:
        """The parameters of a part, by name."""
        signature = inspect.signature(self[name]).parameters
        hidden = FLAX_FIELDS if isinstance(self[name], type) else ()
        return {key: p for key, p in signature.items() if key not in hidden}

    def build(
        self, name: str, params: Mapping[str, Any] | None = None, *, offered: Mapping[str, Any] | None = None
    ) -> T:
        """The part called `name`, made with `params`.

        Args:
            name: of the part.
            params: its parameters, checked against their annotations; lists do for tuples.
            offered: further values, handed over where the part has a parameter of that name and `params` has none.

        Raises:
            UnknownName: for an unknown name.
            ValueError: for an unknown or missing parameter, or a value of the wrong type.
        """
        make, known = self[name], self.parameters(name)
        takes_any = any(p.kind is p.VAR_KEYWORD for p in known.values())
        named = {k: p for k, p in known.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        given = {k: v for k, v in (offered or {}).items() if k in named} | dict(params or {})
        hints = annotations(make)
        ready: dict[str, Any] = {}
        for key, value in given.items():
            if key not in named and not takes_any:
                near = difflib.get_close_matches(key, named, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(
                    f"{self.kind} {name!r} has no parameter {key!r}; {hint}it takes: {', '.join(named) or 'none'}"
                )
            try:
                ready[key] = convert(value, hints.get(key, Any))
            except Misfit as misfit:
                raise ValueError(f"{self.kind} {name!r}: {key} = {value!r}; it must be {misfit}") from None
        if missing := [key for key, p in named.items() if p.default is p.empty and key not in ready]:
            raise ValueError(f"{self.kind} {name!r} needs the parameter{'s' * (len(missing) > 1)} {', '.join(missing)}")
        return make(**ready)


def annotations(make: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function or class; none where they cannot be read at run time."""
    try:
        return typing.get_type_hints(make, include_extras=True)
    except (NameError, TypeError):  # names that exist for type checkers only; callables that are no functions
        return {}


def convert(value: Any, wanted: Any) -> Any:
    """`value` as the annotation `wanted` asks for it: lists become tuples, names and blocks the parts they name.

    Raises Misfit, whose message is what it must be in words.
    """
    origin, args = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is typing.Annotated:
        try:
            ready = convert(value, args[0])
        except Misfit as misfit:
            raise Misfit(f"{misfit}, {_ranges(wanted)}") from None
        if ready is not None and not all(ready in limit for limit in args[1:] if isinstance(limit, Between)):
            raise Misfit(in_words(wanted))
        return ready
    if origin in (typing.Union, types.UnionType):
        for arg in args:
            try:
                return convert(value, arg)
            except Misfit:
                continue
        raise Misfit(in_words(wanted))
    if wanted in Registry._of_class and not isinstance(value, wanted):
        if isinstance(value, str):
            return Registry._of_class[wanted].build(value)
        if isinstance(value, Mapping) and isinstance(value.get("name"), str):
            return Registry._of_class[wanted].build(value["name"], {k: v for k, v in value.items() if k != "name"})
    if origin in (tuple, Sequence) and isinstance(value, tuple | list):
        same = origin is Sequence or (len(args) == 2 and args[1] is Ellipsis)
        kinds = [args[0]] * len(value) if same else list(args)
        if len(kinds) == len(value):
            try:
                return tuple(convert(item, kind) for item, kind in zip(value, kinds, strict=True))
            except Misfit:
                raise Misfit(in_words(wanted)) from None
    elif _fits(value, wanted):
        return value
    raise Misfit(in_words(wanted))


def _fits(value: Any, wanted: Any) -> bool:
    origin = typing.get_origin(wanted)
    if wanted in (Any, inspect.Parameter.empty) or isinstance(wanted, TypeVar | str):
        return True
    if origin is typing.Literal:
        return value in typing.get_args(wanted)
    if origin is not None:
        return isinstance(value, origin) if isinstance(origin, type) else callable(value)
    if wanted is None or wanted is type(None):
        return value is None
    if wanted is bool:
        return isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int | np.integer) and not isinstance(value, bool)
    if wanted is float:  # a scalar array, or a tracer, is a number, too
        return getattr(value, "shape", None) == () or (isinstance(value, int | float) and not isinstance(value, bool))
    if wanted is str:
        return isinstance(value, str | os.PathLike)
    if wanted in (dict, Mapping):
        return isinstance(value, Mapping)
    return not isinstance(wanted, type) or isinstance(value, wanted)


def in_words(wanted: Any) -> str:
    """The demand of an annotation, in a few words."""
    origin, args = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is typing.Annotated:
        plain, ranges = in_words(args[0]), _ranges(wanted)
        return ranges if plain in ("a number", "a whole number") else f"{plain}, {ranges}"
    if origin in (typing.Union, types.UnionType):
        words = [in_words(arg) for arg in args if not (arg in (int, np.integer, np.floating) and float in args)]
        return " or ".join(dict.fromkeys(words))
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin in (tuple, Sequence):
        same = origin is Sequence or (len(args) == 2 and args[1] is Ellipsis)
        return f"a tuple, each {in_words(args[0])}" if same else f"({', '.join(map(in_words, args))})"
    if wanted in Registry._of_class:
        return f"a {Registry._of_class[wanted].kind}: its name, or a block with its name"
    if isinstance(wanted, type) and issubclass(wanted, AbstractArray):
        return "an array"
    return WORDS.get(wanted, getattr(wanted, "__name__", str(wanted)))


def _ranges(wanted: Any) -> str:
    return " and ".join(str(limit) for limit in typing.get_args(wanted)[1:] if isinstance(limit, Between))


def import_modules(names: Iterable[str]) -> None:
    """Imports the modules of `config.imports`, which register parts of their own.

    Raises ValueError, naming the module that cannot be imported and why.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(f"config.imports: cannot import {name!r} ({error}); is it on PYTHONPATH?") from None
