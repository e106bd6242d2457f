"""Adaptive projected guidance: the paper's rule in data space, literally, with and without momentum."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import guidance, paths, schedules

LINEAR, COSINE = schedules.get("linear"), schedules.get("cosine")
SHAPE = (4, 3, 3, 2)


def predictions():
    """v_null, v_cond, x."""
    return tuple(jax.random.normal(key, SHAPE) for key in jax.random.split(jax.random.key(0), 3))


def norm(value):
    return np.sqrt((np.asarray(value) ** 2).sum((1, 2, 3)))


def inner(first, second):
    return (np.asarray(first) * np.asarray(second)).sum((1, 2, 3))


def apg_in_data_space(v_null, v_cond, x, t, schedule, weight, eta, rho, previous=None, momentum=0.0):
    """The paper's steps, literally."""
    as_data = partial(paths.convert, schedule, x, t, source="velocity", target="data")
    data = as_data(v_cond)
    d = data - as_data(v_null)
    d = d if previous is None else d + momentum * previous
    average = d
    shape = (-1, 1, 1, 1)
    d = d * np.minimum(1.0, rho / norm(d)).reshape(shape)
    along = (inner(d, data) / inner(data, data)).reshape(shape) * data
    guided = data + (weight - 1.0) * (d - along + eta * along)
    return paths.convert(schedule, x, t, guided, source="data", target="velocity"), average


@pytest.mark.parametrize(("eta", "rho"), [(0.0, math.inf), (0.3, 0.5), (1.0, 2.0)])
def test_apg_is_the_papers_rule_in_data_space(eta, rho, x64):
    v_null, v_cond, x = predictions()
    t = jnp.asarray([0.1, 0.4, 0.7, 0.9])
    combine = guidance.get("apg", weight=3.0, eta=eta, norm_threshold=rho, schedule=COSINE)
    expected, _ = apg_in_data_space(v_null, v_cond, x, t, COSINE, 3.0, eta, rho)
    np.testing.assert_allclose(combine(v_null, v_cond, x, t), expected, rtol=1e-9, atol=1e-9)


def test_apg_without_projection_and_limit_is_cfg_even_at_the_end():
    v_null, v_cond, x = predictions()
    combine = guidance.get("apg", weight=3.0, eta=1.0, schedule=LINEAR)
    for t in (0.0, 1.0):
        expected = guidance.get("cfg", weight=3.0)(v_null, v_cond, x, t)
        np.testing.assert_allclose(combine(v_null, v_cond, x, t), expected, rtol=1e-6)


def test_apg_with_momentum_is_the_papers_rule_step_by_step(x64):
    v_null, v_cond, x = predictions()
    combine = guidance.get("apg", weight=3.0, eta=0.2, norm_threshold=0.8, momentum=-0.5, schedule=COSINE)
    plain = guidance.get("apg", weight=3.0, eta=0.2, norm_threshold=0.8, schedule=COSINE)
    first, memory = combine.step(combine.init(x), v_null, v_cond, x, 0.4)
    np.testing.assert_allclose(first, plain(v_null, v_cond, x, 0.4), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(combine(v_null, v_cond, x, 0.4), first)
    second, after = combine.step(memory, v_cond, v_null, x, 0.5)
    expected = apg_in_data_space(v_cond, v_null, x, 0.5, COSINE, 3.0, 0.2, 0.8, memory, -0.5)
    np.testing.assert_allclose(second, expected[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(after, expected[1], rtol=1e-9, atol=1e-9)


def test_apg_with_momentum_stays_finite_where_there_is_no_noise_left():
    v_null, v_cond, x = predictions()
    combine = guidance.get("apg", weight=3.0, momentum=-0.5)
    v, memory = combine.step(jnp.ones(SHAPE), v_null, v_cond, x, 1.0)
    assert np.isfinite(v).all()
    np.testing.assert_allclose(memory, np.full(SHAPE, -0.5))


def test_apg_without_a_schedule_is_that_of_the_linear_path():
    options = {"weight": 3.0, "norm_threshold": 0.5}
    stated = guidance.get("apg", **options, schedule=LINEAR)(*predictions(), 0.4)
    np.testing.assert_array_equal(guidance.get("apg", **options)(*predictions(), 0.4), stated)
