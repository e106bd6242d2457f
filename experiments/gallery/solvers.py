"""Error against evaluations.

The error of a flow's end, by how often the velocity was asked. Euler's error falls like 1/n, that of second order like
1/n², that of rk4 like 1/n⁴: the slopes are in the legend, fitted to the last points above rounding. dopri5 is asked for
tolerances from 1e-2 to 1e-5 instead, and chooses its steps for each example by itself.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.gallery import plane, style
from fmd.math import schedules, simulators

STEPS = (4, 8, 16, 32, 64)


def draw(small: bool = False) -> Figure:
    field = plane.clusters().field(schedules.get("linear"))
    noise = jax.random.normal(jax.random.key(0), (10 if small else 100, 2))
    truth = simulators.solve_ode(field, noise, solver="rk4", steps=20 if small else 300).x
    figure, (axis,) = style.figure(height=3.2)
    for solver in ("euler",) if small else ("euler", "midpoint", "heun", "rk4"):
        ends = [simulators.solve_ode(field, noise, solver=solver, steps=n) for n in style.few(STEPS, small)]
        n, error = np.array([(end.evaluations[0], style.rms(end.x - truth)) for end in ends]).T
        slope = np.polyfit(np.log(n[-4:]), np.log(error[-4:]), 1)[0]
        axis.loglog(n, error, marker="o", markersize=4, label=f"{solver}, slope {slope:.1f}")
    tolerances = (1e-2,) if small else (1e-2, 1e-3, 1e-4, 1e-5)
    ends = [simulators.solve_ode(field, noise, solver="dopri5", rtol=r, atol=r) for r in tolerances]
    points = [(end.evaluations.mean(), style.rms(end.x - truth)) for end in ends]
    axis.loglog(*zip(*points, strict=True), marker="s", markersize=4, linestyle="--", label="dopri5, adaptive")
    axis.set(xlabel="evaluations of the velocity", ylabel="root mean square error")
    axis.legend(loc="lower left")
    return figure
