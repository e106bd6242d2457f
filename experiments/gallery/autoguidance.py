"""Guided by a worse model of itself.

A model of a spiral that learned it too wide (second), and one that learned it much too wide (third). Extrapolating from
the worse to the better gives a sharper one than either, without a label (arXiv 2406.02507): v_weak + w (v_strong -
v_weak), here w = 2. The number is the root mean square distance from the spiral.
"""

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from experiments.gallery import plane, style
from fmd.math import fields, guidance, schedules, simulators


def draw(small: bool = False) -> Figure:
    linear = schedules.get("linear")
    truth, strong, weak = (plane.spiral(std) for std in (0.04, 0.2, 0.35))
    guided = fields.autoguided_field(strong.predict(linear), weak.predict(linear), guidance.get("cfg", weight=2.0))
    ways = {"data": truth, "model": strong, "weaker model": weak}
    ways = {name: spiral.field(linear) for name, spiral in ways.items()} | {"guided": guided}
    noise = jax.random.normal(jax.random.key(0), (10 if small else 700, 2))
    figure, axes = style.figure(4, height=2.2)
    for axis, (name, field) in zip(axes, style.few(ways.items(), small), strict=not small):
        x = simulators.solve_ode(field, noise, steps=2 if small else 100).x
        away = jnp.linalg.norm(x[:, None] - truth.means[None], axis=-1).min(axis=1)
        style.dots(axis, x)
        style.plane(axis, 3.0, f"{name}: {jnp.sqrt(jnp.mean(away**2)):.2f}")
    return figure
