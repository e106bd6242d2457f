"""Sampling grids: from end to end, in order, with the values of their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import grids, schedules, times

GRIDS = [
    ("uniform", {}),
    ("shifted", {"factor": 3.0}),
    ("cosine", {}),
    ("karras", {"schedule": schedules.get("linear")}),
    ("karras", {"schedule": schedules.get("vp")}),
    ("karras", {"schedule": schedules.get("ve")}),
]


@pytest.mark.parametrize(("name", "params"), GRIDS)
@pytest.mark.parametrize(("t0", "t1"), [(0.0, 1.0), (0.125, 0.9)])
def test_grids_increase_from_end_to_end(name, params, t0, t1):
    for steps in (1, 7):
        grid = grids.get(name, steps, t0=t0, t1=t1, **params)
        assert grid.shape == (steps + 1,)
        assert grid.dtype == jnp.float32
        assert float(grid[0]) == np.float32(t0)
        assert float(grid[-1]) == np.float32(t1)
        assert (np.diff(grid) > 0).all()


def test_grid_values(x64):
    np.testing.assert_allclose(grids.get("uniform", 4), [0, 0.25, 0.5, 0.75, 1], rtol=1e-12)
    np.testing.assert_allclose(grids.get("shifted", 2, factor=3.0), [0, 0.25, 1], rtol=1e-12)
    np.testing.assert_allclose(grids.get("cosine", 3), [0, 0.25, 0.75, 1], rtol=1e-12)
    schedule = schedules.get("linear")
    grid = np.asarray(grids.get("karras", 5, schedule=schedule, noise_max=10.0, noise_min=0.1, rho=3.0))
    noise = (1 - grid[1:-1]) / grid[1:-1]
    expected = np.linspace(10 ** (1 / 3), 0.1 ** (1 / 3), 5)[1:] ** 3
    np.testing.assert_allclose(noise, expected, rtol=1e-9)


def test_a_grid_can_be_made_while_tracing():
    assert jax.jit(lambda x: x + grids.get("karras", 3, schedule=schedules.get("cosine"))[1])(0.0) > 0


def test_the_schedule_is_handed_to_the_grids_that_take_one():
    schedule = schedules.get("vp")
    np.testing.assert_array_equal(grids.get("uniform", 5, schedule=schedule), grids.get("uniform", 5))
    stated = grids.get("karras", 5, schedule="vp")
    np.testing.assert_array_equal(grids.get("karras", 5, schedule=schedule), stated)
    assert times.grid is grids.get
    assert times.shift is grids.shift


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: grids.get("shifted", 5, factor="3"), "factor = '3'; it must be a number"),
        (lambda: grids.get("uniform", 0), "steps is 0"),
        (lambda: grids.get("uniform", 5, t0=1.0, t1=0.0), "t0=1.0 to t1=0.0"),
        (lambda: grids.get("log", 5), "unknown time grid 'log'"),
        (lambda: grids.get("karras", 5), "needs the parameter schedule"),
        (lambda: grids.get("uniform", 5, t0=1 - 1e-7), "does not increase"),
        (lambda: grids.get("karras", 5, schedule=schedules.get("linear"), noise_min=2, noise_max=1), "noise_max"),
        (lambda: grids.get("shifted", 5), "needs the parameter factor"),
        (lambda: grids.get("karras", 5, schedule="linear", noise_min=0), "noise_min"),
    ],
)
def test_wrong_values_are_one_clear_line(call, says):
    with pytest.raises(ValueError, match=says) as error:
        call()
    assert "\n" not in str(error.value)
