"""Conditions of a network beside x and t, one class per kind.

A condition `y` is int32 labels [B], or a dictionary of named parts. Its spec, plain data that a data set gives and a
model keeps in its field `conditions`, is None for labels alone, else for example

    {"label": {"kind": "label", "num_classes": 10}, "style": {"kind": "vector", "size": 16}}

A part is dropped, or untold, when the network is not to know it: label dropout and the unconditional half of guidance.

The kinds are in `fmd.models.condition_kinds`. An image or a mask lies on the grid of the images that are made: it is no
embedding but planes beside x, which a network asks for with `planes`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import freeze as freeze_dictionaries
from jaxtyping import Array, Float

from fmd.models.condition_kinds import KINDS, Kind, Label, Part
from fmd.types import Condition, Mask, Told

Spec = Mapping[str, Mapping[str, object]]
"""Name of a part -> its kind and the fields of the kind."""


def freeze(spec: Spec | None) -> Spec | None:
    """The spec as a hashable value for a field of a model.

    Lists become tuples.
    """

    def frozen(value: object) -> object:
        if isinstance(value, Mapping):
            return freeze_dictionaries({key: frozen(item) for key, item in value.items()})
        return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value

    return None if spec is None else freeze_dictionaries({name: frozen(part) for name, part in spec.items()})


def drop(
    y: Condition, spec: Spec | None, num_classes: int, mask: Mask | None = None, parts: Sequence[str] | None = None
) -> Condition:
    """`y` untold where mask is True, all of it or some parts.

    Every result has the same structure, whatever mask and parts: told and untold conditions can be stacked.

    Args:
        y: labels int [B], or a dictionary of parts; None stays None.
        spec: of the condition; None for labels alone.
        num_classes: the null label of labels alone.
        mask: bool [B]; everywhere by default.
        parts: names; all by default. Labels alone are the part "label".

    Raises:
        ValueError: for a part that the condition does not have.
    """
    kinds = _kinds(spec, num_classes)
    if unknown := sorted(set(parts or ()) - kinds.keys()):
        raise ValueError(f"the condition has no part {', '.join(unknown)}; its parts: {', '.join(kinds)}")
    if y is None:
        return None
    batch = jax.tree.leaves(y)[0].shape[0]
    mask = jnp.ones(batch, bool) if mask is None else mask
    nowhere = jnp.zeros(batch, bool)
    values = _by_name(y, spec)
    dropped = {
        name: kind.untold(values[name], mask if parts is None or name in parts else nowhere)
        for name, kind in kinds.items()
    }
    return dropped if spec is not None else dropped["label"]


def check(y: Condition, spec: Spec | None, num_classes: int, count: int) -> None:
    """Raises ValueError where `y` is no condition of `count` examples.

    Args:
        y: arrays of JAX or NumPy. The range of a traced array is not known and passes.
        spec: of the condition; None for labels alone.
        num_classes: of labels alone; 0 lets everything pass, as an unconditional network ignores it.
        count: the number of examples.
    """
    if spec is not None or num_classes > 0:
        _check(y, spec, _kinds(spec, num_classes), count)


def example(spec: Spec | None, batch: int) -> Condition:
    """A condition of the right structure, shapes and dtypes, for `model.init`."""
    examples = {name: kind.example(batch) for name, kind in _kinds(spec, 0).items()}
    return examples if spec is not None else examples["label"]


def add_embeddings(
    embedding: Float[Array, "B E"], y: Condition, spec: Spec | None, num_classes: int, *, takes_planes: bool = False
) -> Float[Array, "B E"]:
    """`embedding` plus those of all parts of a condition that have one.

    To be called in the `__call__` of a network. The modules are named condition_NAME, that of labels alone is named
    label.

    Args:
        embedding: of the time [B, E], which sets the width and the dtype.
        y: the condition.
        spec: the field `conditions` of the network, see `freeze`; None for labels alone.
        num_classes: the field of the network; without a spec and with 0 it is unconditional and y is not looked at.
        takes_planes: True for a network that takes `planes`, too.

    Raises:
        ValueError: as `check` does, and for an image or a mask where the network takes none.
    """
    if spec is None and num_classes == 0:
        return embedding
    own: dict[str, Any] = {"dim": embedding.shape[-1], "dtype": embedding.dtype}
    if spec is None:
        kinds: dict[str, Kind] = {"label": Label(num_classes=num_classes, **own, name="label")}
    else:
        kinds = {n: KINDS[kind](**fields, **own, name=f"condition_{n}") for n, kind, fields in _parts(spec)}
    values = _check(y, spec, kinds, embedding.shape[0])
    if not takes_planes and (beside := on_grid(spec)):
        raise ValueError(f"condition {beside[0]!r} is an image, and this network takes none; choose another, e.g. unet")
    for name, kind in kinds.items():
        if not kind.on_grid:
            embedding = embedding + kind(values[name])
    return embedding


def class_tables(spec: Spec | None, num_classes: int) -> dict[str, tuple[int, int]]:
    """How names of parameters with a row per class begin -> (number of classes, rows behind them).

    Of labels alone the model may have called its table anything.
    """
    if spec is None:
        return {"": (num_classes, Label.null_rows)} if num_classes else {}
    tables = [(n, fields["num_classes"], KINDS[kind]) for n, kind, fields in _parts(spec) if "num_classes" in fields]
    return {f"condition_{n}/": (count, kind.null_rows) for n, count, kind in tables}  # type: ignore[attr-defined]


def on_grid(spec: Spec | None) -> list[str]:
    """The names of the parts that lie on the grid of the image."""
    return [name for name, kind, _ in _parts(spec or {}) if KINDS[kind].on_grid]  # type: ignore[attr-defined]


def planes(y: Condition, spec: Spec | None, height: int, width: int) -> Float[Array, "B H W planes"] | None:
    """The parts of `y` that lie on the grid of the image, as planes beside it; None where there are none.

    They come in the order of their names: the spec in the file of a run does not keep another.
    """
    if spec is None:
        return None
    values, beside = _by_name(y, spec), on_grid(spec)
    own: dict[str, Any] = {"dim": 1, "dtype": "float32", "parent": None}  # no parts of the network: no parameters
    kinds = {name: KINDS[kind](**fields, **own) for name, kind, fields in _parts(spec) if name in beside}
    found = [kind.planes(values[name], height, width) for name, kind in sorted(kinds.items())]
    return jnp.concatenate(found, axis=-1) if found else None


def _parts(spec: Spec) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(name, kind, fields) of each part."""
    for name, entry in spec.items():
        if "kind" not in entry:
            raise ValueError(f"condition {name!r} names no kind; known: {', '.join(KINDS.names())}")
        yield name, str(entry["kind"]), {key: value for key, value in entry.items() if key != "kind"}


