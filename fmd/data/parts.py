"""Parts of a condition as a source is asked for them: arrays with the spec of their kind.

A source is asked by name, `("age", "colour")`, and finds each kind from the values. Where that would be wrong it is
told the kind, `{"age": "number", "colour": "auto"}`, or fields of it, too, `{"age": {"kind": "number", "low": 0}}`.

    kind     values                                                 fields, where not given
    label    whole numbers [N] from 0                               num_classes: the largest plus one
    labels   0 or 1 [N, K]                                          num_classes: K
    number   numbers [N] or [N, 1]                                  low, high: those of the training rows
    vector   numbers [N, D]                                         size: D
    image    uint8 or floats in [-1, 1] [N, h, w, C] or [N, h, w]   height, width, channels
    mask     truth values, uint8 or floats in [0, 1], C = 1         height, width, channels

Any other kind is one of your own: a block that names it, whose fields go to it as they are.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from absl import logging

from fmd.data.arrays import as_labels, as_part
from fmd.files import some

Asked: TypeAlias = tuple[str, ...] | dict  # type: ignore[type-arg]  # `dict` alone has words in messages
"""The parameter `conditions` of a source: names, or names with a kind or a block each."""

Spec: TypeAlias = dict[str, str | int | float]
"""A kind with its fields, a JSON value."""

_SIDES = ("height", "width", "channels")
_KINDS = {  # the values, in words, and the fields
    "label": ("whole numbers [N]", ("num_classes",)),
    "labels": ("0 and 1 [N, K]", ("num_classes",)),
    "number": ("numbers [N]", ("low", "high")),
    "vector": ("numbers [N, D]", ("size",)),
    "image": ("uint8 or floats [N, h, w, C]", (*_SIDES, "resizing")),
    "mask": ("truth values, uint8 or floats [N, h, w]", (*_SIDES, "resizing")),
}
ON_GRID = ("image", "mask")


def asked(conditions: Asked) -> dict[str, Spec]:
    """The spec of each part as far as it was given, empty for one whose kind is to be found.

    A mapping is taken in the order of its names: files of settings do not keep another.

    Raises ValueError for an unknown kind or field, the name "label", and a name that comes twice.
    """
    pairs = sorted(conditions.items()) if isinstance(conditions, Mapping) else [(name, "auto") for name in conditions]
    names = [name for name, _ in pairs]
    if "label" in names:
        raise ValueError("conditions: 'label' is the class of an image: leave it out, and of a table say label='label'")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"conditions: {twice!r} is named twice; leave one out")
    return {name: _given(name, value) for name, value in pairs}


def _given(name: str, value: object) -> Spec:
    if value == "auto":
        return {}
    if isinstance(value, str) and value not in _KINDS:
        near = difflib.get_close_matches(value, _KINDS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"conditions: unknown kind {value!r} of {name!r}; {hint}known: auto, {', '.join(_KINDS)}; for one of your "
            f"own give a block: {{{name!r}: {{'kind': {value!r}}}}}"
        )
    if isinstance(value, str):
        return {"kind": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
        raise ValueError(f"conditions: {name!r} = {value!r}; it must be a kind, or a block with a `kind`")
    _, fields = _KINDS.get(value["kind"], ("", ()))
    if fields and (strange := sorted(value.keys() - {"kind", *fields})):
        raise ValueError(
            f"conditions: kind {value['kind']!r} of {name!r} has no field {strange[0]!r}; it has: {', '.join(fields)}"
        )
    return dict(value)


def as_kind(values: np.ndarray, name: str, given: Spec | None = None) -> np.ndarray:
    """The values as an array of a part of its kind: int32, uint8 or float32 [N, ...].

    Without a kind, or for one of your own, `fmd.data.arrays.as_part` says what they become.

    Raises ValueError, naming the part, for values that cannot be of the kind.
    """
    kind = (given or {}).get("kind")
    try:
        found = _converted(values, kind)
    except ValueError as error:
        raise ValueError(f"condition {name!r}: {error}") from None
    if found is None:
        raise ValueError(
            f"condition {name!r} of kind {kind} must be {_KINDS[str(kind)][0]}, got {values.dtype} "
            f"{['N', *values.shape[1:]]}; correct the values or say another kind"
        )
    return found


def _converted(values: np.ndarray, kind: object) -> np.ndarray | None:
    """The values as `as_kind` returns them; None where they do not fit."""
    numbers, width = values.dtype.kind in "biuf", math.prod(values.shape[1:])
    if kind == "label":
        labels = as_labels(values.astype(np.uint8) if values.dtype.kind == "b" else values)
        return labels if labels.dtype == np.int32 and labels.ndim == 1 else None
    if kind == "labels":
        return values.astype(np.uint8) if numbers and values.ndim == 2 and np.isin(values, (0, 1)).all() else None
    if kind in ("number", "vector"):
        if not numbers or values.ndim > 2 or (kind == "number" and width != 1):
            return None
        return values.reshape(len(values), width).astype(np.float32)
    if kind not in ON_GRID:
        return as_part(values)
    planes = values[..., None] if values.ndim == 3 else values
    if planes.ndim != 4 or (kind == "mask" and planes.shape[3] != 1):
        return None
    if planes.dtype.kind == "f":
        shares = planes.min() >= 0 and planes.max() <= 1
        return planes.astype(np.float32) if kind == "image" or shares else None
    if planes.dtype == np.bool_:
        return planes.astype(np.uint8) * np.uint8(255)
    return planes if planes.dtype == np.uint8 else None


def own_size(given: Spec, size: tuple[int, int] | None) -> tuple[int, int] | None:
    """(height, width) that the spec of an image says, else `size`."""
    sides = given.get("height"), given.get("width")
    return size if None in sides else (int(str(sides[0])), int(str(sides[1])))


def spec(name: str, parts: Sequence[np.ndarray], given: Spec | None = None) -> Spec:
    """The whole spec of a part: what was given of it, and the rest from its arrays.

    Args:
        name: of the part.
        parts: its arrays [N, ...], that of the training split first.
        given: what `asked` returned for it.

    Raises ValueError where a size is given that the arrays do not have, and for arrays of no known kind.
    """
    given, first = given or {}, parts[0]
    usual = {("i", 1): "label", ("f", 2): "vector", ("u", 2): "labels", ("u", 4): "image", ("f", 4): "image"}
    kind = given.get("kind") or usual.get((first.dtype.kind, first.ndim))
    if kind is None:
        raise ValueError(f"say in `conditions` of which kind {name} is")
    sizes: Spec = {}
    if kind in ON_GRID:
        sizes = dict(zip(_SIDES, map(int, first.shape[1:]), strict=True))
    elif kind in ("labels", "vector"):
        sizes = {"num_classes" if kind == "labels" else "size": first.shape[1]}
    for field, size in sizes.items():
        if given.get(field, size) != size:
            raise ValueError(f"condition {name!r}: {field} = {given[field]}, but its values have {size}")
    if kind == "label":
        sizes = {"num_classes": 1 + max(int(part.max()) for part in parts)}
    elif kind == "number":
        low, high = float(first.min()), float(first.max())
        sizes = {"low": low, "high": high if low < high else low + 1}
    return {"kind": kind, **sizes, **given}


def specs(
    wanted: Mapping[str, Spec], parts: Sequence[Mapping[str, np.ndarray]], num_classes: int
) -> dict[str, Spec] | None:
    """The specs of all parts, that of the class first where there is one; None where `y` is labels alone.

    Says in the log what looks odd: labels most of which never occur, or that the training rows lack.

    Args:
        wanted: what `asked` returned.
        parts: the parts of each split, that of training first.
        num_classes: of the part "label".

    Raises ValueError as `spec` does.
    """
    if not wanted:
        return None
    found: dict[str, Spec] = {"label": {"kind": "label", "num_classes": num_classes}} if "label" in parts[0] else {}
    for name, given in wanted.items():
        found[name] = spec(name, [split[name] for split in parts], given)
        if found[name]["kind"] == "label":
            _doubt(name, int(found[name]["num_classes"]), [split[name] for split in parts])
    return found


def _doubt(name: str, num_classes: int, labels: Sequence[np.ndarray]) -> None:
    seen = np.unique(np.concatenate(labels))
    if 2 * len(seen) < num_classes:
        logging.warning(
            "condition '%s': of the labels 0 to %d only %d occur; is it a number? say {'%s': 'number'}",
            *(name, num_classes - 1, len(seen), name),
        )
    if len(strange := np.setdiff1d(seen, labels[0])):
        logging.warning(
            "condition '%s': of its labels %s no training image has one, nothing can be learnt of them",
            *(name, some([*map(str, strange)], 5)),
        )
