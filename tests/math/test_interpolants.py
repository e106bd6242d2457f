"""Interpolants between two Gaussians: marginals, the exact velocity, its flow, and the ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import interpolants, paths, schedules
from fmd.math.simulators import solve_ode

M0, V0, M1, V1 = -0.6, 0.5, 0.8, 0.2
SCALES = (0.0, 0.7)
every_schedule = pytest.mark.parametrize("name", ["linear", "cosine", "sqrt_beta"])


def moments(schedule, t, scale):
    """(mean, V_t) of x_t."""
    a, s = schedule.alpha(t), schedule.sigma(t)
    return a * M1 + s * M0, a**2 * V1 + s**2 * V0 + scale**2 * t * (1 - t)


def exact(schedule, scale):
    """v = alpha' m1 + sigma' m0 + V_t' / (2 V_t) (x - mean), V_t' by differentiation."""

    def field(t, x, args=None):
        (mean, variance), (slope, growth) = jax.jvp(
            lambda t: moments(schedule, t, scale), (jnp.asarray(t),), (jnp.ones_like(t),)
        )
        return slope + growth / (2 * variance) * (x - mean)

    return field


@every_schedule
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("t", [0.15, 0.5, 0.9])
def test_marginals_and_the_mean_of_the_target_are_those_of_the_closed_form(name, scale, t):
    """The target's mean given x is a line: its slope is the covariance of target and x over V_t."""
    schedule, count = schedules.get(name), 400_000
    draws = jax.random.normal(jax.random.key(0), (3, count, 1))
    x0, x1, z = M0 + V0**0.5 * draws[0], M1 + V1**0.5 * draws[1], draws[2]
    x, target = (
        f(schedule, x0, x1, t, z if scale else None, scale=scale)
        for f in (interpolants.interpolate, interpolants.velocity)
    )
    mean, variance = moments(schedule, t, scale)
    assert float(x.mean()) == pytest.approx(float(mean), abs=5 * float(variance / count) ** 0.5)
    assert float(x.var()) == pytest.approx(float(variance), rel=0.01)
    assert scale == 0 or float(variance) > 1.1 * float(moments(schedule, t, 0.0)[1])
    field = exact(schedule, scale)
    slope = np.cov(x.ravel(), target.ravel())[0, 1] / float(variance)
    assert slope == pytest.approx(float(field(t, 1.0) - field(t, 0.0)), abs=0.015)
    assert float(target.mean()) == pytest.approx(float(field(t, mean)), abs=0.015)


@every_schedule
def test_the_velocity_is_the_time_derivative_of_the_path(name, x64):
    schedule, t = schedules.get(name), jnp.asarray([0.02, 0.3, 0.6, 0.98])
    x0, x1, z = jax.random.normal(jax.random.key(1), (3, 4, 2, 2, 1))
    for scale in (0.4, 2.0):
        _, rate = jax.jvp(
            lambda t, scale=scale: interpolants.interpolate(schedule, x0, x1, t, z, scale=scale),
            (t,), (jnp.ones_like(t),),
        )  # fmt: skip
        np.testing.assert_allclose(interpolants.velocity(schedule, x0, x1, t, z, scale=scale), rate, rtol=1e-12)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_flow_scales_by_the_root_of_the_variance(name, x64):
    schedule, x0 = schedules.get(name), jnp.asarray([[-2.0], [0.1], [1.3]])
    found = solve_ode(exact(schedule, 0.7), x0, solver="rk4", steps=50, t1=0.8, end_epsilon=0.0).x
    mean, variance = moments(schedule, 0.8, 0.7)
    np.testing.assert_allclose(found, mean + jnp.sqrt(variance / V0) * (x0 - M0), rtol=1e-6)


def test_without_z_it_is_the_path_of_the_pair():
    schedule, t = schedules.get("linear"), jnp.asarray([0.0, 0.4, 1.0])
    x0, x1 = jax.random.normal(jax.random.key(1), (2, 3, 2, 2, 1))
    for name in ("interpolate", "velocity"):
        found = getattr(interpolants, name)(schedule, x0, x1, t)
        np.testing.assert_array_equal(found, getattr(paths, name)(schedule, x0, x1, t))


def test_times_are_kept_where_the_target_is_finite():
    """Over uniform times inside, the mean of gamma'^2 is scale^2 (log(1/EDGE - 1)/2 - 1 + 2 EDGE): 2.5 scale^2."""
    t = interpolants.inside((np.arange(100_000, dtype=np.float32) + 0.5) / 100_000)
    assert (float(t.min()), float(t.max())) == (pytest.approx(interpolants.EDGE), pytest.approx(1 - interpolants.EDGE))
    edge, kept = interpolants.EDGE, t[(t > interpolants.EDGE) & (t < 1 - interpolants.EDGE)]
    between = (kept.size / t.size) * float(jnp.mean(interpolants.d_gamma(2.0, kept) ** 2))
    assert between == pytest.approx(4 * (0.5 * np.log(1 / edge - 1) - 1 + 2 * edge), rel=1e-3)
    assert not np.isfinite(interpolants.d_gamma(1.0, jnp.asarray([0.0, 1.0]))).any()
