"""Regression: the mean of the images given their condition, in one evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd import methods
from fmd.config import Settings, resolve
from fmd.models.network import ModelNetwork
from fmd.models.registry import build_model
from fmd.randomness import step_rng
from tests.helpers.networks import Answering

A, B, C = 0.5, 0.2, 0.4
SMALL = {"base_channels": 8, "channel_multipliers": (1,), "num_res_blocks": 1, "embedding_dim": 8}


def mean_of(x, t, y, r):
    """E[x1 | y] of x1 = A y + B + C n, wrong where x is not 1 or t not 0; label 4 is untold."""
    mean = jnp.where(y == 4, 7.0, A * y + B).reshape(-1, 1, 1, 1)
    return mean + x - 1 + t.reshape(-1, 1, 1, 1)


def test_the_mean_costs_the_variance_that_the_condition_leaves():
    count, method = 100_000, methods.get("regression", label_dropout=0.25)
    y = jnp.arange(count, dtype=jnp.int32) % 4
    x1 = A * y.reshape(-1, 1, 1, 1) + B + C * jax.random.normal(jax.random.key(0), (count, 1, 1, 1))
    drawn = method.draw(step_rng(0, jnp.int32(3), jnp.arange(count), count), x1, y)
    assert float(drawn.untold.mean()) == pytest.approx(0.25, abs=0.01)
    loss = method.loss(Answering(mean_of), drawn._replace(x0=jnp.full_like(x1, 5), t=jnp.ones(count)))
    assert float(loss.value[~drawn.untold].mean()) == pytest.approx(C**2, rel=0.02)
    assert float(loss.value[drawn.untold].min()) > 9
    assert not loss.t.any()


def test_a_sample_is_the_prediction_in_one_evaluation():
    y, noise = jnp.arange(3, dtype=jnp.int32), jnp.full((3, 1, 1, 1), 5.0)
    found = methods.get("regression").sample(Answering(mean_of), noise, y, Settings(steps=20))
    np.testing.assert_allclose(found.x.ravel(), A * y + B, rtol=1e-6)
    assert found.evaluations.tolist() == [1, 1, 1]
    assert found.success.all()
    broken = Answering(lambda x, t, y, r: jnp.where(y == 1, jnp.nan, 0.0).reshape(-1, 1, 1, 1))
    assert methods.get("regression").sample(broken, noise, y, Settings()).success.tolist() == [True, False, True]


def test_a_network_that_begins_with_zeros_learns_from_its_image():
    """Its last layer and the planes of the image begin at zero: the one learns first, and lets the other learn."""
    spec = {"low": {"kind": "image", "height": 4, "width": 4, "channels": 1}}
    model = build_model("unet", {**SMALL, "num_classes": 0}, conditions=spec)
    x1, method = jax.random.normal(jax.random.key(0), (4, 8, 8, 1)), methods.get("regression", label_dropout=0.0)
    y = {"low": x1[:, ::2, ::2]}
    drawn = method.draw(step_rng(0, jnp.int32(0), jnp.arange(4), 4), x1, y)
    params = model.init(jax.random.key(1), x1, jnp.zeros(4), y)["params"]

    def loss(params):
        return method.loss(ModelNetwork(model.apply, params, 0, spec), drawn).value.mean()

    for _ in range(3):
        gradient = jax.jit(jax.grad(loss))(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
    assert jnp.abs(gradient["conv_condition"]["kernel"]).max() > 1e-5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": 2.0}, "a mean is not guided; use weight 1"),
        ({"rule": {"name": "apg"}}, "a mean is not guided"),
        ({"guidance": {"name": "cfg", "weak": "runs/other"}}, "a mean is not guided"),
        ({"sde": {"name": "sigma"}}, r"sample\.sde = .* has no effect with method 'regression'"),
        ({"schedule": {"name": "cosine"}}, r"sample\.schedule = .* has no effect"),
        ({"solver": "tsit5", "tolerance": 1e-3}, r"sample\.rtol = 0\.001 has no effect"),
        ({"times": (0.0, 1.0)}, r"sample\.times = \(0\.0, 1\.0\) has no effect"),
    ],
)
def test_what_a_mean_cannot_be_is_refused_in_one_line(settings, message):
    method = methods.get("regression")
    method.check(Settings(solver="euler", steps=1))
    with pytest.raises(ValueError, match=message) as refused:
        method.check(Settings().replace(**settings))
    assert "\n" not in str(refused.value)


def test_keys_of_a_path_have_no_effect_and_dropout_has():
    block = {"method": {"name": "regression"}}
    assert methods.from_config(resolve({**block, "train": {"label_dropout": 0.3}})).label_dropout == 0.3
    with pytest.raises(ValueError, match=r"config\.path\.schedule = .* has no effect with method 'regression'"):
        methods.from_config(resolve({**block, "path": {"schedule": {"name": "cosine"}}}))
