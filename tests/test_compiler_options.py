"""Compiler options: accepted where known, dropped where not, harmless to the numbers, none off the CPU; unrolling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd import devices as fmd_compile
from fmd.devices import CPU_OPTIONS, cpu_compiler_options, options_to_run_once, unroll_gradients


@pytest.fixture
def fresh():
    """Forgets what was probed, before and after."""
    fmd_compile._compiles.cache_clear()
    yield
    fmd_compile._compiles.cache_clear()


def test_the_options_are_known_to_this_jaxlib_and_keep_the_numbers():
    assert cpu_compiler_options() == CPU_OPTIONS
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 9, 8)), jnp.float32)

    def f(x):
        return jnp.mean(jnp.square(x), axis=1) @ x[0, :8]

    np.testing.assert_allclose(jax.jit(f, compiler_options=cpu_compiler_options())(x), jax.jit(f)(x), rtol=1e-5)


@pytest.mark.parametrize("unknown", [{"xla_no_such_option": "1"}, {next(iter(CPU_OPTIONS)): "NO_SUCH_VALUE"}])
def test_unknown_options_are_dropped(fresh, monkeypatch, unknown):
    monkeypatch.setattr(fmd_compile, "CPU_OPTIONS", {**unknown, "xla_cpu_prefer_vector_width": "256"})
    assert cpu_compiler_options() == {"xla_cpu_prefer_vector_width": "256"}


def test_none_on_other_backends(monkeypatch):
    assert unroll_gradients(4) == 4
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert cpu_compiler_options() == options_to_run_once() == {}
    assert unroll_gradients(4) == 1


def test_callers_cannot_change_what_others_get():
    cpu_compiler_options().clear()
    assert cpu_compiler_options() == CPU_OPTIONS


def test_a_program_that_runs_once_draws_the_same_bits(full_compilation):
    def draw():
        keys = jax.random.split(jax.random.key(0))
        return jax.nn.initializers.lecun_normal()(keys[0], (3, 3, 8, 32)), jax.random.normal(keys[1], (11, 16))

    quick = jax.jit(draw, compiler_options=options_to_run_once())()
    jax.tree.map(np.testing.assert_array_equal, quick, jax.jit(draw)())
