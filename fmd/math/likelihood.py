"""Log-likelihood of data under a flow, by the instantaneous change of variables (1806.07366, 1810.01367):

    log p_1(x1) = log p_0(x(0)) - int_0^1 div v(x(t), t) dt,    dx/dt = v,  x(1) = x1,  p_0 = N(0, prior_std^2 I)

x and the integral are solved together from t = 1 to 0, in float32 at least whatever the field returns. This holds for
any coupling. A guided field has a density too, that of its own samples, which is not the tilted density p(x) p(y|x)^w.
The divergence is the trace of the Jacobian,

    exact        d Jacobian-vector products, `chunk` at a time; for images, minutes, and so for Python only
    hutchinson   mean over probes z of z^T J z, unbiased, the probes fixed during a whole solve. Rademacher probes have
                 the smaller variance, 2 (|Js|^2 - sum Js_ii^2) with Js the symmetric part: zero for a diagonal Jacobian

Bits per dimension, and the dequantisation of pixels that they need, are in `fmd.math.pixels`.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, UInt8

from fmd.math.broadcasting import compute_dtype
from fmd.math.pixels import bits_per_dim, dequantise
from fmd.math.simulators import solve_ode
from fmd.math.solvers import TimeList
from fmd.types import Field, Images, Index, Scalars, TypedKey

__all__ = ["bits_per_dim", "dequantise", "gaussian_log_density", "importance_weighted", "log_likelihood"]

LogDensities = Float[Array, " B"]
Linear = Callable[[Images], Images]


def log_likelihood(
    field: Field,
    x1: Images,
    *,
    key: TypedKey | None = None,
    trace: str = "exact",
    probes: int = 1,
    probe: str = "rademacher",
    prior_std: float = 1.0,
    solver: str = "dopri5",
    steps: int = 100,
    rtol: float | None = None,
    atol: float | None = None,
    grid: TimeList | None = None,
    args: PyTree = None,
    chunk: int = 16,
    end_epsilon: float | None = None,
    indices: Index | None = None,
    max_steps: int = 4096,
    adjoint: PyTree = None,
) -> tuple[LogDensities, Images]:
    """(log p_1(x1) in nats [B], the noise x(0) that flows to x1 [B, ...]), float32 at least.

    field, solver, steps, grid, args, end_epsilon, max_steps, adjoint   as in `solve_ode`; a grid runs from 1 down to 0.
                The examples of a batch must not interact inside the field (no batch normalisation)
    rtol, atol  as in `solve_ode`, of x and of log p each by itself: rtol is relative to log p
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
    x1 = x1.astype(compute_dtype(x1.dtype))
    directions = None
    if trace == "hutchinson":
        if key is None:
            raise ValueError("trace='hutchinson' draws random probes: pass key=jax.random.key(...)")
        indices = jnp.arange(x1.shape[0]) if indices is None else indices
        directions = _draw_probes(key, indices, probes, probe, x1)

    def augmented(t: Scalars, state: tuple[Images, LogDensities], told: tuple[PyTree, PyTree]) -> PyTree:
        (x, _), (args, directions) = state, told
        v, pushforward = jax.linearize(lambda x: field(t, x, args).astype(x.dtype), x)
        if directions is None:
            return v, _exact_trace(pushforward, x, chunk)
        return v, _estimated_trace(pushforward, directions, chunk)

    with jax.default_matmul_precision("float32"):
        solution = solve_ode(
            augmented,
            (x1, jnp.zeros(x1.shape[:1], x1.dtype)),
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


def gaussian_log_density(x: Images, std: float = 1.0) -> LogDensities:
    """log N(x; 0, std^2 I), [B] nats, float32 at least."""
    flat = x.reshape(x.shape[0], -1).astype(compute_dtype(x.dtype))
    constant = flat.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(std))
    return -0.5 * jnp.sum((flat / std) ** 2, axis=1) - constant


def importance_weighted(
    log_density: Callable[[Images, TypedKey], LogDensities], images: UInt8[Array, "B ..."], key: TypedKey, *, draws: int
) -> LogDensities:
    """log (1/K) sum_k p(y_k) over K = `draws` dequantisations y_k of each image, [B] nats for `bits_per_dim`.

    log_density(y, key) -> [B], for instance `log_likelihood`. K = 1 is the ordinary bound; a larger K is tighter in
    expectation (1509.00519). Hutchinson noise in log_density biases the mean of its exponential upwards: use the exact
    trace, or many probes. Raises ValueError where draws < 1.
    """
    if draws < 1:
        raise ValueError(f"draws={draws} must be at least 1")

    def one(key: TypedKey) -> LogDensities:
        for_noise, for_density = jax.random.split(key)
        log_p = log_density(dequantise(for_noise, images), for_density)
        return log_p.astype(compute_dtype(log_p.dtype))

    log_p = jax.lax.map(one, jax.random.split(key, draws))
    return jax.nn.logsumexp(log_p, axis=0) - math.log(draws)


def _exact_trace(pushforward: Linear, x: Images, chunk: int) -> LogDensities:
    """sum_j (J e_j)_j; one direction serves the whole batch, because its examples do not interact."""
    size = math.prod(x.shape[1:])

    def diagonal_entry(j: Array) -> LogDensities:
        direction = jax.nn.one_hot(j, size, dtype=x.dtype)
        tangent = jnp.broadcast_to(direction.reshape(x.shape[1:])[None], x.shape)
        return pushforward(tangent).reshape(x.shape[0], size)[:, j]

    entries: Array = jax.lax.map(diagonal_entry, jnp.arange(size), batch_size=min(chunk, size))
    return entries.sum(axis=0)


def _estimated_trace(pushforward: Linear, directions: Float[Array, "B probes ..."], chunk: int) -> LogDensities:
    """Mean over probes of z^T J z."""
    probes = jnp.moveaxis(directions, 1, 0)

    def quadratic_form(z: Images) -> LogDensities:
        return (z * pushforward(z)).sum(axis=tuple(range(1, z.ndim)))

    forms: Array = jax.lax.map(quadratic_form, probes, batch_size=min(chunk, probes.shape[0]))
    return forms.mean(axis=0)


def _draw_probes(key: TypedKey, indices: Index, probes: int, probe: str, x1: Images) -> Float[Array, "B probes ..."]:
    draw = {"rademacher": jax.random.rademacher, "gaussian": jax.random.normal}.get(probe)
    if draw is None:
        raise ValueError(f"probe={probe!r} must be 'rademacher' or 'gaussian'")
    shape = (probes, *x1.shape[1:])
    drawn: Array = jax.vmap(lambda index: draw(jax.random.fold_in(key, index), shape, x1.dtype))(indices)
    return drawn
