"""solve_ode against closed forms: goldens, order, cost, grids, dtypes, ends, bad input."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import schedules
from fmd.math.schedules import SCHEDULES
from fmd.math.simulators import solve_ode
from fmd.math.solvers import ADAPTIVE, FIXED, STAGES
from tests.helpers.oracles import gaussian, gaussian_flow
from tests.helpers.solving import gaussian_field, solve

pytestmark = pytest.mark.usefixtures("full_compilation")

ALL = [*FIXED, *ADAPTIVE]


GOLDENS = {  # x(1) from x(0) = 1 for N(0, 1/4) and N(0, 4)
    ("euler", 10): (0.4307826049, 1.7231304196),
    ("midpoint", 10): (0.4998847384, 1.9995389535),
    ("heun", 10): (0.5017199122, 1.9882806663),
    ("euler", 100): (0.4926454763, 1.9705819051),
    ("midpoint", 100): (0.4999998833, 1.9999995332),
    ("heun", 100): (0.5000228207, 1.9999037960),
}


def golden(solver, steps, dtype):
    field = gaussian_field(jnp.array([0.25, 4.0], dtype)[:, None])
    return solve(field, jnp.ones((2, 1), dtype), solver=solver, steps=steps, end_epsilon=0.0).x


@pytest.mark.parametrize(("solver", "steps"), GOLDENS)
@pytest.mark.usefixtures("x64")
def test_goldens(solver, steps):
    x = golden(solver, steps, jnp.float64)
    assert x.dtype == jnp.float64
    np.testing.assert_allclose(x[:, 0], GOLDENS[solver, steps], atol=1e-10)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
def test_goldens_in_float32(solver):
    x = golden(solver, 100, jnp.float32)
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x[:, 0], GOLDENS[solver, 100], rtol=3e-6)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("ralston", 2), ("rk4", 4)])
def test_order_of_convergence(solver, order):
    """x' = x^2 cos t, not linear and not autonomous so that every order condition counts: x = 1 / (1/x0 - sin t)."""

    def error(steps):
        x = solve(lambda t, x, args: x**2 * jnp.cos(t), jnp.full((1, 1), 0.6), solver=solver, steps=steps).x
        return abs(float(x[0, 0]) - 1 / (1 / 0.6 - np.sin(1)))

    with jax.enable_x64(True):
        slope = np.log2(error(64) / error(128))
    assert abs(slope - order) < 0.1


@pytest.mark.parametrize("solver", ALL)
def test_evaluations_are_true_and_inside_the_interval(solver):
    calls = []

    def field(t, x, args):
        jax.debug.callback(lambda t: calls.append(float(t)), t)
        return jnp.sin(9 * t) * x * 3

    solution = solve(field, jnp.ones((1, 2)), solver=solver, steps=7)
    jax.effects_barrier()
    assert int(solution.evaluations[0]) == len(calls)
    assert solution.evaluations.dtype == jnp.int32
    assert min(calls) >= 0
    assert max(calls) <= 1
    if solver in FIXED:
        assert len(calls) == 7 * STAGES[solver]


def test_euler_stops_before_the_end():
    """A loop over linspace(0, 1, N) must not take N steps, to N / (N - 1): std .49755 where Euler gives .49265."""
    seen = []

    def field(t, x, args):
        jax.debug.callback(lambda t: seen.append(float(t)), t)
        return gaussian_field(0.25)(t, x)

    x = solve(field, jnp.ones((1, 1)), solver="euler", steps=100, end_epsilon=0.0).x
    jax.effects_barrier()
    np.testing.assert_allclose(sorted(seen), np.arange(100) / 100, atol=1e-7)
    assert abs(float(x[0, 0]) - 0.49265) < 1e-5


@pytest.mark.parametrize("steps", [3, 999])
def test_number_of_steps_is_exact(steps):
    """x' = 1 for a counter: rounding of 1 / steps must add no step and lose none."""
    solution = solve(lambda t, x, args: jnp.ones_like(x), jnp.zeros((1, 1)), solver="euler", steps=steps)
    assert int(solution.evaluations[0]) == steps
    assert abs(float(solution.x[0, 0]) - 1) < 1e-5


@pytest.mark.parametrize("solver", ["heun", "dopri5"])
def test_backwards_returns_to_the_start(solver):
    field = gaussian_field(0.25)
    x0 = jnp.array([[1.0, -2.0], [0.3, 0.1]])
    there = solve(field, x0, solver=solver, steps=100)
    back = solve(field, there.x, solver=solver, steps=100, t0=1.0, t1=0.0)
    assert bool(back.success.all())
    np.testing.assert_allclose(back.x, x0, atol=1e-3)


@pytest.mark.parametrize("solver", ["heun", "tsit5"])
def test_state_and_time_are_float32_for_bfloat16_noise(solver):
    def field(t, x, args):
        assert t.dtype == jnp.float32
        assert x.dtype == jnp.float32
        return (-x).astype(jnp.bfloat16)

    x = solve(field, jnp.ones((2, 2), jnp.bfloat16), solver=solver, steps=20).x
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, np.exp(-1), atol=2e-3)


def test_dtype_follows_the_noise_under_x64():
    with jax.enable_x64(True):
        x = solve(gaussian_field(1.0), jnp.ones((1, 1), jnp.float32), times=[0.5, 1.0])
    assert x.x.dtype == x.times.dtype == x.trajectory.dtype == jnp.float32


