"""Parts of a user's own: each is one function, registered under a name, and used like those of the room.

They are registered while the tests run, so that tests over all names do not depend on the order of files.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import couplings, fields, grids, guidance, schedules, times
from fmd.math.couplings import Coupling
from fmd.math.grids import Warp
from fmd.math.guidance import Guidance
from fmd.math.schedules import Schedule
from fmd.math.times import TimeSampler
from fmd.types import Scalars
from tests.helpers.solving import solve


def test_a_schedule():
    @schedules.register("your_schedule")
    def your_schedule(power: float = 2.0) -> Schedule:
        return schedules.from_functions(lambda t: t, lambda t: (1 - t) ** power, "your_schedule", (power,))

    schedule = schedules.get("your_schedule", power=3.0)
    np.testing.assert_allclose(schedule.sigma(0.5), 0.125)
    assert schedule == schedules.get("your_schedule", power=3)
    assert schedule != schedules.get("your_schedule")
    guidance.get("apg", schedule="your_schedule")
    with pytest.raises(ValueError, match="a schedule named 'your_schedule' is already registered"):
        schedules.register("your_schedule")(lambda: schedule)
    with pytest.raises(ValueError, match="'your_schedule' has no parameter 'powr'; did you mean 'power'"):
        schedules.get("your_schedule", powr=3.0)


def test_a_time_sampler():
    @times.register("your_times")
    def your_times(power: float = 2.0) -> TimeSampler:
        return TimeSampler("your_times", lambda u: u ** (1 / power))

    t = np.asarray(times.get("your_times", power=3)(jax.random.key(0), 1000))
    assert abs(float((t**3).mean()) - 0.5) < 0.05


def test_a_grid():
    @grids.register("your_grid")
    def your_grid(power: float = 2.0) -> Warp:
        return lambda u, t0, t1: t0 + (t1 - t0) * u**power

    @grids.register("your_grid_of_a_schedule")
    def your_grid_of_a_schedule(schedule: Schedule) -> Warp:
        return lambda u, t0, t1: t0 + (t1 - t0) * schedule.alpha(u)

    np.testing.assert_allclose(grids.get("your_grid", 2, schedule="cosine"), [0, 0.25, 1])
    found = grids.get("your_grid_of_a_schedule", 2, schedule=schedules.get("cosine"))
    np.testing.assert_allclose(found, [0, np.sin(np.pi / 4), 1], rtol=1e-6)


def test_a_coupling():
    @couplings.register("your_coupling")
    def your_coupling() -> Coupling:
        return Coupling("your_coupling", lambda key, cost: jnp.argmin(cost, axis=1))

    x1 = jnp.asarray([[1.0], [2.0], [-1.0]])
    x0, _, _ = couplings.get("your_coupling")(jax.random.key(0), jnp.asarray([[-0.9], [1.1], [5.0]]), x1)
    np.testing.assert_allclose(x0[:, 0], [1.1, 1.1, -0.9])


def test_a_guidance_rule_with_memory():
    """The running average of the difference: Euler steps by hand."""

    @guidance.register("your_rule")
    def your_rule(weight: Scalars = 1.0, share: float = 0.5) -> Guidance:
        def rule(average, v_null, v_cond, x, t):
            average = share * average + (1 - share) * (v_cond - v_null)
            return v_null + weight * average, average

        return Guidance("your_rule", weight, rule, init=jnp.zeros_like)

    x0, labels = jnp.asarray([[1.0], [2.0]]), jnp.asarray([1, 2])
    rule = guidance.get("your_rule", weight=2.0, share=0.25)
    field = fields.guided_field(lambda x, t, y: x * y.astype(x.dtype)[:, None], 0, rule)
    found = solve(field, x0, args=labels, solver="euler", steps=3, memory=rule.init(x0)).x
    x, average = np.asarray(x0), 0.0
    for _ in range(3):
        average = 0.25 * average + 0.75 * x * np.asarray(labels)[:, None]
        x = x + 2.0 * average / 3
    np.testing.assert_allclose(found, x, rtol=1e-6)
    rescaled = guidance.get("rescale", phi=0.0, base="your_rule", weight=2.0, share=0.25)
    assert rescaled.init is rule.init
