"""Another schedule without training.

One field, that of the linear schedule, followed along three. At equal signal-to-noise ratio the other schedules'
marginals are copies at another scale, so the field can be asked for them (arXiv 2303.08797). The ways differ, the ends
do not: the largest distance from the linear ends stands above.
"""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.gallery import plane, style
from fmd.math import fields, schedules, simulators


def draw(small: bool = False) -> Figure:
    clusters, linear = plane.clusters(), schedules.get("linear")
    noise, times = jax.random.normal(jax.random.key(1), (30, 2)), np.linspace(0, 1, 3 if small else 60)
    ends: list[jax.Array] = []
    figure, axes = style.figure(3, height=2.7)
    for axis, name in zip(axes, style.few(("linear", "cosine", "linear_vp"), small), strict=not small):
        along = schedules.get(name)
        field = fields.change_schedule(clusters.field(linear), linear, along)
        flow = simulators.solve_ode(
            field, noise, solver="rk4", steps=5 if small else 400, times=times, end_epsilon=1e-4
        )
        ends.append(flow.x)
        style.lines(axis, flow.trajectory)
        style.dots(axis, noise, style.ORANGE, s=12, alpha=1)
        style.dots(axis, flow.x, style.RED, s=12, alpha=1, zorder=3)
        away = jnp.max(jnp.linalg.norm(flow.x - ends[0], axis=1))
        style.plane(axis, 3.0, name if name == "linear" else f"{name}: {away:.0e}")
    return figure