def _kinds(spec: Spec | None, num_classes: int) -> dict[str, Kind]:
    """The kind of each part, for all that needs no parameters.

    The fields of a kind are checked.
    """
    offered = {"dim": 1, "dtype": "float32"}
    spec = {"label": {"kind": "label", "num_classes": num_classes}} if spec is None else spec
    return {name: KINDS.build(kind, fields, offered=offered) for name, kind, fields in _parts(spec)}


def _check(y: Condition, spec: Spec | None, kinds: Mapping[str, Kind], count: object) -> Mapping[str, Part]:
    values = _by_name(y, spec)
    if values.keys() != kinds.keys():
        raise ValueError(f"the condition must have the parts {', '.join(kinds)}; got {', '.join(values) or 'none'}")
    for name, kind in kinds.items():
        arrays = values[name] if isinstance(values[name], Told) else (values[name],)
        if not all(hasattr(array, "shape") for array in arrays):
            raise ValueError(f"condition {name!r} must be an array [B, ...], got {type(values[name]).__name__}")
        kind.check(arrays[0], name)
        if wrong := [array.shape for array in arrays if array.shape[:1] != (count,)]:
            raise ValueError(f"condition {name!r} is of shape {list(wrong[0])} for {count} images")
    return values


def _by_name(y: Condition, spec: Spec | None) -> Mapping[str, Part]:
    """The parts of `y` by name; labels alone are called label."""
    if spec is None:
        return {"label": y}
    if not isinstance(y, Mapping):
        raise ValueError(f"the condition must be a dictionary of {', '.join(spec)}; got {type(y).__name__}")
    return y
