"""Hard and easy starts.

Left: how many evaluations dopri5 spends on the noise at each place, at tolerance 1e-4; every example has its own steps.
Right: the cluster in which that noise ends. Where the fate of a noise is decided late, on the borders between clusters,
the velocity turns fast and costs most.
"""

import jax.numpy as jnp
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from experiments.gallery import plane, style
from fmd.math import schedules, simulators


def draw(small: bool = False) -> Figure:
    clusters, limit = plane.clusters(std=0.15), 3.0
    noise = jnp.asarray(style.lattice(limit, 4 if small else 80))
    end = simulators.solve_ode(clusters.field(schedules.get("linear")), noise, solver="dopri5", rtol=1e-4, atol=1e-4)
    nearest = jnp.argmin(jnp.linalg.norm(end.x[:, None] - clusters.means[None], axis=-1), axis=1)
    figure, (left, right) = style.figure(2, height=3.2)
    counts = style.heat(left, np.asarray(end.evaluations), limit, cmap="viridis")
    figure.colorbar(counts, ax=left, shrink=0.8, label="evaluations")
    five = ListedColormap([style.BLUE, style.RED, style.GREEN, style.ORANGE, style.PURPLE])
    style.heat(right, nearest, limit, cmap=five, vmin=0, vmax=4, alpha=0.6)
    style.dots(right, clusters.means, "black", s=20, alpha=1)
    style.plane(left, limit, f"{end.evaluations.min()} to {end.evaluations.max()} evaluations")
    style.plane(right, limit, "where it ends")
    return figure
