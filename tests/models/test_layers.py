"""Embeddings of times: against float64, close times apart, their slopes; folding; attention against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.models.layers import FLAT, STEEP, StepEmbedding, TimeEmbedding, attention, fold, sinusoidal_embedding, unfold


@pytest.mark.parametrize("ends", [STEEP, FLAT])
def test_sinusoid_matches_float64(ends):
    t = np.linspace(0, 1, 33, dtype=np.float32)
    frequencies = np.geomspace(*ends, 8)
    phase = t[:, None].astype(np.float64) * frequencies[None, :]
    expected = np.concatenate([np.sin(phase), np.cos(phase)], axis=1)
    np.testing.assert_allclose(sinusoidal_embedding(jnp.asarray(t), 16, ends), expected, atol=1e-4)


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


@pytest.mark.parametrize("module", [TimeEmbedding(4), StepEmbedding(4)], ids=["t", "h"])
def test_a_gpu_may_not_round_what_the_first_layer_reads(module):
    """By default it would leave 11 bits of the sines (TF32)."""
    t = jnp.array([0.1, 0.9])
    program = jax.make_jaxpr(module.apply)(module.init(jax.random.key(0), t), t)
    first, second = (one.params["precision"] for one in program.eqns if one.primitive.name == "dot_general")
    assert set(first) == {jax.lax.Precision.HIGHEST}
    assert second is None


def test_flat_frequencies_give_flat_embeddings():
    """Methods with a second time train on these derivatives; at the steep frequencies they diverge."""
    t = jnp.linspace(0, 1, 64)

    def slope(embed):
        return float(jnp.sqrt(jnp.mean(jnp.square(jax.jvp(embed, (t,), (jnp.ones_like(t),))[1]))))

    assert slope(lambda t: sinusoidal_embedding(t, 256, FLAT)) < 5
    assert slope(lambda t: sinusoidal_embedding(t, 256, STEEP)) > 100
    for module in (TimeEmbedding(64, frequencies=FLAT), StepEmbedding(64)):
        variables = module.init(jax.random.key(0), t)
        assert slope(lambda t, module=module, variables=variables: module.apply(variables, t)) < 5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_of_length_zero_is_embedded_as_zero(dtype):
    module, h = StepEmbedding(16, jnp.dtype(dtype)), jnp.array([0.0, 0.5])
    variables = module.init(jax.random.key(0), h)
    np.testing.assert_array_equal(module.apply(variables, h), 0)  # its last layer starts at zero
    generator = np.random.default_rng(0)
    noise = jax.tree.map(lambda a: jnp.asarray(generator.normal(size=a.shape), a.dtype), variables)
    zero, half = np.asarray(module.apply(noise, h), np.float32)
    np.testing.assert_array_equal(zero, 0)
    assert np.abs(half).min() > 0


@pytest.mark.parametrize("p", [1, 2, 3])
def test_fold_moves_pixels_and_unfold_brings_them_back(p):
    x = jnp.arange(2 * 6 * 12 * 3, dtype=jnp.float32).reshape(2, 6, 12, 3)
    folded = fold(x, p)
    assert folded.shape == (2, 6 // p, 12 // p, 9 * p * p // 3)
    np.testing.assert_array_equal(folded[1, 1, 2], x[1, p : 2 * p, 2 * p : 3 * p].reshape(-1))
    np.testing.assert_array_equal(unfold(folded, p), x)


def test_attention_is_softmax_of_scaled_products():
    generator = np.random.default_rng(0)
    q, k, v = (jnp.asarray(generator.normal(size=(2, n, 3, 4)), jnp.float32) for n in (5, 6, 6))
    weights = np.exp(np.einsum("bqhd,bkhd->bhqk", q, k) / 2)
    weights /= weights.sum(axis=-1, keepdims=True)
    expected = np.einsum("bhqk,bkhd->bqhd", weights, v)
    np.testing.assert_allclose(attention(q, k, v), expected, atol=1e-5)
    with jax.enable_x64(True):
        wide = attention(*(jnp.asarray(np.asarray(a), jnp.float64) for a in (q, k, v)))
    np.testing.assert_allclose(wide, expected, atol=1e-6)
