"""Solves with a memory: the same steps as Diffrax's, and the memory carried from step to step."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import fields, guidance
from fmd.math.simulators import solve_ode
from fmd.math.solvers import FIXED
from tests.helpers.solving import gaussian_field, solve

pytestmark = pytest.mark.usefixtures("full_compilation")

LABELS = jnp.asarray([0, 1, 0, 1], jnp.int32)
every_solver = pytest.mark.parametrize("solver", FIXED)


def predict(x, t, y):
    """Not linear in x, and different for the labels 0, 1 and 2 (null)."""
    t, y = t[:, None], y.astype(x.dtype)[:, None]
    return jnp.sin(3 * x + y) * t - x * (1 + y) / 3


def guided(x0, rule, **options):
    memory = rule.init(x0) if rule.init else None
    return solve(fields.guided_field(predict, 2, rule), x0, args=LABELS, memory=memory, **options)


@every_solver
def test_zero_momentum_is_the_rule_without_memory(solver):
    x0 = jax.random.normal(jax.random.key(0), (4, 3))
    params = {"weight": 2.5, "eta": 0.3, "norm_threshold": 0.5}
    options = {"solver": solver, "steps": 9, "times": [0.0, 1 / 3, 1.0]}
    with_memory = guided(x0, guidance.get("apg", momentum=0.0, **params), **options)
    without = guided(x0, guidance.get("apg", **params), **options)
    np.testing.assert_allclose(with_memory.x, without.x, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(with_memory.trajectory, without.trajectory, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(with_memory.evaluations, without.evaluations)
    assert bool(with_memory.success.all())


@every_solver
def test_goldens_of_each_table(solver):
    """Time enters the stages at their own times, forwards and backwards."""
    field, x0 = gaussian_field(0.25), jnp.asarray([[1.0], [-2.0]])
    for ends in ({}, {"t0": 1.0, "t1": 0.0}, {"grid": [0.0, 0.1, 0.5, 1.0]}):
        plain = solve(field, x0, solver=solver, steps=7, **ends)
        carried = solve(lambda t, x, args, memory: (field(t, x), memory), x0, solver=solver, steps=7, memory=(), **ends)
        np.testing.assert_allclose(carried.x, plain.x, rtol=1e-6)


def test_three_steps_of_euler_with_momentum_by_hand():
    x0 = jax.random.normal(jax.random.key(0), (4, 3))
    rule = guidance.get("apg", weight=2.5, norm_threshold=0.5, momentum=-0.7)
    x, average = x0, jnp.zeros_like(x0)
    for step in range(3):
        t = step / 3
        rows = jnp.full(4, max(t, 1e-5))
        null, cond = (predict(x, rows, y) for y in (jnp.full_like(LABELS, 2), LABELS))
        data, gain = x + (1 - t) * cond, 1 - t  # the linear path: X1 = x + (1 - t) v, sigma/D = 1 - t
        average = gain * (cond - null) - 0.7 * average
        along = (average * data).sum(1, keepdims=True) / (data**2).sum(1, keepdims=True) * data
        limit = jnp.minimum(1.0, 0.5 / jnp.linalg.norm(average, axis=1, keepdims=True))
        x = x + (cond + 1.5 * limit * (average - along) / gain) / 3
    found = guided(x0, rule, solver="euler", steps=3)
    np.testing.assert_allclose(found.x, x, rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(found.x - guided(x0, guidance.get("apg", weight=2.5, norm_threshold=0.5), solver="euler",
                                          steps=3).x).max()) > 0.05  # fmt: skip


@every_solver
def test_the_first_stage_of_a_step_writes_the_memory(solver):
    """dx/dt = number of steps before this one: h times 0 + 1 + ... + (n - 1), whatever the stages."""

    def field(t, x, args, memory):
        return jnp.broadcast_to(memory["step"].astype(x.dtype), x.shape), {"step": memory["step"] + 1}

    x = solve(field, jnp.zeros((2, 1)), solver=solver, steps=10, memory={"step": jnp.asarray(0)}).x
    np.testing.assert_allclose(x, np.full((2, 1), 4.5), rtol=1e-6)


def test_a_memory_makes_a_running_average():
    """dx/dt = m and m' = (3 m + x)/4: a linear recursion."""
    state = np.asarray([1.0, 0.0])
    for _ in range(6):
        state = np.asarray([[1.0, 1 / 6], [0.25, 0.75]]) @ state
    field = lambda t, x, args, m: (m, 0.25 * x + 0.75 * m)  # noqa: E731
    x = solve(field, jnp.ones((1, 1)), solver="euler", steps=6, memory=jnp.zeros((1, 1))).x
    np.testing.assert_allclose(x[0, 0], state[0], rtol=1e-6)


def test_between_the_steps_the_way_is_straight():
    field = lambda t, x, args, memory: (jnp.cos(3 * t) * x, memory)  # noqa: E731
    x0 = jnp.asarray([[1.0], [2.0]])
    for ends, times in (({}, [0.0, 0.1, 0.25, 0.77, 1.0]), ({"t0": 1.0, "t1": 0.0}, [0.9, 0.5, 0.0])):
        options = {"solver": "euler", "steps": 4, "times": times, **ends}
        found = solve(field, x0, memory=(), **options)
        plain = solve(lambda t, x, args: field(t, x, args, None)[0], x0, **options)
        np.testing.assert_allclose(found.trajectory, plain.trajectory, rtol=1e-6)  # Euler's own polynomial is a line
        np.testing.assert_array_equal(found.times, plain.times)


def test_trees_of_bfloat16_are_solved_in_float32():
    def field(t, state, args, memory):
        assert memory.dtype == state["x"].dtype == jnp.float32
        return {"x": (-state["x"]).astype(jnp.bfloat16), "n": 1}, memory + state["n"].sum()

    x0 = {"x": jnp.ones((2, 2), jnp.bfloat16), "n": jnp.zeros(2, jnp.bfloat16)}
    x = solve(field, x0, solver="rk4", steps=20, memory=jnp.zeros((), jnp.bfloat16)).x
    np.testing.assert_allclose(x["x"], np.full((2, 2), np.exp(-1)), atol=2e-3)
    np.testing.assert_allclose(x["n"], np.ones(2), rtol=1e-6)


def test_gradients_and_export():
    def end(rate, x):
        return solve_ode(lambda t, x, a, m: (rate * x, m), x, solver="rk4", steps=20, memory=()).x

    gradient = jax.jit(jax.grad(lambda rate: end(rate, jnp.ones((1, 1))).sum()))(0.3)
    np.testing.assert_allclose(gradient, np.exp(0.3), rtol=1e-5)
    (batch,) = jax.export.symbolic_shape("b")
    exported = jax.export.export(jax.jit(lambda x: end(0.3, x)), platforms=["cpu", "cuda", "tpu"])(
        jax.ShapeDtypeStruct((batch, 2), jnp.float32)
    )
    np.testing.assert_allclose(exported.call(jnp.ones((3, 2))), np.full((3, 2), np.exp(0.3)), rtol=1e-5)


@pytest.mark.parametrize("options", [{"solver": "tsit5"}, {"solver": "heun", "adjoint": diffrax.ForwardMode()}])
def test_a_memory_needs_fixed_steps_and_no_adjoint(options):
    with pytest.raises(ValueError, match="a memory needs a solver of fixed steps, one of") as error:
        solve_ode(lambda t, x, args, memory: (x, memory), jnp.ones((1, 1)), memory=(), **options)
    assert "\n" not in str(error.value)
