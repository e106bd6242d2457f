"""Power-function averages of any width, after the run, from stored ones (arXiv 2312.02696).

The average with exponent gamma at step n weighs the parameters of step tau by tau^gamma. These profiles are linear in
the parameters, so the average of another width is a combination of stored ones: the one whose profile is nearest in
least squares to the wanted profile.
"""

from collections.abc import Sequence

import jax
import numpy as np

from fmd.types import Params


def power_exponent(std: float) -> float:
    """The exponent gamma whose profile has the relative standard deviation `std`, in (0, 12^-0.5).

    Raises ValueError for another std. Solves std^-2 = (gamma + 2)^2 (gamma + 3) / (gamma + 1), a cubic with one root
    above 0 in that range.
    """
    if not 0 < std < 12**-0.5:
        raise ValueError(f"the relative width {std} of a power-function average must lie in (0, 0.288)")
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
    return np.asarray((gamma + 1) * (delta + 1) / (gamma + delta + 1) * np.exp(log_ratio) / np.maximum(n, m))


def reconstruct(snapshots: Sequence[tuple[int, float, Params]], step: int, std: float) -> Params:
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
