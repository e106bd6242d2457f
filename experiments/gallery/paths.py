"""The path of one pair.

x_t in the plane that one noise x0 (right) and one image x1 (top) span, with a dot at each tenth of the time. The linear
path is straight, at one pace; polynomial is as straight and begins at rest. cosine and linear_vp go along one circle,
since alpha² + sigma² = 1. The speed of linear_vp and sqrt_beta is infinite at t = 1 (arXiv 2303.08797).
"""

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from experiments.gallery import style
from fmd.math import paths, schedules


def draw(small: bool = False) -> Figure:
    x0, x1 = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])
    t = jnp.linspace(0.0, 1.0, 11 if small else 101)
    figure, axes = style.figure(2, height=3.0)
    for name, marker in zip(("linear", "polynomial", "sqrt_beta", "cosine", "linear_vp"), "o|sDx", strict=True):
        schedule = schedules.get(name)
        x = jax.vmap(lambda t, s=schedule: paths.interpolate(s, x0, x1, t)[0])(t)
        v = jax.vmap(lambda t, s=schedule: paths.velocity(s, x0, x1, t)[0])(t[:-1])
        axes[0].plot(*x.T, marker=marker, markersize=5, linewidth=1, markevery=max(len(t) // 10, 1), label=name)
        axes[1].plot(t[:-1], jnp.linalg.norm(v, axis=1))
    axes[0].set(title="x_t = alpha x1 + sigma x0", xlabel="share of x0", ylabel="share of x1", aspect="equal")
    axes[1].set(title="speed |dx/dt|", xlabel="t", ylim=(0, 4))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure
