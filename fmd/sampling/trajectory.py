"""More than the last image: the way from noise to data, and the same noise under several guidance weights.

    frames = trajectory(sampler, [3, 1, 4], jax.random.key(0))                        # uint8 [9, 3, 28, 28, 1]
    images = sweep(sampler, [3, 1, 4], jax.random.key(0), weights=(0, 1, 2, 4))       # uint8 [4, 3, 28, 28, 1]

`fmd.utils.tables` makes pictures of both.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from fmd.math.integration import Solution, Times
from fmd.math.schedules import Schedule
from fmd.utils.charts import Number

if TYPE_CHECKING:
    from fmd.sampling.sampler import Sampler

TIMES = tuple(i / 8 for i in range(9))


def trajectory(sampler: "Sampler", labels: Any, key: jax.Array, *, times: Times = TIMES, **settings: Any) -> np.ndarray:
    """The images at `times`, uint8 [T, B, H, W, C]; those at t = 1 are what `sampler(labels, key, **settings)` draws.

    Between the steps of the solver its interpolation is shown. Raises ValueError for times outside [0, 1] or out of
    order, and what `Sampler.sample` raises.
    """
    images = sampler.sample(labels, key, times=times, **settings).images
    return np.moveaxis(images, 1, 0)


def sweep(sampler: "Sampler", labels: Any, key: jax.Array, *, weights: Sequence[Number], **settings: Any) -> np.ndarray:
    """The images of each guidance weight from the same noise, uint8 [number of weights, B, H, W, C]."""
    return np.stack([sampler(labels, key, weight=weight, **settings) for weight in weights])


def states_to_show(solution: Solution, schedule: Schedule) -> jax.Array:
    """The states of a solution at its times, float32 [B, T, ...], each divided by sigma(t) where that is above 1.

    Only schedules that begin with louder noise than N(0, 1) have such times; undivided it would be black and white.
    """
    assert solution.times is not None
    loud = jnp.maximum(schedule.sigma(solution.times), 1.0)
    states = solution.trajectory / loud.reshape(-1, *(1,) * (solution.trajectory.ndim - 1))
    return jnp.moveaxis(states, 0, 1)
