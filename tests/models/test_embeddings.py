"""Time and label embeddings: against float64, close times apart, the null label's own row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.models.embeddings import LabelEmbedding, TimeEmbedding, sinusoidal_embedding


def test_sinusoid_matches_float64():
    t = np.linspace(0, 1, 33, dtype=np.float32)
    frequencies = np.geomspace(1, 1000, 8)
    phase = t[:, None].astype(np.float64) * frequencies[None, :]
    expected = np.concatenate([np.sin(phase), np.cos(phase)], axis=1)
    np.testing.assert_allclose(sinusoidal_embedding(jnp.asarray(t), 16), expected, atol=1e-4)


@pytest.mark.parametrize("dim", [4, 5])
def test_sinusoid_has_the_asked_width(dim):
    embedding = sinusoidal_embedding(jnp.array([0.0, 0.5]), dim)
    assert embedding.shape == (2, dim)
    if dim % 2:
        np.testing.assert_array_equal(embedding[:, -1], 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_close_times_stay_apart(dtype):
    """All float32 times k / 4096 near 1 have their own embedding, where bfloat16 would merge sixteen of them."""
    t = 1 - jnp.arange(16, dtype=jnp.float32) / 4096
    assert len(np.unique(np.asarray(t.astype(jnp.bfloat16), np.float32))) == 2
    module = TimeEmbedding(32, jnp.dtype(dtype))
    out = module.apply(jax.jit(module.init)(jax.random.key(0), t), t)
    assert out.dtype == dtype
    rows = np.unique(np.asarray(out, np.float32), axis=0)
    assert len(rows) == 16


def test_labels_have_a_row_each_and_one_for_null():
    module = LabelEmbedding(3, 8)
    y = jnp.arange(4)
    variables = jax.jit(module.init)(jax.random.key(0), y)
    table = variables["params"]["table"]["embedding"]
    assert table.shape == (4, 8)
    np.testing.assert_array_equal(module.apply(variables, y), table)
    assert np.all(np.isnan(module.apply(variables, jnp.array([4]))))  # not some other row in silence
