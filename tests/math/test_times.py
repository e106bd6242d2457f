"""Densities by the change of variables, exact stratification, and the shift's group law."""

import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from fmd.math import schedules, times

NAMES = ("uniform", "stratified", "logit_normal", "mode", "cosmap")
every_name = pytest.mark.parametrize("name", NAMES)
KEY_SEED = 7


def logit_normal_density(t, mean=0.4, std=1.2):
    logit = np.log(t) - np.log1p(-t)
    return np.exp(-0.5 * ((logit - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi) * t * (1 - t))


DENSITIES = [
    ("uniform", {}, np.ones_like),
    ("logit_normal", {"mean": 0.4, "std": 1.2}, logit_normal_density),
    ("cosmap", {}, lambda t: 2 / (math.pi - 2 * math.pi * t + 2 * math.pi * t**2)),
]


@pytest.mark.parametrize(("name", "params", "density"), DENSITIES)
def test_density_times_slope_is_one(name, params, density, x64):
    """u uniform and t = q(u) increasing: p(t) q'(u) = 1."""
    quantile = times.get(name, **params).from_uniform
    u = jnp.linspace(0.01, 0.99, 33)
    t, slope = jax.jit(lambda u: jax.jvp(quantile, (u,), (jnp.ones_like(u),)))(u)
    np.testing.assert_allclose(density(np.asarray(t)) * slope, np.ones(33), rtol=1e-7)


@pytest.mark.parametrize("scale", [-1.0, 0.0, 1.29, 2 / (math.pi - 2)])
def test_mode_is_the_papers_map_of_the_noise_level(scale, x64):
    """1 - t = 1 - u - k (cos^2(pi u/2) - 1 + u), increasing in u, symmetric."""
    quantile = times.get("mode", scale=scale).from_uniform
    u = np.linspace(0.001, 0.999, 199)
    t = np.asarray(quantile(u))
    noise = 1 - u - scale * (np.cos(np.pi * u / 2) ** 2 - 1 + u)
    np.testing.assert_allclose(t, noise[::-1], atol=1e-12)
    np.testing.assert_allclose(t, 1 - noise, atol=1e-12)
    assert (np.diff(t) >= 0).all()


def test_logit_normal_median_leans_to_the_data_for_a_positive_mean():
    t = times.get("logit_normal", mean=0.4).from_uniform(0.5)
    np.testing.assert_allclose(t, 1 / (1 + math.exp(-0.4)), rtol=1e-6)


@every_name
def test_draws_follow_the_quantile_function(name):
    """Kolmogorov-Smirnov: the largest distance between the empirical distribution and the quantile function."""
    sampler = times.get(name)
    t = np.sort(jax.jit(lambda key: sampler(key, (50, 80)))(jax.random.key(KEY_SEED)).ravel())
    expected = np.asarray(sampler.from_uniform((np.arange(4000, dtype=np.float32) + 0.5) / 4000))
    assert np.abs(t - expected).max() < (1e-3 if name == "stratified" else 0.06)


@pytest.mark.parametrize("name", ["uniform", "logit_normal", "mode", "cosmap"])
def test_stratified_puts_one_example_into_each_part(name):
    count = 64
    t = np.asarray(times.get(name, stratified=True)(jax.random.key(1), (count,)))
    borders = np.asarray(times.get(name).from_uniform(np.arange(count + 1, dtype=np.float32) / count))
    assert (t >= borders[:-1] - 1e-6).all()
    assert (t <= borders[1:] + 1e-6).all()
    assert len(np.unique(t)) == count


def test_uniform_draws_are_symmetric_about_one_half():
    """The generator's multiples of 2^-23 start at 0; the draws are the middles between them, so 0 is as far as 1."""
    t = np.asarray(times.get("uniform")(jax.random.key(4), (1000,)), np.float64)
    assert (t * 2**24 % 2 == 1).all()


def test_stratified_is_unbiased_and_each_example_uniform_in_its_part():
    sampler = times.get("stratified")
    t = np.asarray(jax.vmap(lambda key: sampler(key, (4,)))(jax.random.split(jax.random.key(2), 2000)))
    inside = t * 4 - np.arange(4)
    np.testing.assert_allclose(inside.mean(0), np.full(4, 0.5), atol=0.03)
    np.testing.assert_allclose((t**2).mean(), 1 / 3, atol=2e-3)


@every_name
def test_a_slice_of_the_global_batch_draws_its_own_times(name):
    sampler, key = times.get(name, shift=2.0, clip=1e-3), jax.random.key(3)
    whole = sampler(key, (16,))
    for devices in (2, 8):
        parts = jnp.arange(16, dtype=jnp.int32).reshape(devices, -1)
        cut = jax.vmap(lambda index: times.draw(sampler, key, index, 16))(parts)
        np.testing.assert_array_equal(cut.reshape(16), whole)
    np.testing.assert_array_equal(sampler(key, (4, 4)).ravel(), whole)
    assert sampler(key, ()).shape == ()


@every_name
@settings(max_examples=10, deadline=None, derandomize=True)
@given(u=st.lists(st.floats(0, 1, width=32), min_size=2, max_size=2))
def test_times_stay_inside_even_for_uniforms_at_the_ends(name, u):
    u = np.asarray([0.0, *u, 1.0], np.float32)
    t = np.asarray(times.get(name).from_uniform(u))
    assert (t > 0).all()
    assert (t < 1).all()
    assert np.isfinite(np.log(t) - np.log1p(-t)).all()
    clipped = np.asarray(times.get(name, clip=0.25).from_uniform(u))
    assert (clipped >= 0.25).all()
    assert (clipped <= 0.75).all()
    np.testing.assert_allclose(clipped[[0, -1]], [0.25, 0.75])


@every_name
def test_shift_acts_on_the_quantile(name):
    u = np.linspace(0.1, 0.9, 5, dtype=np.float32)
    shifted = times.get(name, shift=3.0).from_uniform(u)
    np.testing.assert_allclose(shifted, times.shift(times.get(name).from_uniform(u), 3.0), rtol=1e-6)


@every_name
def test_an_integer_is_a_shape_of_one_axis(name):
    draw, key = times.get(name), jax.random.key(0)
    for shape in (5, np.int64(5), [5]):
        np.testing.assert_array_equal(draw(key, shape), draw(key, (5,)))


def test_shift_by_a_traced_factor():
    value, slope = jax.jit(jax.value_and_grad(lambda factor: times.shift(0.25, factor)))(3.0)
    np.testing.assert_allclose([value, slope], [0.1, -0.25 * 0.75 / 2.5**2], rtol=1e-6)


def test_shift_laws(x64):
    t = jnp.linspace(0.0, 1.0, 21)
    np.testing.assert_allclose(times.shift(times.shift(t, 3.0), 1 / 3.0), t, atol=1e-14)
    np.testing.assert_allclose(times.shift(times.shift(t, 3.0), 0.5), times.shift(t, 1.5), atol=1e-14)
    assert float(times.shift(0.0, 3)) == 0.0
    assert float(times.shift(1.0, 3)) == 1.0
    inner, linear = t[1:-1], schedules.get("linear")
    moved = linear.log_snr(times.shift(inner, 3.0)) - linear.log_snr(inner)
    np.testing.assert_allclose(moved, np.full(19, -2 * math.log(3)), rtol=1e-12)
    slope = jax.vmap(jax.grad(lambda t: times.shift(t, 3.0)))(t)
    np.testing.assert_allclose(slope, 3 / (3 - 2 * t) ** 2, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: times.get("beta"), "unknown time sampler 'beta'; known: .*cosmap.* logit_normal.* mode"),
        (lambda: times.get("uniform", mean=0.0), "it takes: shift, clip, stratified"),
        (lambda: times.get("logit_normal", std=0.0), "std = 0.0; it must be above 0"),
        (lambda: times.get("logit_normal", mean=math.nan), "mean = nan; it must be finite"),
        (lambda: times.get("mode", scale=1.8), "scale = 1.8; it must be in"),
        (lambda: times.get("cosmap", shift=0.0), "shift = 0.0"),
        (lambda: times.get("uniform", clip=0.5), "clip = 0.5"),
        (lambda: times.get("logit_normal", mean="abc"), "mean = 'abc'; it must be a number"),
        (lambda: times.get("uniform", stratified="no"), "stratified = 'no'; it must be True or False"),
        (lambda: times.shift(0.5, -1.0), "time shift is -1.0"),
        (lambda: times.shift(0.5, math.inf), "time shift is inf"),
    ],
)
def test_wrong_values_are_one_clear_line(call, says):
    with pytest.raises(ValueError, match=says) as error:
        call()
    assert "\n" not in str(error.value)
