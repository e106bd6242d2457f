"""Anomaly scores: how little an image looks like what a flow was trained on. Higher is stranger.

    bits             bits per dimension, from `fmd.math.likelihood`. Simpler images have fewer of them than the training
                     data, and are then not found (1810.09136)
    typicality       the distance of log p from its mean over training images, which finds both sides (1906.02994)
    reconstruction   the image is noised up to a time and restored by the flow; what it has lost (2211.07740)
    profile          the error of the velocity at several times, noise to detail, and its distance from the errors of
                     training images: too simple at one scale or too rich at another are both found (as the scores of
                     many scales in 2010.13132). No equation is solved: `draws` evaluations a time

`auroc` judges a score: the share of pairs of an ordinary and a strange image that it puts in the right order.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from fmd.math import schedules
from fmd.math.broadcasting import compute_dtype
from fmd.math.editing import sde_edit
from fmd.math.paths import interpolate, velocity
from fmd.math.schedules import Schedule
from fmd.types import Field, Images, Index, Number, TypedKey

TIMES, DRAWS = (0.05, 0.35, 0.65, 0.95), 10
"""Of a profile: few times with many noises each. Neighbouring times say the same, and their difference is noise."""


def typicality(log_p: Float[Array, " N"], ordinary: Float[Array, " M"]) -> Float[Array, " N"]:
    """|log p - mean of `ordinary`|, `ordinary` the log-densities of training images."""
    return jnp.abs(log_p - jnp.mean(ordinary))


def reconstruction(
    field: Field,
    x1: Images,
    key: TypedKey,
    *,
    start: Number = 0.4,
    draws: int = 1,
    indices: Index | None = None,
    **options: Any,
) -> Float[Array, " B"]:
    """The mean square [B] of x1 minus what `sde_edit` makes of it from `start`, in the mean over `draws` noises.

    options   as in `sde_edit`. Raises ValueError for draws < 1 and a start outside [0, 1).
    """
    if draws < 1:
        raise ValueError(f"draws={draws} must be at least 1")

    def one(key: TypedKey) -> Float[Array, " B"]:
        made = sde_edit(field, x1, key, start=start, indices=indices, **options)
        return jnp.mean((made - x1.astype(made.dtype)) ** 2, axis=tuple(range(1, made.ndim)))

    return jnp.mean(jax.lax.map(one, jax.random.split(key, draws)), axis=0)


def residuals(
    field: Field,
    x1: Images,
    key: TypedKey,
    *,
    times: Sequence[Number] = TIMES,
    draws: int = DRAWS,
    args: PyTree = None,
    schedule: Schedule | None = None,
    indices: Index | None = None,
) -> Float[Array, "B T"]:
    """The mean square of v(x_t, t) - u at each of `times`, over pixels and `draws` noises that all times share.

    Noise of example i is a function of (key, indices[i]). Raises ValueError for draws < 1 and a time outside (0, 1).
    """
    if draws < 1 or not times or not all(0 < t < 1 for t in times):
        raise ValueError(f"draws={draws} must be at least 1, and times={tuple(times)} one or more inside (0, 1)")
    x1 = x1.astype(compute_dtype(x1.dtype))
    path = schedules.get("linear") if schedule is None else schedule
    numbers = jnp.arange(x1.shape[0]) if indices is None else indices
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(numbers)

    def one(where: tuple[Array, Array]) -> Float[Array, " B"]:
        draw, t = where
        x0 = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, draw), x1.shape[1:], x1.dtype))(keys)
        miss = field(t, interpolate(path, x0, x1, t), args).astype(x1.dtype) - velocity(path, x0, x1, t)
        return jnp.mean(miss**2, axis=tuple(range(1, x1.ndim)))

    when = jnp.repeat(jnp.asarray(times, x1.dtype), draws)
    each = jax.lax.map(one, (jnp.tile(jnp.arange(draws), len(times)), when))
    return jnp.mean(each.reshape(len(times), draws, -1), axis=1).T


def profile(found: Float[np.ndarray, "N T"], ordinary: Float[np.ndarray, "M T"]) -> Float[np.ndarray, " N"]:
    """The Mahalanobis distance of log `found` from the logs of `ordinary`, `residuals` of training images.

    Raises ValueError where there are too few ordinary ones for their covariance: M must be above T.
    """
    if len(ordinary) <= ordinary.shape[1]:
        raise ValueError(f"profile needs more than {ordinary.shape[1]} ordinary images, not {len(ordinary)}")
    usual = np.log(ordinary.astype(np.float64))
    away = np.log(found.astype(np.float64)) - usual.mean(axis=0)
    squares = np.sum(away * np.linalg.solve(np.atleast_2d(np.cov(usual.T)), away.T).T, axis=1)
    distance: Float[np.ndarray, " N"] = np.sqrt(squares)
    return distance


def auroc(ordinary: Float[np.ndarray, " N"], strange: Float[np.ndarray, " M"]) -> float:
    """The area under the curve of a score: P(strange > ordinary) + P(equal) / 2.

    Raises ValueError where one of them is empty or not finite.
    """
    if not (len(ordinary) and len(strange) and np.isfinite(ordinary).all() and np.isfinite(strange).all()):
        raise ValueError("auroc needs one or more finite scores of each kind")
    ranked = np.sort(ordinary)
    below, up_to = (np.searchsorted(ranked, strange, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(ordinary)))
