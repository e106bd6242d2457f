"""From noise to data.

The density p_t at five times on the way from noise (t = 0) to two moons (t = 1), with 150 points that the flow carries.
The points move by the velocity alone, and stay a sample of the density at every time (arXiv 2210.02747).
"""

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from experiments.gallery import plane, style
from fmd.math import schedules, simulators


def draw(small: bool = False) -> Figure:
    moons, linear = plane.moons(), schedules.get("linear")
    times, limit = (0.0, 0.25, 0.5, 0.75, 1.0), 2.9
    noise = jax.random.normal(jax.random.key(0), (10 if small else 150, 2))
    flow = simulators.solve_ode(moons.field(linear), noise, solver="rk4", steps=4 if small else 40, times=times)
    figure, axes = style.figure(len(times), height=1.75)
    places = style.lattice(limit, 20 if small else 90)
    for axis, t, x in zip(axes, times, flow.trajectory, strict=True):
        style.heat(axis, jnp.exp(moons.log_density(linear, places, t)), limit, vmax=0.25)
        style.dots(axis, x, style.RED, alpha=0.9)
        style.plane(axis, limit, f"t = {t}")
    return figure
