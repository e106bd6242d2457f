"""Averages of the parameters along a run, in float32.

Exponential, with a warm-up that forgets the start: step n (1 for the first) keeps `min(decay, n / (9 + n))`.
Power function (arXiv 2312.02696): `beta_n = (1 - 1/n)^(gamma + 1)` after n steps weighs step tau by tau^gamma, so that
the width of the average is a fixed share of the run, its relative standard deviation
`std = sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3)))`.
From stored ones the average of any other width can be had after the run: `fmd.checkpoints.averages`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fmd.checkpoints.averages import power_exponent


def averages(decays: Sequence[float], power_stds: Sequence[float]) -> dict[str, float]:
    """Names of a run's averages with their decay ("decay0", ...) or exponent gamma ("power0", ...)."""
    named = {f"decay{i}": float(decay) for i, decay in enumerate(decays)}
    return named | {f"power{i}": power_exponent(std) for i, std in enumerate(power_stds)}


def beta(name: str, value: float, step: Int[Array, ""]) -> Float[Array, ""]:
    """How much of the old average stays when the parameters after `step` steps (1 or more) come in."""
    n = step.astype(jnp.float32)
    if name.startswith("power"):
        return (1.0 - 1.0 / n) ** (value + 1.0)
    return jnp.minimum(jnp.float32(value), n / (9.0 + n))


def update(ema: Mapping[str, Any], params: Any, kinds: Mapping[str, float], step: Int[Array, ""]) -> dict[str, Any]:
    """All averages after the parameters of `step` (1 for the first update) came in."""
    updated = {}
    for name, value in kinds.items():
        keep = beta(name, value, step)
        updated[name] = jax.tree.map(lambda old, new, keep=keep: new + keep * (old - new), ema[name], params)
    return updated
