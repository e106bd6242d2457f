"""Distribution matching on Gaussians: the direction, the critic's loss and what is left alone, in closed form.

Data N(m, s^2), linear path, S_t^2 = t^2 s^2 + (1 - t)^2: the posterior mean is m + t s^2 / S_t^2 (x - t m). An image
a + s x0 of a critic that knows N(a, s^2) is moved by (a - m) (1 - t)^2 / S_t^2, divided by its distance from the
teacher's guess.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd import methods
from fmd.methods import Drawn
from fmd.methods.distribution_matching import LEAST_DISTANCE, DistributionMatching
from tests.helpers.networks import Answering

MEAN, STD, OFF = 0.2, 0.5, 0.6
TIMES = jnp.array([0.1, 0.4, 0.8])
EXACT = {"low": 0.0, "high": 1.0}  # times as they are drawn


def flow(mean):
    """The velocity of N(mean, STD^2), as a network."""

    def velocity(x, t, y, r=None):
        t = t.reshape(-1, 1, 1, 1)
        return mean + (t * STD**2 - (1 - t)) / (t**2 * STD**2 + (1 - t) ** 2) * (x - t * mean)

    return Answering(velocity)


def maker(mean, std=STD):
    """A network whose jump from 0 to 1 makes mean + std x0, and whose flow is that of N(mean, std^2)."""

    def average(x, t, y, r):
        jump = (t if r is None else r).reshape(-1, 1, 1, 1) > t.reshape(-1, 1, 1, 1)
        return jnp.where(jump, mean + (std - 1) * x, flow(mean)(x, t, y, r))

    return Answering(average)


def drawn(seed=0, count=3):
    first, second, data = (
        jax.random.normal(key, (count, 2, 2, 1)) for key in jax.random.split(jax.random.key(seed), 3)
    )
    t, y = jnp.resize(TIMES, count), jnp.zeros(count, jnp.int32)
    return Drawn(first, MEAN + STD * data, y, t, jnp.zeros(count, bool), z=second)


def test_images_are_moved_from_where_the_critic_finds_them_to_where_the_teacher_does():
    method, pairs = DistributionMatching(**EXACT), drawn()
    made = OFF + STD * pairs.x0
    direction = jax.grad(
        lambda shift: method.loss(maker(OFF + shift), pairs, flow(MEAN), flow(OFF)).value.sum(), argnums=0
    )
    t = TIMES.reshape(-1, 1, 1, 1)
    spread = t**2 * STD**2 + (1 - t) ** 2
    x_t = t * made + (1 - t) * pairs.z
    guess = MEAN + t * STD**2 / spread * (x_t - t * MEAN)
    distance = jnp.mean(jnp.abs(made - guess), axis=(1, 2, 3), keepdims=True) + LEAST_DISTANCE
    expected = jnp.sum((OFF - MEAN) * (1 - t) ** 2 / spread / distance)
    np.testing.assert_allclose(direction(0.0), expected, rtol=1e-4)


def test_nothing_moves_where_critic_and_teacher_agree():
    gradient = jax.grad(
        lambda shift: (
            DistributionMatching(**EXACT).loss(maker(MEAN + shift), drawn(), flow(MEAN), flow(MEAN)).value.sum()
        )
    )
    np.testing.assert_allclose(gradient(0.0), 0.0, atol=1e-5)


def test_a_perfect_critic_has_the_loss_of_the_closed_form():
    """STD^2 / S_t^2, and it learns nothing of the network's parameters."""
    pairs = drawn(count=150_000)
    loss = DistributionMatching(**EXACT).loss(maker(OFF), pairs, flow(MEAN), flow(OFF)).figures["critic_loss"]
    for row, t in enumerate(TIMES):
        expected = STD**2 / (t**2 * STD**2 + (1 - t) ** 2)
        assert float(loss[row::3].mean()) == pytest.approx(float(expected), rel=0.02)
    shifted = jax.grad(
        lambda shift: (
            DistributionMatching(**EXACT)
            .loss(maker(OFF + shift), drawn(), flow(MEAN), flow(OFF))
            .figures["critic_loss"]
            .sum()
        )
    )
    np.testing.assert_array_equal(shifted(0.0), 0.0)


def test_the_flow_is_kept_by_flow_matching_on_the_data():
    pairs = drawn()

    def value(share):
        return DistributionMatching(keep_flow=share, **EXACT).loss(maker(OFF), pairs, flow(MEAN), flow(OFF)).value

    t = TIMES.reshape(-1, 1, 1, 1)
    error = flow(OFF)(t * pairs.x1 + (1 - t) * pairs.z, TIMES, None, None) - (pairs.x1 - pairs.z)
    np.testing.assert_allclose(value(2.0) - value(0.0), 2 * jnp.mean(error**2, axis=(1, 2, 3)), rtol=1e-3)


def test_an_overshoot_is_not_pushed_further_and_is_black_for_the_critic():
    """All images at -1.2 are -1 to critic and teacher; the teacher's brighter guess still pulls."""
    pairs = drawn()._replace(x0=jnp.zeros((3, 2, 2, 1)))

    method = DistributionMatching(clip_data=True, **EXACT)

    def gradient(teacher):
        def value(mean):
            return method.loss(maker(mean), pairs, flow(teacher), flow(-1.0)).value.sum()

        return float(jax.grad(value)(-1.2))

    assert gradient(-3.0) == pytest.approx(0.0, abs=1e-2)
    assert gradient(0.5) < -0.5


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"low": 0.9, "high": 0.5}, "low must be less than high"),
        ({"critic_rate": 0.0}, "critic_rate = 0.0; it must be above 0"),
        ({"keep_flow": -1.0}, "keep_flow = -1.0; it must be 0 or more"),
    ],
)
def test_wrong_parameters_are_one_line(params, message):
    with pytest.raises(ValueError, match=message):
        methods.get("distribution_matching", **params)
