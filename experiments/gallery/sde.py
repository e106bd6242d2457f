"""The same crowd by rough ways.

The flow, and two stochastic equations around it with g² = 2k sigma: their ways are rough, and the crowd that arrives
has the same distribution (arXiv 2303.08797, 2401.08740). The number is the root mean square distance from the nearest
centre; 0.42 is exact.
"""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.gallery import plane, style
from fmd.math import schedules, simulators


def draw(small: bool = False) -> Figure:
    clusters, linear, steps = plane.clusters(), schedules.get("linear"), 4 if small else 200
    noise = jax.random.normal(jax.random.key(0), (20 if small else 2000, 2))
    figure, axes = style.figure(3, height=2.7)
    for axis, scale in zip(axes, style.few((0.0, 0.5, 2.0), small), strict=not small):
        run = simulators.solve_sde(
            clusters.field(linear),
            noise,
            jax.random.key(1),
            schedule=linear,
            scale=scale,
            steps=steps,
            times=np.linspace(0, 1, steps + 1),
        )
        away = jnp.linalg.norm(run.x[:, None] - clusters.means[None], axis=-1).min(axis=1)
        style.dots(axis, run.x, style.GREY, s=2, alpha=0.4)
        axis.plot(*run.trajectory[:, :8].transpose(2, 0, 1), linewidth=0.9)
        style.plane(axis, 3.2, f"k = {scale:g}: distance {jnp.sqrt(jnp.mean(away**2)):.3f}")
    return figure
