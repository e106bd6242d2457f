"""One step against many.

The flow from N(0, 1) to N(1.5, 0.4²) on the line. One Euler step with the velocity sends every noise to the mean, 1.5.
One jump with the average velocity U (MeanFlow, arXiv 2505.13447) lands where the flow does: that is what a one-step
network learns, through the identity U = v + (r - t) dU/dt, which holds here to rounding.
"""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.gallery import style
from fmd.math import few_step, simulators

MEAN, STD = 1.5, 0.4


def spread(t: jax.Array) -> jax.Array:
    """The standard deviation of x_t."""
    return jnp.sqrt((STD * t) ** 2 + (1 - t) ** 2)


def velocity(t: jax.Array, x: jax.Array, args: object = None) -> jax.Array:
    return MEAN + jax.grad(spread)(jnp.asarray(t)) / spread(t) * (x - MEAN * t)


def average(x: jax.Array, t: jax.Array, r: jax.Array) -> jax.Array:
    """The mean of the velocity between t and r along the flow, whose map is known."""
    return MEAN + (spread(r) / spread(t) - 1) / (r - t) * (x - MEAN * t)


def draw(small: bool = False) -> Figure:
    noise, times = jnp.linspace(-2.2, 2.2, 12)[:, None], np.linspace(0, 1, 3 if small else 41)
    flow = simulators.solve_ode(velocity, noise, solver="rk4", steps=4 if small else 100, times=times)
    euler = simulators.solve_ode(velocity, noise, solver="euler", steps=1, end_epsilon=0.0).x
    jumped = few_step.jump(average, noise, 0.0, 1.0)
    figure, axes = style.figure(3, height=2.6)
    for axis, ends, name in ((axes[0], euler, "one Euler step"), (axes[1], jumped, "one jump of U")):
        axis.plot(times, flow.trajectory[..., 0], color=style.GREY, linewidth=0.8)
        axis.plot((0, 1), jnp.concatenate([noise, ends], axis=1).T, color=style.BLUE, linewidth=1)
        axis.plot(jnp.ones(len(ends)), ends, "o", color=style.RED, markersize=4)
        axis.set(title=f"{name}: spread {spread_of(ends, noise):.2f}", xlabel="t", ylabel="x")
    steps = (1,) if small else (1, 4, 16, 64)
    for solver in ("euler",) if small else ("euler", "heun"):
        ends = [simulators.solve_ode(velocity, noise, solver=solver, steps=n, end_epsilon=0.0) for n in steps]
        errors = [style.rms(end.x - flow.x) for end in ends]
        axes[2].loglog([end.evaluations[0] for end in ends], errors, marker="o", markersize=4, label=solver)
    axes[2].loglog(1, style.rms(jumped - flow.x), "s", color=style.RED, label="jump")
    axes[2].set(title="error", xlabel="evaluations")
    axes[2].legend()
    return figure


def spread_of(ends: jax.Array, noise: jax.Array) -> float:
    """The standard deviation of x1 for standard normal noise, by the slope of a line through the ends."""
    return float(jnp.polyfit(noise[:, 0], ends[:, 0], 1)[0])
