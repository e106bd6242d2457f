"""Nested dictionaries as flat ones: configs and figures for a table, parameters under the names of a file."""

from collections.abc import Iterator, Mapping
from typing import Any


def flatten(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of each leaf; an empty block is a leaf."""
    for key, value in block.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
