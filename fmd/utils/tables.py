"""Pictures of the same examples under several times or guidance weights, which stand above the columns.

Images come as uint8 [columns, rows, H, W, C], and names of the rows if wanted; other settings are `labelled_grid`'s.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fmd.utils.charts import Number
from fmd.utils.viz import labelled_grid

Numbers = Sequence[Number] | np.ndarray


def trajectory_strip(images: np.ndarray, times: Numbers, names: Sequence[str] = (), **settings: Any) -> np.ndarray:
    """From noise to data: one row per example, one column per time. See `fmd.sampling.trajectory.trajectory`."""
    return _table(images, _numbers("t", times), names, settings)


def guidance_sweep(images: np.ndarray, weights: Numbers, names: Sequence[str] = (), **settings: Any) -> np.ndarray:
    """What guidance makes of the same noise: one row per label, one column per weight. See
    `fmd.sampling.trajectory.sweep`.
    """
    return _table(images, _numbers("w", weights), names, settings)


def _table(
    images: np.ndarray, column_names: Sequence[str], names: Sequence[str], settings: Mapping[str, Any]
) -> np.ndarray:
    if images.ndim != 5 or len(images) != len(column_names) or len(names) not in (0, images.shape[1]):
        raise ValueError(
            f"a picture of {len(column_names)} columns and {len(names) or 'any number of'} rows takes images "
            f"[columns, rows, H, W, C], not {images.shape}"
        )
    row_by_row = np.swapaxes(images, 0, 1).reshape(-1, *images.shape[2:])
    return labelled_grid(row_by_row, names or [""] * images.shape[1], column_names=column_names, **settings)


def _numbers(letter: str, values: Numbers) -> list[str]:
    """Names of columns: the first says what the numbers are."""
    return [f"{letter} = {value:.3g}" if i == 0 else f"{value:.3g}" for i, value in enumerate(values)]
