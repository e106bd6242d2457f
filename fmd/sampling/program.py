"""What a sampler computes, as one pure function: parameters, noise, labels and a guidance weight in, images out.

    draw(params, noise [B, H, W, C], labels [B], weight []) -> Samples

`fmd.sampling.sampler` compiles it for the devices at hand, `fmd.export` writes it down as a portable program.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from fmd.math import guidance, odes, schedules
from fmd.math.integration import Times
from fmd.math.simulators import solve_ode
from fmd.math.solvers import ADAPTIVE, check_name
from fmd.math.times import GRIDS
from fmd.math.times import grid as spread
from fmd.sampling.trajectory import states_to_show
from fmd.utils.pixels import to_uint8

EVEN = {"name": "uniform"}
END_EPSILON = 1e-4  # how far inside [0, 1] a model is asked where its schedule is singular at an end


class Samples(NamedTuple):
    """Images with what they cost."""

    images: Any  # uint8 [N, H, W, C], or [N, T, H, W, C] where times were asked for
    evaluations: Any  # int32 [N]: calls of the model on one example, both halves of guidance counted
    success: Any  # bool [N]: the solver arrived and every pixel is finite


class Settings(NamedTuple):
    """What is chosen before the program is traced; only the weight of the rule may stay an input."""

    rule: dict[str, Any]  # of fmd.math.guidance, with its name and weight
    solver: str
    steps: int
    grid: dict[str, Any] | None  # of fmd.math.times.grid, with its name; None for an adaptive solver
    rtol: float | None = None
    atol: float | None = None
    times: tuple[float, ...] | None = None  # show the way at these times instead of its end

    @property
    def adaptive(self) -> bool:
        """Whether the solver chooses its steps itself, and `steps` and `grid` have no meaning."""
        return self.solver in ADAPTIVE


def choose(
    facts: Mapping[str, Any],
    *,
    rule: Mapping[str, Any] | None = None,
    weight: float | None = None,
    solver: str | None = None,
    steps: int | None = None,
    grid: Mapping[str, Any] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    times: Times | None = None,
) -> Settings:
    """The given settings, else those of the config in `facts`.

    Raises:
        ValueError: for a weight that is not finite, guidance on a model trained without label dropout, or an unknown
            solver, grid or rule.
    """
    defaults = facts["config"]["sample"]
    rule = {"name": "cfg", "weight": defaults["guidance"].get("weight", 1.0), **(rule or defaults["guidance"])}
    rule["weight"] = rule["weight"] if weight is None else weight
    if isinstance(rule["weight"], str):
        raise ValueError(f"guidance weight {rule['weight']!r} is not a number; 1 is conditional, 0 unconditional")
    rule["weight"] = float(rule["weight"])
    solver = solver or defaults["solver"]
    steps = defaults["steps"] if steps is None else steps
    _rule_builder(rule, _schedule(facts))(rule["weight"])
    check_name(solver)
    if solver not in ADAPTIVE and not (rtol is None and atol is None):
        raise ValueError(
            f"a tolerance (rtol, atol) is for adaptive solvers, {', '.join(ADAPTIVE)}; {solver!r} takes steps"
        )
    if solver in ADAPTIVE and grid is not None:
        raise ValueError(f"a grid (or a shift of it) is for solvers with steps, and {solver!r} chooses its own")
    if steps < 1:
        raise ValueError(f"steps = {steps}; a solver takes 1 or more")
    grid = None if solver in ADAPTIVE else {**EVEN, **(grid or defaults.get("grid", EVEN))}  # older runs name none
    if grid is not None:
        _knots(grid, steps, _schedule(facts))
    if rule["weight"] != 1.0 and not can_be_guided(facts):
        raise ValueError(
            f"guidance weight {rule['weight']} needs a model trained with labels and train.label_dropout > 0 (this "
            f"one: {facts['num_classes']} classes, dropout {facts['config']['train']['label_dropout']}); use weight 1"
        )
    times = None if times is None else tuple(np.asarray(times).tolist())
    return Settings(rule, solver, steps, grid, rtol, atol, times)


def can_be_guided(facts: Mapping[str, Any]) -> bool:
    """Whether the model knows labels and was trained without them, too."""
    return facts["num_classes"] > 0 and facts["config"]["train"]["label_dropout"] > 0


def make_program(
    model: Any, facts: Mapping[str, Any], settings: Settings, fixed_weight: float | None = None
) -> Callable[..., Samples]:
    """The function to trace: draw(params, noise [B, H, W, C], labels [B], weight []) -> Samples.

    Args:
        model: the network, see fmd.models.conditional_vector_field.
        facts: what the run stored about itself; of its config the block `path` is read here.
        settings: see `choose`.
        fixed_weight: used instead of the input `weight`; exactly 1 and 0 save half of the network's work.
    """
    prediction, schedule = facts["config"]["path"]["prediction"], _schedule(facts)
    combine_with, options = _rule_builder(settings.rule, schedule), solver_options(facts, settings)

    def draw(params: Any, noise: jax.Array, labels: jax.Array, weight: jax.Array) -> Samples:
        def predict(x: jax.Array, t: jax.Array, y: jax.Array) -> jax.Array:
            return model.apply({"params": params}, x, t, y, train=False)

        velocity = odes.from_model(predict, schedule, prediction)
        combine = combine_with(weight if fixed_weight is None else fixed_weight)
        field = guidance.guided_field(lambda x, t, y: velocity(t, x, y), facts["num_classes"], combine)
        solution = solve_ode(field, noise * schedule.prior_std, args=labels, times=settings.times, **options)
        x = solution.x if settings.times is None else states_to_show(solution, schedule)
        return Samples(to_uint8(x), solution.evaluations * combine.evaluations, solution.success)

    return draw


def solver_options(facts: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """What `solve_ode` is called with beside the field, the noise and the labels."""
    schedule = _schedule(facts)
    options = {"solver": settings.solver, "steps": settings.steps, "rtol": settings.rtol, "atol": settings.atol}
    if settings.grid not in (None, EVEN):
        options = {"solver": settings.solver, "grid": _knots(settings.grid, settings.steps, schedule)}
    options |= {"end_epsilon": END_EPSILON if schedule.singular_times else 0.0}
    if settings.adaptive:
        options["jump_ts"] = _rule_builder(settings.rule, schedule)(settings.rule["weight"]).jump_times
    return options


def rule_parameters(rule: Mapping[str, Any]) -> dict[str, Any]:
    """What a guidance rule is built with beside its weight and, where it `needs_schedule`, the schedule."""
    params = {key: value for key, value in rule.items() if key not in ("name", "weight")}
    if isinstance(params.get("interval"), list):
        params["interval"] = tuple(params["interval"])  # JSON has lists only
    return params


def needs_schedule(rule: Mapping[str, Any]) -> bool:
    """Whether the rule, or the one it is based on, has to know the schedule that the model was trained along."""
    names = {rule["name"], rule.get("base")} & guidance.RULES.keys()
    return any("schedule" in inspect.signature(guidance.RULES[name]).parameters for name in names)


def _schedule(facts: Mapping[str, Any]) -> schedules.Schedule:
    return schedules.get(**facts["config"]["path"]["schedule"])


def _knots(grid: Mapping[str, Any], steps: int, schedule: schedules.Schedule) -> tuple[float, ...]:
    """The times of a grid. Raises ValueError for an unknown one, and for one that cannot be had with so many steps."""
    params = {key: value for key, value in grid.items() if key != "name"}
    if grid["name"] in GRIDS and "schedule" in inspect.signature(GRIDS[grid["name"]]).parameters:
        params["schedule"] = schedule
    return tuple(np.asarray(spread(grid["name"], steps, **params)).tolist())


def _rule_builder(rule: Mapping[str, Any], schedule: schedules.Schedule) -> Callable[[Any], guidance.Guidance]:
    """A function from a weight, which may be traced, to the guidance rule."""
    params = rule_parameters(rule) | ({"schedule": schedule} if needs_schedule(rule) else {})
    return lambda weight: guidance.get(rule["name"], weight=weight, **params)
