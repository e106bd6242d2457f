"""Answers that fit one measurement.

Two moons, of which only the horizontal place is measured, with noise 0.1. Grey: the moons; the first panel shows draws
of the exact answer. Each method turns the flow into a sampler of it without training (tweedie; pigdm, arXiv 2310.04432;
flower, 2509.26287). The number is the distance of the drawn heights from the exact ones (Wasserstein-1).
"""

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from experiments.gallery import plane, style
from fmd.math import operators, restoration, schedules

PLACE, NOISE = 0.3, 0.1


def exact(moons: plane.Mixture, key: jax.Array, count: int) -> jax.Array:
    """Draws of the moons given x + NOISE n = PLACE: a mixture again, with other weights."""
    which, where = jax.random.split(key)
    variance = moons.std**2 + NOISE**2
    logits = -((PLACE - moons.means[:, 0]) ** 2) / (2 * variance)
    means = jnp.asarray(moons.means)[jax.random.categorical(which, logits, shape=(count,))]
    gain = moons.std**2 / variance
    moved = means.at[:, 0].add(gain * (PLACE - means[:, 0]))
    return moved + moons.std * jnp.array([(1 - gain) ** 0.5, 1.0])[None] * jax.random.normal(where, (count, 2))


def draw(small: bool = False) -> Figure:
    moons, linear, count = plane.moons(0.12), schedules.get("linear"), 8 if small else 600
    see = operators.get("mask", mask=jnp.array([1.0, 0.0]))
    draws = {"exact": exact(moons, jax.random.key(0), count)}
    for method in ("flower",) if small else ("tweedie", "pigdm", "flower"):
        draws[method] = restoration.restore(
            moons.field(linear),
            jnp.array([[PLACE, 0.0]]),
            see,
            jax.random.key(1),
            shape=(count, 2),
            noise_std=NOISE,
            method=method,
            steps=2 if small else 100,
        )
    figure, axes = style.figure(4, height=2.2)
    for axis, (name, x) in zip(axes, draws.items(), strict=not small):
        away = jnp.mean(jnp.abs(jnp.sort(x[:, 1]) - jnp.sort(draws["exact"][:, 1])))
        style.dots(axis, moons.sample(jax.random.key(2), 50 if small else 800), style.GREY, s=2, alpha=0.4)
        axis.axvspan(PLACE - 2 * NOISE, PLACE + 2 * NOISE, color=style.ORANGE, alpha=0.2, linewidth=0)
        style.dots(axis, x, style.RED if name == "exact" else style.BLUE)
        style.plane(axis, 2.4, name if name == "exact" else f"{name}: {away:.2f}")
    return figure
