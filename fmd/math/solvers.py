"""The numerical methods behind `simulators`: names, cost, and calls of Diffrax.

A solver is a Diffrax Runge-Kutta method. On a fixed grid the whole batch takes the same steps, and nothing is ever
evaluated outside the grid; an adaptive solver chooses steps for one example at a time, so that no sample depends on
its batch-mates (one error norm shared by a batch lets a hard sample be solved badly when easy ones surround it). Where
the state of an example is a tree, its error is that of the worst leaf: a log-density beside 784 pixels counts in full.

    solver      order   evaluations                     singular end t1
    euler       1       1 a step                        not evaluated
    midpoint    2       2 a step                        not evaluated
    heun        2       2 a step                        evaluated
    ralston     2       2 a step                        not evaluated
    rk4         4       4 a step                        evaluated
    bosh3       3       1 + 3 a step tried              evaluated
    tsit5       5       1 + 6 a step tried              evaluated
    dopri5      5       1 + 6 a step tried              evaluated
    dopri8      8       1 + 13 a step tried             evaluated

The adaptive methods hand their last stage to the next step as its first; after a jump, and again for every retry of
the very first step, the first stage is computed anew and counted.

Times are exact: a fixed grid is an array of knots, not a repeatedly added step. Nothing is checked on the device, so
that a program exports for several platforms; what can be known before is checked before.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from fmd.math.broadcasting import concrete, finfo
from fmd.types import Index, Scalars, Times, TypedKey

TimeList = Sequence[float] | Float[np.ndarray, " times"] | Float[Array, " times"]
"""Times in order: of a grid, or at which a trajectory is wanted."""

Knots = Float[Array, " knots"]
"""The times between which a solver with fixed steps takes one step each."""

Solved = tuple[PyTree, PyTree, int | Int[Array, " B"], Bool[Array, " B"] | None]
"""(final state, states at the times asked for or None, evaluations, whether an adaptive solver reached the end)."""


Adjoint = diffrax.AbstractAdjoint
Controller = diffrax.AbstractStepSizeController[Any, Any]
Method = diffrax.AbstractSolver[Any]
Term = diffrax.AbstractTerm[Any, Any]


class RK4(diffrax.AbstractERK):
    """The classical fourth-order Runge-Kutta method. It has no error estimate, hence fixed grids only."""

    tableau: ClassVar[diffrax.ButcherTableau] = diffrax.ButcherTableau(
        a_lower=(np.array([0.5]), np.array([0.0, 0.5]), np.array([0.0, 0.0, 1.0])),
        b_sol=np.array([1 / 6, 1 / 3, 1 / 3, 1 / 6]),
        b_error=np.zeros(4),
        c=np.array([0.5, 0.5, 1.0]),
    )
    interpolation_cls: ClassVar[Callable[..., diffrax.AbstractLocalInterpolation]] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation.from_k
    )

    def order(self, terms: PyTree) -> int:
        return 4


FIXED: dict[str, type[Method]] = {
    "euler": diffrax.Euler,
    "midpoint": diffrax.Midpoint,
    "heun": diffrax.Heun,
    "ralston": diffrax.Ralston,
    "rk4": RK4,
}
ADAPTIVE: dict[str, type[Method]] = {
    "tsit5": diffrax.Tsit5,
    "dopri5": diffrax.Dopri5,
    "dopri8": diffrax.Dopri8,
    "bosh3": diffrax.Bosh3,
}


def check_name(solver: str) -> None:
    """Raises ValueError with the list of solvers where the name is not one of them."""
    if solver not in FIXED and solver not in ADAPTIVE:
        raise ValueError(f"unknown solver {solver!r}: fixed grids {sorted(FIXED)}, adaptive {sorted(ADAPTIVE)}")


def table(method: type[Method]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """(a, b, c) of the Butcher table. Row i of a weighs the stages before stage i, b all of them; c are their times."""
    tableau: diffrax.ButcherTableau | None = getattr(method, "tableau", None)
    if tableau is None:  # Euler
        return [np.zeros(0)], np.ones(1), np.zeros(1)
    return [np.zeros(0), *tableau.a_lower], tableau.b_sol, np.concatenate([np.zeros(1), tableau.c])


STAGES = {name: len(table(method)[1]) for name, method in (FIXED | ADAPTIVE).items()}


class Grid(diffrax.StepTo):
    """Steps from one given time to the next.

    `diffrax.StepTo` without its run-time checks: they call back to the host, and a program with host callbacks can be
    exported for one platform at most. `make_knots` checks grids before they get here.
    """

    def wrap(self, direction: PyTree) -> "Grid":
        return type(self)(ts=self.ts * direction)

    def init(self, *arguments: PyTree, **named: PyTree) -> tuple[PyTree, PyTree]:
        return self.ts[1], 2


class Counted(Controller):
    """An adaptive controller that also counts field evaluations and gives up on a step that cannot shrink further.

    The count is exact for an example solved alone; in a batch the slowest example decides how long all are computed.
    """

    inner: Controller
    stages: int

    def wrap(self, direction: PyTree) -> "Counted":
        return Counted(self.inner.wrap(direction), self.stages)

    def init(
        self, terms: PyTree, t0: PyTree, t1: PyTree, y0: PyTree, dt0: PyTree, *rest: PyTree, **named: PyTree
    ) -> tuple[PyTree, PyTree]:
        # The first try is a hundredth of the interval: it costs no evaluation, and rejections correct it.
        t_next, inner = self.inner.init(terms, t0, t1, y0, (t1 - t0) / 100, *rest)
        return t_next, (inner, jnp.asarray(0, jnp.int32), jnp.asarray(True))

    def adapt_step_size(self, t0: PyTree, t1: PyTree, *rest: PyTree, **named: PyTree) -> PyTree:
        *state_and_error, (inner, evaluations, first_stage_is_new) = rest
        arguments: PyTree = (t0, t1, *state_and_error, inner)
        keep, t0_next, t1_next, jumped, inner, result = self.inner.adapt_step_size(*arguments)
        evaluations = evaluations + self.stages - 1 + first_stage_is_new.astype(jnp.int32)
        first_stage_is_new = jnp.where(keep, jumped, first_stage_is_new)
        # A field that returns NaN rejects every step: stop that example instead of trying until max_steps.
        hopeless = ~keep & (t1 - t0 < 16 * finfo(t0.dtype).eps)
        result = diffrax.RESULTS.where(hopeless, diffrax.RESULTS.dt_min_reached, result)
        return keep, t0_next, t1_next, jumped, (inner, evaluations, first_stage_is_new), result


class Noisy(Term):
    """drift dt + g dW in one term, from dynamics(t, x, args) -> (drift [B, ...], g).

    Example i has a Brownian path of its own, a function of (key, indices[i], step): the same sample comes out of any
    batch size and any number of devices. The last step gets no noise, so that none of it stays in the sample.
    """

    dynamics: Callable[..., PyTree]
    key: TypedKey
    indices: Index
    knots: Knots
    shape: tuple[int, ...]

    def vf(self, t: PyTree, y: PyTree, args: PyTree) -> PyTree:
        drift, g = self.dynamics(t, y, args)
        return drift.astype(y.dtype), g

    def contr(self, t0: PyTree, t1: PyTree, **kwargs: PyTree) -> PyTree:
        step = jnp.searchsorted(self.knots, t0, side="right") - 1
        normal, noisy = self._normal(step), step < self.knots.size - 2
        return t1 - t0, jnp.where(noisy, jnp.sqrt(t1 - t0), 0.0) * normal

    def prod(self, vf: PyTree, control: PyTree) -> PyTree:
        (drift, g), (dt, dw) = vf, control
        return dt * drift + g * dw

    def _normal(self, step: PyTree) -> PyTree:
        def one(index: PyTree) -> Array:
            key = jax.random.fold_in(jax.random.fold_in(self.key, index), step)
            return jax.random.normal(key, self.shape, self.knots.dtype)

        return jax.vmap(one)(self.indices)


def worst_rms(error: PyTree) -> Float[Array, ""]:
    """The largest root mean square among the leaves of one example's error."""
    rms: Callable[[PyTree], PyTree] = diffrax.PIDController.norm
    worst: Array = reduce(jnp.maximum, map(rms, jax.tree.leaves(error)))
    return worst


