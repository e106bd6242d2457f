"""Blocks of keys: immutable ones that name a part, dataclasses that check themselves, and nested dictionaries."""

import dataclasses
import difflib
import functools
import typing
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar, cast

from fmd.registry import Misfit, convert

Plain = dict[str, Any]  # nested dictionaries of plain values, which is also what JSON gives back
C = TypeVar("C")


class Frozen(Mapping[str, Any]):
    """A dictionary that does not change: hashable, equal to any mapping of the same entries."""

    def __init__(self, entries: Mapping[str, Any] | None = None, **more: Any) -> None:
        self._entries = {key: _frozen(value) for key, value in {**(entries or {}), **more}.items()}

    def __getitem__(self, key: str) -> Any:
        return self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __hash__(self) -> int:
        return hash(frozenset(self._entries.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and plain(self) == plain(other)

    def __repr__(self) -> str:
        return repr(self._entries)


class Block(Frozen):
    """The name of a part with its parameters: Block("cfg", weight=1.5), or from one dictionary with a `name`.

    Raises Misfit where there is no name.
    """

    def __init__(self, name: str | Mapping[str, Any], **params: Any) -> None:
        super().__init__({"name": name} if isinstance(name, str) else name, **params)
        if not isinstance(self.get("name"), str):
            raise Misfit("a block with a name, {'name': ...}")

    @property
    def name(self) -> str:
        return str(self["name"])

    @property
    def params(self) -> Plain:
        """The parameters without the name."""
        return {key: value for key, value in self.items() if key != "name"}

    def replace(self, **changes: Any) -> "Block":
        """The block with other parameters."""
        return Block({**self, **changes})


class Checked:
    """A block of keys, each checked against its annotation when it is made.

    Raises ValueError that names the key, its value and the values allowed.
    """

    WHERE: ClassVar[str] = ""  # the dotted key of the block

    def __post_init__(self) -> None:
        for key, hint in hints_of(type(self)).items():
            object.__setattr__(self, key, checked(getattr(self, key), hint, f"{self.WHERE}{key}"))

    def need(self, condition: bool, key: str, allowed: str) -> None:
        """Raises ValueError about a key unless the condition holds."""
        if not condition:
            raise ValueError(f"config.{self.WHERE}{key} = {self.at(key)!r}; it must be {allowed}")

    def at(self, key: str) -> Any:
        """The value of a dotted key."""
        return functools.reduce(getattr, key.split("."), cast(Any, self))


def hints_of(kind: type) -> dict[str, Any]:
    """The keys of a block with their annotations."""
    if kind not in _HINTS:
        hints = typing.get_type_hints(kind, include_extras=True)
        _HINTS[kind] = {name: hints[name] for name in getattr(kind, "__dataclass_fields__", {}) if not name.isupper()}
    return _HINTS[kind]


_HINTS: dict[type, dict[str, Any]] = {}


def checked(value: Any, hint: Any, key: str) -> Any:
    """A value as its annotation asks for it; ints become floats where only a float is meant.

    Raises ValueError that names the key.
    """
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    try:
        if value is None and type(None) in options:
            return None
        for option in options:
            if isinstance(option, type) and dataclasses.is_dataclass(option):
                return value if isinstance(value, option) else build(option, value, f"{key}.")
            if option is Block and isinstance(value, Mapping):
                return Block(value)
            if option is dict and isinstance(value, Mapping):
                return plain(value)
        if Block in options:
            raise Misfit("a block with a name, {'name': ...}")
        ready = convert(plain(value) if isinstance(value, list) else value, hint)
    except Misfit as misfit:
        raise ValueError(f"config.{key} = {value!r}; it must be {misfit}") from None
    return _as_floats(ready, hint)


def build(kind: type[C], values: Any, where: str) -> C:
    """A dataclass from a dictionary; ValueError for an unknown key, with the nearest valid one."""
    if not isinstance(values, Mapping):
        raise ValueError(f"config.{where.rstrip('.')} = {values!r}; it must be a block of keys")
    keys = hints_of(kind)
    for key in values:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1, cutoff=0.0)[0]
            raise ValueError(f"config.{where}{key} is not a key; the nearest valid one is config.{where}{near}")
    return kind(**{key: checked(value, keys[key], f"{where}{key}") for key, value in values.items()})


def plain(value: Any) -> Any:
    """ConfigDicts, blocks and tuples as plain dictionaries and lists, which is also what JSON gives back."""
    if hasattr(value, "to_dict"):  # an ml_collections.ConfigDict, which need not be installed
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def as_plain(block: Checked) -> Plain:
    """All keys of a config or of one of its blocks, as plain values for JSON."""
    values = ((key, getattr(block, key)) for key in hints_of(type(block)))
    return {key: as_plain(value) if isinstance(value, Checked) else plain(value) for key, value in values}


def differences(before: Any, after: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, old, new) of each leaf that differs between two nested dictionaries."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in sorted(before.keys() | after.keys()):
            yield from differences(before.get(name), after.get(name), f"{key}.{name}" if key else name)
    elif before != after:
        yield key, before, after


def flatten(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of each leaf; an empty block is a leaf."""
    for key, value in block.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Frozen(value)
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _is_union(hint: Any) -> bool:
    return "Union" in type(hint).__name__ or typing.get_origin(hint) is typing.Union


def _as_floats(value: Any, hint: Any) -> Any:
    """An int as a float where the annotation speaks of floats alone."""
    if isinstance(value, tuple):
        return tuple(_as_floats(item, typing.get_args(hint)) for item in value)
    floats = "float" in str(hint) and "int" not in str(hint)
    return float(value) if floats and type(value) is int else value
