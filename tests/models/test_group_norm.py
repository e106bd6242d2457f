"""Group normalisation in one pass against the plain formula in float64."""

from unittest import mock

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.models.layers import EPSILON, GroupNorm

apply = jax.jit(GroupNorm().apply)


def plain(x, groups, gamma, beta, scale, shift):
    """Normalise each group, then gamma and beta, then scale and shift; float64."""
    x, gamma, beta, scale, shift = (np.asarray(a, np.float64) for a in (x, gamma, beta, scale, shift))
    b, h, w, c = x.shape
    grouped = x.reshape(b, h, w, groups, c // groups)
    mean = grouped.mean(axis=(1, 2, 4), keepdims=True)
    variance = grouped.var(axis=(1, 2, 4), keepdims=True)
    normal = ((grouped - mean) / np.sqrt(variance + EPSILON)).reshape(x.shape)
    return (normal * gamma + beta) * (1 + scale[:, None, None, :]) + shift[:, None, None, :]


def arrays(width, offset=0.0, batch=3, size=5):
    generator = np.random.default_rng(width)
    shapes = [(batch, size, size, width), (width,), (width,), (batch, 2 * width)]
    x, gamma, beta, condition = (jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in shapes)
    x = x + offset
    return x, {"params": {"scale": gamma, "bias": beta}}, condition


@pytest.mark.parametrize(("width", "groups"), [(8, 8), (16, 16), (20, 4), (64, 32), (7, 1)])
def test_matches_the_plain_formula_for_any_width(width, groups):
    x, variables, condition = arrays(width)
    gamma, beta = variables["params"]["scale"], variables["params"]["bias"]
    zeros = np.zeros((3, width))
    out = apply(variables, x)
    np.testing.assert_allclose(out, plain(x, groups, gamma, beta, zeros, zeros), atol=1e-5)
    out = apply(variables, x, condition)
    np.testing.assert_allclose(
        out, plain(x, groups, gamma, beta, condition[:, :width], condition[:, width:]), atol=2e-5
    )


def test_a_large_mean_costs_no_digits():
    """E[x^2] - E[x]^2 in float32 would be off by several hundredths here. The offset is exact in float32."""
    x, variables, _ = arrays(8)
    x = jnp.round(x * 1024) / 1024
    moved = apply(variables, x + 1024.0)
    np.testing.assert_allclose(moved, apply(variables, x), atol=1e-4)


def test_an_accelerator_repeats_the_values_that_a_cpu_multiplies_by_ones():
    """A product is slow to compile on a GPU; on a CPU a broadcast is computed again at every pixel."""
    x, variables, condition = arrays(20)
    found = {}
    for backend in ("cpu", "gpu"):
        with mock.patch.object(jax, "default_backend", return_value=backend):
            program = jax.make_jaxpr(GroupNorm().apply)(variables, x, condition)
        assert ("dot_general" in str(program)) == (backend == "cpu")
        found[backend] = jax.jit(jax.extend.core.jaxpr_as_fun(program))(*jax.tree.leaves((variables, x, condition)))
    np.testing.assert_allclose(found["gpu"], found["cpu"], rtol=1e-6, atol=1e-6)


def test_constant_images_give_the_offset():
    _, variables, _ = arrays(8)
    out = apply(variables, jnp.full((2, 4, 4, 8), 3.0))
    np.testing.assert_allclose(out, np.broadcast_to(variables["params"]["bias"], out.shape), atol=1e-5)


def test_gradient_matches_the_plain_formula():
    x, variables, condition = arrays(8)
    weights = jax.random.normal(jax.random.key(1), x.shape)

    def plain_jax(x):
        mean, variance = x.mean(axis=(1, 2), keepdims=True), x.var(axis=(1, 2), keepdims=True)  # 8 groups of one
        normal = (x - mean) * jax.lax.rsqrt(variance + EPSILON)
        gamma, beta = (variables["params"][name][None, None, None, :] for name in ("scale", "bias"))
        scale, shift = (part[:, None, None, :] for part in jnp.split(condition, 2, axis=-1))
        return jnp.sum(weights * ((normal * gamma + beta) * (1 + scale) + shift))

    expected = jax.jit(jax.grad(plain_jax))(x)
    found = jax.jit(jax.grad(lambda x: jnp.sum(weights * apply(variables, x, condition))))(x)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_bfloat16_keeps_its_dtype_and_float32_statistics():
    x, variables, condition = arrays(16, offset=4.0)
    low = x.astype(jnp.bfloat16)
    out = apply(variables, low, condition)
    assert out.dtype == jnp.bfloat16
    exact = apply(variables, low.astype(jnp.float32), condition)
    np.testing.assert_allclose(np.asarray(out, np.float32), exact, rtol=2**-8, atol=1e-6)


def test_float64_keeps_its_digits():
    x, variables, condition = arrays(8)
    with jax.enable_x64(True):
        x, condition = (jnp.asarray(np.asarray(a), jnp.float64) for a in (x, condition))
        out = GroupNorm().apply(variables, x, condition)
    assert out.dtype == np.float64
    gamma, beta = variables["params"]["scale"], variables["params"]["bias"]
    expected = plain(x, 8, gamma, beta, condition[:, :8], condition[:, 8:])
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)
