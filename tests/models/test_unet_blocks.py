"""The blocks of the UNet: attention against its formula, and that a new block changes nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.models.unet import ResidualBlock, SelfAttention

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiled to run once


@pytest.mark.parametrize(("width", "head_dim", "heads"), [(16, 8, 2), (8, 64, 1), (20, 6, 1)])
def test_attention_is_softmax_of_scaled_products(width, head_dim, heads):
    module = SelfAttention(head_dim)
    x = jax.random.normal(jax.random.key(0), (2, 3, 2, width))
    out, variables = jit(module.init_with_output)(jax.random.key(1), x)
    np.testing.assert_array_equal(out, x)  # the last layer starts at zero

    params = variables["params"]
    params["out"]["kernel"] = jnp.eye(width)
    out, normal = jit(functools.partial(module.apply, capture_intermediates=True))(variables, x)
    normal = normal["intermediates"]["norm"]["__call__"][0].reshape(2, 6, width)
    kernel, bias = params["query_key_value"]["kernel"], params["query_key_value"]["bias"]
    projected = np.asarray(normal) @ np.asarray(kernel) + np.asarray(bias)
    q, k, v = (np.asarray(a).reshape(2, 6, heads, -1) for a in np.split(projected, 3, axis=-1))
    weights = np.exp(np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(width // heads))
    weights /= weights.sum(axis=-1, keepdims=True)
    expected = x + np.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape)
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("width", [8, 12])
def test_a_new_residual_block_is_its_skip(width):
    module = ResidualBlock(width)
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 8))
    embedding = jax.random.normal(jax.random.key(1), (2, 4))
    out, variables = jit(module.init_with_output, static_argnums=3)(jax.random.key(2), x, embedding, False)
    if width == 8:
        np.testing.assert_array_equal(out, x)
    else:
        skip = variables["params"]["skip"]
        expected = np.asarray(x) @ np.asarray(skip["kernel"]) + np.asarray(skip["bias"])
        np.testing.assert_allclose(out, expected, atol=1e-6)
