"""Averages of the parameters along a run, in float32.

Exponential, with a warm-up that forgets the start: step n (1 for the first) keeps `min(decay, n / (9 + n))`.
Power function (arXiv 2312.02696): `beta_n = (1 - 1/n)^(gamma + 1)` after n steps weighs step tau by tau^gamma, so that
the width of the average is a fixed share of the run, its relative standard deviation
`std = sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3)))`.
From stored ones the average of any other width can be had after the run: `fmd.checkpoints.power_averages`.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fmd.checkpoints.power_averages import power_exponent
from fmd.types import Params


def averages(decays: Sequence[float], power_stds: Sequence[float]) -> dict[str, float]:
    """Names of a run's averages with their decay ("decay0", ...) or exponent gamma ("power0", ...)."""
    named = {f"decay{i}": float(decay) for i, decay in enumerate(decays)}
    return named | {f"power{i}": power_exponent(std) for i, std in enumerate(power_stds)}


def share(name: str, value: float, step: Int[Array, ""]) -> Float[Array, ""]:
    """The share of the parameters after `step` steps (1 or more) in the new average.

    It becomes as small as 1e-5. Formed as 1 minus the kept part, a float32 would have two digits there.
    """
    n = step.astype(jnp.float32)
    if name.startswith("power"):
        return -jnp.expm1((value + 1.0) * jnp.log1p(-1.0 / n))
    return jnp.maximum(jnp.float32(1.0 - value), 9.0 / (9.0 + n))


def update(
    ema: Mapping[str, Params], params: Params, kinds: Mapping[str, float], step: Int[Array, ""]
) -> dict[str, Params]:
    """All averages after the parameters of `step` (1 for the first update) came in."""
    updated = {}
    for name, value in kinds.items():
        new_share = share(name, value, step)

        def mix(old: Array, new: Array, part: Array = new_share) -> Array:
            return jnp.where(part < 1.0, old + part * (new - old), new)  # a share of 1 forgets the old exactly

        updated[name] = jax.tree.map(mix, ema[name], params)
    return updated
