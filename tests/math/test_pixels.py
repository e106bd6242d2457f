"""The pixel scale: exact round trips, levels without gaps, the constants of bits per dimension."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import likelihood
from fmd.math.likelihood import gaussian_log_density
from fmd.math.pixels import WIDTH, bits_per_dim, dequantise, to_uint8, to_unit


def test_every_level_survives_the_round_trip():
    levels = jnp.arange(256, dtype=jnp.uint8)
    x = to_unit(levels)
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(np.diff(x), WIDTH, atol=2e-7)
    np.testing.assert_array_equal(x[jnp.asarray([0, 255])], [-1, 1])
    np.testing.assert_array_equal(to_uint8(x), levels)


def test_what_is_outside_is_clipped():
    np.testing.assert_array_equal(to_uint8(jnp.asarray([-7.0, -1.001, 1.001, jnp.inf])), [0, 0, 255, 255])


@pytest.mark.parametrize("dimensions", [1, 12])
def test_uniform_images_take_8_bits(dimensions):
    literature = -dimensions * math.log(2)  # uniform on [-1, 1]^d
    assert abs(float(bits_per_dim(jnp.array(literature), dimensions, width=2 / 256)) - 8) < 1e-6
    ours = -dimensions * math.log(512 / 255)  # uniform on [-1 - 1/255, 1 + 1/255]^d, the range of `dequantise`
    assert abs(float(bits_per_dim(jnp.array(ours), dimensions)) - 8) < 1e-6


def test_standard_normal_at_zero():
    log_p = gaussian_log_density(jnp.zeros((1, 5)))
    assert abs(float(bits_per_dim(log_p, 5, width=2 / 256)[0]) - 8.325748065) < 1e-6
    assert abs(float(bits_per_dim(log_p, 5)[0]) - (1.325748065 + 6.994353437)) < 1e-6


def test_dequantised_pixels_fill_their_level_and_keep_their_mean():
    levels = jnp.repeat(jnp.arange(256, dtype=jnp.uint8), 200)
    x = np.asarray(dequantise(jax.random.key(0), levels), np.float64)
    edges = np.arange(257) / 127.5 - 1 - 1 / 255
    assert np.all(np.digitize(x, edges + 1e-7) - 1 - np.asarray(levels) <= 0)
    assert x.min() >= edges[0] - 1e-7
    assert x.max() <= edges[-1] + 1e-7
    offsets = x - (np.asarray(levels) / 127.5 - 1)
    assert abs(offsets.mean()) < 5e-5
    np.testing.assert_allclose(offsets.var(), (2 / 255) ** 2 / 12, rtol=0.03)


def test_bits_are_counted_in_float32_at_least():
    bits = bits_per_dim(jnp.asarray([-1000.0], jnp.bfloat16), 784)
    assert bits.dtype == jnp.float32
    np.testing.assert_allclose(bits, 1000 / 784 / math.log(2) + math.log2(127.5), rtol=1e-6)


def test_likelihood_names_them_too():
    assert likelihood.bits_per_dim is bits_per_dim
    assert likelihood.dequantise is dequantise


def test_bad_constants():
    with pytest.raises(ValueError, match="dimensions=0"):
        bits_per_dim(jnp.zeros(1), 0)
    with pytest.raises(ValueError, match="width=0"):
        bits_per_dim(jnp.zeros(1), 1, width=0.0)
