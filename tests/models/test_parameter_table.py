"""The table of parameters: counts add up, shapes are shown."""

import jax
import jax.numpy as jnp

from fmd.models.parameter_table import parameter_table


def test_counts_and_shapes():
    params = {
        "block": {"conv": {"kernel": jnp.zeros((3, 3, 8, 16)), "bias": jnp.zeros(16)}, "norm": {"scale": jnp.zeros(8)}},
        "head": {"kernel": jnp.zeros((16, 4))},
    }
    header, block, head, total = parameter_table(params).splitlines()
    assert header.split() == ["module", "count", "parameters"]
    assert block.split()[:2] == ["block", "1,176"]
    assert "conv/kernel 3x3x8x16" in block
    assert head.split() == ["head", "64", "kernel", "16x4"]
    assert total.split()[:2] == ["total", "1,240"]


def test_takes_shapes_instead_of_arrays():
    shapes = {"head": {"kernel": jax.ShapeDtypeStruct((262144, 2), jnp.float32)}}
    assert parameter_table(shapes).splitlines()[-1].split() == ["total", "524,288", "(2.0", "MiB)"]


def test_says_how_many_are_trained_where_these_are_not_all():
    shapes = {"head": {"kernel": jax.ShapeDtypeStruct((2, 2), jnp.float32)}}
    last = [parameter_table(shapes, trained=trained).splitlines()[-1] for trained in (None, 4, 3)]
    assert last == ["total   4  (0.0 MiB)", "total   4  (0.0 MiB)", "total   4  (0.0 MiB), 3 trained"]
