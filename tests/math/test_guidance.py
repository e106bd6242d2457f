"""Guidance rules against their closed forms."""

import math
from functools import partial

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from fmd.math import guidance, paths, schedules
from tests.helpers import oracles

LINEAR, COSINE = schedules.get("linear"), schedules.get("cosine")
SHAPE = (4, 3, 3, 2)
RULES = [
    ("cfg", {}),
    ("cfg_zero_star", {"zero_until": 0.0}),
    ("apg", {"schedule": COSINE, "norm_threshold": 1.0}),
    ("rescale", {"phi": 0.6}),
    ("rescale", {"phi": 0.6, "base": "apg", "schedule": COSINE}),
]
every_rule = pytest.mark.parametrize(("name", "params"), RULES, ids=lambda p: p if isinstance(p, str) else "")


def predictions(dtype=None):
    """v_null, v_cond, x."""
    return tuple(jax.random.normal(key, SHAPE, dtype) for key in jax.random.split(jax.random.key(0), 3))


def norm(value):
    return np.sqrt((np.asarray(value) ** 2).sum((1, 2, 3)))


def inner(first, second):
    return (np.asarray(first) * np.asarray(second)).sum((1, 2, 3))


def test_cfg_is_the_line_through_both_predictions(x64):
    """One convention of the weight, 1 conditional and 0 unconditional; not s = w - 1 as well."""
    v_null, v_cond, x = predictions()
    for weight in (-1.0, 0.0, 4.0):
        v = guidance.get("cfg", weight=weight)(v_null, v_cond, x, 0.3)
        np.testing.assert_allclose(v, v_null + weight * (v_cond - v_null), atol=1e-13)


