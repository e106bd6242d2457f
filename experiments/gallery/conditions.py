"""Conditions in parts.

Nine clusters, of which a network may be told the column, the row, both, or neither. Told one part it draws three. Two
velocities, told one part each and added with weights, find the one cluster that fits both (arXiv 2206.01714); at weight
3 they go beyond it. The titles are the weights.
"""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.gallery import plane, style
from fmd.math import fields, guidance, schedules, simulators

UNTOLD, WEIGHTS = 3, ((1, 0), (0, 1), (1, 1), (3, 3))  # of column and row
CENTRES = plane.Mixture(style.lattice(1.6, 3), 0.25, np.arange(9))


def drop(y: dict, parts: tuple[str, ...] = ()) -> dict:
    """The condition without these parts."""
    return {name: jnp.full_like(value, UNTOLD) if name in parts else value for name, value in y.items()}


def draw(small: bool = False) -> Figure:
    linear, noise = schedules.get("linear"), jax.random.normal(jax.random.key(0), (9 if small else 600, 2))

    def predict(x: jax.Array, t: jax.Array, y: dict) -> jax.Array:
        """The exact velocity of the clusters that fit what is told."""
        place = {"column": jnp.arange(9) % 3, "row": jnp.arange(9) // 3}
        fits = [(y[part][:, None] == UNTOLD) | (y[part][:, None] == place[part][None]) for part in y]
        return CENTRES.among(linear, x, t, fits[0] & fits[1])

    told = {name: jnp.full(len(noise), 2) for name in ("column", "row")}
    figure, axes = style.figure(4, height=2.2)
    for axis, weights in zip(axes, style.few(WEIGHTS, small), strict=not small):
        field = fields.composed_field(
            predict, drop, dict(zip(told, map(float, weights), strict=True)), guidance.get("cfg")
        )
        x = simulators.solve_ode(field, noise, args=told, solver="rk4", steps=2 if small else 50).x
        style.dots(axis, CENTRES.means, style.GREY, s=30, alpha=0.5)
        style.dots(axis, x)
        style.plane(axis, 3.4, f"column {weights[0]}, row {weights[1]}")
    return figure
