"""The loss in closed form: an untrained network, label dropout, prediction types, pseudo-Huber, augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import paths, schedules
from fmd.models.registry import build_model
from fmd.training.losses import Draws, Objective, augment, cfg_flow_matching_loss, velocity_weight

LINEAR = schedules.get("linear")


def draws_for(count, *, seed=0, drop=False, low=0.0, high=1.0, shape=(8, 8, 1)):
    keys = jax.random.split(jax.random.key(seed), 2)
    return Draws(
        x0=jax.random.normal(keys[0], (count, *shape)),
        t=jax.random.uniform(keys[1], (count,), minval=low, maxval=high),
        drop_label=jnp.full(count, drop),
    )


def images_for(count, shape=(8, 8, 1)):
    return jax.random.uniform(jax.random.key(9), (count, *shape), minval=-1.0, maxval=1.0)


def test_an_untrained_unet_starts_at_the_mean_square_of_the_target_and_so_at_one_plus_that_of_the_data():
    count = 512
    x1, draws, labels = images_for(count), draws_for(count), jnp.zeros(count, jnp.int32)
    model = build_model("unet", {"num_classes": 4, "base_channels": 8, "num_res_blocks": 1, "embedding_dim": 16})
    params = jax.jit(model.init)(jax.random.key(0), x1[:1], draws.t[:1], labels[:1])
    predict = jax.jit(lambda x, t, y: model.apply(params, x, t, y))
    loss = cfg_flow_matching_loss(predict, x1, labels, draws, Objective(LINEAR), null_label=4)

    np.testing.assert_allclose(loss, jnp.mean((x1 - draws.x0) ** 2, axis=(1, 2, 3)), rtol=1e-6)
    # 32768 pixels with a variance of about 3: 4 standard errors are 0.04.
    assert abs(float(loss.mean()) - (float(jnp.mean(x1**2)) + 1.0)) < 0.04


def test_dropped_labels_are_the_null_label_and_others_stay():
    seen = []

    def predict(x, t, y):
        seen.append(y)
        return jnp.zeros_like(x)

    labels = jnp.array([0, 1, 2, 3], jnp.int32)
    draws = draws_for(4)
    draws = Draws(draws.x0, draws.t, jnp.array([False, True, False, True]))
    cfg_flow_matching_loss(predict, images_for(4), labels, draws, Objective(LINEAR), null_label=7)
    np.testing.assert_array_equal(seen[0], [0, 7, 2, 7])


@pytest.mark.parametrize("prediction", ["velocity", "data", "noise"])
def test_a_perfect_prediction_costs_nothing_and_the_target_needs_no_division(prediction):
    x1, draws = images_for(16), draws_for(16)
    draws = Draws(draws.x0, draws.t.at[0].set(0.0).at[1].set(1.0), draws.drop_label)
    answer = {"velocity": x1 - draws.x0, "data": x1, "noise": draws.x0}[prediction]
    loss = cfg_flow_matching_loss(
        lambda x, t, y: answer, x1, jnp.zeros(16, jnp.int32), draws, Objective(LINEAR, prediction), null_label=1
    )
    np.testing.assert_allclose(loss, 0.0, atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "cosine", "vp", "polynomial"])
@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_one_error_costs_the_same_through_every_prediction_type(name, prediction):
    schedule = schedules.get(name, **({"n": 2.0} if name == "polynomial" else {}))
    x1, draws, labels = images_for(64), draws_for(64, low=0.1, high=0.9), jnp.zeros(64, jnp.int32)
    x_t = paths.interpolate(schedule, draws.x0, x1, draws.t)
    wrong = paths.velocity(schedule, draws.x0, x1, draws.t) + jax.random.normal(jax.random.key(3), x1.shape)
    same = paths.convert(schedule, x_t, draws.t, wrong, source="velocity", target=prediction)

    def loss(answer, kind):
        objective = Objective(schedule, kind, weighting="velocity")
        return cfg_flow_matching_loss(lambda x, t, y: answer, x1, labels, draws, objective, null_label=1)

    np.testing.assert_allclose(loss(same, prediction), loss(wrong, "velocity"), rtol=2e-4)


def test_velocity_weights_of_the_linear_schedule_are_one_over_the_squared_coefficients():
    t = jnp.array([0.1, 0.5, 0.8])
    np.testing.assert_allclose(velocity_weight(LINEAR, t, "data"), 1 / (1 - t) ** 2, rtol=1e-5)
    np.testing.assert_allclose(velocity_weight(LINEAR, t, "noise"), 1 / t**2, rtol=1e-5)


def test_pseudo_huber_is_quadratic_near_zero_and_linear_far_away():
    c = 0.00054
    x1, draws, labels = jnp.zeros((2, 8, 8, 1)), draws_for(2), jnp.zeros(2, jnp.int32)
    error = jnp.array([1e-5, 3.0])[:, None, None, None]
    loss = cfg_flow_matching_loss(
        lambda x, t, y: draws.x0 + error, x1, labels, draws, Objective(LINEAR, "noise", "pseudo_huber"), null_label=1
    )
    # 1e-5 is lost in the rounding of the noise; so compare with the exact formula of the error that was made.
    made = jnp.mean((draws.x0 + error - draws.x0) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(loss, jnp.sqrt(made + c**2) - c, rtol=1e-5)
    assert abs(float(loss[1]) - (3.0 - c)) < 1e-4


def test_augmentation_mirrors_and_moves_each_image_by_itself_and_repeats_the_border():
    images = jnp.arange(2 * 4 * 4, dtype=jnp.float32).reshape(2, 4, 4, 1)
    mirror, offset = jnp.array([True, False]), jnp.array([[0, 0], [1, -2]])
    out = np.asarray(augment(images, mirror, offset, margin=2))
    np.testing.assert_array_equal(out[0, :, :, 0], np.asarray(images)[0, :, ::-1, 0])
    padded = np.pad(np.asarray(images)[1, :, :, 0], 2, mode="edge")
    np.testing.assert_array_equal(out[1, :, :, 0], padded[1:5, 4:8])
    np.testing.assert_array_equal(augment(images, mirror, offset, margin=0)[1], images[1])
