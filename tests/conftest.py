"""Settings for all tests: eight fake host devices, no silent rank promotion, CPU only."""

import gc
import os

# Most of the time goes into compiling tiny programs: so in one piece each, and with few optimisations, here and in the
# processes that tests start. JAX_DISABLE_MOST_OPTIMIZATIONS=0 tests what users run; the tests of solvers and of several
# devices always do (`full_compilation`).
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8 --xla_cpu_parallel_codegen_split_count=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import pytest

# Tracing makes many objects and few cycles: the collector's usual thresholds cost a tenth of the time.
gc.set_threshold(100_000, 20, 100)


@pytest.fixture(autouse=True, scope="session")
def strict_ranks():
    """Broadcasting between different ranks hides shape mistakes, so every test runs without it."""
    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def full_compilation():
    """All of XLA's optimisations from here to the end of the module."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
