"""Solving the flow: dx/dt = field(t, x) from noise (t = 0) to data (t = 1) or back, and the noisy flow around it.

A field is written for a batch: `field(t, x, args) -> dx/dt` with t a scalar or [B], x [B, ...], and `args` anything
else it needs (labels, weights, parameters of a toy). The solvers are Diffrax's, described in `fmd.math.solvers`.

Differentiation and memory. With the default adjoint, `jax.grad` through a solve differentiates the numerical solution
itself (discretise, then optimise). It keeps about sqrt(2 n) states for n steps (`max_steps` for an adaptive solver),
which XLA on the CPU holds twice, and recomputes the rest; `diffrax.RecursiveCheckpointAdjoint(checkpoints=k)` keeps k.
Sampling without a gradient keeps one state. `jax.jvp` needs `adjoint=diffrax.ForwardMode()`, both kinds of derivative
`diffrax.DirectAdjoint()`.
"""

from collections.abc import Sequence
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from fmd.math import integration, odes, sdes, solvers
from fmd.math.broadcasting import Scalars, concrete
from fmd.math.integration import Field, Solution, Time, Times
from fmd.math.schedules import Schedule

TOLERANCE = 1e-5  # of adaptive solvers in float32, where none is asked for

__all__ = ["Solution", "solve_ode", "solve_sde"]


