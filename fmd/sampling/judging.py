"""Images judged by a trained model: their classes, bits per dimension, and how little they look like its own.

The formulas are in `fmd.math.classification`, `likelihood` and `anomaly`. Likelihoods are computed in float32, whatever
the network was trained in.
"""

import math
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmd.math import anomaly, classification
from fmd.math.likelihood import bits_per_dim as bits_of
from fmd.math.likelihood import dequantise, log_likelihood
from fmd.math.pixels import to_unit
from fmd.models.network import in_float32
from fmd.randomness import example_keys
from fmd.randomness import key as key_of
from fmd.sampling import checks
from fmd.sampling.prior import Prior, ask, check_images, check_told, end_epsilon, flow_of
from fmd.types import Condition, Field, Index, Number, Params, Pixels, TypedKey

TOLERANCE = 1e-4  # of the solver behind a likelihood


def classify(
    sampler: Prior,
    images: Any,
    key: TypedKey | None = None,
    *,
    draws: int = 64,
    first: int | None = None,
    keep: int | None = None,
    weighting: str = "likelihood",
    data_std: Number = 4.0,
    exact: bool = False,
    batch_size: int = 50,
    params: Params | None = None,
    quiet: bool = True,
) -> np.ndarray:
    """log p(y | x) of each class, float32 [B, classes].

    Args:
        sampler: a model of labels.
        images: uint8 [B, H, W, C].
        key: a typed key; default: that of seed 0.
        draws: K, pairs of noise and time for each image, the same for all classes.
        first, keep, weighting, data_std: as in `fmd.math.classification.by_errors`.
        exact: by likelihood instead, with one Hutchinson probe that all classes share; much slower.
        batch_size: images per call; the network sees all classes of them at once.
        params, quiet: as in `restore`.

    Raises:
        ValueError: for a model without labels or told more, images of another shape or dtype, numbers out of range.
    """
    if sampler.num_classes < 1 or sampler.info.conditions is not None:
        raise ValueError("classify needs a model that is told labels and nothing else: its classes are the answers")
    pixels, schedule = check_images(sampler, images), flow_of(sampler).schedule
    epsilon, key = end_epsilon(sampler), key_of(0) if key is None else key
    checks.check_key(key)

    def compute(field: Field, key: TypedKey, index: Index, pixels: Pixels) -> Float[Array, "B classes"]:
        x, labels = to_unit(pixels), jnp.arange(sampler.num_classes, dtype=jnp.int32)
        if not exact:
            return classification.by_errors(
                field, x, key, labels=labels, draws=draws, first=first, keep=keep, weighting=weighting,
                data_std=data_std, schedule=schedule, indices=index,
            )  # fmt: skip
        noise_key, probe_key = jax.random.split(key)
        x = jax.vmap(dequantise)(example_keys(noise_key, index), pixels)
        return classification.by_likelihood(
            field, x, labels=labels, key=probe_key, trace="hutchinson", prior_std=schedule.prior_std, indices=index,
            rtol=TOLERANCE, atol=TOLERANCE, end_epsilon=epsilon,
        )  # fmt: skip

    name = ("classifying", "exact") if exact else ("classifying", draws, first, keep, weighting, data_std)
    return np.asarray(ask(
        sampler, name, compute, (key,), np.arange(len(pixels), dtype=np.int32), pixels,
        model=in_float32(sampler.model) if exact else None,
        batch_size=batch_size, params=params, quiet=quiet,
    ))  # fmt: skip


