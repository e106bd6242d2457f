"""The grid of samples by which a model is shown: a row per class, the class's name beside it."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fmd.utils.viz import labelled_grid

MOST_ROWS = 32  # classes in a grid of samples
GRID_SIDE = 2048  # pixels


class Rows(NamedTuple):
    """What to draw, row by row, and what to call the rows."""

    labels: np.ndarray  # int32 [rows * per_class]
    names: list[str]  # one per row


def choose_rows(facts: Mapping[str, Any], per_class: int) -> Rows:
    """The classes of a model, each `per_class` times; of more than MOST_ROWS classes so many, evenly spread."""
    classes = max(facts["num_classes"], 1)
    rows = np.arange(classes, dtype=np.int32)[:: math.ceil(classes / MOST_ROWS)]
    known = facts["class_names"] or [str(i) if classes > 1 else "" for i in range(classes)]
    return Rows(np.repeat(rows, per_class), [known[i] for i in rows])


def draw_grid(images: np.ndarray, rows: Rows) -> np.ndarray:
    """The picture, uint8 [.., .., 1 or 3], of the images uint8 [N, H, W, C] of `rows.labels`."""
    scale = max(1, 56 // images.shape[1])
    return labelled_grid(images, rows.names, scale=scale, longest_side=GRID_SIDE)