@pytest.mark.parametrize("solver", ["euler", "heun", "rk4", "dopri8"])
def test_trajectory(solver):
    """Times off the grid; x(t) = s(t) x(0) with s^2 = t^2 V + (1 - t)^2."""
    times = np.array([0.0, 0.123, 0.5, 0.777, 1.0])
    x0 = jnp.array([[1.0, -2.0], [0.3, 0.1], [0.0, 1.0]])
    solution = solve(gaussian_field(0.25), x0, solver=solver, steps=200, times=times)
    scale = np.sqrt(times**2 * 0.25 + (1 - times) ** 2)
    assert solution.trajectory.shape == (5, 3, 2)
    np.testing.assert_allclose(
        solution.trajectory, scale[:, None, None] * np.asarray(x0), atol=2e-2 if solver == "euler" else 1e-3
    )
    np.testing.assert_array_equal(solution.trajectory[0], x0)
    np.testing.assert_allclose(solution.trajectory[-1], solution.x, rtol=1e-5)
    np.testing.assert_allclose(solution.times, times, atol=1e-7)


def test_grid_replaces_steps():
    knots = np.array([0.0, 0.1, 0.35, 0.9, 1.0])
    seen = []

    def field(t, x, args):
        jax.debug.callback(lambda t: seen.append(float(t)), t)
        return t * x

    solution = solve(field, jnp.ones((1, 1)), solver="euler", grid=knots, end_epsilon=0.0)
    jax.effects_barrier()
    np.testing.assert_allclose(sorted(seen), knots[:-1], atol=1e-7)
    expected = np.prod(1 + np.diff(knots) * knots[:-1])
    np.testing.assert_allclose(solution.x, expected, rtol=1e-6)


@pytest.mark.parametrize("solver", ["heun", "rk4", "tsit5", "dopri8"])
def test_field_singular_at_the_end(solver):
    """Linear-VP, alpha = t and sigma = sqrt(1 - t^2): sigma' is infinite at t = 1, the velocity's limit is not."""
    variance = 0.25

    def field(t, x, args):
        sigma = jnp.sqrt(1 - t**2)
        return (t * variance + sigma * (-t / sigma)) / (t**2 * variance + sigma**2) * x

    x0 = jnp.ones((2, 1))
    assert not bool(solve(field, x0, solver="heun", end_epsilon=0.0).success.any())
    solution = solve(field, x0, solver=solver)
    assert bool(solution.success.all())
    np.testing.assert_allclose(solution.x, 0.5, atol=1e-3)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_no_schedule_needs_help_at_its_ends(name):
    """Heun as it comes, over the exact field of a Gaussian, arrives where the flow map says."""
    schedule, data = schedules.get(name), gaussian([0.3, -0.2], [[0.5, 0.2], [0.2, 0.3]])
    x0 = schedule.prior_std * jax.random.normal(jax.random.key(0), (8, 2))
    exact = gaussian_flow(data, schedule, 0.0, 1.0, x0)
    solution = solve(data.field(schedule), x0, steps=400)
    assert bool(solution.success.all())
    np.testing.assert_allclose(solution.x, exact, atol=2e-3)


@pytest.mark.parametrize(("dtype", "most"), [("float32", 3e-6), ("float64", 1e-12)])
@pytest.mark.usefixtures("x64")
def test_a_field_that_is_finite_at_its_ends_hardly_notices_the_clipped_time(dtype, most):
    x0 = jnp.ones((1, 1), dtype)
    for solver in ("heun", "rk4", "tsit5"):
        clipped, exact = (
            solve(gaussian_field(0.25), x0, solver=solver, **ends).x for ends in ({}, {"end_epsilon": 0.0})
        )
        np.testing.assert_allclose(clipped, exact, atol=most)


def test_state_may_be_a_pytree():
    def field(t, state, args):
        x, _ = state
        return -x, jnp.abs(x).sum(axis=1)

    for solver in ("rk4", "dopri5"):
        x, length = solve(field, (jnp.ones((2, 3)), jnp.zeros(2)), solver=solver).x
        np.testing.assert_allclose(x, np.exp(-1), rtol=1e-4)
        np.testing.assert_allclose(length, 3 * (1 - np.exp(-1)), rtol=1e-4)


FIELD = gaussian_field(0.25)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "leapfrog"}, "unknown solver 'leapfrog'.*heun.*tsit5"),
        ({"steps": 0}, "steps=0"),
        ({"solver": "tsit5", "rtol": 1e-9}, "rtol=1e-09.*float32"),
        ({"solver": "tsit5", "rtol": float("nan")}, "rtol=nan"),
        ({"solver": "tsit5", "atol": -1.0}, "atol=-1"),
        ({"solver": "heun", "rtol": 1e-3}, "adaptive"),
        ({"solver": "heun", "jump_ts": [0.5]}, "adaptive"),
        ({"solver": "tsit5", "grid": [0.0, 1.0]}, "grid is for fixed"),
        ({"solver": "tsit5", "max_steps": 0}, "max_steps=0"),
        ({"times": [0.0, 1.5]}, "t0=0.0 towards t1=1.0|times"),
        ({"times": [0.5, 0.2]}, "times"),
        ({"times": []}, "times"),
        ({"grid": [0.0, 0.5, 0.5, 1.0]}, "grid"),
        ({"t0": 1.0, "t1": 1.0}, "t0=1.0 and t1=1.0"),
        ({"end_epsilon": 0.5}, "end_epsilon"),
    ],
)
def test_bad_input_is_one_clear_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        solve_ode(FIELD, jnp.ones((1, 1)), **options)
    assert "\n" not in str(error.value)


def test_other_adjoints_are_accepted():
    x = jax.jvp(
        lambda x: solve_ode(FIELD, x, adjoint=diffrax.ForwardMode()).x, (jnp.ones((1, 1)),), (jnp.ones((1, 1)),)
    )
    np.testing.assert_allclose(x[1], 0.5, atol=1e-3)
