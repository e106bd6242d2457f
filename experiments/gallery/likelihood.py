"""How likely is a point?

The log-density of a spiral by its formula, by the change of variables along the flow (arXiv 1806.07366, 1810.01367),
and their difference. Solving the flow backwards finds the noise of each point, and sums the divergence on the way.
"""

import jax.numpy as jnp
from matplotlib.figure import Figure

from experiments.gallery import plane, style
from fmd.math import likelihood, schedules


def draw(small: bool = False) -> Figure:
    spiral, linear, limit = plane.spiral(0.15), schedules.get("linear"), 2.7
    x = jnp.asarray(style.lattice(limit, 5 if small else 60))
    truth = spiral.log_density(linear, x)
    found, _ = likelihood.log_likelihood(spiral.field(linear), x, solver="rk4", steps=4 if small else 80)
    error = jnp.abs(found - truth)
    figure, axes = style.figure(3, height=2.5)
    for axis, values, title in ((axes[0], truth, "log p, by the formula"), (axes[1], found, "log p, by the flow")):
        figure.colorbar(style.heat(axis, values, limit, vmin=-12, vmax=0), ax=axis, shrink=0.7)
        style.plane(axis, limit, title)
    wrong = style.heat(axes[2], jnp.log10(error + 1e-9), limit, cmap="Oranges", vmin=-7, vmax=-3)
    figure.colorbar(wrong, ax=axes[2], shrink=0.7)
    style.plane(axes[2], limit, f"log10 of the error\nmedian {jnp.median(error):.0e}")
    return figure
