"""A bridge between two data sets.

Five moments on the way from moons to clusters, x_t = (1 - t) x0 + t x1 + gamma(t) z. Above gamma is 0: what lies
between is thin copies of both. Below a noise of its own blurs the middle and is gone at both ends, which makes the
velocity smoother and easier to learn (arXiv 2303.08797).
"""

import jax
from matplotlib.figure import Figure

from experiments.gallery import plane, style
from fmd.math import interpolants, schedules


def draw(small: bool = False) -> Figure:
    linear, count = schedules.get("linear"), 20 if small else 1200
    keys = jax.random.split(jax.random.key(0), 3)
    x0, x1 = plane.moons(0.05).sample(keys[0], count), plane.clusters(std=0.1).sample(keys[1], count)
    z = jax.random.normal(keys[2], (count, 2))
    times = (0.0, 0.25, 0.5, 0.75, 1.0)
    figure, axes = style.figure(len(times), rows=2, height=3.2)
    for axis, (scale, t) in zip(axes, [(scale, t) for scale in (0.0, 1.0) for t in times], strict=True):
        style.dots(axis, interpolants.interpolate(linear, x0, x1, t, z, scale=scale), s=1.5)
        style.plane(axis, 2.7, f"t = {t}" if scale == 0 else "")
    for row, name in ((0, "gamma = 0"), (len(times), "gamma = √(t (1 - t))")):
        axes[row].set_ylabel(name)
    return figure
