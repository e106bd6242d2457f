"""Images restored from their measurements by a trained model, over all devices.

    seen = operators.get("mask", hidden="lower_half")
    images = sampler.restore(seen(x) + 0.1 * noise, seen, key, noise_std=0.1, draws=4)     # uint8 [B, 4, H, W, C]

The methods are those of `fmd.math.restoration`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array, Float

from fmd.math import restoration
from fmd.math.operators import Map, Operator
from fmd.math.pixels import to_uint8, to_unit
from fmd.models.network import with_xla_attention
from fmd.sampling import checks
from fmd.sampling.prior import BATCH, Prior, ask, check_told, flow_of
from fmd.types import Condition, Field, Index, Number, Params, Pixels, TypedKey

STRIDE = 2**20
"""Draw d of measurement i has the number d STRIDE + i, whatever the number of either."""


def restore(
    sampler: Prior,
    measurement: Any,
    operator: Operator | Map,
    key: TypedKey,
    y: Condition = None,
    *,
    noise_std: Number = 0.05,
    method: str = "tweedie",
    steps: int = 100,
    draws: int | None = None,
    weight: Number = 1,
    batch_size: int = BATCH,
    params: Params | None = None,
    quiet: bool = True,
    **options: Any,
) -> np.ndarray:
    """Draws of the images behind measurements, uint8 [B, H, W, C], or [B, draws, H, W, C] with `draws`.

    Args:
        sampler: the model.
        measurement: [B, ...], A x + noise_std n of images x in [-1, 1]; uint8 is brought to that scale.
        operator: A, see `fmd.math.operators`, or a function of a batch.
        key: a typed key; draw d of measurement i is a function of (key, d, i).
        y: conditions of the images; None: untold.
        noise_std: standard deviation of the noise.
        method, steps, options: as in `fmd.math.restoration.restore`.
        draws: for each measurement.
        weight: of the guidance; other than 1 it makes a sharper prior.
        batch_size: images per call of the compiled program.
        params: parameters to use instead of the sampler's own.
        quiet: without a progress bar.

    Raises:
        ValueError: for a measurement or condition of another shape, what is no key, and what
            `fmd.math.restoration.restore` refuses.
    """
    checks.check_key(key)
    if not callable(operator):
        raise ValueError(f"operator={operator!r}; give operators.get(NAME, ...) or a function of a batch")
    schedule = flow_of(sampler).schedule
    restorer = restoration.METHODS.build(method, options)
    known = restoration.fitting(operator, sampler.image_shape, restorer, method)
    made, array = known.measured(sampler.image_shape), np.asarray(measurement)
    if array.shape[1:] != made or not len(array):
        raise ValueError(
            f"the measurement is {list(array.shape)}, but operator {known.name!r} makes [B, "
            f"{', '.join(map(str, made))}] of this model's images {list(sampler.image_shape)}"
        )
    restoration.check(restorer, method, noise_std, steps)
    if method == "tweedie" and getattr(sampler.method, "clip_data", False):
        logging.warning("tweedie restores badly by a model trained with clip_data; take flower")
    if draws is not None and draws < 1:
        raise ValueError(f"draws={draws} must be at least 1")
    measured = np.asarray(to_unit(jnp.asarray(array))) if array.dtype == np.uint8 else array.astype(np.float32)
    told, each = check_told(sampler, y, len(array)), draws or 1
    numbers = (np.arange(len(array))[:, None] + STRIDE * np.arange(each)[None]).reshape(-1).astype(np.int32)
    measured, told = jax.tree.map(lambda a: np.repeat(a, each, axis=0), (measured, told))

    def compute(
        field: Field, key: TypedKey, noise_std: Array, index: Index, y: Float[Array, "B ..."], args: Condition
    ) -> Pixels:
        x = restoration.restore(
            field, y, known, key, shape=(y.shape[0], *sampler.image_shape), noise_std=noise_std, method=method,
            schedule=schedule, steps=steps, args=args, indices=index, **options,
        )  # fmt: skip
        return to_uint8(x)

    name = ("restoring", method, tuple(sorted(options.items())), known, steps)
    images: np.ndarray = ask(
        sampler, name, compute, (key, np.float32(noise_std)), numbers, measured, told,
        model=with_xla_attention(sampler.model), weight=weight, batch_size=batch_size, params=params, quiet=quiet,
    )  # fmt: skip
    return images if draws is None else images.reshape(len(array), draws, *sampler.image_shape)
