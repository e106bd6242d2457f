"""Averages along a run against closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from fmd.checkpoints.power_averages import power_exponent
from fmd.training import averages


def walk(steps, seed=0):
    """Parameters along a made-up run: a drift with noise, one number."""
    noise = np.random.default_rng(seed).normal(size=steps).cumsum() * 0.05
    return (np.linspace(0.0, 1.0, steps) ** 0.5 + noise).astype(np.float32)


def track(values, kinds):
    """All averages after each of the values came in: {name: [steps]}."""
    state = {name: {"w": jnp.float32(-100.0)} for name in kinds}  # a start that must be forgotten
    seen = {name: [] for name in kinds}
    for n, value in enumerate(values, start=1):
        state = averages.update(state, {"w": jnp.float32(value)}, kinds, jnp.int32(n))
        for name in kinds:
            seen[name].append(float(state[name]["w"]))
    return {name: np.array(numbers) for name, numbers in seen.items()}


def test_exponential_average_warms_up_and_then_keeps_its_decay():
    shares = [float(averages.share("decay0", 0.9, jnp.int32(n))) for n in range(1, 200)]
    np.testing.assert_allclose(shares, [1 - min(0.9, n / (9 + n)) for n in range(1, 200)], rtol=1e-6)

    values = walk(50)
    by_hand, average = [], -100.0
    for n, value in enumerate(values, start=1):
        keep = min(0.9, n / (9 + n))
        average = keep * average + (1 - keep) * float(value)
        by_hand.append(average)
    np.testing.assert_allclose(track(values, {"decay0": 0.9})["decay0"], by_hand, rtol=1e-4)


def test_decay_zero_is_the_parameters_themselves():
    values = walk(20)
    np.testing.assert_array_equal(track(values, {"decay0": 0.0})["decay0"], values)


def test_a_power_average_weighs_step_tau_by_tau_to_the_gamma():
    gamma, values = power_exponent(0.1), walk(300)
    average = track(values, {"power0": gamma})["power0"]
    assert average[0] == values[0]
    # The weight of step tau in closed form: the product of what it is given and what is kept after it.
    n = np.arange(1, 301)
    share = n ** (gamma + 1) - (n - 1.0) ** (gamma + 1)
    np.testing.assert_allclose(average[-1], (share / share.sum()) @ values, rtol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 1000, 1_000_003])
def test_small_shares_keep_their_digits_in_float32(n):
    gamma = power_exponent(0.1)
    exact = -np.expm1((gamma + 1) * np.log1p(-1 / np.float64(n))) if n > 1 else 1.0
    assert float(averages.share("power0", gamma, jnp.int32(n))) == pytest.approx(exact, rel=1e-6)
    assert float(averages.share("decay0", 0.999999, jnp.int32(10**9))) == pytest.approx(1e-6, rel=1e-6)


def test_several_averages_have_names_and_float32_buffers_of_their_own():
    kinds = averages.averages((0.9, 0.99), (0.05,))
    assert list(kinds) == ["decay0", "decay1", "power0"]
    params = {"w": jnp.ones(3)}
    updated = averages.update({name: {"w": jnp.zeros(3)} for name in kinds}, params, kinds, jnp.int32(1))
    assert all(tree["w"].dtype == jnp.float32 for tree in updated.values())
    assert len({tree["w"].unsafe_buffer_pointer() for tree in [*updated.values(), params]}) == 4
