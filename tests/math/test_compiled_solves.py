"""Solves as programs: exported, sharded, traced once."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math.simulators import solve_ode
from tests.helpers.solving import gaussian_field


@pytest.mark.parametrize("solver", ["heun", "tsit5"])
def test_export_for_three_platforms_with_symbolic_batch(solver):
    (batch,) = jax.export.symbolic_shape("b")
    sample = jax.jit(lambda x: solve_ode(gaussian_field(0.25), x, solver=solver).x)
    exported = jax.export.export(sample, platforms=["cpu", "cuda", "tpu"])(
        jax.ShapeDtypeStruct((batch, 2), jnp.float32)
    )
    x0 = jax.random.normal(jax.random.key(0), (5, 2))
    np.testing.assert_allclose(exported.call(x0), sample(x0), atol=1e-5)


@pytest.mark.parametrize("solver", ["heun", "tsit5"])
def test_one_trace_for_many_calls(solver):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def sample(x, args, t1):
        return solve_ode(lambda t, x, a: a[:, None] * x, x, solver=solver, args=args, t1=t1).x

    for i in range(3):
        sample(jnp.ones((2, 2)) * i, jnp.ones(2) * i, 1.0 - 0.1 * i)


@pytest.mark.parametrize("solver", ["heun", "tsit5"])
def test_eager_calls_do_not_recompile(solver):
    traces = []

    def field(t, x, args):
        traces.append(1)
        return args[:, None] * x

    solve_ode(field, jnp.ones((2, 2)), solver=solver, args=jnp.ones(2))
    first = len(traces)
    solve_ode(field, 2 * jnp.ones((2, 2)), solver=solver, args=3 * jnp.ones(2))
    assert len(traces) == first


def test_sharded_batch_gives_the_same():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x0 = jax.random.normal(jax.random.key(0), (8, 3))
    sample = jax.jit(lambda x: solve_ode(gaussian_field(0.25), x).x)
    sharded = sample(jax.device_put(x0, sharding))
    assert sharded.sharding.is_equivalent_to(sharding, 2)
    np.testing.assert_allclose(sharded, sample(x0), atol=1e-6)
