"""Training, in ten lines.

A network of 9,000 numbers learns the velocity of two moons: draw a pair and a time, and take the squared error at x_t
(arXiv 2210.02747). The loss cannot fall to 0, since many pairs pass through one place; the exact velocity's own loss is
the grey line. Its samples, at the right, are those of the data.
"""

import jax
import jax.numpy as jnp
import optax
from matplotlib.figure import Figure

from experiments.gallery import plane, style
from fmd.math import paths, schedules, simulators, times

MOONS, LINEAR = plane.moons(), schedules.get("linear")


def network(params: list, x: jax.Array, t: jax.Array) -> jax.Array:
    h = jnp.concatenate([x, jnp.broadcast_to(t, x.shape[:1])[:, None]], axis=1)
    for weight in params[:-1]:
        h = jax.nn.silu(jnp.pad(h, ((0, 0), (0, 1)), constant_values=1.0) @ weight)
    return h @ params[-1]


def draw(small: bool = False) -> Figure:
    steps, keys = 5 if small else 3000, jax.random.split(jax.random.key(0), 5)
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, steps))

    def loss(key: jax.Array, field: object) -> jax.Array:
        for_x0, for_x1, for_t = jax.random.split(key, 3)
        x0, x1 = jax.random.normal(for_x0, (256, 2)), MOONS.sample(for_x1, 256)
        t = times.get("uniform", stratified=True)(for_t, 256)
        error = field(t, paths.interpolate(LINEAR, x0, x1, t)) - paths.velocity(LINEAR, x0, x1, t)
        return jnp.mean(jnp.sum(error**2, axis=1))

    def step(state: tuple, key: jax.Array) -> tuple:
        params, moments = state
        value, gradient = jax.value_and_grad(lambda p: loss(key, lambda t, x: network(p, x, t)))(params)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(params, updates), moments), value

    shapes = ((4, 64), (65, 64), (65, 64), (64, 2))
    params = [
        jax.random.normal(k, s) * (2 / s[0]) ** 0.5 for k, s in zip(jax.random.split(keys[0], 4), shapes, strict=True)
    ]
    start = (params, optimizer.init(params))
    (params, _), losses = jax.jit(lambda s, k: jax.lax.scan(step, s, k))(start, jax.random.split(keys[1], steps))
    least = jnp.mean(jax.lax.map(lambda key: loss(key, MOONS.field(LINEAR)), jax.random.split(keys[2], 40)))

    noise = jax.random.normal(keys[3], (len(losses[:1000]), 2))
    x = simulators.solve_ode(lambda t, x, args: network(params, x, t), noise, steps=2 if small else 50).x
    figure, axes = style.figure(3, height=2.6)
    blocks = losses[: steps // 50 * 50].reshape(-1, 50).mean(axis=1) if steps >= 50 else losses
    axes[0].plot(jnp.arange(1, len(blocks) + 1) * steps / len(blocks), blocks)
    axes[0].axhline(least, color=style.GREY, linestyle="--")
    axes[0].set(title=f"loss; last {blocks[-1]:.2f}, exact {least:.2f}", xlabel="step")
    for axis, points, title in ((axes[1], MOONS.sample(keys[4], len(x)), "data"), (axes[2], x, "learned")):
        style.dots(axis, points)
        style.plane(axis, 2.6, title)
    return figure
