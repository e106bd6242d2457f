"""Weights of one network as the beginning of another: by name what fits, the rest anew."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from fmd.types import Params

Path = tuple[str, ...]


class Fit(NamedTuple):
    """Parameters of which some were found elsewhere, and what became of the others."""

    params: Params
    share: float  # of the numbers in `params` that were found
    new: Sequence[str]  # names that were not found
    reshaped: Sequence[str]  # names that were found in another shape, and are new, too
    dropped: Sequence[str]  # names that were found and are not wanted


def fit(wanted: Params, found: Params) -> Fit:
    """`wanted` with the values of `found` in all leaves of the same name and shape."""
    ours, theirs = _named(wanted), _named(found)
    taken = {name for name, leaf in ours.items() if name in theirs and np.shape(theirs[name]) == np.shape(leaf)}
    leaves = [theirs[name] if name in taken else leaf for name, leaf in ours.items()]
    total = sum(np.size(leaf) for leaf in ours.values())
    return Fit(
        jax.tree.unflatten(jax.tree.structure(wanted), leaves),
        sum(np.size(ours[name]) for name in taken) / max(total, 1),
        [name for name in ours if name not in theirs],
        [
            f"{name} {list(np.shape(theirs[name]))} -> {list(np.shape(leaf))}"
            for name, leaf in ours.items()
            if name in theirs and name not in taken
        ],
        [name for name in theirs if name not in ours],
    )


def _named(params: Params) -> dict[str, np.ndarray]:
    """The leaves by their dotted names, in the order of the tree."""
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in paths}
