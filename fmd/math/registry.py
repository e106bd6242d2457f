"""Names to functions: the one place where the registries of this room report a wrong name or parameter."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def build(kind: str, table: Mapping[str, Callable[..., Any]], name: str, params: Mapping[str, Any]) -> Any:
    """`table[name](**params)`. Raises ValueError naming the valid names, or the parameters that `name` takes."""
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(sorted(table))}")
    signature = inspect.signature(table[name])
    try:
        signature.bind(**params)
    except TypeError as error:
        takes = ", ".join(str(p).split(":")[0] for p in signature.parameters.values()) or "no parameters"
        raise ValueError(f"{kind} {name!r}: {error}; it takes: {takes}") from None
    return table[name](**params)
