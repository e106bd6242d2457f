"""Fields from every prediction type, and guided sampling against its closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import fields, guidance, paths, schedules
from tests.helpers import oracles
from tests.helpers.solving import solve

DATA = [[0.5, 0.2], [0.2, 0.3]]


def exact_prediction(data, schedule, prediction):
    """predict(x, t, y) of a perfect model of that type."""
    return lambda x, t, y: getattr(data, prediction)(schedule, t, x)


@pytest.mark.parametrize("name", ["linear", "vp"])
@pytest.mark.parametrize("prediction", paths.PREDICTIONS)
@pytest.mark.usefixtures("x64")
def test_every_prediction_is_the_same_field(name, prediction):
    schedule = schedules.get(name)
    data = oracles.gaussian(jnp.array([1.0, -0.5]), jnp.array(DATA))
    field = fields.from_model(exact_prediction(data, schedule, prediction), schedule, prediction)
    x = jnp.array([[0.3, 0.2], [-1.0, 0.5]])
    for t in (0.05, 0.5, jnp.array([0.2, 0.9])):
        np.testing.assert_allclose(field(t, x), data.velocity(schedule, t, x), atol=1e-9)


def gaussian_prediction(prediction, std=0.5):
    """predict(x, t, y) of a perfect model of N(0, std^2 I) on the linear path."""

    def predict(x, t, y):
        t = t[:, None]
        scores = -x / (t**2 * std**2 + (1 - t) ** 2)
        return {"score": scores, "noise": -(1 - t) * scores, "data": -t * std**2 * scores}[prediction]

    return predict


@pytest.mark.parametrize("prediction", ["data", "noise", "score"])
def test_singular_ends_do_not_reach_the_sample(prediction):
    """Heun evaluates both ends, where data (t = 1), noise and score (t = 0) tell no velocity."""
    field = fields.from_model(gaussian_prediction(prediction), schedules.get("linear"), prediction)
    solution = solve(field, jnp.array([[1.0], [-2.0]]), steps=50)
    assert bool(solution.success.all())
    np.testing.assert_allclose(solution.x, [[0.5], [-1.0]], atol=3e-3)


def test_error_of_a_data_prediction_is_not_blown_up_at_the_end():
    """An error of 0.01 in E[x1 | x] costs about 0.01 log(steps) in any case; read too close to t = 1, it costs 1."""
    exact = gaussian_prediction("data")

    def error(edge):
        field = fields.from_model(lambda x, t, y: exact(x, t, y) + 0.01, schedules.get("linear"), "data", edge=edge)
        return float(jnp.abs(solve(field, jnp.array([[0.7]]), steps=50).x - 0.35).max())

    assert error(0.01) < 0.07
    assert error(1e-4) > 0.5


def test_model_gets_one_time_per_example_and_its_args():
    def predict(x, t, y):
        assert t.shape == (3,)
        assert t.dtype == jnp.float32
        return x * t[:, None] + y[:, None]

    field = fields.from_model(predict, schedules.get("linear"))
    np.testing.assert_allclose(field(0.5, jnp.ones((3, 1)), jnp.arange(3.0))[:, 0], [0.5, 1.5, 2.5])


def test_unknown_prediction():
    with pytest.raises(ValueError, match=r"unknown prediction 'flow'.*velocity, data, noise, score"):
        fields.from_model(lambda x, t, y: x, schedules.get("linear"), "flow")


def guided(weight, interval=None, narrow=0.5, wide=2.0, name="linear"):
    """(guided field, rule, schedule): label 0 is N(0, narrow^2), the null label N(0, wide^2)."""
    schedule = schedules.get(name)

    def predict(x, t, y):
        variance = jnp.where(y == 1, wide**2, narrow**2)
        c = schedule.at(t)
        slope = (c.alpha * c.d_alpha * variance + c.sigma * c.d_sigma) / (c.alpha**2 * variance + c.sigma**2)
        return slope[:, None] * x

    rule = guidance.get("cfg", weight=weight, interval=interval)
    return fields.guided_field(predict, 1, rule), rule, schedule


X0 = [[1.0, -0.3], [0.2, 2.0]]
LABELS = [0, 0]


@pytest.mark.parametrize(("weight", "name"), [(0.0, "linear"), (1.0, "linear"), (3.0, "linear"), (3.0, "cosine")])
def test_guided_sample_in_closed_form(weight, name):
    """x(1) = x(0) R^(1 - w) r^w on every schedule from pure noise to pure data."""
    field, _, _ = guided(weight, name=name)
    x = solve(field, jnp.array(X0), solver="rk4", steps=60, args=jnp.array(LABELS)).x
    np.testing.assert_allclose(x, np.array(X0) * 2.0 ** (1 - weight) * 0.5**weight, rtol=2e-4)


def interval_answer(schedule, weight, low, high, narrow=0.5, wide=2.0):
    def variance(std, t):
        return float(schedule.alpha(t)) ** 2 * std**2 + float(schedule.sigma(t)) ** 2

    ratio = variance(narrow, high) / variance(narrow, low) / (variance(wide, high) / variance(wide, low))
    return np.array(X0) * narrow * ratio ** ((weight - 1) / 2)


def test_guidance_interval_in_closed_form_and_cheap_with_its_jumps():
    field, rule, schedule = guided(3.0, (0.3, 0.8))
    options = {"solver": "tsit5", "args": jnp.array(LABELS)}
    told = solve(field, jnp.array(X0), jump_ts=rule.jump_times, **options)
    blind = solve(field, jnp.array(X0), **options)
    np.testing.assert_allclose(told.x, interval_answer(schedule, 3.0, 0.3, 0.8), rtol=3e-4)
    assert int(told.evaluations.max()) < int(blind.evaluations.min()) / 2


def test_guidance_interval_on_a_grid_that_contains_its_edges():
    """RK4 keeps its order where no step crosses an edge; the edge itself counts as inside, so step just past it."""
    field, _, schedule = guided(3.0, (0.3, 0.8))
    just_outside = 1e-6
    pieces = [np.linspace(0, 0.3 - just_outside, 15), np.linspace(0.3, 0.8, 25), np.linspace(0.8 + just_outside, 1, 10)]
    x = solve(field, jnp.array(X0), solver="rk4", grid=np.concatenate(pieces), args=jnp.array(LABELS)).x
    np.testing.assert_allclose(x, interval_answer(schedule, 3.0, 0.3, 0.8), rtol=1e-4)


def test_guided_evaluations_count_calls_of_the_field():
    """The solver counts fields; a guided field costs rule.evaluations model evaluations each."""
    field, rule, _ = guided(3.0)
    solution = solve(field, jnp.array(X0), steps=5, args=jnp.array(LABELS))
    np.testing.assert_array_equal(solution.evaluations * rule.evaluations, [20, 20])


@pytest.mark.usefixtures("x64")
def test_changed_schedule_reaches_the_same_sample():
    old, new = schedules.get("linear"), schedules.get("cosine")
    data = oracles.golden_mixture()
    x0 = jax.random.normal(jax.random.key(0), (4, 2))
    straight = solve(data.field(old), x0, solver="rk4", steps=100).x
    changed = solve(fields.change_schedule(data.field(old), old, new), x0, solver="rk4", steps=100).x
    np.testing.assert_allclose(changed, straight, atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "cosine", "vp"])
def test_a_clipped_velocity_predicts_data_in_range_and_no_other_change(name):
    schedule, t = schedules.get(name), jnp.array([0.2, 0.5, 0.9])
    x = jax.random.normal(jax.random.key(0), (3, 40))
    data = 2.0 * jax.random.normal(jax.random.key(1), (3, 40))
    v = paths.convert(schedule, x, t, data, source="data", target="velocity")
    clipped = fields.clip_data(schedule, v, x, t)
    found = paths.convert(schedule, x, t, clipped, source="velocity", target="data")
    np.testing.assert_allclose(found, jnp.clip(data, -1.0, 1.0), atol=1e-5)
    inside = jnp.abs(data) < 1
    np.testing.assert_array_equal(jnp.where(inside, clipped, 0.0), jnp.where(inside, v, 0.0))


def test_the_clipped_velocity_is_finite_where_it_tells_no_data():
    clipped = fields.clip_data(schedules.get("linear"), jnp.zeros((1, 2)), jnp.array([[0.5, -1.5]]), 1.0)
    np.testing.assert_allclose(clipped, [[0.0, 50.0]], rtol=1e-6)
