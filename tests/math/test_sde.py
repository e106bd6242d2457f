"""The noisy flow: marginals against the closed recursion of its own steps, and noise that belongs to the example."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import fields, schedules
from fmd.math.simulators import solve_ode, solve_sde
from tests.helpers import oracles

STD = 0.5
LINEAR = schedules.get("linear")


def field(t, x, args=None):
    """Velocity of the linear path to N(0, STD^2)."""
    return (t * STD**2 - (1 - t)) / (t**2 * STD**2 + (1 - t) ** 2) * x


def coefficients(noise, scale, t, knots):
    """(B, g^2) of dX = B X dt + g dW around the field, added drift -g^2/2 E0 / sigma with E0 = x - t v.

    The table of a noise that is singular at an end is read at the neighbouring knot, the velocity at t.
    """
    v = (t * STD**2 - (1 - t)) / (t**2 * STD**2 + (1 - t) ** 2)
    at = np.clip(t, knots[1], knots[-2]) if noise in ("memoryless", "constant") else min(t, 1 - 1e-12)
    s = 1 - at
    g_squared = (
        scale * {"sigma": 2 * s, "quadratic": 2 * s**2, "constant": 2.0, "memoryless": 2 * s / max(at, 1e-12)}[noise]
    )
    return v - g_squared / 2 / s * (1 - at * v), g_squared


def recursion(noise, scale, steps, solver):
    """Variance of x(1) and covariance with x(0) under the discrete scheme, in float64."""
    knots = np.linspace(0, 1, steps + 1)
    variance, covariance = 1.0, 1.0
    for i, (t, u) in enumerate(itertools.pairwise(knots)):
        h = u - t
        b0, g0 = coefficients(noise, scale, t, knots)
        if solver == "euler_maruyama":
            growth, kick = 1 + h * b0, np.sqrt(g0)
        else:
            b1, g1 = coefficients(noise, scale, u, knots)
            growth = 1 + h / 2 * (b0 + b1 * (1 + h * b0))
            kick = (np.sqrt(g0) + np.sqrt(g1) + h * b1 * np.sqrt(g0)) / 2
        if i == steps - 1:
            kick = 0.0
        variance = growth**2 * variance + kick**2 * h
        covariance = growth * covariance
    return variance, covariance


@pytest.mark.parametrize("noise", fields.NOISES)
@pytest.mark.parametrize("solver", ["euler_maruyama", "heun"])
def test_marginal_of_the_discrete_scheme(noise, solver):
    """1e5 samples: variance, covariance with the start, and kurtosis 3 (doubled noise would give 9)."""
    count = 100_000
    x0 = jax.random.normal(jax.random.key(1), (count, 1))
    solution = solve_sde(field, x0, jax.random.key(0), schedule=LINEAR, noise=noise, scale=0.8, solver=solver, steps=40)
    assert bool(solution.success.all())
    assert int(solution.evaluations[0]) == (40 if solver == "euler_maruyama" else 80)
    x, x0 = np.asarray(solution.x, np.float64)[:, 0], np.asarray(x0, np.float64)[:, 0]
    variance, covariance = recursion(noise, 0.8, 40, solver)
    assert abs(x.var() / variance - 1) < 5 * np.sqrt(2 / count)
    assert abs(np.mean(x * x0) - covariance) < 5 * np.sqrt((variance + covariance**2) / count)
    assert abs(np.mean((x - x.mean()) ** 4) / x.var() ** 2 - 3) < 5 * np.sqrt(24 / count)


@pytest.mark.parametrize("noise", ["sigma", "quadratic", "memoryless"])
def test_marginal_tends_to_the_data(noise):
    variance, covariance = recursion(noise, 1.0, 4000, "euler_maruyama")
    assert abs(np.sqrt(variance) - STD) < 2e-3
    if noise == "memoryless":
        assert abs(covariance) < 1e-3


@pytest.mark.parametrize("name", schedules.SCHEDULES.names())
@pytest.mark.parametrize("noise", fields.NOISES)
@pytest.mark.usefixtures("x64")
def test_added_drift_is_half_g_squared_times_the_score(name, noise):
    """On every schedule, and with it 2 B S + g^2 = dS/dt: the noisy flow keeps the marginals."""
    schedule = schedules.get(name)
    data = oracles.gaussian(jnp.array([1.0, -0.5]), jnp.array([[0.5, 0.2], [0.2, 0.3]]))
    x = jnp.array([[0.3, 0.2], [-1.0, 0.5]])
    knots = jnp.linspace(0.0, 1.0, 101)
    for t in (0.2, 0.7):
        drift, g = fields.stochastic(data.field(schedule), schedule, noise, 0.8, knots, jnp.asarray(t), x, None)
        added = float(g) ** 2 / 2 * data.score(schedule, t, x)
        np.testing.assert_allclose(drift - data.velocity(schedule, t, x), added, rtol=1e-8, atol=1e-8)
        c = schedule.at(t)
        rates = {
            "sigma": 1.6 * c.sigma,
            "quadratic": 1.6 * c.sigma**2,
            "constant": 1.6,
            "memoryless": 1.6 * c.sigma * (c.d_alpha * c.sigma - c.alpha * c.d_sigma) / c.alpha,
        }
        np.testing.assert_allclose(float(g) ** 2, float(rates[noise]), rtol=1e-9)


@pytest.mark.parametrize(("sde", "ode"), [("euler_maruyama", "euler"), ("heun", "heun")])
def test_without_noise_it_is_the_flow_bit_for_bit(sde, ode):
    x0 = jax.random.normal(jax.random.key(0), (64, 3))
    noisy = solve_sde(field, x0, jax.random.key(1), schedule=LINEAR, scale=0.0, solver=sde, steps=20)
    np.testing.assert_array_equal(noisy.x, solve_ode(field, x0, solver=ode, steps=20).x)

    # A scale that is only known inside the program takes the noisy path, and differs by rounding at most.
    traced = jax.jit(
        lambda k: solve_sde(field, x0, jax.random.key(1), schedule=LINEAR, scale=k, solver=sde, steps=20).x
    )
    np.testing.assert_allclose(traced(0.0), noisy.x, atol=2e-6)
    assert float(jnp.abs(traced(1.0) - noisy.x).max()) > 0.1


def test_noise_is_a_function_of_key_and_example():
    """Neither the size of the batch nor the number of devices changes a sample; another key or example does."""
    x0 = jnp.ones((8, 3))

    @jax.jit
    def sample(x0, key, indices):
        return solve_sde(field, x0, key, schedule=LINEAR, steps=10, indices=indices).x

    key, indices = jax.random.key(0), jnp.arange(8)
    whole = sample(x0, key, indices)
    np.testing.assert_allclose(solve_sde(field, x0, key, schedule=LINEAR, steps=10).x, whole, atol=1e-6)
    np.testing.assert_allclose(sample(x0[5:], key, indices[5:]), whole[5:], atol=1e-6)
    assert len({tuple(row) for row in np.asarray(whole).round(4)}) == 8
    assert float(jnp.abs(sample(x0, jax.random.key(1), indices) - whole).min()) > 1e-6

    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    sharded = sample(*jax.device_put((x0, key, indices), (sharding, None, sharding)))
    np.testing.assert_allclose(sharded, whole, atol=1e-6)


def test_last_step_has_no_noise():
    """From the last knot but one, the sample is the mean step of the state saved there."""
    x0 = jnp.ones((16, 1))
    solution = solve_sde(field, x0, jax.random.key(0), schedule=LINEAR, steps=10, times=[0.9, 1.0])
    before = solution.trajectory[0]
    noise_mean = before - 0.9 * field(0.9, before)  # E0 = x - t v
    np.testing.assert_allclose(solution.x, before + 0.1 * (field(0.9, before) - noise_mean), atol=1e-5)


def test_scale_may_differ_per_example():
    x0 = jnp.ones((4, 2))
    scale = jnp.array([0.0, 0.0, 1.0, 1.0])
    x = solve_sde(field, x0, jax.random.key(0), schedule=LINEAR, scale=scale, steps=20).x
    flow = solve_ode(field, x0, solver="euler", steps=20).x
    np.testing.assert_allclose(x[:2], flow[:2], atol=1e-6)
    assert float(jnp.abs(x[2:] - flow[2:]).min()) > 1e-4


def test_export_with_symbolic_batch():
    (batch,) = jax.export.symbolic_shape("b")

    def sample(x0, key):
        return solve_sde(field, x0, key, schedule=LINEAR, steps=10).x

    key = jax.random.key(0)
    exported = jax.export.export(jax.jit(sample), platforms=["cpu", "cuda", "tpu"])(
        jax.ShapeDtypeStruct((batch, 2), jnp.float32), jax.ShapeDtypeStruct((), key.dtype)
    )
    x0 = jnp.ones((5, 2))
    np.testing.assert_allclose(exported.call(x0, key), sample(x0, key), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"independent": False}, "independent pairs: use solve_ode"),
        ({"noise": "pink"}, "unknown noise 'pink'.*quadratic"),
        ({"solver": "tsit5"}, "unknown SDE solver 'tsit5'.*euler_maruyama"),
        ({"scale": -1.0}, "scale=-1.0"),
        ({"scale": float("nan")}, "scale=nan"),
        ({"steps": 0}, "steps=0"),
        ({"t0": 1.0, "t1": 0.0}, "from noise to data"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message) as error:
        solve_sde(field, jnp.ones((1, 1)), jax.random.key(0), schedule=LINEAR, **options)
    assert "\n" not in str(error.value)
