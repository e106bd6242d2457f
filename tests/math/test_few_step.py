"""MeanFlow, shortcut and reflow identities on the exact flow map of a Gaussian, on two paths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import few_step, fields, paths, schedules
from tests.helpers import oracles

SCHEDULES = ["linear", "cosine"]


def gaussian_case(name):
    """(schedule, data, average velocity U from the exact flow map, x, t, r) in float64."""
    schedule = schedules.get(name)
    data = oracles.gaussian(jnp.array([1.0, -0.5]), jnp.array([[0.5, 0.2], [0.2, 0.3]]))

    def average(x, t, r):
        def one(x, t, r):
            same = jnp.where(r == t, 1.0, r - t)
            moved = oracles.gaussian_flow(data, schedule, t, t + same, x[None])[0]
            return (moved - x) / same

        exact = jax.vmap(one)(x, *(jnp.broadcast_to(v, x.shape[:1]) for v in (t, r)))
        return jnp.where((r == t)[:, None], data.velocity(schedule, t, x), exact)

    x = jnp.array([[0.3, 0.2], [-1.0, 0.5], [0.8, -0.4]])
    return schedule, data, average, x, jnp.array([0.1, 0.3, 0.5]), jnp.array([0.9, 0.4, 0.8])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.usefixtures("x64")
def test_mean_flow_identity(name):
    """With the marginal velocity for v, the target is U itself."""
    schedule, data, average, x, t, r = gaussian_case(name)
    predicted, target = few_step.mean_flow(average, data.velocity(schedule, t, x), x, t, r)
    np.testing.assert_allclose(predicted, average(x, t, r), atol=1e-12)
    np.testing.assert_allclose(target, predicted, atol=1e-7)


@pytest.mark.usefixtures("x64")
def test_mean_flow_at_equal_times_is_flow_matching():
    schedule, data, average, x, t, _ = gaussian_case("linear")
    v = jnp.ones_like(x)
    _, target = few_step.mean_flow(lambda x, t, r: x * (t + 2 * r)[:, None], v, x, t, t)
    np.testing.assert_array_equal(target, v)
    close = average(x, t, t + 1e-5)
    np.testing.assert_allclose(close, data.velocity(schedule, t, x), atol=1e-4)


@pytest.mark.usefixtures("x64")
def test_mean_flow_is_linear_in_v_for_a_network_without_x():
    """dU/dt uses tangents (v, 1, 0): for U = x + 3 t + 5 r it is v + 3, and r has no part in it."""
    x, t, r = jnp.zeros((2, 1)), jnp.array([0.1, 0.2]), jnp.array([0.6, 0.5])
    v = jnp.array([[2.0], [7.0]])
    predicted, target = few_step.mean_flow(lambda x, t, r: x + (3 * t + 5 * r)[:, None], v, x, t, r)
    np.testing.assert_allclose(target, v + (r - t)[:, None] * (v + 3), atol=1e-12)
    np.testing.assert_allclose(predicted[:, 0], 3 * t + 5 * r, atol=1e-12)


def test_targets_carry_no_gradient():
    def loss(scale):
        def average(x, t, r):
            return scale * x

        x, t = jnp.ones((2, 1)), jnp.array([0.1, 0.2])
        predicted, target = few_step.mean_flow(average, x, x, t, t + 0.5)
        weight = few_step.adaptive_weight(((predicted - target) ** 2).sum(axis=1))
        return (target.sum() + few_step.shortcut(average, x, t, 0.1).sum() + weight.sum(), predicted.sum())

    (targets, predicted) = jax.jacrev(loss)(2.0)
    assert float(targets) == 0
    assert float(predicted) == 2


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.usefixtures("x64")
def test_shortcut_identity(name):
    _, _, average, x, t, _ = gaussian_case(name)
    d = jnp.array([0.25, 0.125, 0.0625])
    np.testing.assert_allclose(few_step.shortcut(average, x, t, d), average(x, t, t + 2 * d), atol=1e-10)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.usefixtures("x64")
def test_jump_is_the_flow_map_and_a_semigroup(name):
    schedule, data, average, x, t, r = gaussian_case(name)
    middle = (t + r) / 2
    two = few_step.jump(average, few_step.jump(average, x, t, middle), middle, r)
    np.testing.assert_allclose(two, few_step.jump(average, x, t, r), atol=1e-10)
    start = jnp.zeros(3)
    one_step = few_step.jump(average, x, start, jnp.ones(3))
    np.testing.assert_allclose(one_step, oracles.gaussian_flow(data, schedule, 0.0, 1.0, x), atol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.usefixtures("x64")
def test_the_end_of_a_jump_along_a_path_is_its_data(name):
    """Rows: a step, to the image, a velocity, a step too short to tell from one; and near the image."""
    schedule = schedules.get(name)
    t, r = jnp.array([0.3, 0.0, 0.4, 0.6, 0.995]), jnp.array([0.8, 1.0, 0.4, 0.6 + 1e-9, 1.0])
    x0, x1 = jax.random.normal(jax.random.key(0), (2, 5, 4))
    x, x_r = (paths.interpolate(schedule, x0, x1, s) for s in (t, r))
    same = (r == t)[:, None]
    u = jnp.where(same, paths.velocity(schedule, x0, x1, t), (x_r - x) / jnp.where(same, 1, (r - t)[:, None]))
    np.testing.assert_allclose(few_step.end(schedule, u, x, t, r), x1, atol=1e-6)
    inside = few_step.clip_end(schedule, u, x, t, r, low=-0.5, high=0.6)
    np.testing.assert_allclose(few_step.end(schedule, inside, x, t, r), jnp.clip(x1, -0.5, 0.6), atol=1e-6)
    far = few_step.clip_end(schedule, u, x, t, r, low=-9.0, high=9.0)
    np.testing.assert_allclose(far, u, atol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_clipped_velocity_is_that_of_a_flow(name):
    schedule, t = schedules.get(name), jnp.array([0.0, 0.4, 0.98])
    x, u = 3 * jax.random.normal(jax.random.key(0), (2, 3, 5))
    clipped = few_step.clip_end(schedule, u, x, t, t)
    np.testing.assert_allclose(clipped, fields.clip_data(schedule, u, x, t), rtol=1e-5, atol=1e-5)
    assert jnp.isfinite(few_step.clip_end(schedule, u, x, jnp.ones(3), jnp.ones(3))).all()


def test_adaptive_weight():
    error = jnp.array([0.0, 1.0, 3.0])
    np.testing.assert_allclose(few_step.adaptive_weight(error), 1 / (np.asarray(error) + 0.01), rtol=1e-6)
    np.testing.assert_allclose(few_step.adaptive_weight(error, 0.5), (np.asarray(error) + 0.01) ** -0.5, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_reflow_of_a_gaussian_is_straight():
    """x1 = m + C^(1/2) x0; the velocity of the new linear path is constant along it, one Euler step is exact."""
    schedule = schedules.get("linear")
    root = jnp.array([[0.7, 0.1], [0.1, 0.5]])
    mean = jnp.array([1.0, -0.5])
    data = oracles.gaussian(mean, root @ root)
    x0 = jnp.array([[0.3, 0.2], [-1.0, 0.5], [0.8, -0.4]])
    same, x1 = few_step.reflow_pairs(data.field(schedule), x0, solver="rk4", steps=100)
    np.testing.assert_array_equal(same, x0)
    np.testing.assert_allclose(x1, mean[None] + x0 @ root, atol=1e-7)

    def straight(t, x):
        path = (1 - t) * jnp.eye(2) + t * root
        return mean[None] + jnp.linalg.solve(path, (x - t * mean[None]).T).T @ (root - jnp.eye(2))

    for t in (0.0, 0.4, 1.0):
        np.testing.assert_allclose(straight(t, (1 - t) * x0 + t * x1), x1 - x0, atol=1e-6)


def test_failed_reflow_pairs_are_nan():
    x0 = jnp.array([[1.0], [9.0]])
    _, x1 = few_step.reflow_pairs(lambda t, x, a: jnp.where(x > 5, jnp.inf, x), x0, solver="euler", steps=2)
    np.testing.assert_array_equal(jnp.isnan(x1[:, 0]), [False, True])


@pytest.mark.parametrize(
    "call",
    [
        few_step.jump,
        lambda f, x, t, r: few_step.mean_flow(f, x, x, t, r),
        lambda f, x, t, r: few_step.end(schedules.get("linear"), x, x, t, r),
    ],
)
def test_a_step_back_is_one_line(call):
    x = jnp.ones((2, 3))
    call(lambda x, t, r: x, x, jnp.array([0.2, 0.4]), 0.4)
    with pytest.raises(ValueError, match="r must not lie before t"):
        call(lambda x, t, r: x, x, jnp.array([0.2, 0.5]), 0.4)