def controller(solver: str, rtol: float, atol: float, jumps: np.ndarray) -> Counted:
    """Step size control for one example, whose steps end at `jumps`, where the field is discontinuous."""
    inner: Controller = diffrax.PIDController(rtol=rtol, atol=atol, norm=worst_rms)
    if len(jumps):
        inner = diffrax.ClipStepSizeController(inner, jump_ts=jumps)
    return Counted(inner, STAGES[solver])


def fixed(
    term: Term, x0: PyTree, args: PyTree, solver: str, knots: Knots, times: Times | None, adjoint: Adjoint
) -> Solved:
    """The whole batch at once, exactly one step between neighbouring knots."""
    steps = len(knots) - 1
    solution = diffrax.diffeqsolve(
        term, FIXED[solver](), knots[0], knots[-1], None, x0, args,
        saveat=_save_at(times), stepsize_controller=Grid(knots), max_steps=steps, throw=False, adjoint=adjoint,
    )  # fmt: skip
    return *_unpack(solution), steps * STAGES[solver], None


def adaptive(
    term: Term, x0: PyTree, args: PyTree, solver: str, ends: tuple[Array, Array], times: Times | None,
    adjoint: Adjoint, controller: Counted, max_steps: int,
) -> Solved:  # fmt: skip
    """One example at a time under vmap, each seen by the field as a batch of one."""

    def one(x: PyTree, example_args: PyTree) -> PyTree:
        solution = diffrax.diffeqsolve(
            term, ADAPTIVE[solver](), *ends, None, x, example_args, saveat=_save_at(times), max_steps=max_steps,
            stepsize_controller=controller, throw=False, adjoint=adjoint,
        )  # fmt: skip
        _, evaluations, _ = solution.controller_state
        return *_unpack(solution), evaluations, diffrax.is_successful(solution.result)

    batch = jax.tree.leaves(x0)[0].shape[0]
    axes = jax.tree.map(lambda leaf: _axis_of_examples(leaf, batch), args)
    batches_of_one = jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 1) if jnp.ndim(leaf) else leaf, (x0, args))
    final, trajectory, evaluations, reached = jax.vmap(one, in_axes=(0, axes))(*batches_of_one)
    final = jax.tree.map(lambda x: jnp.squeeze(x, 1), final)
    trajectory = jax.tree.map(lambda x: jnp.moveaxis(jnp.squeeze(x, 2), 1, 0), trajectory)
    return final, trajectory, evaluations, reached


