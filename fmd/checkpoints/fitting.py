"""Weights of one network as the beginning of another: by name what fits, the rest anew.

A table with a row per class fits another number of classes, too: row i stays that of class i, and the rows behind the
classes (that of the null label) stay the last ones. New classes have new rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from fmd.types import Params


class Rows(NamedTuple):
    """The rows of the tables below a name: one per class, then some more."""

    prefix: str  # of the names of parameters
    before: int  # classes of the network that was found
    after: int  # classes of the wanted one
    more: int


class Fit(NamedTuple):
    """Parameters of which some were found elsewhere, and what became of the others."""

    params: Params
    share: float  # of the numbers in `params` that were found
    new: Sequence[str]  # names that were not found
    reshaped: Sequence[str]  # names that were found in another shape, and are new, too
    resized: Sequence[str]  # names of tables that were found for other classes
    dropped: Sequence[str]  # names that were found and are not wanted
    drawn: Sequence[str]  # names of all in `params` with numbers that were not found


def fit(wanted: Params, found: Params, tables: Sequence[Rows] = ()) -> Fit:
    """`wanted` with the values of `found` in all leaves of the same name and shape, and in the rows of `tables`."""
    ours, theirs = _named(wanted), _named(found)
    both = {name: (np.shape(theirs[name]), np.shape(leaf)) for name, leaf in ours.items() if name in theirs}
    resized = {name: rows for name, shapes in both.items() for rows in tables if _other_classes(rows, name, *shapes)}
    taken = {name for name, (there, here) in both.items() if there == here}
    leaves = dict(ours) | {name: theirs[name] for name in taken}
    counts = {name: np.size(leaf) if name in taken else 0 for name, leaf in ours.items()}
    for name, rows in resized.items():
        leaves[name], kept = _with_rows(ours[name], theirs[name], rows)
        counts[name] = kept * np.size(leaves[name][0])
    changed = {name: f"{name} {list(there)} -> {list(here)}" for name, (there, here) in both.items() if there != here}
    return Fit(
        jax.tree.unflatten(jax.tree.structure(wanted), list(leaves.values())),
        sum(counts.values()) / max(sum(np.size(leaf) for leaf in ours.values()), 1),
        [name for name in ours if name not in theirs],
        [text for name, text in changed.items() if name not in resized],
        [text for name, text in changed.items() if name in resized],
        [name for name in theirs if name not in ours],
        [name for name, leaf in ours.items() if counts[name] < np.size(leaf)],
    )


def names(params: Params) -> list[str]:
    """The names of the leaves, such as down_0_block_0/conv_1/kernel, in the order of the tree."""
    paths = jax.tree_util.tree_leaves_with_path(params)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]


def _named(params: Params) -> dict[str, np.ndarray]:
    """The leaves by their names, in the order of the tree."""
    return dict(zip(names(params), map(np.asarray, jax.tree.leaves(params)), strict=True))


def _other_classes(rows: Rows, name: str, there: tuple[int, ...], here: tuple[int, ...]) -> bool:
    """True for a table of these rows, whose number alone has changed."""
    table = (rows.before + rows.more, *here[1:]), (rows.after + rows.more, *here[1:])
    return name.startswith(rows.prefix) and there != here and (there, here) == table


def _with_rows(ours: np.ndarray, theirs: np.ndarray, rows: Rows) -> tuple[np.ndarray, int]:
    """Our table with the rows of theirs, and how many those are."""
    table, kept = np.array(ours), min(rows.before, rows.after)
    table[:kept] = theirs[:kept]
    table[rows.after :] = theirs[rows.before :]
    return table, kept + rows.more
