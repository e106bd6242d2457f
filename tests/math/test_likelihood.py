"""Log-likelihoods against Gaussian densities."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import schedules
from fmd.math.likelihood import gaussian_log_density, importance_weighted, log_likelihood
from tests.helpers import oracles


def compiled(field, x1, **options):
    """log_likelihood as one compiled program."""
    return jax.jit(lambda x1: log_likelihood(field, x1, **options))(x1)


MEAN = [1.0, -0.5, 0.2]
COVARIANCE = [[0.5, 0.2, 0.0], [0.2, 0.3, 0.1], [0.0, 0.1, 0.8]]


def test_exact_trace_of_a_correlated_gaussian():
    schedule = schedules.get("cosine")
    data = oracles.gaussian(MEAN, jnp.array(COVARIANCE))
    x1 = data.sample(jax.random.key(0), 5)
    log_p, x0 = compiled(data.field(schedule), x1, chunk=2, solver="rk4", steps=40)
    np.testing.assert_allclose(log_p, data.log_density(schedule, 1.0, x1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(x0, oracles.gaussian_flow(data, schedule, 1.0, 0.0, x1), atol=1e-5)


@pytest.mark.parametrize("name", ["vp", "sqrt_beta"])
def test_a_velocity_that_is_infinite_at_the_data_needs_no_help(name):
    schedule, data = schedules.get(name), oracles.gaussian([0.3, -0.2], [[0.5, 0.2], [0.2, 0.3]])
    x1 = data.sample(jax.random.key(0), 6)
    log_p, x0 = compiled(data.field(schedule), x1)
    np.testing.assert_allclose(x0, oracles.gaussian_flow(data, schedule, 1.0, 0.0, x1), atol=1e-3)
    prior_mismatch = gaussian_log_density(x0) - data.log_density(schedule, 0.0, x0)
    exact = data.log_density(schedule, 1.0, x1) + prior_mismatch
    np.testing.assert_allclose(log_p, exact, atol=1e-3)


def test_adaptive_solver_and_wide_prior():
    """The variance-exploding path starts at N(0, sigma_max^2) and carries its end exactly: log p_1 has sigma(1)."""
    schedule = schedules.get("ve", sigma_max=20.0, sigma_min=0.01)
    data = oracles.isotropic(0.7, 2)
    x1 = jnp.array([[0.3, -0.2], [1.0, 0.5]])
    log_p, _ = compiled(data.field(schedule), x1, prior_std=math.hypot(20.0, 0.7), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(log_p, data.log_density(schedule, 1.0, x1), atol=3e-5)


@pytest.mark.parametrize("std", [0.3, 2.0])
def test_tolerance_holds_for_the_density_beside_many_pixels(std):
    """One error norm over 784 pixels and the log-density let the latter be off by half a percent and more."""

    def field(t, x, args):
        return (t * std**2 - (1 - t)) / (t**2 * std**2 + (1 - t) ** 2) * x

    x1 = std * jax.random.normal(jax.random.key(0), (3, 28, 28, 1))
    options = {"key": jax.random.key(1), "trace": "hutchinson", "rtol": 1e-3, "atol": 1e-3}
    log_p, _ = compiled(field, x1, **options)  # the Jacobian is diagonal: the probe is exact
    np.testing.assert_allclose(log_p, gaussian_log_density(x1, std), rtol=1e-3)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize("solver", ["dopri5", "heun"])
def test_a_bfloat16_field_and_image_have_a_float32_density(trace, solver):
    """x' = x/2 in 256 dimensions: the integral is 128, and bfloat16 counts in ones there."""
    x1 = jnp.full((2, 256), 0.25, jnp.bfloat16)
    options = {"key": jax.random.key(0), "trace": trace, "solver": solver, "rtol": None, "chunk": 64}
    log_p, x0 = compiled(lambda t, x, args: (x / 2).astype(jnp.bfloat16), x1, **options)
    assert log_p.dtype == x0.dtype == jnp.float32
    np.testing.assert_allclose(log_p, gaussian_log_density(x0) - 128, rtol=1e-6)
    np.testing.assert_allclose(x0, np.full((2, 256), 0.25 * np.exp(-0.5)), rtol=4e-3)


def diagonal_field(t, x, args):
    """Every component by itself, so that the Jacobian is diagonal: x' = a x, log det = sum a."""
    return x * args


RATES = jnp.array([[0.5, -0.3, 0.2, 0.9]])


def exact_log_p(x1, rates):
    x0 = np.asarray(x1) * np.exp(-np.asarray(rates))
    return -0.5 * (x0**2).sum(1) - 2 * math.log(2 * math.pi) - np.asarray(rates).sum(1)


