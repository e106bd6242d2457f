"""Log-likelihood of data under a flow, by the instantaneous change of variables (1806.07366, 1810.01367):

    log p_1(x1) = log p_0(x(0)) - int_0^1 div v(x(t), t) dt,    dx/dt = v,  x(1) = x1,  p_0 = N(0, prior_std^2 I)

x and the integral are solved together from t = 1 to 0. This holds for any coupling. A guided field has a density too,
that of its own samples, which is not the tilted density p(x) p(y|x)^w. The divergence is the trace of the Jacobian,

    exact        d Jacobian-vector products, `chunk` at a time; for images, minutes
    hutchinson   mean over probes z of z^T J z, unbiased, the probes fixed during a whole solve. Rademacher probes have
                 the smaller variance, 2 (|Js|^2 - sum Js_ii^2) with Js the symmetric part: zero for a diagonal Jacobian

Bits per dimension. Pixels are integers n; a density needs them dequantised, y = width (n + U) + const with U uniform on
[0, 1), and then E log p(y) is a lower bound of log P(n) - d log(width):

    bits/dim = -log p(y) / (d ln 2) - log2(width)

    x = n / 127.5 - 1, this project's images: width 2/255, -log2(width) = 6.99435
    y = 2 (n + U) / 256 - 1, much of the literature: width 2/256, -log2(width) = 7

Without dequantisation noise the number is no bound, and resized or padded images are no longer 8-bit.
"""

import math
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree, UInt8

from fmd.math.integration import Field, Times
from fmd.math.simulators import solve_ode

WIDTH = 2 / 255


def log_likelihood(
    field: Field,
    x1: Float[Array, "batch ..."],
    *,
    key: Key[Array, ""] | None = None,
    trace: str = "exact",
    probes: int = 1,
    probe: str = "rademacher",
    prior_std: float = 1.0,
    solver: str = "dopri5",
    steps: int = 100,
    rtol: float | None = None,
    atol: float | None = None,
    grid: Times | None = None,
    args: PyTree = None,
    chunk: int = 16,
    end_epsilon: float | None = None,
    indices: Int[Array, " batch"] | None = None,
    max_steps: int = 4096,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> tuple[Float[Array, " batch"], Float[Array, "batch ..."]]:
    """(log p_1(x1) in nats [B], the noise x(0) that flows to x1 [B, ...]), float32 at least.

    field, solver, steps, rtol, atol, grid, args, end_epsilon, max_steps, adjoint   as in `solve_ode`; a grid runs
                from 1 down to 0. The examples of a batch must not interact inside the field (no batch normalisation)
    trace       "exact" or "hutchinson"; the latter needs `key`
    probes      number of Hutchinson probes, a function of (key, indices[i])
    probe       "rademacher" or "gaussian"
    prior_std   standard deviation of the noise (schedule.prior_std)
    chunk       Jacobian-vector products computed at once: memory for speed, the result is the same

    Matrix products run in float32 (TensorFloat-32 would spoil the error control). An example whose solve failed has
    log p = NaN. ValueError for an unknown trace or probe, probes or chunk < 1, prior_std <= 0, a missing key.
    """
    if trace not in ("exact", "hutchinson"):
        raise ValueError(f"trace={trace!r} must be 'exact' or 'hutchinson'")
    if probes < 1 or chunk < 1:
        raise ValueError(f"probes={probes} and chunk={chunk} must be at least 1")
    if not prior_std > 0:
        raise ValueError(f"prior_std={prior_std} must be positive")
    directions = None
    if trace == "hutchinson":
        if key is None:
            raise ValueError("trace='hutchinson' draws random probes: pass key=jax.random.key(...)")
        indices = jnp.arange(x1.shape[0]) if indices is None else indices
        directions = _draw_probes(key, indices, probes, probe, x1)

    def augmented(t, state, args_and_directions):
        x, _ = state
        args, directions = args_and_directions
        v, pushforward = jax.linearize(lambda x: field(t, x, args).astype(x.dtype), x)
        if directions is None:
            return v, _exact_trace(pushforward, x, chunk)
        return v, _estimated_trace(pushforward, directions, chunk)

    wide = jnp.zeros(x1.shape[:1], x1.dtype)
    with jax.default_matmul_precision("float32"):
        solution = solve_ode(
            augmented,
            (x1, wide),
            solver=solver,
            steps=steps,
            rtol=rtol,
            atol=atol,
            t0=1.0,
            t1=0.0,
            grid=grid,
            args=(args, directions),
            end_epsilon=end_epsilon,
            max_steps=max_steps,
            adjoint=adjoint,
        )
    x0, minus_integral = solution.x
    log_p = gaussian_log_density(x0, prior_std) + minus_integral
    return jnp.where(solution.success, log_p, jnp.nan), x0


def gaussian_log_density(x: Float[Array, "batch ..."], std: float = 1.0) -> Float[Array, " batch"]:
    """log N(x; 0, std^2 I), [B] nats."""
    flat = x.reshape(x.shape[0], -1)
    constant = flat.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(std))
    return -0.5 * jnp.sum((flat / std) ** 2, axis=1) - constant


