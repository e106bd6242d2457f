"""Path, velocity and conversions against the exact mixture, on every schedule and at the ends."""

import itertools
from functools import partial

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from fmd.math import paths, schedules
from tests.helpers import oracles

ALL = {
    "linear": schedules.get("linear"),
    "linear_min": schedules.get("linear", sigma_min=0.01),
    "cosine": schedules.get("cosine"),
    "polynomial": schedules.get("polynomial", n=3),
    "linear_vp": schedules.get("linear_vp"),
    "sqrt_beta": schedules.get("sqrt_beta"),
    "vp": schedules.get("vp"),
    "ve": schedules.get("ve"),
    "custom": schedules.from_functions(lambda t: t * (2.0 - t), lambda t: 1.0 - t),
}
every_schedule = pytest.mark.parametrize("schedule", ALL.values(), ids=ALL)
TIMES = (0.0, 0.05, 0.3, 0.618, 0.9, 1.0)
INSIDE = slice(1, -1)


def points(dtype):
    return jax.random.normal(jax.random.key(0), (len(TIMES), 2), dtype)


@partial(jax.jit, static_argnums=0)
def exact(schedule, t, x):
    """The oracle's four predictions at (t, x)."""
    mixture = oracles.golden_mixture()
    return {kind: getattr(mixture, kind)(schedule, t, x) for kind in paths.PREDICTIONS}


@partial(jax.jit, static_argnums=0)
def all_conversions(schedule, t, x, given):
    return {
        (source, target): paths.convert(schedule, x, t, given[source], source=source, target=target)
        for source, target in itertools.product(paths.PREDICTIONS, repeat=2)
    }


@every_schedule
def test_velocity_is_the_time_derivative_of_the_path(schedule, x64):
    x0, x1 = jax.random.normal(jax.random.key(1), (2, len(TIMES), 3, 3, 1))

    @jax.jit
    def both(t):
        path, rate = jax.jvp(lambda t: paths.interpolate(schedule, x0, x1, t), (t,), (jnp.ones_like(t),))
        return path, rate, paths.velocity(schedule, x0, x1, t)

    path, rate, velocity = both(jnp.asarray(TIMES))
    np.testing.assert_allclose(velocity[INSIDE], rate[INSIDE], rtol=1e-9)
    alpha, sigma = (np.asarray(f(TIMES[2])) for f in (schedule.alpha, schedule.sigma))
    np.testing.assert_allclose(path[2], alpha * np.asarray(x1[2]) + sigma * np.asarray(x0[2]), rtol=1e-12)


@every_schedule
@pytest.mark.parametrize("bits", [32, 64])
def test_all_conversions_agree_with_the_mixture(schedule, bits):
    with jax.enable_x64(bits == 64):
        t, x = jnp.asarray(TIMES, f"float{bits}"), points(f"float{bits}")
        reference = exact(schedule, t, x)
        found = all_conversions(schedule, t, x, reference)
        assert len(found) == 16
        for (_, target), value in found.items():
            assert value.dtype == x.dtype
            expected = np.asarray(reference[target])[INSIDE]
            tolerance = (1e-9 if bits == 64 else 3e-3) * np.abs(expected).max()
            np.testing.assert_allclose(value[INSIDE], expected, rtol=0, atol=tolerance)


@every_schedule
def test_conversions_of_any_value_return_to_it(schedule, x64):
    t, x, value = jnp.asarray(TIMES), points(jnp.float64), jax.random.normal(jax.random.key(2), (len(TIMES), 2))
    there = all_conversions(schedule, t, x, dict.fromkeys(paths.PREDICTIONS, value))
    for source, middle in paths.CONVERSIONS:
        back = all_conversions(schedule, t, x, dict.fromkeys(paths.PREDICTIONS, there[source, middle]))[middle, source]
        np.testing.assert_allclose(back[INSIDE], value[INSIDE], rtol=1e-6, atol=1e-6)


@every_schedule
def test_continuity_equation(schedule, x64):
    """d_t log p + div v + v . score = 0 binds schedule, derivatives, velocity and score together."""
    mixture, t, x = oracles.golden_mixture(), jnp.asarray(TIMES[INSIDE]), points(jnp.float64)[INSIDE]

    @jax.jit
    def terms(t):
        _, rate = jax.jvp(lambda t: mixture.log_density(schedule, t, x), (t,), (jnp.ones_like(t),))
        v = mixture.velocity(schedule, t, x)
        score = paths.convert(schedule, x, t, v, source="velocity", target="score")
        return rate, mixture.divergence(schedule, t, x), jnp.sum(v * score, axis=1)

    terms = np.asarray(terms(t))
    np.testing.assert_allclose(terms.sum(0), np.zeros(len(t)), atol=1e-8 * np.abs(terms).max())


