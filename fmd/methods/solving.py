"""Solving the equation of a trained field, as settings say: shared by the methods that are trained along a path."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float

from fmd.config import Settings
from fmd.math import fields, grids, guidance, schedules, simulators, solvers
from fmd.math.broadcasting import rows_of
from fmd.math.couplings import Coupling
from fmd.math.guidance import Guidance
from fmd.math.schedules import Schedule
from fmd.math.simulators import Solution
from fmd.types import Condition, Images, Network, Rng, Times

END_EPSILON = 1e-4  # how far inside [0, 1] a network is asked where its schedule is singular at an end

Velocity = Callable[[Images, Times, Condition], Images]


@runtime_checkable
class OnPath(Protocol):
    """A method along a path: the schedule that it is trained along, and how noise and images are paired.

    Where it has a true `clip_data`, the guided data prediction is clipped, too.
    """

    @property
    def schedule(self) -> Schedule: ...

    @property
    def coupling(self) -> Coupling: ...


def rule_of(settings: Settings, schedule: Schedule) -> Guidance:
    """The guidance rule of the settings, told the schedule that the network was trained along."""
    params = {key: value for key, value in settings.guidance.params.items() if key not in ("weak", "weights")}
    return guidance.get(settings.guidance.name, schedule=schedule, **params)


def solve(
    method: OnPath,
    network: Network,
    velocity: Velocity,
    x0: Images,
    y: Condition,
    settings: Settings,
    *,
    rng: Rng | None = None,
    weak: Velocity | None = None,
) -> Solution:
    """Solves the flow, or the stochastic equation, of a velocity(x, t, y) under the guidance rule of the settings.

    `method` says the schedule and the coupling, `network` what an untold condition is.
    """
    trained, along = method.schedule, schedule_of(settings, method.schedule)
    rule = rule_of(settings, trained)
    if getattr(method, "clip_data", False):
        rule = rule.then(partial(fields.clip_data, trained))
    y = network.drop(y, jnp.zeros(x0.shape[:1], bool))  # so that told and untold have one structure
    weights = settings.guidance.get("weights")
    if weights:
        field = fields.composed_field(velocity, network.drop, weights, rule)
    elif weak is None:
        field = fields.guided_field(velocity, network.drop, rule)
    else:
        field = fields.autoguided_field(velocity, weak, rule)
    memory = None if rule.init is None else rule.init(x0)
    if along != trained:
        field = fields.change_schedule(field, trained, along)
    options = solver_options(settings, along)
    if settings.sde is not None:
        if rng is None:
            raise ValueError("the stochastic equation draws random numbers: give a key, not noise to start from")
        solution = simulators.solve_sde(
            field,
            x0 * along.prior_std,
            rng.key("solver"),
            schedule=along,
            noise=settings.sde.name,
            independent=method.coupling.independent,
            indices=rng.index,
            args=y,
            times=settings.times,
            **settings.sde.params,
            **options,
        )
    else:
        if settings.solver in solvers.ADAPTIVE:
            jumps = (along.inverse_log_snr(trained.log_snr(t)) for t in rule.jump_times)
            options["jump_ts"] = rule.jump_times if along == trained else tuple(float(t) for t in jumps)
        solution = simulators.solve_ode(
            field, x0 * along.prior_std, args=y, times=settings.times, memory=memory, **options
        )
    shown = None if solution.trajectory is None else to_show(solution, along)
    evaluations = 1 + len(weights) if weights else rule.evaluations
    return solution._replace(trajectory=shown, evaluations=solution.evaluations * evaluations)


def schedule_of(settings: Settings, trained: Schedule) -> Schedule:
    """The schedule to sample along."""
    return trained if settings.schedule is None else schedules.get(settings.schedule.name, **settings.schedule.params)


def solver_options(settings: Settings, schedule: Schedule) -> dict[str, Any]:
    """The keywords of `solve_ode` and `solve_sde` that the settings decide."""
    options: dict[str, Any] = {"solver": settings.solver, "steps": settings.steps}
    if settings.rtol is not None or settings.atol is not None:
        options |= {"rtol": settings.rtol, "atol": settings.atol}
    if settings.solver not in solvers.ADAPTIVE and settings.grid.name != "uniform":
        options["grid"] = grids.get(settings.grid.name, settings.steps, schedule=schedule, **settings.grid.params)
        del options["steps"]
    return options | {"end_epsilon": END_EPSILON if schedule.singular_times else 0.0}


def check(method: OnPath, settings: Settings) -> None:
    """Raises ValueError for a solver, grid, rule, noise or tolerance that does not fit."""
    along = schedule_of(settings, method.schedule)
    rule = rule_of(settings, method.schedule)
    adaptive = settings.solver in solvers.ADAPTIVE
    if settings.sde is None:
        solvers.check_name(settings.solver)
    else:
        known = {"solver": simulators.SDE_SOLVERS, "sde.name": fields.NOISES}
        for key, value in (("solver", settings.solver), ("sde.name", settings.sde.name)):
            if value not in known[key]:
                raise ValueError(
                    f"sample.{key} = {value!r}; the stochastic equation takes one of {', '.join(known[key])}"
                )
        if not method.coupling.independent:
            raise ValueError(
                "the stochastic equation needs the score, which pairs of a coupling do not give; leave it out"
            )
    if not adaptive and not (settings.rtol is None and settings.atol is None):
        raise ValueError(
            f"a tolerance (rtol, atol) is for adaptive solvers, {', '.join(solvers.ADAPTIVE)}; "
            f"{settings.solver!r} takes steps"
        )
    if adaptive and settings.grid.name != "uniform":
        raise ValueError(
            f"a grid (or a shift of it) is for solvers with steps, and {settings.solver!r} chooses its own"
        )
    if rule.init is not None and (adaptive or settings.sde is not None):
        raise ValueError(f"guidance {rule.name!r} with memory needs a solver with steps and no sde")
    solver_options(settings, along)


def to_show(solution: Solution, schedule: Schedule) -> Float[Array, "T B ..."]:
    """The trajectory, each state divided by sigma(t) where that is above 1.

    Only schedules that begin with a wider distribution than N(0, 1) have such times.
    """
    assert solution.times is not None
    wide = jnp.maximum(schedule.sigma(solution.times), 1.0)
    states: Array = solution.trajectory
    return states / rows_of(wide, states)
