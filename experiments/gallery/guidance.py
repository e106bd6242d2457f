"""Guidance rules in the plane.

Three classes whose circles hold 86 % of each; the points ask for the upper one, at weight 5. Plain guidance (cfg, arXiv
2207.12598) throws them to twice its height. An interval of time (2404.07724) and cfg_zero_star (2503.18886) overshoot
less. apg (2410.02416) drops the push along the predicted point: the mean stays where it belongs.
"""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.gallery import plane, style
from fmd.math import fields, guidance, schedules, simulators

RULES = {
    "conditional": guidance.get("cfg", weight=1.0),
    "cfg": guidance.get("cfg", weight=5.0),
    "cfg in (0.3, 0.8)": guidance.get("cfg", weight=5.0, interval=(0.3, 0.8)),
    "cfg_zero_star": guidance.get("cfg_zero_star", weight=5.0),
    "apg": guidance.get("apg", weight=5.0),
    "rescale": guidance.get("rescale", weight=5.0),
}


def draw(small: bool = False) -> Figure:
    classes, linear = plane.clusters(3, radius=1.0, std=0.5), schedules.get("linear")
    noise = jax.random.normal(jax.random.key(0), (10 if small else 600, 2))
    upper, angle = jnp.zeros(len(noise), jnp.int32), np.linspace(0, 2 * np.pi, 60)
    figure, axes = style.figure(3, rows=2, height=5.0)
    for axis, (name, rule) in zip(axes, style.few(RULES.items(), small), strict=not small):
        field = fields.guided_field(classes.predict(linear), classes.null, rule)
        x = simulators.solve_ode(field, noise, args=upper, solver="rk4", steps=2 if small else 50).x
        for i, centre in enumerate(classes.means):
            circle = centre[:, None] + 2 * classes.std * np.stack([np.cos(angle), np.sin(angle)])
            axis.plot(*circle, color=style.RED if i == 0 else style.GREY, linewidth=1)
        style.dots(axis, x)
        style.plane(axis, 3.1, f"{name}: mean height {x[:, 1].mean():.2f}")
    return figure
