"""Every schedule against its golden values, its own derivatives, its inverse, and its limits at both ends."""

import math
from functools import partial

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from fmd.math import schedules
from fmd.math.schedules import Schedule


def named(name, **params):
    return pytest.param(schedules.get(name, **params), id="-".join([name, *map(str, params.values())]))


ALL = [
    named("linear"),
    named("linear", sigma_min=0.01),
    named("cosine"),
    named("polynomial", n=3.0),
    named("polynomial", n=0.5),
    named("linear_vp"),
    named("sqrt_beta"),
    named("vp"),
    named("ve"),
]


@partial(jax.jit, static_argnums=0)
def at(schedule, t):
    return schedule.at(t)


@partial(jax.jit, static_argnums=0)
def inverse(schedule, log_snr):
    return schedule.inverse_log_snr(log_snr)


every_schedule = pytest.mark.parametrize("schedule", ALL)
INSIDE = (0.001, 0.1, 0.25, 0.5, 0.6180339887, 0.9, 0.999)

GOLDEN = [  # t, alpha, sigma, alpha', sigma', log_snr
    (schedules.get("linear"), 0.25, 0.25, 0.75, 1, -1, -2.19722458),
    (schedules.get("linear", sigma_min=0.01), 0.75, 0.75, 0.2575, 1, -0.99, 2.13810697),
    (schedules.get("cosine"), 0.25, 0.382683432, 0.923879533, 1.45122658, -0.60111773, -1.76274717),
    (schedules.get("cosine"), 0.75, 0.923879533, 0.382683432, 0.60111773, -1.45122658, 1.76274717),
    (schedules.get("polynomial", n=3), 0.25, 0.015625, 0.984375, 0.1875, -0.1875, -8.28626945),
    (schedules.get("polynomial", n=3), 0.75, 0.421875, 0.578125, 1.6875, -1.6875, -0.630162093),
    (schedules.get("linear_vp"), 0.25, 0.25, 0.968245837, 1, -0.25819889, -2.7080502),
    (schedules.get("linear_vp"), 0.75, 0.75, 0.661437828, 1, -1.13389342, 0.251314428),
    (schedules.get("sqrt_beta"), 0.25, 0.25, 0.866025404, 1, -0.577350269, -2.48490665),
    (schedules.get("sqrt_beta"), 0.75, 0.75, 0.5, 1, -1, 0.810930216),
    (schedules.get("vp"), 0.25, 0.058663503, 0.998277814, 0.440709566, -0.0258981684, -5.66842766),
    (schedules.get("vp"), 0.75, 0.723657185, 0.690159604, 1.83628011, -1.92540578, 0.0947897971),
    (schedules.get("ve"), 0.25, 1, 5.65685425, 0, -59.9436182, -3.4657359),
    (schedules.get("ve"), 0.75, 1, 0.0282842712, 0, -0.299718091, 7.13089883),
]


def check_golden(schedule, t, values, rtol):
    c = at(schedule, t)
    np.testing.assert_allclose((c.alpha, c.sigma, c.d_alpha, c.d_sigma, c.log_snr), values, rtol=rtol)


@pytest.mark.parametrize(("schedule", "t", "values"), [(s, t, v) for s, t, *v in GOLDEN])
def test_golden_values(schedule, t, values, x64):
    check_golden(schedule, jnp.float64(t), values, 1e-7)


@pytest.mark.parametrize(("schedule", "t", "values"), [(s, t, v) for s, t, *v in GOLDEN])
def test_golden_values_in_float32(schedule, t, values):
    check_golden(schedule, jnp.float32(t), values, 2e-6)


@every_schedule
def test_derivatives_are_the_gradients(schedule, x64):
    @jax.jit
    def gradients(t):
        return [jax.vmap(jax.grad(f))(t) for f in (schedule.alpha, schedule.sigma, schedule.log_snr)]

    t = jnp.asarray(INSIDE)
    c = at(schedule, t)
    d_alpha, d_sigma, d_log_snr = gradients(t)
    np.testing.assert_allclose(c.d_alpha, d_alpha, rtol=1e-9)
    np.testing.assert_allclose(c.d_sigma, d_sigma, rtol=1e-9)
    d = c.d_alpha * c.sigma - c.alpha * c.d_sigma
    np.testing.assert_allclose(d_log_snr, 2 * d / (c.alpha * c.sigma), rtol=1e-9)


