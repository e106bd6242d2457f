"""Names to functions: the one place where the registries of this room report a wrong name or parameter."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import AbstractArray

WORDS = {bool: "True or False", int: "an integer", float: "a number", np.floating: "a number", str: "a string"}


def build(kind: str, table: Mapping[str, Callable[..., Any]], name: str, params: Mapping[str, Any]) -> Any:
    """`table[name](**params)`.

    Raises ValueError naming the valid names, the parameters that `name` takes, or the type that one of them must have.
    """
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(sorted(table))}")
    signature = inspect.signature(table[name])
    try:
        given = signature.bind(**params).arguments
    except TypeError as error:
        takes = ", ".join(str(p).split(":")[0] for p in signature.parameters.values()) or "no parameters"
        raise ValueError(f"{kind} {name!r}: {error}; it takes: {takes}") from None
    for key, value in given.items():
        wanted = signature.parameters[key].annotation
        if not _fits(value, wanted):
            raise ValueError(f"{kind} {name!r}: {key} is {value!r}; it must be {_in_words(wanted)}")
    return table[name](**params)


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a value is what an annotation says; a list does for a tuple, a scalar array (or tracer) for a number."""
    args = typing.get_args(wanted)
    if _is_union(wanted):
        return any(_fits(value, arg) for arg in args)
    if typing.get_origin(wanted) is tuple:
        return isinstance(value, tuple | list) and len(value) == len(args) and all(map(_fits, value, args))
    if wanted is int:
        return isinstance(value, int | np.integer) and not isinstance(value, bool)
    if wanted is float:
        return getattr(value, "shape", None) == () or (isinstance(value, int | float) and not isinstance(value, bool))
    return wanted in (Any, inspect.Parameter.empty) or not isinstance(wanted, type) or isinstance(value, wanted)


def _in_words(wanted: Any) -> str:
    args = typing.get_args(wanted)
    if _is_union(wanted):
        words = [_in_words(arg) for arg in args if not (arg in (int, np.integer) and float in args)]
        return " or ".join(dict.fromkeys(words))
    if typing.get_origin(wanted) is tuple:
        return f"({', '.join(map(_in_words, args))})"
    if isinstance(wanted, type) and issubclass(wanted, AbstractArray):
        return "an array of floats"
    return "None" if wanted is type(None) else WORDS.get(wanted, getattr(wanted, "__name__", str(wanted)))


def _is_union(wanted: Any) -> bool:
    return typing.get_origin(wanted) in (typing.Union, types.UnionType)
