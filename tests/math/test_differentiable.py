"""Gradients through solvers, noisy flows and likelihoods against closed forms, and what they cost in memory."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import schedules
from fmd.math.likelihood import log_likelihood
from fmd.math.simulators import solve_ode, solve_sde


def growth(t, x, rate):
    """x' = rate x, so x(1) = x(0) exp(rate) and its derivative in the rate is the same."""
    return rate * x


@pytest.mark.parametrize("solver", ["heun", "rk4", "tsit5"])
def test_gradient_in_parameters_and_noise(solver):
    def loss(x0, rate):
        return solve_ode(lambda t, x, args: growth(t, x, rate), x0, solver=solver, steps=100).x.sum()

    x0 = jnp.array([[1.0, -0.4], [0.5, 2.0]])
    by_x0, by_rate = jax.jit(jax.grad(loss, argnums=(0, 1)))(x0, jnp.float32(0.3))
    np.testing.assert_allclose(by_x0, np.exp(0.3), rtol=1e-4)
    np.testing.assert_allclose(by_rate, np.exp(0.3) * float(x0.sum()), rtol=1e-4)


def test_gradient_through_args_and_trajectory():
    def loss(args):
        solution = solve_ode(
            lambda t, x, a: a[:, None] * x, jnp.ones((2, 1)), solver="rk4", times=[0.5, 1.0], args=args
        )
        return solution.trajectory[0].sum()

    gradient = jax.jit(jax.grad(loss))(jnp.array([0.3, -1.0]))
    np.testing.assert_allclose(gradient, 0.5 * np.exp(0.5 * np.array([0.3, -1.0])), rtol=1e-4)


def test_forward_and_both_modes_agree_with_reverse():
    def end(rate, adjoint):
        options = {"solver": "euler", "steps": 8, "adjoint": adjoint}
        return solve_ode(lambda t, x, a: growth(t, x, rate), jnp.ones((1, 1)), **options).x[0, 0]

    _, forward = jax.jit(lambda r: jax.jvp(lambda r: end(r, diffrax.ForwardMode()), (r,), (1.0,)))(0.3)
    adjoints = (diffrax.DirectAdjoint(), diffrax.RecursiveCheckpointAdjoint(checkpoints=2), None)
    both, few, default = jax.jit(lambda r: [jax.grad(end)(r, adjoint) for adjoint in adjoints])(0.3)
    np.testing.assert_allclose([forward, both, few], default, rtol=1e-5)


def test_memory_is_as_stated():
    """Sampling keeps one state whatever the steps; a gradient keeps about sqrt(2 n) of them."""
    x0 = jnp.ones((1, 20_000))

    def states(function, steps):
        program = jax.jit(lambda x: function(x, steps)).lower(x0).compile()
        return program.memory_analysis().temp_size_in_bytes / x0.nbytes

    def end(x, steps):
        return solve_ode(lambda t, x, a: jnp.sin(x), x, solver="euler", steps=steps).x.sum()

    assert states(end, 400) < 3
    for steps in (50, 800):  # XLA on the CPU holds the checkpoints twice
        assert 0.8 < states(jax.grad(end), steps) / (2 * np.sqrt(2 * steps)) < 1.2


@pytest.mark.parametrize("solver", ["euler_maruyama", "heun"])
def test_gradient_through_the_noisy_flow(solver):
    """With the noise held fixed, x(1) is linear in x(0); and the scale has a finite gradient where g is 0."""
    schedule = schedules.get("linear")

    @jax.jit
    @jax.value_and_grad
    def end(inputs):
        x0, scale = inputs
        options = {"schedule": schedule, "noise": "quadratic", "scale": scale, "steps": 20, "solver": solver}
        return solve_sde(lambda t, x, args: -x, x0, jax.random.key(0), **options).x.sum()

    x0 = jnp.array([[1.0], [2.0]])
    value, (by_x0, by_scale) = end((x0, 0.5))
    np.testing.assert_allclose(by_x0.sum(), end((x0 + 1.0, 0.5))[0] - value, rtol=1e-4)
    np.testing.assert_allclose(by_scale, (end((x0, 0.51))[0] - end((x0, 0.49))[0]) / 0.02, rtol=2e-2)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_gradient_of_a_log_likelihood(trace):
    """x1 ~ N(0, e^{2 rate} I): d log p / d rate = |x1|^2 e^{-2 rate} - d, also through Rademacher probes."""
    x1 = jnp.array([[0.3, -1.0, 0.5]])

    def log_p(rate):
        options = {"solver": "rk4", "steps": 20, "trace": trace, "key": jax.random.key(0)}
        return log_likelihood(lambda t, x, args: rate * x, x1, **options)[0][0]

    gradient = jax.jit(jax.grad(log_p))(jnp.float32(0.3))
    np.testing.assert_allclose(gradient, float((x1**2).sum()) * np.exp(-0.6) - 3, rtol=1e-4)


def test_vmap_over_whole_solves():
    ends = jax.vmap(lambda rate: solve_ode(lambda t, x, a: rate * x, jnp.ones((2, 1)), solver="rk4").x)(jnp.arange(3.0))
    np.testing.assert_allclose(ends[:, 0, 0], np.exp(np.arange(3)), rtol=1e-5)
