"""Which noise goes with which image.

Lines join 96 noises with their data. Independent pairs cross, so the velocity averages over them and paths bend. The
optimal transport of a batch (arXiv 2302.00482) crosses nowhere and is shortest. The pairs of a flow, from which reflow
learns (arXiv 2209.03003), are as short without looking at a batch.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.gallery import plane, style
from fmd.math import couplings, few_step, schedules


def draw(small: bool = False) -> Figure:
    data, linear, count = plane.clusters(std=0.2), schedules.get("linear"), 8 if small else 96
    x0 = jax.random.normal(jax.random.key(0), (count, 2))
    x1 = data.sample(jax.random.key(1), count)
    pairs = {name: couplings.get(name)(jax.random.key(2), x0, x1)[:2] for name in ("independent", "optimal_transport")}
    pairs["of the flow"] = few_step.reflow_pairs(data.field(linear), x0, steps=2 if small else 50)
    figure, axes = style.figure(3, height=2.7)
    for axis, (name, ends) in zip(axes, pairs.items(), strict=True):
        style.lines(axis, np.stack(ends), style.GREY)
        for end, color in zip(ends, (style.ORANGE, style.BLUE), strict=True):
            style.dots(axis, end, color, s=9, alpha=1, zorder=3)
        style.plane(axis, 3.2, f"{name.replace('_', ' ')}\nlength {style.rms(ends[1] - ends[0]):.2f}")
    return figure
