"""Where to put twelve steps.

Left: the times between which twelve Heun steps go, for five grids. Right: the error at the end for clusters of three
widths. The narrower the data, the later the velocity turns, and the more the last steps matter: at width 0.03 the grids
that are dense near t = 1 make a quarter of the error of even steps or less; at 0.3 they gain nothing (karras: arXiv
2206.00364).
"""

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.gallery import plane, style
from fmd.math import grids, schedules, simulators

GRIDS = {
    "uniform": {"name": "uniform"},
    "cosine": {"name": "cosine"},
    "shifted, 3": {"name": "shifted", "factor": 3.0},
    "shifted, 1/3": {"name": "shifted", "factor": 1 / 3},
    "karras": {"name": "karras", "noise_max": 50.0, "noise_min": 0.01},
}


def draw(small: bool = False) -> Figure:
    linear = schedules.get("linear")
    widths, count = ((0.3,), 5) if small else ((0.03, 0.1, 0.3), 300)
    noise = jax.random.normal(jax.random.key(0), (count, 2))
    knots = {name: grids.get(steps=12, schedule=linear, **params) for name, params in GRIDS.items()}
    figure, (left, right) = style.figure(2, height=2.7, sharey=True)
    places = np.arange(len(GRIDS))
    for row, times in enumerate(knots.values()):
        left.eventplot(np.asarray(times), lineoffsets=row, linelengths=0.7)
    for i, width in enumerate(widths):
        field = plane.clusters(std=width).field(linear)
        truth = simulators.solve_ode(field, noise, solver="rk4", grid=np.linspace(0, 1, 13 if small else 801) ** 0.5).x
        ends = [simulators.solve_ode(field, noise, grid=times).x for times in knots.values()]
        heights = places + 0.25 * (i - (len(widths) - 1) / 2)
        right.barh(heights, [style.rms(end - truth) for end in ends], height=0.22, label=f"width {width}")
    left.set(xlabel="t", yticks=places, yticklabels=list(GRIDS))
    left.invert_yaxis()
    right.set(xlabel="root mean square error", xscale="log")
    right.legend(loc="lower right")
    return figure
