"""A field trained along one schedule, followed along another: equal to the exact velocity of the other."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import fields, schedules
from tests.helpers import oracles

ALL = {
    name: schedules.get(name) for name in ("linear", "cosine", "polynomial", "linear_vp", "sqrt_beta", "vp", "ve")
} | {"custom": schedules.from_functions(lambda t: t, lambda t: (1.0 - t) ** 2)}


TIMES = (0.0, 0.1, 0.5, 0.9, 1.0)
WHOLE_RANGE = ("linear", "cosine", "linear_vp", "sqrt_beta")  # log_snr from -inf to inf


def compare(old, new, dtype):
    """The changed and the exact velocity at TIMES."""
    mixture, t = oracles.golden_mixture(), jnp.asarray(TIMES, dtype)
    x = new.prior_std * jax.random.normal(jax.random.key(0), (len(TIMES), 2), dtype)
    changed = fields.change_schedule(mixture.field(old), old, new)
    found, expected = jax.jit(lambda t, x: (changed(t, x), mixture.velocity(new, t, x)))(t, x)
    assert found.dtype == dtype
    return np.asarray(found), np.asarray(expected)


def check(found, expected, rows, tolerance):
    np.testing.assert_allclose(found[rows], expected[rows], rtol=0, atol=tolerance * np.abs(expected[1:-1]).max())


PAIRS = [(old, new) for old, new in itertools.permutations(ALL, 2) if "linear" in (old, new)]
PAIRS += [("vp", "ve"), ("ve", "vp"), ("cosine", "polynomial"), ("custom", "cosine"), ("sqrt_beta", "linear_vp")]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_equal_to_the_new_velocity(old, new, x64):
    found, expected = compare(ALL[old], ALL[new], jnp.float64)
    check(found, expected, [1, 2, 3], 1e-7)
    for row, end in ((0, 0.0), (-1, 1.0)):
        if old in WHOLE_RANGE and end not in ALL[new].singular_times:
            check(found, expected, [row], 5e-2 if end in ALL[old].singular_times else 1e-7)


@pytest.mark.parametrize(("old", "new"), [("linear", "cosine"), ("vp", "linear"), ("cosine", "ve")])
def test_float32(old, new):
    check(*compare(ALL[old], ALL[new], jnp.float32), [1, 2, 3], 2e-3)


def test_a_field_that_is_silent_at_its_start_is_asked_a_little_later(x64):
    """Along t^n, n > 1, the velocity at t = 0 is zero whatever the data; the mean of the data is still found."""
    check(*compare(ALL["polynomial"], ALL["linear"], jnp.float64), [0, -1], 1e-5)


def test_the_same_schedule_leaves_the_field_alone():
    field = oracles.golden_mixture().field(ALL["vp"])
    assert fields.change_schedule(field, schedules.get("vp"), schedules.get("vp")) is field


def test_arguments_and_a_python_time_pass_through():
    def field(t, x, args=None):
        return x * args

    changed = fields.change_schedule(field, ALL["linear"], ALL["cosine"])
    assert changed(0.5, jnp.ones((2, 3)), jnp.float32(2.0)).dtype == jnp.float32