def bits_per_dim(
    sampler: Prior,
    images: Any,
    y: Condition = None,
    key: TypedKey | None = None,
    *,
    draws: int = 1,
    tolerance: float = TOLERANCE,
    batch_size: int = 100,
    params: Params | None = None,
    quiet: bool = True,
) -> np.ndarray:
    """Bits per dimension of each image, float32 [B]; NaN where the solver failed.

    -log2 p(x + u), u uniform over one grey level. The divergence is estimated with one Rademacher probe per image
    (Hutchinson), which is unbiased. Both are functions of (key, number of the image).

    With K > 1 draws of u the density of an image is their mean, -log2 (1/K) sum_k p(x + u_k), a tighter bound
    (arXiv 1509.00519). Noise in log p would bias it, so the divergence is then exact: one product with the Jacobian
    for each number of an image, in every evaluation.

    Args:
        sampler: the model.
        images: uint8 [B, H, W, C].
        y: their conditions; None: untold.
        key: a typed key; default: that of seed 0.
        draws: K, dequantisations of each image.
        tolerance: of the solver.
        batch_size, params, quiet: as in `restore`.

    Raises:
        ValueError: for images of another shape or dtype, and a condition that does not fit.
    """
    schedule, epsilon = flow_of(sampler).schedule, end_epsilon(sampler)
    trace, numbers = "hutchinson" if draws == 1 else "exact", math.prod(sampler.image_shape)

    def compute(field: Field, key: TypedKey, index: Index, pixels: Pixels, y: Condition) -> Float[Array, " B"]:
        def log_density(key: TypedKey) -> Float[Array, " B"]:
            noise_key, probe_key = jax.random.split(key)
            x = jax.vmap(dequantise)(example_keys(noise_key, index), pixels)
            log_p, _ = log_likelihood(
                field, x, key=probe_key, trace=trace, prior_std=schedule.prior_std, args=y, indices=index,
                rtol=tolerance, atol=tolerance, end_epsilon=epsilon,
            )  # fmt: skip
            return log_p

        if draws == 1:
            return bits_of(log_density(key), numbers)
        log_p = jax.nn.logsumexp(jax.lax.map(log_density, jax.random.split(key, draws)), axis=0)
        return bits_of(log_p - math.log(draws), numbers)

    return _judge(
        sampler, ("bits per dimension", tolerance, draws), compute, images, y, key,
        model=in_float32(sampler.model), batch_size=batch_size, params=params, quiet=quiet,
    )  # fmt: skip


def reconstruction(
    sampler: Prior,
    images: Any,
    y: Condition = None,
    key: TypedKey | None = None,
    *,
    start: Number = 0.4,
    draws: int = 4,
    steps: int = 20,
    batch_size: int = 100,
    params: Params | None = None,
    quiet: bool = True,
) -> np.ndarray:
    """The mean square [B] of what an image loses when it is noised up to `start` and restored by the flow.

    Arguments and errors as in `bits_per_dim`, and as in `fmd.math.anomaly.reconstruction`.
    """
    schedule, epsilon = flow_of(sampler).schedule, end_epsilon(sampler)

    def compute(field: Field, key: TypedKey, index: Index, pixels: Pixels, y: Condition) -> Float[Array, " B"]:
        return anomaly.reconstruction(
            field, to_unit(pixels), key, start=start, draws=draws, steps=steps, args=y, schedule=schedule,
            indices=index, end_epsilon=epsilon,
        )  # fmt: skip

    name = "reconstructing", start, draws, steps
    return _judge(sampler, name, compute, images, y, key, batch_size=batch_size, params=params, quiet=quiet)


def residuals(
    sampler: Prior,
    images: Any,
    y: Condition = None,
    key: TypedKey | None = None,
    *,
    times: tuple[Number, ...] = anomaly.TIMES,
    draws: int = anomaly.DRAWS,
    batch_size: int = 100,
    params: Params | None = None,
    quiet: bool = True,
) -> np.ndarray:
    """The mean square error [B, times] of the velocity at each time, from which `fmd.math.anomaly.profile` scores.

    Arguments and errors as in `bits_per_dim`, and as in `fmd.math.anomaly.residuals`.
    """
    schedule = flow_of(sampler).schedule

    def compute(field: Field, key: TypedKey, index: Index, pixels: Pixels, y: Condition) -> Float[Array, "B T"]:
        return anomaly.residuals(
            field, to_unit(pixels), key, times=times, draws=draws, args=y, schedule=schedule, indices=index
        )

    name = "residuals", times, draws
    return _judge(sampler, name, compute, images, y, key, batch_size=batch_size, params=params, quiet=quiet)


def _judge(
    sampler: Prior,
    name: tuple[Hashable, ...],
    compute: Callable[..., Array],
    images: Any,
    y: Condition,
    key: TypedKey | None,
    **options: Any,
) -> np.ndarray:
    """compute(field, key, index, pixels, y) of images with their conditions; the default key is that of seed 0."""
    pixels = check_images(sampler, images)
    told, index = check_told(sampler, y, len(pixels)), np.arange(len(pixels), dtype=np.int32)
    key = key_of(0) if key is None else key
    checks.check_key(key)
    return np.asarray(ask(sampler, name, compute, (key,), index, pixels, told, **options))
