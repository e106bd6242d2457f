"""Adaptive solvers: each example by itself, its cost counted, its failure reported."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.solving import solve


def test_evaluations_with_jumps_and_rejected_steps():
    """Retries of the first step and starts after a jump compute their first stage anew."""
    calls = []

    def field(t, x, args):
        jax.debug.callback(lambda t: calls.append(float(t)), t)
        return jnp.where(t < 0.5, 30 * jnp.cos(300 * t), -x)

    solution = solve(field, jnp.ones((1, 2)), solver="tsit5", jump_ts=[0.5])
    jax.effects_barrier()
    assert bool(solution.success[0])
    assert int(solution.evaluations[0]) == len(calls)
    assert int(solution.evaluations[0]) % 6 not in (0, 1)  # more first stages than the plain 1 + 6 n


@pytest.mark.parametrize("solver", ["tsit5", "dopri8"])
def test_adaptive_example_does_not_depend_on_its_batch_mates(solver):
    """A hard neighbour (fast rotation) changes neither the result nor the cost of the easy example."""

    def field(t, x, args):
        assert x.shape == (1, 2)
        rotated = jnp.stack([-x[:, 1], x[:, 0]], axis=1)
        return args[:, None] * rotated

    x0 = jnp.tile(jnp.array([[1.0, 0.0]]), (3, 1))
    calm = solve(field, x0, solver=solver, args=jnp.array([1.0, 2.0, 1.0]))
    mixed = solve(field, x0, solver=solver, args=jnp.array([1.0, 2.0, 60.0]))
    np.testing.assert_array_equal(calm.x[:2], mixed.x[:2])
    np.testing.assert_array_equal(calm.evaluations[:2], mixed.evaluations[:2])
    assert int(mixed.evaluations[2]) > 2 * int(mixed.evaluations[0])
    np.testing.assert_allclose(mixed.x[0], [np.cos(1), np.sin(1)], atol=1e-3)


def test_one_adaptive_error_norm_per_example():
    """One norm over a batch would hide the single hard example in the average over 64."""

    def field(t, x, args):
        return args[:, None] * jnp.cos(args[:, None] * t) * jnp.ones_like(x)

    speed = jnp.ones(64).at[5].set(30.0)
    x = solve(field, jnp.zeros((64, 1)), solver="tsit5", rtol=1e-4, atol=1e-4, args=speed).x
    np.testing.assert_allclose(x[:, 0], np.sin(np.asarray(speed)), atol=1e-3)


@pytest.mark.parametrize("solver", ["heun", "tsit5"])
def test_failure_is_reported_per_example(solver):
    def field(t, x, args):
        return jnp.where(x > 5, jnp.nan, -x)

    solution = solve(field, jnp.array([[1.0], [9.0], [2.0]]), solver=solver)
    np.testing.assert_array_equal(solution.success, [True, False, True])
    np.testing.assert_allclose(solution.x[0], np.exp(-1), rtol=1e-3)
    assert int(solution.evaluations.max()) < 300  # the NaN example gives up instead of trying until max_steps


def test_max_steps_reached_is_a_failure():
    solution = solve(lambda t, x, args: 50 * jnp.cos(50 * t) + 0 * x, jnp.zeros((1, 1)), solver="tsit5", max_steps=5)
    assert not bool(solution.success[0])


def test_scalars_in_args_are_shared_and_may_be_differentiated():
    def final(rate):
        return solve(lambda t, x, args: args["rate"] * args["power"] * x, jnp.ones((3, 2)), solver="tsit5",
                     args={"rate": rate, "power": 2}).x  # fmt: skip

    np.testing.assert_allclose(final(0.25), np.full((3, 2), np.exp(0.5)), rtol=1e-4)
    slope = jax.jit(jax.grad(lambda rate: final(rate).mean()))(jnp.asarray(0.25))
    np.testing.assert_allclose(slope, 2 * np.exp(0.5), rtol=1e-4)


def test_an_array_in_args_without_the_batch_axis_is_refused():
    with pytest.raises(ValueError, match=r"args holds shape \(2, 2\) for a batch of 3"):
        solve(lambda t, x, args: x @ args, jnp.ones((3, 2)), solver="dopri5", args=jnp.eye(2))


def test_default_tolerances_follow_the_dtype(x64):
    """float64 is for exact answers; in float32 the same wish would only reject steps."""
    for dtype, error in ((jnp.float32, 1e-4), (jnp.float64, 1e-7)):
        x = solve(lambda t, x, args: -x, jnp.ones((1, 1), dtype), solver="dopri5").x
        np.testing.assert_allclose(x, np.full((1, 1), np.exp(-1.0)), rtol=error)


@pytest.mark.parametrize("solver", ["heun", "tsit5"])
def test_a_field_may_return_a_number_but_not_another_shape(solver):
    x = solve(lambda t, x, args: 2, jnp.zeros((3, 2)), solver=solver).x
    np.testing.assert_allclose(x, np.full((3, 2), 2.0), rtol=1e-6)
    with pytest.raises(ValueError, match="the field returned shape"):
        solve(lambda t, x, args: x[:, :1], jnp.zeros((3, 2)), solver=solver)