def _axis_of_examples(leaf: PyTree, batch: PyTree) -> int | None:
    """The axis of the examples in a leaf of args: the first, or None in a scalar.

    `batch` is a number, or a symbol in a program that is exported for any batch size.
    """
    shape = jnp.shape(leaf)
    if shape and shape[0] != batch:
        raise ValueError(
            f"args holds shape {shape} for a batch of {batch}: an adaptive solver needs scalars or one slice per "
            "example; let the field close over what all examples share"
        )
    return 0 if shape else None


def _save_at(times: Times | None) -> diffrax.SaveAt:
    """The final state, and the trajectory at `times` where given."""
    trajectory = None if times is None else diffrax.SubSaveAt(ts=times)
    return diffrax.SaveAt(subs=(diffrax.SubSaveAt(t1=True), trajectory), controller_state=True)


def _unpack(solution: diffrax.Solution) -> tuple[PyTree, PyTree]:
    ys: PyTree = solution.ys
    at_end, at_times = ys
    return jax.tree.map(lambda y: y[-1], at_end), at_times


def make_knots(grid: TimeList | None, steps: int, t0: Scalars, t1: Scalars, dtype: np.dtype) -> Knots:
    """The times of a fixed grid, [steps + 1], its ends exactly t0 and t1; `grid` instead of these where given."""
    if grid is not None:
        if concrete(grid):
            gaps = np.diff(np.asarray(grid, dtype))
            if not (len(gaps) and (np.all(gaps > 0) or np.all(gaps < 0))):
                raise ValueError(f"grid must hold at least two strictly monotonic times in {dtype.name}")
        return jnp.asarray(grid, dtype)
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1")
    check_interval(t0, t1)
    fractions = np.linspace(0.0, 1.0, steps + 1)
    if concrete(t0) and concrete(t1):
        knots = float(t0) + (float(t1) - float(t0)) * fractions
        knots[-1] = float(t1)
        return jnp.asarray(knots, dtype)
    t0, t1 = jnp.asarray(t0, dtype), jnp.asarray(t1, dtype)
    return (t0 + (t1 - t0) * jnp.asarray(fractions, dtype)).at[-1].set(t1)


def check_interval(t0: Scalars, t1: Scalars) -> None:
    """ValueError where t0 and t1 are known and are not two different finite times."""
    if concrete(t0) and concrete(t1) and not (np.isfinite(t0) and np.isfinite(t1) and t0 != t1):
        raise ValueError(f"t0={t0} and t1={t1} must be two different finite times")


def make_times(times: TimeList | None, ends: tuple[Scalars, Scalars], dtype: np.dtype) -> Times | None:
    """`times` as an array. ValueError where they are outside `ends` or out of order, as far as that is known."""
    if times is None:
        return None
    if all(map(concrete, (times, *ends))):
        given, first, last = np.asarray(times, dtype), *np.asarray(ends, dtype)
        inside = len(given) and min(first, last) <= given.min() and given.max() <= max(first, last)
        if not (inside and np.all(np.diff(given) * (1 if first < last else -1) > 0)):
            raise ValueError(f"times {given.tolist()} must run strictly from t0={first} towards t1={last}, within them")
    return jnp.asarray(times, dtype)