@every_schedule
def test_posterior_coefficients_invert_path_and_velocity(schedule, x64):
    c = at(schedule, jnp.asarray(INSIDE))
    path = np.moveaxis(np.asarray([[c.alpha, c.sigma], [c.d_alpha, c.d_sigma]]), -1, 0)
    means = np.moveaxis(np.asarray([[c.data_x, c.data_v], [c.noise_x, c.noise_v]]), -1, 0)
    np.testing.assert_allclose(means, np.linalg.inv(path), rtol=1e-7, atol=1e-12)
    d = c.d_alpha * c.sigma - c.alpha * c.d_sigma
    np.testing.assert_allclose(c.memoryless, 2 * c.sigma * d / c.alpha, rtol=1e-9)


@every_schedule
@pytest.mark.parametrize("bits", [32, 64])
def test_inverse_round_trip(schedule, bits):
    with jax.enable_x64(bits == 64):
        t = jnp.asarray(INSIDE, f"float{bits}")
        back = inverse(schedule, at(schedule, t).log_snr)
        assert back.dtype == t.dtype
        np.testing.assert_allclose(back, t, rtol=1e-12 if bits == 64 else 2e-5, atol=0 if bits == 64 else 1e-6)


@every_schedule
def test_inverse_beyond_the_range_is_the_nearest_end(schedule):
    ends = inverse(schedule, jnp.asarray([-jnp.inf, -400.0, 400.0, jnp.inf]))
    np.testing.assert_allclose(ends, [0, 0, 1, 1], atol=1e-20)


INFINITE = {  # what may be infinite at t = 0 and at t = 1; all else is finite, and nothing is NaN
    "linear": ({"log_snr", "memoryless"}, {"log_snr"}),
    "linear-0.01": ({"log_snr", "memoryless"}, set()),
    "cosine": ({"log_snr", "memoryless"}, {"log_snr"}),
    "polynomial-3.0": ({"log_snr", "memoryless", "data_v"}, {"log_snr"}),
    "polynomial-0.5": ({"log_snr", "memoryless", "d_alpha", "d_sigma"}, {"log_snr"}),
    "linear_vp": ({"log_snr", "memoryless"}, {"log_snr", "d_sigma"}),
    "sqrt_beta": ({"log_snr", "memoryless"}, {"log_snr", "d_sigma"}),
    "vp": (set(), {"log_snr", "d_sigma"}),
    "ve": (set(), set()),
}


@pytest.mark.parametrize(("schedule", "infinite"), [(p.values[0], INFINITE[p.id]) for p in ALL], ids=INFINITE)
def test_limits_at_both_ends(schedule, infinite):
    c = at(schedule, jnp.asarray([0.0, 1.0]))
    for end in (0, 1):
        values = {name: float(value[end]) for name, value in c._asdict().items()}
        assert not any(math.isnan(v) for v in values.values())
        assert {name for name, v in values.items() if math.isinf(v)} == infinite[end]
        velocity = {"d_alpha", "d_sigma"} & infinite[end]
        assert (float(end) in schedule.singular_times) == bool(velocity)
        assert (float(end) in schedule.silent_times) == ("data_v" in infinite[end])
    assert float(c.sigma[1]) >= 0.0


@every_schedule
def test_float32_is_accurate_near_both_ends(schedule):
    near = np.asarray([1e-6, 1e-4, 1e-2, 1 - 2.0**-7, 1 - 2.0**-14, 1 - 2.0**-20], np.float32)
    with jax.enable_x64(True):
        exact = at(schedule, jnp.asarray(near, jnp.float64))
    for value, reference in zip(at(schedule, near), exact, strict=True):
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, reference, rtol=2e-5)


@every_schedule
@settings(max_examples=15, deadline=None, derandomize=True)
@given(t=st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6))
def test_no_nan_and_more_signal_later(schedule, t):
    t = np.sort(np.asarray([0.0, *t, 1.0], np.float32))
    c = at(schedule, t)
    assert not any(np.isnan(value).any() for value in c)
    assert np.isfinite(c.alpha).all()
    assert np.isfinite(c.sigma).all()
    assert (np.asarray(c.sigma) >= 0).all()
    log_snr = np.clip(np.asarray(c.log_snr), -1e9, 1e9)
    assert (log_snr[1:] >= log_snr[:-1] - 1e-5 * np.abs(log_snr[:-1])).all()


