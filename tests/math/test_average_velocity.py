"""Few-step targets against closed forms on the linear path: a Gaussian, a mixture, guided Gaussians."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import few_step, schedules
from tests.helpers import oracles

pytestmark = pytest.mark.usefixtures("x64")

STD, MEAN = 0.3, 0.7
T = np.array([0.0, 0.2, 0.2, 0.5, 0.7])
R = np.array([1.0, 0.9, 0.3, 0.8, 1.0])
X = np.array([[0.4, -1.0], [1.2, 0.1], [-0.5, 0.3], [0.9, 0.8], [0.2, 1.1]])
gaussian = partial(oracles.average_velocity, oracles.gaussian_growth(STD), mean=MEAN)
MIXTURE = oracles.Mixture(np.array([0.3, 0.7]), np.array([[-1.0], [0.8]]), np.array([[[0.04]], [[0.25]]]))


def mixture(x, t, r):
    return (oracles.mixture_flow(MIXTURE, t, r, x) - x) / (r - t)[:, None]


def test_the_closed_forms_belong_to_the_velocities():
    t, x = jnp.asarray(T), jnp.asarray(X)
    linear = schedules.get("linear")
    data = oracles.gaussian(np.full(2, MEAN), STD**2 * np.eye(2))
    np.testing.assert_allclose(gaussian(x, t, t), data.velocity(linear, t, x), rtol=1e-12)
    moved = oracles.gaussian_flow(data, linear, 0.2, 0.9, x)
    np.testing.assert_allclose(few_step.jump(gaussian, x, jnp.full(5, 0.2), jnp.full(5, 0.9)), moved, rtol=1e-12)
    close = mixture(x[:, :1], t, t + 1e-6)
    np.testing.assert_allclose(close, MIXTURE.velocity(linear, t, x[:, :1]), rtol=1e-4)


def marginal_velocity(average, x, t):
    if average is gaussian:
        return gaussian(x, t, t)
    return MIXTURE.velocity(schedules.get("linear"), t, x)


both = pytest.mark.parametrize(("average", "x"), [(gaussian, X), (mixture, X[:, :1])], ids=["gaussian", "mixture"])


@both
def test_mean_flow_and_its_improved_form_have_the_true_average_as_target(average, x):
    x, t, r = jnp.asarray(x), jnp.asarray(T), jnp.asarray(R)
    v = marginal_velocity(average, x, t)
    noisy = v + jax.random.normal(jax.random.key(0), v.shape)
    predicted, target = few_step.mean_flow(average, v, x, t, r)
    np.testing.assert_allclose(predicted, average(x, t, r), rtol=1e-12)
    np.testing.assert_allclose(target, predicted, atol=1e-8)
    _, improved = few_step.mean_flow(average, noisy, x, t, r, tangent=v)
    np.testing.assert_allclose(improved - (noisy - v), predicted, atol=1e-8)  # the noise of v enters once, as it is


@both
def test_a_solved_flow_has_the_true_average_and_the_velocity_at_equal_times(average, x):
    x, t, r = jnp.asarray(x), jnp.asarray(T), jnp.asarray(R)

    def field(t, x, shift):
        return marginal_velocity(average, x - shift, t)

    found = few_step.solved(field, x + 2.0, t, r, args=jnp.full((5, 1), 2.0), solver="rk4", steps=200)
    np.testing.assert_allclose(found, average(x, t, r), rtol=1e-6)
    np.testing.assert_allclose(few_step.solved(field, x, t, t, args=0.0, steps=3), field(t, x, 0.0), rtol=1e-12)
    with pytest.raises(ValueError, match="must not lie before"):
        few_step.solved(field, x, r, t, args=0.0)


@both
def test_shortcut_and_jump_are_a_semigroup(average, x):
    x, t, r = jnp.asarray(x), jnp.asarray(T), jnp.asarray(R)
    middle = (t + r) / 2
    np.testing.assert_allclose(few_step.shortcut(average, x, t, (r - t) / 2), average(x, t, r), atol=1e-10)
    two = few_step.jump(average, few_step.jump(average, x, t, middle), middle, r)
    np.testing.assert_allclose(two, few_step.jump(average, x, t, r), atol=1e-10)


def test_one_jump_is_the_sample():
    x0, zeros, ones = jnp.asarray(X), jnp.zeros(5), jnp.ones(5)
    np.testing.assert_allclose(few_step.jump(gaussian, x0, zeros, ones), MEAN + STD * x0, rtol=1e-12)
    np.testing.assert_allclose(few_step.jump(lambda x, t, r: gaussian(x, t, t), x0, zeros, ones), MEAN)  # Euler


@pytest.mark.parametrize(("improved", "floor"), [(False, 0.0180), (True, 0.1398)])
def test_irreducible_losses(improved, floor):
    """s^2 S_r^2/S_t^4 for MeanFlow, s^2/S_t^2 with the predicted tangent, at s = 0.3, t = 0.2, r = 0.9."""
    keys = jax.random.split(jax.random.key(0))
    x0, x1 = jax.random.normal(keys[0], (1_000_000, 1)), MEAN + STD * jax.random.normal(keys[1], (1_000_000, 1))

    @jax.jit
    def loss(x0, x1):
        t, r = jnp.full(len(x0), 0.2), jnp.full(len(x0), 0.9)
        x = 0.2 * x1 + 0.8 * x0
        tangent = gaussian(x, t, t) if improved else None
        predicted, target = few_step.mean_flow(gaussian, x1 - x0, x, t, r, tangent=tangent)
        return jnp.mean((predicted - target) ** 2), jnp.mean(predicted - target)

    squared, bias = loss(x0, x1)
    s_t, s_r = (float(oracles.spread(STD, t)) for t in (0.2, 0.9))
    exact = STD**2 / s_t**2 * (1.0 if improved else s_r**2 / s_t**2)
    assert abs(exact - floor) < 1e-4
    np.testing.assert_allclose(squared, exact, rtol=5e-3)
    assert abs(float(bias)) < 5 * np.sqrt(exact / 1e6)


def test_alpha_flow_at_one_is_flow_matching():
    v = jnp.asarray(X) * 3
    np.testing.assert_array_equal(few_step.alpha_flow(gaussian, v, jnp.asarray(X), T, R, 1.0), v)


def test_alpha_flow_at_one_half_is_the_shortcut():
    x, t, r = jnp.asarray(X), jnp.asarray(T), jnp.asarray(R)
    wrong = lambda x, t, r: jnp.sin(x) * (1 + t - 2 * r)[:, None]  # noqa: E731  no semigroup
    half = few_step.alpha_flow(wrong, wrong(x, t, (t + r) / 2), x, t, r, 0.5)
    np.testing.assert_allclose(half, few_step.shortcut(wrong, x, t, (r - t) / 2), rtol=1e-12)


def test_alpha_flow_tends_to_mean_flow():
    """The residual over alpha, for an average that is not the true one, and an alpha per example."""
    x, t, r = jnp.asarray(X), jnp.asarray(T), jnp.asarray(R)
    v = gaussian(x, t, t)
    other = partial(oracles.average_velocity, oracles.gaussian_growth(0.6), mean=-0.2)
    predicted, target = few_step.mean_flow(other, v, x, t, r)
    alpha = jnp.asarray([1e-3, 1e-3, 1e-4, 1e-4, 1e-4])
    residual = (predicted - few_step.alpha_flow(other, v, x, t, r, alpha)) / alpha[:, None]
    np.testing.assert_allclose(residual, predicted - target, rtol=3e-3, atol=3e-3)


def test_alpha_flow_carries_no_gradient():
    x = jnp.asarray(X)
    gradient = jax.grad(lambda s: few_step.alpha_flow(lambda x, t, r: s * x, x, x, T, R, 0.5).sum())(2.0)
    assert float(gradient) == 0.0


COND, NULL = 0.3, 1.7


@pytest.mark.parametrize(("omega", "kappa"), [(1.0, 0.5), (0.6, 0.7), (1.0, 0.0)])
def test_guidance_inside_the_target_in_closed_form(omega, kappa):
    """The fixed point of the rule is the guided velocity of weight w = omega/(1 - kappa), whose sample is known."""
    x, t, r = jnp.asarray(X), jnp.asarray(T), jnp.asarray(R)
    weight = omega / (1 - kappa)
    cond, null = (oracles.average_velocity(oracles.gaussian_growth(std), x, t, t) for std in (COND, NULL))
    guided = partial(oracles.average_velocity, oracles.guided_growth(COND, NULL, weight))
    v = jnp.zeros_like(x)
    for _ in range(100):
        v = few_step.guided_velocity(cond, v, null, omega, kappa)
    np.testing.assert_allclose(v, guided(x, t, t), rtol=1e-9, atol=1e-12)
    predicted, target = few_step.mean_flow(guided, v, x, t, r)
    np.testing.assert_allclose(target, predicted, atol=1e-8)
    sample = few_step.jump(guided, x, jnp.zeros(5), jnp.ones(5))
    np.testing.assert_allclose(sample, COND**weight * NULL ** (1 - weight) * x, rtol=1e-12)
