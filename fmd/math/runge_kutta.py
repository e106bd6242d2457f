"""Calls of Diffrax's Runge-Kutta methods, which `fmd.math.solvers` names.

On a fixed grid the whole batch takes the same steps, and nothing is ever evaluated outside the grid; an adaptive solver
chooses steps for one example at a time, so that no sample depends on its batch-mates (one error norm shared by a batch
lets a hard sample be solved badly when easy ones surround it). Where the state of an example is a tree, its error is
that of the worst leaf: a log-density beside 784 pixels counts in full.

Nothing is checked on the device, so that a program exports for several platforms; what can be known before is checked
before.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from fmd.math.broadcasting import finfo
from fmd.math.solvers import STAGES, Knots, Solved
from fmd.types import Index, Times, TypedKey

Adjoint = diffrax.AbstractAdjoint
ODETerm = diffrax.ODETerm
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


METHODS: dict[str, type[Method]] = {
    "euler": diffrax.Euler,
    "midpoint": diffrax.Midpoint,
    "heun": diffrax.Heun,
    "ralston": diffrax.Ralston,
    "rk4": RK4,
    "tsit5": diffrax.Tsit5,
    "dopri5": diffrax.Dopri5,
    "dopri8": diffrax.Dopri8,
    "bosh3": diffrax.Bosh3,
}


def table(method: type[Method]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """(a, b, c) of the Butcher table. Row i of a weighs the stages before stage i, b all of them; c are their times."""
    tableau: diffrax.ButcherTableau | None = getattr(method, "tableau", None)
    if tableau is None:  # Euler
        return [np.zeros(0)], np.ones(1), np.zeros(1)
    return [np.zeros(0), *tableau.a_lower], tableau.b_sol, np.concatenate([np.zeros(1), tableau.c])


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
    term: Term, x0: PyTree, args: PyTree, solver: str, knots: Knots, times: Times | None, adjoint: Adjoint | None
) -> Solved:
    """The whole batch at once, exactly one step between neighbouring knots."""
    steps = len(knots) - 1
    solution = diffrax.diffeqsolve(
        term, METHODS[solver](), knots[0], knots[-1], None, x0, args,
        saveat=_save_at(times), stepsize_controller=Grid(knots), max_steps=steps, throw=False,
        adjoint=adjoint or diffrax.RecursiveCheckpointAdjoint(),
    )  # fmt: skip
    return *_unpack(solution), steps * STAGES[solver], None


def adaptive(
    term: Term, x0: PyTree, args: PyTree, solver: str, ends: tuple[Array, Array], times: Times | None,
    adjoint: Adjoint | None, controller: Counted, max_steps: int,
) -> Solved:  # fmt: skip
    """One example at a time under vmap, each seen by the field as a batch of one."""

    def one(x: PyTree, example_args: PyTree) -> PyTree:
        solution = diffrax.diffeqsolve(
            term, METHODS[solver](), *ends, None, x, example_args, saveat=_save_at(times), max_steps=max_steps,
            stepsize_controller=controller, throw=False,
            adjoint=adjoint or diffrax.RecursiveCheckpointAdjoint(),
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