@pytest.mark.parametrize("kind", ["data", "noise", "score"])
def test_cfg_is_the_same_on_every_prediction(kind, x64):
    v_null, v_cond, x = predictions()
    combine, t = guidance.get("cfg", weight=3.0), jnp.asarray([0.1, 0.4, 0.7, 0.95])

    @jax.jit
    def both(v_null, v_cond, x):
        there = partial(paths.convert, COSINE, x, t, source="velocity", target=kind)
        back = partial(paths.convert, COSINE, x, t, source=kind, target="velocity")
        return combine(v_null, v_cond, x, t), back(combine(there(v_null), there(v_cond), x, t))

    on_velocity, on_other = both(v_null, v_cond, x)
    np.testing.assert_allclose(on_other, on_velocity, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", [LINEAR, COSINE], ids=["linear", "cosine"])
@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_guided_velocity_of_two_gaussians_is_that_of_the_closed_form_flow(schedule, weight, x64):
    """data|y ~ N(0, r^2), null ~ N(0, R^2): x(t) = x(0) S_null(t)^(1-w) S_y(t)^w, which ends at x(0) R^(1-w) r^w."""
    r, wide = 0.3, 1.7
    start = jnp.asarray([[1.0], [-0.5], [2.0]])

    def flow(t):
        std = [jnp.sqrt((schedule.alpha(t) * s) ** 2 + schedule.sigma(t) ** 2) for s in (wide, r)]
        return start * std[0] ** (1.0 - weight) * std[1] ** weight

    @jax.jit
    def both(t):
        x, rate = jax.jvp(flow, (t,), (jnp.ones_like(t),))
        v_null, v_cond = (oracles.isotropic(s, 1).velocity(schedule, t, x) for s in (wide, r))
        return rate, guidance.get("cfg", weight=weight)(v_null, v_cond, x, t), flow(1.0)

    rate, guided, end = both(jnp.asarray(0.6))
    np.testing.assert_allclose(guided, rate, rtol=1e-12)
    np.testing.assert_allclose(end, start * wide ** (1 - weight) * r**weight, rtol=1e-12)


def test_interval_applies_the_weight_inside_only():
    v_null, v_cond, x = predictions()
    combine = guidance.get("cfg", weight=3.0, interval=(0.25, 0.75))
    v = combine(v_null, v_cond, x, jnp.asarray([0.2, 0.25, 0.75, 0.8]))
    everywhere = guidance.get("cfg", weight=3.0)(v_null, v_cond, x, 0.5)
    np.testing.assert_array_equal(v[jnp.asarray([0, 3])], v_cond[jnp.asarray([0, 3])])
    np.testing.assert_array_equal(v[1:3], everywhere[1:3])
    assert combine.jump_times == (0.25, 0.75)
    assert guidance.get("cfg", weight=3.0, interval=(0, 0.5)).jump_times == (0.5,)


def test_interval_in_log_snr_is_the_interval_between_the_times_that_have_it(x64):
    edges = tuple(float(COSINE.log_snr(t)) for t in (0.3, 0.6))
    combine = guidance.get("cfg", weight=2.0, interval=edges, interval_in="log_snr", schedule=COSINE)
    np.testing.assert_allclose(combine.jump_times, (0.3, 0.6), rtol=1e-12)


@every_rule
def test_weight_one_is_exactly_conditional(name, params):
    v_null, v_cond, x = predictions()
    combine = guidance.get(name, weight=1.0, **params)
    assert not combine.needs_null
    assert combine.evaluations == 1
    np.testing.assert_allclose(combine(v_null, v_cond, x, 0.5), v_cond, rtol=1e-6)
    np.testing.assert_array_equal(guidance.get("cfg", weight=1.0)(v_null, v_cond, x, 0.5), v_cond)


@every_rule
def test_traced_and_per_example_weights_equal_the_number(name, params):
    v_null, v_cond, x = predictions()
    expected = guidance.get(name, weight=3.0, **params)(v_null, v_cond, x, 0.5)

    @jax.jit
    def guided(weight):
        combine = guidance.get(name, weight=weight, **params)
        assert combine.evaluations == 2
        return combine(v_null, v_cond, x, 0.5)

    np.testing.assert_allclose(guided(3.0), expected, rtol=1e-5, atol=1e-6)
    mixed = guided(jnp.asarray([3.0, 1.0, 3.0, 1.0]))
    np.testing.assert_allclose(mixed[::2], expected[::2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mixed[1::2], v_cond[1::2], rtol=1e-5, atol=1e-6)


@every_rule
@settings(max_examples=6, deadline=None, derandomize=True)
@given(t=st.sampled_from([0.0, 0.5, 1.0]), kind=st.sampled_from(["equal", "null zero", "all zero"]))
def test_degenerate_predictions_stay_finite(name, params, t, kind):
    v_null, v_cond, x = predictions()
    v_null = v_cond if kind == "equal" else jnp.zeros(SHAPE)
    v_cond = jnp.zeros(SHAPE) if kind == "all zero" else v_cond
    v = guidance.get(name, weight=2.0, **params)(v_null, v_cond, x * 0.0, t)
    assert np.isfinite(v).all()
    assert v.dtype == jnp.float32


@every_rule
def test_float64_stays_float64_and_float32_float32(name, params, x64):
    for dtype in (jnp.float32, jnp.float64):
        v = jax.ShapeDtypeStruct(SHAPE, dtype)
        for t in (0.5, np.full(4, 0.5), np.full(4, 0.5, np.float32)):
            combine = guidance.get(name, weight=np.float64(2.0), **params)
            assert jax.eval_shape(lambda v, t=t, combine=combine: combine(v, v, v, t), v).dtype == dtype


def test_cfg_zero_star_takes_out_what_the_null_prediction_explains(x64):
    v_null, v_cond, x = predictions()
    combine = guidance.get("cfg_zero_star", weight=0.0, zero_until=0.0)
    scaled = combine(v_null, v_cond, x, 0.5)  # weight 0 leaves k v_null
    np.testing.assert_allclose(inner(v_cond - scaled, v_null), np.zeros(4), atol=1e-7)
    v = guidance.get("cfg_zero_star", weight=4.0, zero_until=0.0)(v_null, v_cond, x, 0.5)
    np.testing.assert_allclose(v, scaled + 4.0 * (v_cond - scaled), rtol=1e-9, atol=1e-9)
    collinear = guidance.get("cfg_zero_star", weight=4.0)(v_null, -2.0 * v_null, x, 0.5)
    np.testing.assert_allclose(collinear, -2.0 * v_null, rtol=1e-7)


def test_cfg_zero_star_stands_still_at_first():
    v_null, v_cond, x = predictions()
    combine = guidance.get("cfg_zero_star", weight=2.0, zero_until=0.1)
    v = combine(v_null, v_cond, x, jnp.asarray([0.0, 0.09, 0.1, 0.5]))
    np.testing.assert_array_equal(v[:2], np.zeros_like(v[:2]))
    assert (norm(v)[2:] > 0).all()
    assert combine.jump_times == (0.1,)
    assert guidance.get("cfg_zero_star", weight=2.0, zero_until=0.0).jump_times == ()


def test_rules_compute_in_float32_for_bfloat16_predictions():
    """A norm over 784 pixels in bfloat16 would be off by percents."""
    v_null, v_cond, x = (jax.random.normal(key, (2, 28, 28, 1)) for key in jax.random.split(jax.random.key(0), 3))
    v_null, v_cond = v_null.astype(jnp.bfloat16), v_cond.astype(jnp.bfloat16)
    for name, params in RULES:
        combine = guidance.get(name, weight=3.0, **params)
        v = combine(v_null, v_cond, x, 0.5)
        assert v.dtype == jnp.bfloat16
        wide = combine(v_null.astype(jnp.float32), v_cond.astype(jnp.float32), x, 0.5)
        np.testing.assert_array_equal(v, wide.astype(jnp.bfloat16))


def test_rescale_brings_back_the_deviation_of_the_conditional_prediction(x64):
    v_null, v_cond, x = predictions()
    full = guidance.get("rescale", phi=1.0, weight=5.0)(v_null, v_cond, x, 0.5)
    np.testing.assert_allclose(np.std(full, axis=(1, 2, 3)), np.std(v_cond, axis=(1, 2, 3)), rtol=1e-9)
    base = guidance.get("cfg", weight=5.0)(v_null, v_cond, x, 0.5)
    none = guidance.get("rescale", phi=0.0, weight=5.0)(v_null, v_cond, x, 0.5)
    np.testing.assert_allclose(none, base, rtol=1e-12)
    half = guidance.get("rescale", phi=0.5, weight=5.0)(v_null, v_cond, x, 0.5)
    np.testing.assert_allclose(half, 0.5 * (full + base), rtol=1e-12)


def test_rescale_carries_the_memory_of_its_base():
    v_null, v_cond, x = predictions()
    base = guidance.get("apg", weight=3.0, momentum=-0.5)
    combine = guidance.get("rescale", phi=0.0, base="apg", weight=3.0, momentum=-0.5)
    memory = base.init(x) + 0.3
    for mine, reference in zip(*(rule.step(memory, v_null, v_cond, x, 0.4) for rule in (combine, base)), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-6)


def test_the_schedule_is_handed_to_the_rules_that_take_one():
    options = {"weight": 3.0, "norm_threshold": 0.5}
    guidance.get("cfg_zero_star", schedule=COSINE)
    stated = guidance.get("apg", **options, schedule=COSINE)(*predictions(), 0.4)
    for params in ({"schedule": "cosine"}, {"schedule": {"name": "cosine"}}):
        np.testing.assert_array_equal(guidance.get("apg", **options, **params)(*predictions(), 0.4), stated)
    rescaled = guidance.get("rescale", phi=0.0, base="apg", **options, schedule=COSINE)(*predictions(), 0.4)
    np.testing.assert_allclose(rescaled, stated, rtol=1e-6)
    guidance.get("rescale", base="cfg_zero_star", schedule=COSINE)


def test_rescale_keeps_what_its_base_needs():
    combine = guidance.get("rescale", weight=2.0, interval=(0.2, 0.8))
    assert combine.jump_times == (0.2, 0.8)
    assert guidance.get("rescale", phi=0.5, weight=0.0).needs_cond
    assert not guidance.get("rescale", phi=0.0, weight=0.0).needs_cond


@pytest.mark.parametrize(
    ("name", "params", "says"),
    [
        ("cfgg", {}, "unknown guidance 'cfgg'; did you mean 'cfg'.*known: .*apg.* cfg.* cfg_zero_star.* rescale"),
        ("cfg", {"scale": 2.0}, "did you mean|it takes: weight, interval"),
        ("cfg", {"weight": math.nan}, "weight is nan"),
        ("cfg", {"weight": np.asarray([1.0, math.nan])}, "must be finite"),
        ("cfg", {"weight": jnp.asarray([1.0, math.nan])}, "must be finite"),
        ("cfg", {"weight": math.inf}, "weight is inf"),
        ("cfg", {"interval": (0.7, 0.3)}, r"\(0.7, 0.3\); the first edge must be below"),
        ("cfg", {"interval": (0.3, math.nan)}, "below the second"),
        ("cfg", {"interval": (-0.5, 0.3)}, r"lie in \[0, 1\]"),
        ("cfg", {"interval": (-3, 3), "interval_in": "log_snr"}, "needs the schedule"),
        (
            "cfg",
            {"interval": (0.1, 0.3), "interval_in": "sigma"},
            "interval_in = 'sigma'; it must be one of t, log_snr",
        ),
        ("cfg", {"interval": (0.2,)}, r"interval = \(0.2,\); it must be \(a number, a number\) or None"),
        ("cfg", {"weight": "3"}, "weight = '3'; it must be an array or a number"),
        ("cfg", {"schedule": "linea"}, "unknown schedule 'linea'"),
        ("cfg_zero_star", {"zero_until": "a"}, "zero_until = 'a'; it must be"),
        ("cfg_zero_star", {"zero_until": 1.0}, "zero_until = 1.0"),
        ("apg", {"schedule": LINEAR, "norm_threshold": 0.0}, "norm_threshold = 0.0; it must be above 0"),
        ("apg", {"schedule": LINEAR, "eta": math.nan}, "eta = nan"),
        ("rescale", {"phi": 1.5}, r"phi = 1.5; it must be in \[0, 1\]"),
        ("rescale", {"base": "none"}, "unknown guidance 'none'"),
        ("rescale", {"base": "cfg", "eta": 1.0}, "guidance 'cfg' has no parameter 'eta'"),
        ("apg", {"momentum": 1.0}, r"momentum = 1.0; it must be in \(-1, 1\) or None"),
    ],
)
def test_wrong_values_are_one_clear_line(name, params, says):
    with pytest.raises(ValueError, match=says) as error:
        guidance.get(name, **params)
    assert "\n" not in str(error.value)


@every_rule
def test_times_of_the_wrong_shape_are_refused_by_every_rule(name, params):
    with pytest.raises(ValueError, match="one value per example"):
        guidance.get(name, weight=2.0, **params)(*predictions(), jnp.zeros(3))


def test_a_weight_of_zero_inside_an_interval_still_needs_both():
    assert guidance.get("cfg", weight=0.0, interval=(0.2, 0.5)).evaluations == 2


def test_integer_weights_one_per_example(x64):
    v_null, v_cond, x = predictions()
    v = guidance.get("cfg", weight=jnp.arange(4))(v_null, v_cond, x, 0)
    np.testing.assert_allclose(v, v_null + np.arange(4.0).reshape(4, 1, 1, 1) * (v_cond - v_null), atol=1e-13)


def test_a_weight_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="one value per example"):
        guidance.get("cfg", weight=jnp.ones(3))(*predictions(), 0.5)
