"""Randomness as a function of (seed, use, example)."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from fmd import randomness


def test_every_use_and_every_seed_has_its_own_stream():
    keys = [jax.random.key_data(randomness.stream(s, name)) for s in (0, 1) for name in randomness.STREAMS]
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(keys, 2))
    assert jnp.issubdtype(randomness.stream(0, "noise").dtype, jax.dtypes.prng_key)
    mine = [jax.random.key_data(randomness.stream(0, name)) for name in ("mine", "yours")]
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations([*mine, *keys], 2))


def test_an_example_draws_the_same_wherever_it_lands():
    key, index = randomness.stream(3, "noise"), jnp.arange(8)
    whole = randomness.example_normal(key, index, (2, 3))
    np.testing.assert_array_equal(randomness.example_normal(key, index[5:], (2, 3)), whole[5:])
    np.testing.assert_array_equal(randomness.example_normal(key, index[::-1], (2, 3)), whole[::-1])
    uniform = randomness.example_uniform(key, index)
    assert uniform.dtype == whole.dtype == jnp.float32
    np.testing.assert_array_equal(randomness.example_uniform(key, index[3:4]), uniform[3:4])


def test_draws_are_standard():
    """Noise multiplied by noise has the right variance, too, but the fourth moment 9 instead of 3."""
    key, index = randomness.stream(0, "noise"), jnp.arange(20000)
    normal, uniform = randomness.example_normal(key, index, (1,)), randomness.example_uniform(key, index)
    assert abs(float(normal.mean())) < 5 / np.sqrt(20000)
    assert abs(float(normal.var()) - 1) < 5 * np.sqrt(2 / 20000)
    assert abs(float((normal**4).mean()) - 3) < 5 * np.sqrt(96 / 20000)
    assert abs(float(uniform.mean()) - 0.5) < 5 / np.sqrt(12 * 20000)
    assert 0 <= float(uniform.min()) < float(uniform.max()) < 1
