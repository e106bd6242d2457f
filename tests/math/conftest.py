"""The mathematics is tested without implicit dtype promotion, and in float64 where a test asks for `x64`."""

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_dtypes():
    """float32 meeting float64 or bfloat16 by accident is an error."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def x64():
    """float64 arrays for the length of one test."""
    with jax.enable_x64(True):
        yield
