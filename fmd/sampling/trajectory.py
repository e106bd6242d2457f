"""The way from noise to data, and the same noise under several guidance weights.

    frames = trajectory(sampler, [3, 1, 4], jax.random.key(0))                        # uint8 [9, 3, 28, 28, 1]
    images = sweep(sampler, [3, 1, 4], jax.random.key(0), weights=(0, 1, 2, 4))       # uint8 [4, 3, 28, 28, 1]

`fmd.pictures.grids` makes pictures of both.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fmd.sampling.sampler import Sampler
from fmd.types import Condition, Number, TypedKey

TIMES = tuple(i / 8 for i in range(9))


def trajectory(
    sampler: Sampler, y: Condition, key: TypedKey, *, times: Sequence[Number] = TIMES, **settings: Any
) -> np.ndarray:
    """The images at `times`, uint8 [T, B, H, W, C]; those at t = 1 are what `sampler(y, key, **settings)` draws.

    Between the steps of the solver its interpolation is shown. Raises ValueError for times outside [0, 1] or out of
    order, and what `Sampler.sample` raises.
    """
    images = sampler.sample(y, key, times=tuple(map(float, times)), **settings).images
    return np.moveaxis(images, 1, 0)


def sweep(sampler: Sampler, y: Condition, key: TypedKey, *, weights: Sequence[Number], **settings: Any) -> np.ndarray:
    """The images of each guidance weight from the same noise, uint8 [number of weights, B, H, W, C]."""
    return np.stack([sampler(y, key, weight=weight, **settings) for weight in weights])