def solve_ode(
    field: Field,
    x0: PyTree[Float[Array, "batch ..."]],
    *,
    solver: str = "heun",
    steps: int = 50,
    rtol: float | None = None,
    atol: float | None = None,
    times: Times | None = None,
    t0: Time = 0.0,
    t1: Time = 1.0,
    args: PyTree = None,
    grid: Times | None = None,
    jump_ts: Sequence[float] = (),
    end_epsilon: float | None = None,
    max_steps: int = 4096,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> Solution:
    """Solves dx/dt = field(t, x, args) from t0 to t1; t1 < t0 runs backwards.

    field        called as field(t, x, args), t a scalar of the state's dtype and never outside [t0, t1]
    x0           [B, ...] array, or a pytree of them; solved in float32 at least, in float64 where x0 is float64
    solver       fixed grid: "euler", "midpoint", "heun", "ralston", "rk4"; adaptive, each example by itself:
                 "tsit5", "dopri5", "dopri8", "bosh3"
    steps        steps of a fixed grid, spread evenly over [t0, t1]; an adaptive solver does not use it
    grid         [steps + 1] times for a fixed grid instead of `steps`, `t0` and `t1`
    rtol, atol   adaptive only; by default 1e-5 each in float32 (which allows rtol >= 1e-6) and 1e-8 in float64
    times        [T] times in the direction of the solve at which the trajectory is wanted, interpolated between
                 steps with the solver's own polynomial. Diffrax checks them in a host callback, so a program that
                 saves a trajectory cannot be exported; one without can, for cpu, cuda and tpu at once
    args         handed to the field. An adaptive solver solves each example with its own slice of every leaf, as a
                 batch of one: leaves are scalars, the same for all, or have the batch axis first. Let the field
                 close over anything else
    jump_ts      adaptive only: times where the field jumps (edges of a guidance interval); the solver stops before
                 and starts after each of them instead of hunting for it. With a fixed grid put them into `grid`
    end_epsilon  the field is called with t clipped to [end_epsilon, 1 - end_epsilon], by default 1e-5 in float32 and
                 1e-12 in float64: many fields are 0/0 at an end, which Heun, RK4 and all adaptive solvers evaluate.
                 Where the field has a finite limit there this costs about end_epsilon h |dv/dt| once, h the step;
                 0 asks the field at the ends themselves. Where it is infinite there even at a fixed x (images along
                 "vp", "linear_vp" and "sqrt_beta"), a larger one, 1e-4, spoils the last step of a grid less
    max_steps    adaptive only: steps tried, rejected ones included, before an example counts as failed
    adjoint      how gradients are computed, `diffrax.RecursiveCheckpointAdjoint()` by default; see the module's text

    Nothing is raised from the device: look at `success`. ValueError for an unknown solver, steps < 1, a tolerance
    below what the dtype can do or given to a fixed grid, times outside [t0, t1] or out of order, a grid that is
    not monotonic, end_epsilon outside [0, 0.5).
    """
    solvers.check_name(solver)
    adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
    x0, dtype = integration.at_least_float32(x0)
    end_epsilon = integration.choose_end_epsilon(end_epsilon, dtype)
    term = diffrax.ODETerm(jax.tree_util.Partial(_evaluate, field, end_epsilon))

    if solver in solvers.FIXED:
        if rtol is not None or atol is not None or len(jump_ts):
            raise ValueError(f"rtol, atol, jump_ts are for adaptive solvers, and {solver!r} is not: give steps or grid")
        knots = integration.make_knots(grid, steps, t0, t1, dtype)
        ends = (grid[0], grid[-1]) if grid is not None else (t0, t1)
        return integration.fixed(term, x0, args, solvers.FIXED[solver](), knots, ends, times, adjoint)

    if grid is not None:
        raise ValueError(f"grid is for fixed-grid solvers, and {solver!r} chooses its own steps: give rtol and atol")
    integration.check_interval(t0, t1)
    if max_steps < 1:
        raise ValueError(f"max_steps={max_steps} must be at least 1")
    default = TOLERANCE if dtype == jnp.float32 else 1e-8
    rtol = solvers.check_tolerance("rtol", default if rtol is None else rtol, dtype, 8 * float(jnp.finfo(dtype).eps))
    atol = solvers.check_tolerance("atol", default if atol is None else atol, dtype, 0.0)
    controller = solvers.adaptive_controller(solver, rtol, atol, np.asarray(sorted(jump_ts), dtype))
    method = solvers.ADAPTIVE[solver]()
    return integration.adaptive(term, x0, args, method, controller, (t0, t1), times, max_steps, dtype, adjoint)


def solve_sde(
    field: Field,
    x0: Float[Array, "batch ..."],
    key: Key[Array, ""],
    *,
    schedule: Schedule,
    noise: str = "sigma",
    scale: Scalars = 1.0,
    steps: int = 250,
    solver: str = "euler_maruyama",
    times: Times | None = None,
    t0: Time = 0.0,
    t1: Time = 1.0,
    args: PyTree = None,
    grid: Times | None = None,
    end_epsilon: float | None = None,
    independent: bool = True,
    indices: Int[Array, " batch"] | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> Solution:
    """Samples dX = [v + g^2/2 score] dt + g dW with v = field(t, x, args), from t0 to t1 > t0.

    field, x0, times, args, grid, end_epsilon, adjoint   as in `solve_ode`; x0 is one array
    key          typed key; the noise of example i is a function of (key, indices[i], step)
    schedule     the schedule that the field was trained along: it turns the velocity into the score
    noise        "sigma" (g^2 = 2 k sigma), "quadratic" (2 k sigma^2), "memoryless", "constant" (2 k): see
                 `fmd.math.odes`. The latter two are singular at an end: their table is read no closer to it than
                 the neighbouring knot
    scale        k >= 0, a scalar or [B]; a known 0 gives `solve_ode` with "euler" or "heun", bit for bit
    steps        steps of an even grid, the last of them without noise. Stable where g^2 h < 4 sigma^2, roughly
    solver       "euler_maruyama" (1 evaluation a step) or "heun" (2; second order in the drift)
    independent  whether x0 and x1 were paired independently in training
    indices      [B] global index of each example, 0 .. B - 1 by default; a device or a chunk gives its own

    ValueError for an unknown noise or solver, a negative scale, t1 <= t0, and for a coupling that is not independent,
    whose score this equation does not know.
    """
    if not independent:
        raise ValueError("an SDE needs the score, which a velocity gives only for independent pairs: use solve_ode")
    if solver not in SDE_SOLVERS:
        raise ValueError(f"unknown SDE solver {solver!r}; known: {', '.join(SDE_SOLVERS)}")
    odes.check_noise(noise)
    if concrete(scale) and not bool(np.all(np.isfinite(scale)) and np.all(np.asarray(scale) >= 0)):
        raise ValueError(f"scale={scale} must be finite and not negative")
    adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
    x0, dtype = integration.at_least_float32(x0)
    end_epsilon = integration.choose_end_epsilon(end_epsilon, dtype)
    knots = integration.make_knots(grid, steps, t0, t1, dtype)
    ends = (grid[0], grid[-1]) if grid is not None else (t0, t1)
    if all(map(concrete, ends)) and not ends[0] < ends[1]:
        raise ValueError(f"an SDE runs from noise to data: t0={ends[0]} must be below t1={ends[1]}")

    clean = jax.tree_util.Partial(_evaluate, field, end_epsilon)
    if concrete(scale) and not np.any(scale):
        term: diffrax.AbstractTerm = diffrax.ODETerm(clean)
    else:
        dynamics = jax.tree_util.Partial(odes.with_noise, clean, schedule, noise, scale, knots)
        indices = jnp.arange(x0.shape[0]) if indices is None else indices
        term = sdes.Noisy(dynamics, key, indices, knots, x0.shape[1:])
    return integration.fixed(term, x0, args, SDE_SOLVERS[solver](), knots, ends, times, adjoint)


SDE_SOLVERS = {"euler_maruyama": diffrax.Euler, "heun": diffrax.Heun}


def _evaluate(field: Field, end_epsilon: float, t: Any, x: Any, args: Any) -> Any:
    """The field as Diffrax calls it: kept off the singular ends, its value in the dtype of the state."""
    if end_epsilon:
        t = jnp.clip(t, end_epsilon, 1 - end_epsilon)
    return jax.tree.map(_as_state, field(t, x, args), x)


def _as_state(v: Any, state: Any) -> Any:
    """The derivative `v` with the dtype of the state; only a number may stand for an array of another shape."""
    v = jnp.asarray(v, state.dtype)
    if v.ndim and v.shape != state.shape:
        raise ValueError(f"the field returned shape {v.shape} for x of shape {state.shape}; they must be equal")
    return jnp.broadcast_to(v, state.shape)
