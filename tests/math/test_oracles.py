"""The oracles reproduce the reference values, and their parts agree with one another through identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import schedules
from tests.helpers import oracles

GOLDEN = [  # schedule, t, log p_t, score, velocity, E[x1 | x] at x = (0.3, -0.7)
    ("linear", 0.3, -2.08088044, (-0.561017276, 1.05031718), (-0.309040311, 0.117406747), (0.0836717826, -0.617815277)),
    ("linear", 0.8, -5.55640079, (3.4331517, -5.74472141), (1.23328792, -2.31118035), (0.546657585, -1.16223607)),
    ("cosine", 0.3, -2.51742513, (-0.359830699, 0.628505016), (-0.18444975, -0.220409123), (0.031571281, -0.442816539)),
    ("cosine", 0.8, -6.17903069, (2.58582716, -4.20738115), (1.47287616, -2.50464227), (0.575070474, -1.15846864)),
    ("vp", 0.3, -2.16355229, (-0.331445375, 0.722890777), (-0.220589302, 0.1605788), (-0.34482675, 0.210392541)),
    ("vp", 0.8, -3.91821722, (0.685162215, -0.950781836), (2.00973092, -3.36759494), (0.658220888, -1.26303797)),
    ("ve", 0.3, -4.47792811, (-0.0569139434, 0.0878820434), (-6.6885291, 10.3279016), (-0.331193701, 0.274639763)),
    ("ve", 0.8, -8.48988746, (4.21557032, -7.01213922), (0.0123853502, -0.0206016727), (0.3011688, -0.701944171)),
]


SCHEDULES = ("linear", "cosine", "vp", "ve")


def check_golden(name, dtype, rtol):
    mixture, schedule = oracles.golden_mixture(), schedules.get(name)
    _, times, *expected = zip(*(row for row in GOLDEN if row[0] == name), strict=True)

    @jax.jit
    def answers(t, x):
        return [f(schedule, t, x) for f in (mixture.log_density, mixture.score, mixture.velocity, mixture.data)]

    x = jnp.asarray([[0.3, -0.7]] * len(times), dtype)
    for value, reference in zip(answers(jnp.asarray(times, dtype), x), expected, strict=True):
        assert value.dtype == dtype
        np.testing.assert_allclose(value, reference, rtol=rtol)


@pytest.mark.parametrize("name", SCHEDULES)
def test_golden_mixture(x64, name):
    check_golden(name, jnp.float64, 1e-7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_golden_mixture_in_float32(name):
    check_golden(name, jnp.float32, 1e-4)


def test_the_score_is_the_gradient_of_the_log_density(x64):
    mixture, schedule = oracles.golden_mixture(), schedules.get("cosine")
    x = jax.random.normal(jax.random.key(0), (5, 2))
    gradient = jax.jit(jax.grad(lambda x: mixture.log_density(schedule, 0.6, x).sum()))(x)
    np.testing.assert_allclose(jax.jit(lambda x: mixture.score(schedule, 0.6, x))(x), gradient, rtol=1e-9)


def test_gaussian_flow_map_and_divergence_belong_to_the_velocity(x64):
    covariance = [[0.5, 0.2], [0.2, 0.3]]
    mixture, schedule = oracles.gaussian([1.0, -2.0], covariance), schedules.get("cosine")
    x = jax.random.normal(jax.random.key(1), (4, 2))

    @jax.jit
    def answers(t):
        def flow(t):
            return oracles.gaussian_flow(mixture, schedule, 0.2, t, x)

        place, speed = jax.jvp(flow, (t,), (jnp.ones_like(t),))
        at = (schedule, t, place)
        return flow(0.2), speed, mixture.velocity(*at), mixture.divergence(*at)

    start, speed, velocity, divergence = answers(jnp.asarray(0.7))
    np.testing.assert_allclose(start, x, atol=1e-12)
    np.testing.assert_allclose(speed, velocity, rtol=1e-9)
    np.testing.assert_allclose(divergence, np.full(4, oracles.gaussian_divergence(mixture, schedule, 0.7)), rtol=1e-9)


def test_samples_have_the_mixtures_mean(x64):
    mixture = oracles.golden_mixture()
    mean = mixture.sample(jax.random.key(2), 4000).mean(0)
    np.testing.assert_allclose(mean, mixture.weights @ mixture.means, atol=0.1)
    assert mixture.only(1, 2).weights.sum() == 1.0
