"""Edits of normal data against their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import editing, schedules
from tests.helpers.oracles import gaussian, gaussian_flow

KEY = jax.random.key(0)
STD, SHIFT = 0.5, 1.3
LINEAR = schedules.get("linear")


def classes(schedule):
    """The field of N(-.3, .5^2) told 0, of N(1, .5^2) told 1: args [B, 1]."""
    centred = gaussian([0.0], [[STD**2]])

    def field(t, x, args):
        mean = SHIFT * args - 0.3
        alpha, d_alpha = schedule.alpha(t).astype(x.dtype), schedule.d_alpha(t).astype(x.dtype)
        return d_alpha * mean + centred.velocity(schedule, t, x - alpha * mean)

    return field


@pytest.mark.parametrize(("start", "moved"), [(0.0, 1.3), (0.3, 1.0276), (0.6, 0.52)])
def test_flow_edit_moves_a_class_by_its_closed_form(start, moved):
    """(mt - ms)(1 - t0 sd/sqrt(t0^2 sd^2 + (1 - t0)^2)), whatever the noise."""
    x = jnp.asarray([[-0.5], [0.1], [0.9]])
    source, target = jnp.zeros_like(x), jnp.ones_like(x)
    for draws in (1, 3):
        edited = editing.flow_edit(
            classes(LINEAR), x, KEY, source=source, target=target, start=start, steps=200, draws=draws
        )
        np.testing.assert_allclose(edited - x, moved, atol=2e-4)
    same = editing.flow_edit(classes(LINEAR), x, KEY, source=source, target=source, start=start, steps=3)
    np.testing.assert_allclose(same, x, atol=1e-7)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_sde_edit_of_a_normal_class(schedule):
    """x(1) = m + sd/sqrt(Sg) (x_t0 - a m)."""
    schedule = schedules.get(schedule)
    x, noise, start = jnp.asarray([[-0.5], [0.9]]), jnp.asarray([[0.3], [-1.2]]), 0.4
    edited = editing.sde_edit(
        classes(schedule), x, KEY, args=jnp.ones_like(x), start=start, noise=noise, schedule=schedule, steps=100
    )
    a, s = float(schedule.alpha(start)), float(schedule.sigma(start))
    expected = 1 + STD / np.sqrt(a**2 * STD**2 + s**2) * (a * x + s * noise - a)
    np.testing.assert_allclose(edited, expected, atol=1e-4)


def test_a_flow_to_one_image_gives_back_the_noise_that_is_added():
    """All images are black: v = (-1 - x) / (1 - t) leads every noise to -1, and from -1 itself only to -1."""

    def black(t, x, args=None):
        return (-1 - x) / (1 - t)

    noise, x = jax.random.normal(jax.random.key(0), (3, 4)), jnp.full((3, 4), -1.0)
    noised = 0.9 * x + 0.1 * noise
    np.testing.assert_allclose(editing.invert(black, noised, start=0.9, steps=10), noise, atol=1e-5)
    again, error = editing.round_trip(black, x, noised=(0.9, noised), steps=10, end_epsilon=1e-3)
    np.testing.assert_allclose(again, noise, atol=1e-2)
    np.testing.assert_allclose(error, 0, atol=1e-2)
    np.testing.assert_array_equal(editing.invert(black, x, steps=10, end_epsilon=1e-3), x)


@pytest.mark.parametrize("start", [0.0, 1.5])
def test_a_start_of_inversion_outside_of_time_is_one_line(start):
    with pytest.raises(ValueError, match=f"start={start} must be in .0, 1., the time"):
        editing.invert(lambda t, x, args=None: x, jnp.ones((2, 3)), start=start)


@pytest.mark.parametrize("solver", ["midpoint", "heun"])
def test_inversion_and_its_round_trip(solver):
    x, mixture = jnp.asarray([[-0.5], [0.9]]), gaussian([0.3], [[0.25]])
    x0, error = editing.round_trip(mixture.field(LINEAR), x, solver=solver, steps=50)
    np.testing.assert_allclose(x0, gaussian_flow(mixture, LINEAR, 1.0, 0.0, x), atol=1e-3)
    np.testing.assert_array_equal(x0, editing.invert(mixture.field(LINEAR), x, solver=solver, steps=50))
    assert (error > 0).all()
    assert (error < 1e-3).all()
    finer = editing.round_trip(mixture.field(LINEAR), x, solver=solver, steps=100)[1]
    assert (finer < error / 3).all()


def test_draws_of_an_edit_do_not_depend_on_the_batch():
    x = jax.random.normal(KEY, (4, 1))
    ones, rows = jnp.ones((4, 1)), jnp.asarray([2, 3])

    def edit(x, **options):
        told = ones[: len(x)]
        sde = editing.sde_edit(classes(LINEAR), x, KEY, args=told, steps=5, **options)
        field = lambda t, x, args: classes(LINEAR)(t, x, args) ** 3  # noqa: E731  where noise matters
        flow = editing.flow_edit(field, x, KEY, source=0 * told, target=told, steps=5, **options)
        return jnp.concatenate([sde, flow], axis=1)

    np.testing.assert_allclose(edit(x)[2:], edit(x[2:], indices=rows), rtol=1e-5)


def test_slerp_stays_on_the_sphere():
    a, b = jnp.asarray([[2.0, 0.0], [0.0, 1.0]]), jnp.asarray([[0.0, 2.0], [0.0, 3.0]])
    np.testing.assert_allclose(editing.slerp(a, b, 0.5), [[2**0.5, 2**0.5], [0.0, 2.0]], rtol=1e-6)
    np.testing.assert_allclose(editing.slerp(a, b, 1 / 3)[0], [3**0.5, 1.0], rtol=1e-6)
    for share, end in ((0.0, a), (1.0, b)):
        np.testing.assert_allclose(editing.slerp(a, b, share), end, atol=1e-6)
    per_row = editing.slerp(a, b, jnp.asarray([0.0, 1.0]))
    np.testing.assert_allclose(per_row, [[2.0, 0.0], [0.0, 3.0]], atol=1e-6)
    np.testing.assert_allclose(editing.slerp(a[0], b[0], 0.5), [2**0.5, 2**0.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, x: editing.sde_edit(f, x, KEY, start=1.0), r"start=1.0 must be in \[0, 1\)"),
        (lambda f, x: editing.flow_edit(f, x, KEY, source=x, target=x, start=-0.1), r"start=-0.1 must be in \[0, 1\)"),
        (lambda f, x: editing.flow_edit(f, x, KEY, source=x, target=x, draws=0), "draws=0 must be at least 1"),
        (lambda f, x: editing.slerp(x, x[:1], 0.5), r"slerp between shapes \(2, 1\) and \(1, 1\)"),
    ],
)
def test_one_line_for_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(classes(LINEAR), jnp.ones((2, 1)))
