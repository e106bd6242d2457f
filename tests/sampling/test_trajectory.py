"""Trajectories start at the noise and end at the image; a sweep differs in nothing but the weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.devices import make_layout
from fmd.math import schedules
from fmd.math.pixels import to_uint8
from fmd.math.simulators import Solution
from fmd.methods.solving import to_show
from fmd.randomness import example_normal
from fmd.sampling.sampler import Sampler
from fmd.sampling.trajectory import TIMES, sweep, trajectory
from tests.helpers import toys

KEY = jax.random.key(7)
LABELS = [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def frames(sampler):
    return trajectory(sampler, LABELS, KEY)


def test_it_starts_at_the_noise_and_ends_at_the_image(sampler, frames):
    assert (frames.dtype, frames.shape) == (np.uint8, (len(TIMES), 5, 8, 8, 1))
    noise = example_normal(KEY, jnp.arange(5), (8, 8, 1))
    np.testing.assert_array_equal(frames[0], to_uint8(noise))
    np.testing.assert_array_equal(frames[-1], sampler(LABELS, KEY))
    assert (frames[1:] != frames[:-1]).any(axis=(1, 2, 3, 4)).all()


def test_in_between_it_is_where_a_solve_that_stops_there_is(sampler, frames):
    """The toy steps to 1/3 and 2/3; there nothing is interpolated. Batches in several calls are the same."""
    knots = trajectory(sampler, LABELS, KEY, times=[1 / 3, 2 / 3, 1.0], batch_size=2)
    np.testing.assert_array_equal(knots[-1], frames[-1])
    model = sampler.model

    def velocity(x, t):
        time, labels = np.full(5, t, np.float32), np.arange(5, dtype=np.int32)
        null = model.apply({"params": sampler.params}, x, time, np.full(5, toys.CLASSES, np.int32))
        return null + 2.0 * (model.apply({"params": sampler.params}, x, time, labels) - null)

    x = example_normal(KEY, jnp.arange(5), (8, 8, 1))
    for i in range(2):
        x = x + velocity(x + velocity(x, i / 3) / 6, (i + 0.5) / 3) / 3
        assert np.abs(np.asarray(to_uint8(x)).astype(int) - knots[i]).max() <= 1


def test_eight_devices_and_an_adaptive_solver_show_the_same(info, params, sampler, frames):
    many = Sampler.from_info(info, params=params, layout=make_layout("mesh"))
    assert np.abs(trajectory(many, LABELS, KEY).astype(int) - frames).max() <= 1
    settings = {"weight": 1.0, "times": (0.0, 0.5, 1.0)}
    exact = trajectory(sampler, LABELS, KEY, solver="tsit5", rtol=1e-5, atol=1e-5, **settings)
    close = trajectory(sampler, LABELS, KEY, solver="rk4", steps=8, **settings)
    assert np.abs(exact.astype(int) - close).max() <= 1


@pytest.mark.parametrize("times", [(0.5, 0.25), (-0.1, 1.0), (0.0, 1.1), ()])
def test_times_must_run_from_noise_to_data(sampler, times):
    with pytest.raises(ValueError, match="must run strictly from"):
        trajectory(sampler, LABELS, KEY, times=times)


def test_a_sweep_differs_in_nothing_but_the_weight(sampler):
    images = sweep(sampler, LABELS, KEY, weights=(0.0, 1.0, 2.0))
    assert images.shape == (3, 5, 8, 8, 1)
    for k, weight in enumerate((0.0, 1.0, 2.0)):
        np.testing.assert_array_equal(images[k], sampler(LABELS, KEY, weight=weight))
    assert (images[1] != images[2]).any()


def test_loud_noise_is_shown_quieter_and_the_end_as_it_is():
    """ve starts at N(0, 80^2), which would be black and white; linear and cosine are never louder than one."""
    times, states = jnp.array([0.0, 0.5, 1.0]), jnp.ones((3, 2, 4))
    loud = schedules.get("ve", sigma_max=80.0, sigma_min=0.2)
    shown = to_show(Solution(None, states, times, None, None), loud)
    np.testing.assert_allclose(
        shown, np.broadcast_to(np.array([1 / 80, 1 / 4, 1])[:, None, None], (3, 2, 4)), rtol=1e-5
    )
    for name in ("linear", "cosine", "vp"):
        unchanged = to_show(Solution(None, states, times, None, None), schedules.get(name))
        np.testing.assert_array_equal(unchanged, np.ones((3, 2, 4)))
