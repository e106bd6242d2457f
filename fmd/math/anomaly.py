"""Anomaly scores: how little an image looks like what a flow was trained on. Higher is stranger.

    bits             bits per dimension, from `fmd.math.likelihood`. Simpler images have fewer of them than the training
                     data, and are then not found (1810.09136)
    typicality       the distance of log p from its mean over training images, which finds both sides (1906.02994)
    reconstruction   the image is noised up to a time and restored by the flow; what it has lost (2211.07740)

`auroc` judges a score: the share of pairs of an ordinary and a strange image that it puts in the right order.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmd.math.editing import sde_edit
from fmd.types import Field, Images, Index, Number, TypedKey


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


def auroc(ordinary: Float[np.ndarray, " N"], strange: Float[np.ndarray, " M"]) -> float:
    """The area under the curve of a score: P(strange > ordinary) + P(equal) / 2.

    Raises ValueError where one of them is empty or not finite.
    """
    if not (len(ordinary) and len(strange) and np.isfinite(ordinary).all() and np.isfinite(strange).all()):
        raise ValueError("auroc needs one or more finite scores of each kind")
    ranked = np.sort(ordinary)
    below, up_to = (np.searchsorted(ranked, strange, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(ordinary)))
