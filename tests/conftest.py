"""Settings for all tests: eight fake host devices, no silent rank promotion, CPU only."""

import gc
import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

# Tracing makes many objects and few cycles: the collector's usual thresholds cost a tenth of the time.
gc.set_threshold(100_000, 20, 100)


@pytest.fixture(autouse=True, scope="session")
def strict_ranks():
    """Broadcasting between different ranks hides shape mistakes, so every test runs without it."""
    jax.config.update("jax_numpy_rank_promotion", "raise")