def bits_per_dim(log_p: Float[Array, "..."], dimensions: int, width: float = WIDTH) -> Float[Array, "..."]:
    """-log_p / (dimensions ln 2) - log2(width), for log_p in nats of the scaled, dequantised image.

    width: distance between neighbouring pixel values after scaling, 2/255 for x = n/127.5 - 1 (the default), 2/256 for
    y = 2 (n + U)/256 - 1. Raises ValueError where dimensions < 1 or width <= 0.
    """
    if dimensions < 1 or not width > 0:
        raise ValueError(f"dimensions={dimensions} must be at least 1 and width={width} positive")
    return -log_p / (dimensions * math.log(2)) - math.log2(width)


def dequantise(key: Key[Array, ""], images: UInt8[Array, "batch ..."]) -> Float[Array, "batch ..."]:
    """(n + U - 1/2) / 127.5 - 1 in float32 for pixels n in 0..255: this project's scaling, spread over one level.

    U is uniform on [0, 1), so the values fill [-1 - 1/255, 1 + 1/255) without gaps.
    """
    noise = jax.random.uniform(key, images.shape, jnp.float32) - 0.5
    return (images.astype(jnp.float32) + noise) / 127.5 - 1.0


def importance_weighted(
    log_density: Callable[[Float[Array, "batch ..."], Key[Array, ""]], Float[Array, " batch"]],
    images: UInt8[Array, "batch ..."],
    key: Key[Array, ""],
    *,
    draws: int,
) -> Float[Array, " batch"]:
    """log (1/K) sum_k p(y_k) over K = `draws` dequantisations y_k of each image, [B] nats for `bits_per_dim`.

    log_density(y, key) -> [B], for instance `log_likelihood`. K = 1 is the ordinary bound; a larger K is tighter in
    expectation (1509.00519). Hutchinson noise in log_density biases the mean of its exponential upwards: use the exact
    trace, or many probes. Raises ValueError where draws < 1.
    """
    if draws < 1:
        raise ValueError(f"draws={draws} must be at least 1")

    def one(key):
        for_noise, for_density = jax.random.split(key)
        return log_density(dequantise(for_noise, images), for_density)

    log_p = jax.lax.map(one, jax.random.split(key, draws))
    return jax.nn.logsumexp(log_p, axis=0) - math.log(draws)


def _exact_trace(pushforward: Callable, x: Any, chunk: int) -> Float[Array, " batch"]:
    """sum_j (J e_j)_j; one direction serves the whole batch, because its examples do not interact."""
    size = math.prod(x.shape[1:])

    def diagonal_entry(j):
        direction = jax.nn.one_hot(j, size, dtype=x.dtype)
        tangent = jnp.broadcast_to(direction.reshape(x.shape[1:])[None], x.shape)
        return pushforward(tangent).reshape(x.shape[0], size)[:, j]

    return jax.lax.map(diagonal_entry, jnp.arange(size), batch_size=min(chunk, size)).sum(axis=0)


def _estimated_trace(pushforward: Callable, directions: Any, chunk: int) -> Float[Array, " batch"]:
    """Mean over probes of z^T J z, for directions [B, probes, ...]."""
    probes = jnp.moveaxis(directions, 1, 0)

    def quadratic_form(z):
        return (z * pushforward(z)).sum(axis=tuple(range(1, z.ndim)))

    return jax.lax.map(quadratic_form, probes, batch_size=min(chunk, probes.shape[0])).mean(axis=0)


def _draw_probes(key, indices, probes: int, probe: str, x1) -> Float[Array, "batch probes ..."]:
    draw = {"rademacher": jax.random.rademacher, "gaussian": jax.random.normal}.get(probe)
    if draw is None:
        raise ValueError(f"probe={probe!r} must be 'rademacher' or 'gaussian'")
    shape = (probes, *x1.shape[1:])
    return jax.vmap(lambda index: draw(jax.random.fold_in(key, index), shape, x1.dtype))(indices)
