"""A field trained along one schedule, followed along another: equal to the exact velocity of the other."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from fmd.math import paths, schedules

ALL = {
    name: schedules.get(name) for name in ("linear", "cosine", "polynomial", "linear_vp", "sqrt_beta", "vp", "ve")
} | {"custom": schedules.from_functions(lambda t: t, lambda t: (1.0 - t) ** 2)}


def compare(old, new, t, dtype, rtol):
    mixture = oracles.golden_mixture()
    x = new.prior_std * jax.random.normal(jax.random.key(0), (len(t), 2), dtype)
    t = jnp.asarray(t, dtype)

    @jax.jit
    def both(t, x):
        changed = paths.change_schedule(mixture.field(old), old, new)
        return changed(t, x), mixture.velocity(new, t, x)

    found, expected = both(t, x)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


PAIRS = [(old, new) for old, new in itertools.permutations(ALL, 2) if "linear" in (old, new)]
PAIRS += [("vp", "ve"), ("ve", "vp"), ("cosine", "polynomial"), ("custom", "cosine"), ("sqrt_beta", "linear_vp")]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_pointwise_equal_to_the_new_velocity(old, new, x64):
    compare(ALL[old], ALL[new], [0.1, 0.5, 0.9], jnp.float64, 1e-7)


@pytest.mark.parametrize(("old", "new"), [("linear", "cosine"), ("vp", "linear"), ("cosine", "ve"), ("ve", "cosine")])
def test_float32(old, new):
    compare(ALL[old], ALL[new], [0.1, 0.5, 0.9], jnp.float32, 2e-3)


WHOLE_RANGE = ("linear", "cosine", "linear_vp", "sqrt_beta")


@pytest.mark.parametrize(("old", "new"), list(itertools.permutations(WHOLE_RANGE, 2)))
def test_at_the_ends_where_the_velocity_is_finite(old, new, x64):
    ends = [t for t in (0.0, 1.0) if t not in ALL[new].singular_times]
    compare(ALL[old], ALL[new], ends, jnp.float64, 5e-2 if 1.0 in ALL[old].singular_times else 1e-9)


def test_a_field_that_is_silent_at_its_start_is_asked_a_little_later(x64):
    """Along t^n, n > 1, the velocity at t = 0 is zero whatever the data; the mean of the data is still found."""
    compare(ALL["polynomial"], ALL["linear"], [0.0, 1.0], jnp.float64, 1e-6)


def test_the_same_schedule_leaves_the_field_alone():
    field = oracles.golden_mixture().field(ALL["vp"])
    assert paths.change_schedule(field, schedules.get("vp"), schedules.get("vp")) is field


def test_arguments_and_a_python_time_pass_through():
    def field(t, x, args=None):
        return x * args

    changed = paths.change_schedule(field, ALL["linear"], ALL["cosine"])
    assert changed(0.5, jnp.ones((2, 3)), jnp.float32(2.0)).dtype == jnp.float32
