"""Four predictions, one knowledge.

What a network may predict at t = 0.5, on a lattice of places x: the velocity, the mean of the data behind x (arrows end
there), the mean of the noise, and the score. Each is an affine map of any other, so three of them were converted from
the velocity (arXiv 2412.06264).
"""

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.gallery import plane, style
from fmd.math import paths, schedules


def draw(small: bool = False) -> Figure:
    moons, linear, limit, t = plane.moons(), schedules.get("linear"), 1.9, 0.5
    x = jnp.asarray(style.lattice(limit, 5 if small else 13))
    v = moons.field(linear)(t, x)
    figure, axes = style.figure(4, height=2.1)
    for axis, kind in zip(axes, paths.PREDICTIONS, strict=True):
        value = np.asarray(paths.convert(linear, x, t, v, source="velocity", target=kind))
        arrow, scale = (value - x, 1.0) if kind == "data" else (value, np.abs(value).max() / 0.5)
        style.dots(axis, moons.means, style.GREY, s=6)
        axis.quiver(*x.T, *arrow.T, color=style.BLUE, angles="xy", scale_units="xy", scale=scale, width=0.006)
        style.plane(axis, limit * 1.1, kind)
    return figure
