"""The loss in closed form: an untrained network, label dropout, prediction types, pseudo-Huber."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.config import Settings
from fmd.math import paths, schedules, times
from fmd.methods import Drawn
from fmd.methods.flow_matching import FlowMatching, velocity_weight
from fmd.models.registry import build_model
from tests.helpers.networks import Answering, constant

LINEAR = schedules.get("linear")


def drawn_for(x1, *, y=None, seed=0, low=0.0, high=1.0):
    keys = jax.random.split(jax.random.key(seed), 2)
    return Drawn(
        x0=jax.random.normal(keys[0], x1.shape),
        x1=x1,
        y=jnp.zeros(len(x1), jnp.int32) if y is None else y,
        t=jax.random.uniform(keys[1], (len(x1),), minval=low, maxval=high),
        untold=jnp.zeros(len(x1), bool),
    )


def images_for(count, shape=(8, 8, 1)):
    return jax.random.uniform(jax.random.key(9), (count, *shape), minval=-1.0, maxval=1.0)


def test_an_untrained_unet_costs_the_mean_square_of_its_target():
    """And so 1 plus that of the data."""
    x1 = images_for(512)
    drawn = drawn_for(x1)
    model = build_model("unet", {"num_classes": 4, "base_channels": 8, "num_res_blocks": 1, "embedding_dim": 16})
    params = jax.jit(model.init)(jax.random.key(0), x1[:1], drawn.t[:1], drawn.y[:1])
    predict = jax.jit(lambda x, t, y: model.apply(params, x, t, y))
    loss = FlowMatching().loss(Answering(lambda x, t, y, r: predict(x, t, y)), drawn).value

    np.testing.assert_allclose(loss, jnp.mean((x1 - drawn.x0) ** 2, axis=(1, 2, 3)), rtol=1e-6)
    # 32768 pixels with a variance of about 3: 4 standard errors are 0.04.
    assert abs(float(loss.mean()) - (float(jnp.mean(x1**2)) + 1.0)) < 0.04


def test_dropped_labels_are_the_null_label_and_others_stay():
    x1 = images_for(4)
    drawn = drawn_for(x1, y=jnp.array([0, 1, 2, 3], jnp.int32))
    network = constant(jnp.zeros_like(x1), null=7)
    FlowMatching().loss(network, drawn._replace(untold=jnp.array([False, True, False, True])))
    np.testing.assert_array_equal(network.seen[0], [0, 7, 2, 7])


@pytest.mark.parametrize("prediction", ["velocity", "data", "noise"])
def test_a_perfect_prediction_costs_nothing_and_needs_no_division(prediction):
    x1 = images_for(16)
    drawn = drawn_for(x1)
    drawn = drawn._replace(t=drawn.t.at[0].set(0.0).at[1].set(1.0))
    answer = {"velocity": x1 - drawn.x0, "data": x1, "noise": drawn.x0}[prediction]
    loss = FlowMatching(prediction=prediction).loss(constant(answer), drawn).value
    np.testing.assert_allclose(loss, 0.0, atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "cosine", "vp", "polynomial"])
@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_one_error_costs_the_same_through_every_prediction_type(name, prediction):
    schedule = schedules.get(name, **({"n": 2.0} if name == "polynomial" else {}))
    x1 = images_for(64)
    drawn = drawn_for(x1, low=0.1, high=0.9)
    x_t = paths.interpolate(schedule, drawn.x0, x1, drawn.t)
    wrong = paths.velocity(schedule, drawn.x0, x1, drawn.t) + jax.random.normal(jax.random.key(3), x1.shape)
    same = paths.convert(schedule, x_t, drawn.t, wrong, source="velocity", target=prediction)

    def loss(answer, kind):
        method = FlowMatching(schedule, times.get("uniform", clip=0.01), prediction=kind, weighting="velocity")
        return method.loss(constant(answer), drawn).value

    np.testing.assert_allclose(loss(same, prediction), loss(wrong, "velocity"), rtol=2e-4)


def test_velocity_weights_of_the_linear_schedule():
    """They are one over the squared coefficients."""
    t = jnp.array([0.1, 0.5, 0.8])
    np.testing.assert_allclose(velocity_weight(LINEAR, t, "data"), 1 / (1 - t) ** 2, rtol=1e-5)
    np.testing.assert_allclose(velocity_weight(LINEAR, t, "noise"), 1 / t**2, rtol=1e-5)


def test_an_edge_gives_the_loss_of_jit():
    """Data predicted, the error of the velocity: both velocities over max(1 - t, 0.05) (arXiv 2511.13720)."""
    method = FlowMatching(prediction="data", weighting="velocity", edge=0.05)
    x1 = images_for(5)
    drawn = drawn_for(x1)._replace(t=jnp.array([0.0, 0.5, 0.9, 0.98, 1.0]))
    x_t = paths.interpolate(LINEAR, drawn.x0, x1, drawn.t)
    answer = x1 + 0.3 * drawn.x0
    below = np.maximum(1 - np.asarray(drawn.t), 0.05)[:, None, None, None]
    expected = np.mean(((answer - x_t) / below - (x1 - x_t) / below) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(method.loss(constant(answer), drawn).value, expected, rtol=1e-5)
    velocity = method.velocity(constant(answer))(x_t, drawn.t, drawn.y)
    np.testing.assert_allclose(velocity, (answer - x_t) / below, rtol=1e-4, atol=1e-4)


def test_pseudo_huber_is_quadratic_near_zero_and_linear_far_away():
    c = 0.00054
    x1 = jnp.zeros((2, 8, 8, 1))
    drawn = drawn_for(x1)
    answer = drawn.x0 + jnp.array([1e-5, 3.0])[:, None, None, None]
    loss = FlowMatching(prediction="noise", error="pseudo_huber").loss(constant(answer), drawn).value
    # 1e-5 is lost in the rounding of the noise; so compare with the exact formula of the error that was made.
    made = jnp.mean((answer - drawn.x0) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(loss, jnp.sqrt(made + c**2) - c, rtol=1e-5)
    assert abs(float(loss[1]) - (3.0 - c)) < 1e-4


def test_infinite_weights_are_refused_with_the_key_that_cures_them():
    with pytest.raises(ValueError, match=r"set config\.path\.times\.clip"):
        FlowMatching(prediction="data", weighting="velocity")


@pytest.mark.parametrize("prediction", ["velocity", "data", "noise"])
@pytest.mark.parametrize(
    ("method", "errors"),
    [
        ({}, [-0.5, 0.1, 0.2, -0.2, 0.9, -0.01]),
        ({"clip_data": True}, [0.0, 0.1, 0.0, -0.2, 0.9, 0.0]),
        ({"margin": 0.05}, [-0.45, 0.1, 0.15, -0.2, 0.9, 0.0]),
    ],
)
def test_an_overshoot_of_a_pixel_at_the_end_of_its_range_is_no_error(method, errors, prediction):
    """Of any size, or up to a margin: beyond that the rest of it is; so is the derivative."""
    x1 = jnp.array([-1.0, -1.0, 1.0, 1.0, 0.5, -1.0]).reshape(6, 1, 1, 1)
    data = jnp.array([-1.5, -0.9, 1.2, 0.8, 1.4, -1.01]).reshape(6, 1, 1, 1)
    t, x0 = jnp.full(6, 0.5), jnp.zeros((6, 1, 1, 1))
    drawn = Drawn(x0, x1, jnp.zeros(6, jnp.int32), t, jnp.zeros(6, bool))
    scale = {"velocity": 2.0, "data": 1.0, "noise": -1.0}[prediction]  # of an error of the data, at x_t = x1 / 2
    answer = {"velocity": 2 * data - x1, "data": data, "noise": x1 - data}[prediction]
    loss = partial(loss_of, FlowMatching(prediction=prediction, **method), drawn)
    np.testing.assert_allclose(loss(answer), (scale * np.array(errors)) ** 2, rtol=1e-4, atol=1e-10)
    slope = jax.grad(lambda answer: loss(answer).sum())(answer).ravel()
    np.testing.assert_allclose(slope, 2 * scale * np.array(errors), rtol=1e-4, atol=1e-6)


def loss_of(method, drawn, answer):
    return method.loss(constant(answer), drawn).value


def test_a_margin_changes_no_field_and_none_is_beside_clipping():
    network = Answering(lambda x, t, y, r: -3.0 * x)
    x, t, y = jnp.ones((2, 4)), jnp.full(2, 0.5), jnp.zeros(2, jnp.int32)
    np.testing.assert_array_equal(FlowMatching(margin=0.1).field(network)(t, x, y), -3.0 * x)
    with pytest.raises(ValueError, match=r"margin = 0\.1 has no effect with clip_data"):
        FlowMatching(margin=0.1, clip_data=True)


@pytest.mark.parametrize("weight", [1.0, 2.0])
@pytest.mark.parametrize("clip", [False, True])
def test_a_clipped_background_is_black(clip, weight):
    """Predictions beyond the range end at its end; without clipping each solver step takes them as they are."""
    network = Answering(lambda x, t, y, r: (jnp.where(y[:, None] == 4, -1.3, -1.2) - x) / (1 - t[:, None]))
    settings = Settings(steps=4).replace(weight=weight)
    x0 = jax.random.normal(jax.random.key(0), (6, 3))
    found = FlowMatching(clip_data=clip).sample(network, x0, jnp.zeros(6, jnp.int32), settings).x
    np.testing.assert_allclose(found, -1.0 if clip else -1.3 + weight * 0.1, atol=1e-5)
