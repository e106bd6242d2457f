"""Averages of the parameters along a run, in float32.

Exponential, with a warm-up that forgets the start: step n (1 for the first) keeps `min(decay, n / (9 + n))`.
Power function (arXiv 2312.02696): `beta_n = (1 - 1/n)^(gamma + 1)` after n steps weighs step tau by tau^gamma, so that
the width of the average is a fixed share of the run, its relative standard deviation
`std = sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3)))`.
Because such profiles are linear in the parameters, the average of any other width is a least-squares combination of
stored ones: `reconstruct`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


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


def power_exponent(std: float) -> float:
    """The exponent gamma whose profile has the relative standard deviation `std`, in (0, 12^-0.5).

    Solves std^-2 = (gamma + 2)^2 (gamma + 3) / (gamma + 1), a cubic with one root above 0 in that range.
    """
    k = float(std) ** -2
    roots = np.roots([1.0, 7.0, 16.0 - k, 12.0 - k])
    return float(roots[np.isreal(roots)].real.max())


def profile_product(n: np.ndarray, gamma: np.ndarray, m: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Inner product of the normalised profiles (n, gamma) and (m, delta), steps and exponents; broadcasts.

    The integral over tau from 0 to min(n, m) of
    (gamma+1) tau^gamma / n^(gamma+1) * (delta+1) tau^delta / m^(delta+1).
    """
    low = np.minimum(n, m)
    log_ratio = gamma * np.log(low / n) + delta * np.log(low / m)
    return (gamma + 1) * (delta + 1) / (gamma + delta + 1) * np.exp(log_ratio) / np.maximum(n, m)


def reconstruct(snapshots: Sequence[tuple[int, float, Any]], step: int, std: float) -> Any:
    """The power-function average of width `std` at `step`, from stored ones of other widths and steps.

    Args:
        snapshots: (step, exponent gamma, parameters) of each stored average.
        step: the end of the wanted average; at least one snapshot should be from it.
        std: the wanted relative standard deviation.

    Returns:
        Parameters as NumPy arrays, combined in float64.

    Raises:
        ValueError: without snapshots.
    """
    if not snapshots:
        raise ValueError("no snapshots to reconstruct from; set ema.power_stds and checkpoint.keep_every, then train")
    steps = np.array([s for s, _, _ in snapshots], float)
    gammas = np.array([g for _, g, _ in snapshots], float)
    gram = profile_product(steps[:, None], gammas[:, None], steps[None], gammas[None])
    wanted = profile_product(steps, gammas, np.array(float(step)), np.array(power_exponent(std)))
    weights = np.linalg.lstsq(gram, wanted, rcond=None)[0]
    trees = [tree for _, _, tree in snapshots]
    return jax.tree.map(
        lambda *leaves: np.tensordot(weights, np.stack(leaves).astype(np.float64), 1).astype(np.float32), *trees
    )