def test_rademacher_probes_are_exact_for_a_diagonal_jacobian():
    x1 = jnp.array([[0.1, -1.0, 0.4, 2.0], [0.0, 0.3, 0.2, 0.1]])
    rates = jnp.tile(RATES, (2, 1))
    log_p, _ = compiled(
        diagonal_field, x1, key=jax.random.key(3), trace="hutchinson", args=rates, solver="rk4", steps=20
    )
    np.testing.assert_allclose(log_p, exact_log_p(x1, rates), atol=1e-5)


def test_gaussian_probes_are_unbiased_and_fixed_during_the_solve():
    """A constant Jacobian gives exactly z^T A z: the estimate's spread over keys is that of one probe, 2 |A|_F^2."""
    matrix = jnp.array([[0.3, 0.5], [-0.1, -0.4]])
    x1 = jnp.zeros((20000, 2))

    @jax.jit
    def estimate(key):
        return log_likelihood(
            lambda t, x, args: x @ matrix, x1, key=key, trace="hutchinson", probe="gaussian", solver="rk4", steps=8
        )[0]

    integral = -(estimate(jax.random.key(0)) + math.log(2 * math.pi))
    symmetric = (matrix + matrix.T) / 2
    variance = 2 * float((symmetric**2).sum())
    assert abs(float(integral.mean()) - float(jnp.trace(matrix))) < 4 * math.sqrt(variance / 20000)
    assert abs(float(integral.var()) / variance - 1) < 0.06


def test_more_probes_less_variance():
    matrix = jnp.array([[0.3, 0.5], [-0.1, -0.4]])

    def spread(probes):
        log_p, _ = compiled(
            lambda t, x, args: x @ matrix, jnp.zeros((4000, 2)), key=jax.random.key(1), trace="hutchinson",
            probes=probes, chunk=3, solver="rk4", steps=4,
        )  # fmt: skip
        return float(log_p.var())

    assert abs(spread(1) / spread(8) / 8 - 1) < 0.15


def test_probes_belong_to_examples():
    """Example 2 of a batch of three gets the same estimate alone, under its own index."""
    matrix = jnp.array([[0.3, 0.5], [-0.1, -0.4]])
    options = {"key": jax.random.key(1), "trace": "hutchinson", "solver": "rk4", "steps": 4}

    def field(t, x, args):
        return x @ matrix

    x1 = jnp.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    together, _ = compiled(field, x1, **options)
    alone, _ = compiled(field, x1[2:], indices=jnp.array([2]), **options)
    np.testing.assert_allclose(together[2:], alone, atol=1e-6)


def test_matrix_products_run_in_float32():
    """TensorFloat-32 must not enter, whatever the surrounding default."""
    matrix = jnp.eye(2)
    with jax.default_matmul_precision("bfloat16"):
        program = str(
            jax.make_jaxpr(lambda x: log_likelihood(lambda t, x, a: x @ matrix, x, solver="euler", steps=2)[0])(
                jnp.zeros((1, 2))
            )
        )
    assert program.count("dot_general") > 0
    assert program.count("dot_general") == program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)")


def test_failed_solve_is_nan():
    log_p, _ = compiled(lambda t, x, a: jnp.where(x > 2, jnp.nan, -x), jnp.array([[0.5], [2.5]]), solver="heun")
    np.testing.assert_array_equal(jnp.isnan(log_p), [False, True])


def test_importance_weighted_bound():
    """For a density of known mass on one level, K = 1 is below it in the mean and a large K reaches it."""
    steep = 400.0

    def log_density(y, key):
        return jnp.log(steep) - steep * (y[:, 0] + 1 + 1 / 255)  # exponential, from the first level's lower edge

    images = jnp.zeros((2000, 1), jnp.uint8)
    mass = math.log(1 - math.exp(-steep * 2 / 255))  # log P(n = 0)
    one = importance_weighted(log_density, images, jax.random.key(0), draws=1) + math.log(2 / 255)
    many = importance_weighted(log_density, images, jax.random.key(0), draws=64) + math.log(2 / 255)
    assert float(one.mean()) < mass - 0.2
    assert abs(float(many.mean()) - mass) < 0.02
    assert float(many.mean()) < mass + 0.005


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trace": "skilling"}, "trace='skilling'"),
        ({"trace": "hutchinson"}, "key"),
        ({"trace": "hutchinson", "key": jax.random.PRNGKey, "probe": "cauchy"}, "probe='cauchy'"),
        ({"probes": 0}, "probes=0"),
        ({"chunk": 0}, "chunk=0"),
        ({"prior_std": 0.0}, "prior_std=0.0"),
    ],
)
def test_bad_input(options, message):
    options = {name: jax.random.key(0) if name == "key" else value for name, value in options.items()}
    with pytest.raises(ValueError, match=message):
        log_likelihood(lambda t, x, args: x, jnp.ones((1, 2)), **options)


def test_bad_constants():
    with pytest.raises(ValueError, match="draws=0"):
        importance_weighted(lambda y, key: y[:, 0], jnp.zeros((1, 1), jnp.uint8), jax.random.key(0), draws=0)