@every_schedule
@pytest.mark.parametrize("bits", [32, 64])
def test_velocity_gives_the_posterior_means_at_both_ends(schedule, bits):
    with jax.enable_x64(bits == 64):
        t, x = jnp.asarray(TIMES, f"float{bits}"), points(f"float{bits}")
        reference = exact(schedule, t, x)
        found = all_conversions(schedule, t, x, reference)
        tolerance = 1e-9 if bits == 64 else 1e-3
        for row, end in ((0, 0.0), (-1, 1.0)):
            np.testing.assert_allclose(found["score", "noise"][row], reference["noise"][row], atol=tolerance)
            if end in schedule.singular_times + schedule.silent_times:
                continue
            for target in ("data", "noise"):
                np.testing.assert_allclose(found["velocity", target][row], reference[target][row], atol=tolerance)


@every_schedule
@settings(max_examples=10, deadline=None, derandomize=True)
@given(t=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_no_nan_where_the_limit_is_finite(schedule, t):
    t = jnp.asarray([0.0, *t, 1.0], jnp.float32)
    x = points(jnp.float32)
    found = all_conversions(schedule, t, x, dict.fromkeys(paths.PREDICTIONS, x + 1.0))
    for target in ("data", "noise"):
        assert np.isfinite(found["velocity", target])[~np.isin(t, schedule.silent_times)].all()
    assert np.isfinite(found["score", "noise"]).all()
    inside = (np.asarray(t) > 1e-6) & (np.asarray(t) < 1 - 1e-6)
    assert all(np.isfinite(value)[inside].all() for value in found.values())


def test_the_table_holds_the_twelve_conversions_and_cannot_change():
    assert set(paths.CONVERSIONS) == set(itertools.permutations(paths.PREDICTIONS, 2))
    with pytest.raises(TypeError):
        paths.CONVERSIONS["velocity", "data"] = None


def test_all_conversions_work_under_vmap_and_grad(x64):
    schedule, t, x = ALL["cosine"], jnp.asarray(TIMES[INSIDE]), points(jnp.float64)[INSIDE]

    def convert(x, t, value, pair):
        return paths.convert(schedule, x, t, value, source=pair[0], target=pair[1])

    def answers(value):
        for pair, coefficients in paths.CONVERSIONS.items():
            one = partial(convert, pair=pair)
            each = jax.vmap(lambda x, t, v, one=one: one(x[None], t, v[None])[0])(x, t, value)
            slope = jax.grad(lambda v, one=one: one(x, t, v).sum())(value)
            yield one(x, t, value), each
            yield slope, jnp.broadcast_to(coefficients(schedule.at(t))[1][:, None], x.shape)

    for found, expected in jax.jit(lambda value: list(answers(value)))(x + 1.0):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    shape=st.sampled_from([(2,), (2, 4, 4, 1)]),
    x_dtype=st.sampled_from(["float32", "bfloat16"]),
    per_example=st.booleans(),
)
def test_dtype_follows_x_for_every_shape(shape, x_dtype, per_example):
    x0, x1 = jnp.ones(shape, x_dtype), jnp.full(shape, 3.0, x_dtype)
    t = jnp.full(shape[:1], 0.25, jnp.float32) if per_example else 0.25
    x_t = paths.interpolate(ALL["linear"], x0, x1, t)
    target = paths.velocity(ALL["linear"], x0, x1, t)
    data = paths.convert(ALL["linear"], x_t, t, target, source="velocity", target="data")
    for value, expected in [(x_t, 1.5), (target, 2.0), (data, 3.0)]:
        assert value.dtype == x_dtype
        assert value.shape == shape
        assert (value == expected).all()


@pytest.mark.parametrize(("x", "t"), [("float32", "float64"), ("float64", "float32"), ("bfloat16", "float64")])
def test_the_times_dtype_never_becomes_that_of_x(x, t, x64):
    x, t = jax.ShapeDtypeStruct((6, 2), x), jax.ShapeDtypeStruct((6,), t)
    for function in (paths.interpolate, paths.velocity):
        assert jax.eval_shape(partial(function, ALL["vp"]), x, x, t).dtype == x.dtype
    converted = jax.eval_shape(partial(paths.convert, ALL["vp"], source="noise", target="score"), x, t, x)
    assert converted.dtype == x.dtype


@pytest.mark.parametrize("shape", [(3,), (1,), (6, 1), (6, 2)])
def test_a_time_of_the_wrong_shape_is_refused(shape):
    x = points(jnp.float32)
    with pytest.raises(ValueError, match="scalar or one value per example"):
        paths.interpolate(ALL["linear"], x, x, jnp.full(shape, 0.5))


def test_an_unknown_prediction_is_refused():
    x = points(jnp.float32)
    with pytest.raises(ValueError, match="unknown prediction 'epsilon'; known: velocity, data, noise, score"):
        paths.convert(ALL["linear"], x, 0.5, x, source="epsilon", target="data")


def test_a_half_precision_time_is_refused():
    x = points(jnp.bfloat16)
    with pytest.raises(ValueError, match="bfloat16"):
        paths.interpolate(ALL["linear"], x, x, jnp.full(6, 0.5, jnp.bfloat16))