def test_a_users_functions_make_the_same_schedule(x64):
    half = math.pi / 2
    own = schedules.from_functions(lambda t: jnp.sin(half * t), lambda t: jnp.sin(half * (1 - t)))
    cosine = schedules.get("cosine")
    t = jnp.asarray(INSIDE)
    for value, reference in zip(at(own, t), cosine.at(t), strict=True):
        np.testing.assert_allclose(value, reference, rtol=1e-10)
    log_snr = cosine.log_snr(t)
    np.testing.assert_allclose(inverse(own, log_snr), t, rtol=1e-12)
    slope = jax.jit(jax.vmap(jax.grad(own.inverse_log_snr)))(log_snr)
    np.testing.assert_allclose(slope, jax.vmap(jax.grad(cosine.inverse_log_snr))(log_snr), rtol=1e-8)


def test_a_users_constant_function_and_its_inverse_in_float32():
    own = schedules.from_functions(lambda t: 1.0, lambda t: 3.0 * 0.1**t, name="mine")
    t = jnp.asarray(INSIDE, jnp.float32)
    np.testing.assert_allclose(own.d_alpha(t), np.zeros(len(INSIDE)))
    np.testing.assert_allclose(inverse(own, at(own, t).log_snr), t, atol=1e-6)
    assert own.prior_std == pytest.approx(3.0)


def test_a_schedule_from_data_to_noise_is_refused():
    with pytest.raises(ValueError, match="t = 1 is data"):
        schedules.from_functions(lambda t: 1 - t, lambda t: t)


@pytest.mark.parametrize(
    ("name", "params", "says"),
    [
        ("lineer", {}, "unknown schedule 'lineer'; did you mean 'linear'\\? known: .*cosine.* linear"),
        ("linear", {"sigma": 0.1}, "takes: sigma_min"),
        ("linear", {"sigma_min": 1.0}, r"sigma_min = 1.0; it must be in \[0, 1\)"),
        ("linear", {"sigma_min": "abc"}, "sigma_min = 'abc'; it must be a number"),
        ("linear", {"sigma_min": True}, "sigma_min = True; it must be a number"),
        ("polynomial", {"n": 0.0}, "n = 0.0; it must be above 0"),
        ("polynomial", {"n": math.nan}, "n = nan"),
        ("vp", {"beta_min": 2.0, "beta_max": 1.0}, "beta_min <= beta_max"),
        ("ve", {"sigma_max": 0.1, "sigma_min": 0.1}, "sigma_min < sigma_max"),
        ("ve", {"sigma_max": 0.001}, "sigma_max = 0.001"),
    ],
)
def test_wrong_names_and_values_are_one_clear_line(name, params, says):
    with pytest.raises(ValueError, match=says) as error:
        schedules.get(name, **params)
    assert "\n" not in str(error.value)


def test_times_narrower_than_float32_are_refused():
    with pytest.raises(ValueError, match="t has dtype bfloat16"):
        schedules.get("linear").alpha(jnp.asarray(0.5, jnp.bfloat16))
    with pytest.raises(ValueError, match="log_snr has dtype float16"):
        schedules.get("linear").inverse_log_snr(jnp.asarray(1.0, jnp.float16))


def test_integer_times_are_the_ends():
    for t in (0, np.int64(0), jnp.asarray([0, 1]), np.asarray([0, 1])):
        alpha = schedules.get("linear").alpha(t)
        assert alpha.dtype == jnp.float32
        np.testing.assert_array_equal(alpha, t)


def test_python_floats_take_the_precision_of_their_partner(x64):
    sigma = schedules.get("vp").sigma(0.25)
    assert (jnp.ones(3, jnp.float32) * sigma).dtype == jnp.float32
    assert (jnp.ones(3, jnp.float64) * sigma).dtype == jnp.float64
    assert schedules.get("vp").sigma(np.float32(0.25)).dtype == jnp.float32


def test_equal_schedules_share_one_trace():
    traces = []

    def sigma(schedule: Schedule, t):
        traces.append(schedule)
        return schedule.sigma(t)

    compiled = jax.jit(sigma, static_argnums=0)
    compiled(schedules.get("vp"), 0.5)
    compiled(schedules.get("vp"), 0.7)
    assert len(traces) == 1
    assert schedules.get("vp") != schedules.get("vp", beta_max=10.0)


def test_prior_std_is_sigma_at_the_start_even_inside_jit():
    assert schedules.get("ve", sigma_max=50.0).prior_std == 50.0
    assert schedules.get("linear").prior_std == 1.0
    assert float(jax.jit(lambda x: x * schedules.get("ve").prior_std)(1.0)) == 80.0
