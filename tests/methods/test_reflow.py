"""Reflow on a Gaussian: the teacher's pairs lie on straight lines, whose velocity is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd import methods
from fmd.config import Settings
from fmd.methods import Drawn
from tests.helpers.networks import Answering

MEAN, STD = 0.4, 0.3


def teacher(x, t, y, r):
    t = t.reshape(-1, 1, 1, 1)
    return MEAN + (t * STD**2 - (1 - t)) / (t**2 * STD**2 + (1 - t) ** 2) * (x - t * MEAN)


def straight(x, t, y, r):
    """x_t = t (m + s x0) + (1 - t) x0 has the velocity m + (s - 1) x0, and x0 = (x_t - t m) / (t s + 1 - t)."""
    t = t.reshape(-1, 1, 1, 1)
    return MEAN + (STD - 1) * (x - t * MEAN) / (t * STD + 1 - t)


def test_the_straight_flow_of_the_teachers_pairs_costs_nothing_and_takes_one_step():
    method = methods.get("reflow", steps=64)
    keys = jax.random.split(jax.random.key(0))
    x0, t = jax.random.normal(keys[0], (50, 2, 2, 1)), jax.random.uniform(keys[1], (50,))
    drawn = Drawn(x0, jnp.zeros_like(x0), jnp.zeros(50, jnp.int32), t, jnp.zeros(50, bool))
    loss = method.loss(Answering(straight), drawn, Answering(teacher)).value
    np.testing.assert_allclose(loss, 0.0, atol=1e-5)
    assert method.loss(Answering(teacher), drawn, Answering(teacher)).value.mean() > 1e-2
    one = Settings(solver="euler", steps=1)
    found = method.sample(Answering(straight), x0, jnp.zeros(50, jnp.int32), one).x
    np.testing.assert_allclose(found, MEAN + STD * x0, atol=1e-5)


def test_pairs_are_dependent_so_there_is_no_stochastic_equation():
    settings = Settings(solver="heun").replace(sde={"name": "sigma"})
    with pytest.raises(ValueError, match="needs the score"):
        methods.get("reflow").check(settings)
